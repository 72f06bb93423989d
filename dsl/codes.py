"""Every diagnostic code with a bad and a good example."""

from __future__ import annotations

from attnc.dsl.code import Code
from attnc.dsl.codes_check import CHECK

SYNTAX: tuple[Code, ...] = ()

CODES: dict[str, Code] = {code.code: code for code in (*SYNTAX, *CHECK)}

"""Every diagnostic code with a bad and a good example: A0xx syntax, A1xx names, A2xx types and shapes,
A3xx params and conditions, A4xx clauses, A5xx not compiled yet, W0xx warnings."""

from __future__ import annotations

from attnc.dsl.code import Code
from attnc.dsl.codes_check import CHECK
from attnc.dsl.codes_syntax import SYNTAX

CODES: dict[str, Code] = {code.code: code for code in (*SYNTAX, *CHECK)}

_LINES = 20  # of an example that are shown


def explain(code: Code) -> str:
    """A code as ``attnc explain`` shows it. An example whose length is the point is cut short."""
    parts = [f"{code.code}: {code.title}", code.explanation.strip()]
    for word, example in (("Wrong", code.bad), ("Right", code.good)):
        lines = example.strip().split("\n")
        if len(lines) > _LINES:
            lines = [*lines[:_LINES], f"# ... and {len(lines) - _LINES:,} more lines"]
        text = "\n".join(line.encode("utf-8", "backslashreplace").decode() for line in lines)
        parts.append(f"{word}:\n\n```attn\n{text}\n```")
    return "\n\n".join(parts) + "\n"

"""Every code of the checker: its bad example yields it and nothing else, its good example nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import attnc.codegen.lower
import attnc.dsl.check
from attnc.codegen import pipeline
from attnc.codegen.lint import lint
from attnc.codegen.lower import lower
from attnc.dsl.check import check
from attnc.dsl.code import Code
from attnc.dsl.codes_check import CHECK
from attnc.dsl.construct import Construct
from attnc.dsl.diagnostics import Diagnostic, SpecError
from attnc.dsl.frontend import choose, compilable
from attnc.dsl.parse import parse
from attnc.dsl.source import Source
from attnc.dsl.specialize import specialize


def _lowered(construct: Construct) -> None:
    lower(compilable(construct))


def diagnose(text: str, make: Callable[[Construct], object] = _lowered) -> tuple[Diagnostic, ...]:
    """Everything that is said about a text on its way to code, ``make`` included."""
    source = Source(name="<text>", text=text)
    try:
        result = check(parse(source))
        construct = choose(source, result.constructs, None)
        bound = specialize(construct, {})
        make(bound)
    except SpecError as error:
        return error.diagnostics
    return *result.warnings, *lint(construct, bound)


@pytest.mark.parametrize("code", CHECK, ids=lambda code: code.code)
def test_bad_example_yields_exactly_its_code(code: Code) -> None:
    assert {item.code for item in diagnose(code.bad, pipeline.compile)} == {code.code}


@pytest.mark.parametrize("code", CHECK, ids=lambda code: code.code)
def test_good_example_yields_nothing(code: Code) -> None:
    assert diagnose(code.good) == ()


def test_every_code_used_is_explained_and_every_code_explained_is_used() -> None:
    folders = [Path(room.__file__).parent for room in (attnc.dsl.check, attnc.codegen.lower)]
    used = {
        code
        for folder in folders
        for path in folder.glob("*.py")
        if not path.name.startswith("codes")
        for code in re.findall(r'"([AW]\d{3})"', path.read_text(encoding="utf-8"))
    }
    assert {code for code in used if code >= "A1"} == {code.code for code in CHECK}

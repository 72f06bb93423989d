"""Mutants of the zoo: what parses is refused with a code, or compiles and equals the reference. A sample of what
``python -m tests.mutants`` runs by the hundred."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from attnc.codegen.pipeline import compile
from attnc.dsl.codes import CODES
from attnc.dsl.diagnostics import SpecError
from attnc.dsl.format import format_source
from attnc.dsl.frontend import compilable, compile_text
from attnc.dsl.source import Source
from attnc.testing import mutants
from attnc.testing.process import Process
from tests.mutants import Tally, held, texts

DENSE = "attention dense { score dot(q, k) / sqrt(D)  normalize softmax }"
QUICK = settings(
    derandomize=True, database=None, deadline=None, phases=(Phase.generate,), suppress_health_check=list(HealthCheck)
)


@settings(QUICK, max_examples=40)
@given(text=st.sampled_from(texts()).flatmap(mutants))
def test_a_mutant_is_canonical_and_refused_with_a_code_or_compiled(text: str) -> None:
    assert format_source(Source(name="<text>", text=text)) == text
    try:
        made = compilable(compile_text(Source(name="<text>", text=text), {}))
    except SpecError as error:
        assert {item.code for item in error.diagnostics} <= set(CODES)
        return
    compile(made)


def test_mutants_are_near_and_many() -> None:
    """Each kind of edit is among those of the shortest spec."""
    found: list[str] = []

    @settings(QUICK, max_examples=150)
    @given(text=mutants(DENSE, edits=1))
    def every(text: str) -> None:
        found.append(text)

    every()
    assert len(set(found)) > 100
    for made in ("mask ", "dot(-q, k)", "normalize softmax1", "weight(s) =", "where(", "input "):
        assert any(made in text for text in found), made
    assert any("score" not in text for text in found)


@pytest.fixture(scope="module")
def process() -> Iterator[Process]:
    """Where code that traps ends no test."""
    made = Process(limit=300)
    yield made
    made.close()


@pytest.mark.parametrize(("backend", "count"), [("eager", 12), ("native", 5)])
def test_mutants_equal_the_reference(backend: str, count: int, process: Process) -> None:
    tally, number = Tally(), 0

    @settings(QUICK, max_examples=count)
    @given(text=st.sampled_from(texts()).flatmap(mutants))
    def every(text: str) -> None:
        nonlocal number
        number += 1
        held(text, number, tally, backends=[backend], calls=3, process=process)

    every()
    assert not tally.failed, "\n".join(tally.failed)
    assert tally.called >= count // 4, str(tally)

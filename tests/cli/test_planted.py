"""Bugs planted in the compiler: ``attnc fuzz`` finds them. A sample of what ``python -m tests.planted`` runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment

from attnc.codegen.environment import environment
from attnc.testing.call import check
from attnc.testing.kernels import Request, arguments
from tests.coverage_templates import CHOSEN, RARE, Coverage, Job
from tests.execution_marks import executed, stripped
from tests.execution_templates import SEED, Called, Marking, kernels
from tests.planted import MUTATIONS, Mutation, fuzzed, planted


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_fits_its_file(mutation: Mutation) -> None:
    assert mutation.mutated.count(mutation.new) >= 1
    assert mutation.text.strip()


def test_there_are_enough_of_them() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 25
    backends = Counter(mutation.backend for mutation in MUTATIONS)
    assert set(backends) == {"eager", "native", "ttir"}


def test_a_bug_is_found_made_small_and_printed_as_a_program_that_fails(tmp_path: Path) -> None:
    (mutation,) = (mutation for mutation in MUTATIONS if mutation.name == "delta-added")
    run: Any = fuzzed(mutation, tmp_path / "bug", examples=40, options=("--kernels", "2", "--dtype", "f32"))
    failure = run["failure"]
    assert failure is not None and failure["after"] <= 40
    assert failure["message"].startswith("eager d_q: ")
    program = tmp_path / "failing.py"
    program.write_text(failure["python"])
    assert failure["python"].count("\n") < 30
    with_bug = {"PYTHONPATH": str(tmp_path / "bug"), "ATTNC_CACHE_DIR": str(tmp_path / "bug" / "cache")}
    command = [sys.executable, "-P", program]
    done = subprocess.run(command, env=os.environ | with_bug, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "AssertionError: eager d_q: " in done.stderr


def test_a_mutation_that_fits_no_longer_is_told(tmp_path: Path) -> None:
    stale = Mutation(
        name="stale", does="", file="codegen/derive.py", old="no such text", new="", spec="dense", backend="eager"
    )
    with pytest.raises(ValueError, match=r"stale: codegen/derive\.py holds its text 0 times"):
        planted(stale, tmp_path / "copy")


# --- coverage of templates ----------------------------------------------------------------------

TEMPLATE = """{% if a %}
A
{% elif b %}
B
{% endif %}
{% for x in items %}{{ "first" if loop.first else "other" }}{% else %}none{% endfor %}
"""


def test_branches_that_nothing_renders_are_told() -> None:
    from jinja2 import DictLoader

    made = Environment(loader=DictLoader({"t": TEMPLATE}), trim_blocks=True)
    plain = made.get_template("t").render(a=True, items=[1])
    coverage = Coverage(made)
    assert made.get_template("t").render(a=True, items=[1]) == plain
    missed = {branch[1:] for branch, count in coverage.hits.items() if not count}
    assert missed == {(3, "elif"), (1, "not"), (6, "not `first.loop`")}
    made.get_template("t").render(b=True, items=[1, 2])
    assert {branch[1:] for branch, count in coverage.hits.items() if not count} == {(1, "not")}
    made.get_template("t").render(items=[])
    assert all(coverage.hits.values())


def test_every_branch_of_every_template_is_rendered() -> None:
    """By a few specs; ``tests.execution_templates`` runs them. A branch that they miss: choose others, as
    tests/coverage_templates.py says, or add a rare one."""
    environment.cache_clear()
    try:
        coverage = Coverage(environment())
        for name in CHOSEN.split():
            Job.named(name).render()
        assert not coverage.missed
    finally:
        environment.cache_clear()


def test_marks_tell_which_lines_are_of_a_branch() -> None:
    from jinja2 import DictLoader

    values = {"b": True, "items": [1, 2]}
    plain = Environment(loader=DictLoader({"t": TEMPLATE}), trim_blocks=True)
    marking = Marking(Environment(loader=DictLoader({"t": TEMPLATE}), trim_blocks=True))
    text, spans = stripped(marking.environment.get_template("t").render(values))
    assert text == plain.get_template("t").render(values) == "B\nfirstother"
    names = {number: (line, what) for (_, line, what), number in marking.numbers.items()}
    places = {(*names[number], first, last) for number, first, last in spans}
    assert places == {
        (3, "elif", 1, 1), (6, "for", 2, 2), (6, "`first.loop`", 2, 2), (6, "not `first.loop`", 2, 2)
    }  # fmt: skip


def test_a_branch_is_executed_where_its_lines_are() -> None:
    code, run = {1, 4, 5, 9}, {1, 4}
    spans = [(0, 4, 5), (1, 5, 6), (2, 2, 3), (3, 6, 8), (4, 9, 9)]
    assert list(executed(spans, code, run)) == [0, 2]  # 2: nothing to run, beside lines that do


def test_counting_changes_nothing_of_a_module() -> None:
    """The tree that counts prints what the template prints."""
    made = environment.__wrapped__()
    counted = Coverage(environment.__wrapped__())
    values = {"listed": True, "spans": True, "drawn_tiles": True, "table_tiles": False}
    name = "prepass_helpers.py.j2"
    assert counted.environment.get_template(name).render(values) == made.get_template(name).render(values)
    assert any(count for (template, _, _), count in counted.hits.items() if template == name)


@pytest.mark.parametrize("number", range(len(RARE)))
def test_what_renders_rare_branches_equals_the_reference(number: int) -> None:
    made = kernels(Called(f"rare{number}"))
    request = Request(B=1, G=1, H=made.heads or 2, N=40, M=90, q_offset=50, seed=SEED)
    check(arguments(made, request), "eager", made.dtype)

"""Lints: each finds what it is for, at the smallest place; none speaks of what matters."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hypothesis import event, given
from hypothesis import strategies as st
from torch import Tensor

from attnc.codegen.lint import lint
from attnc.codegen.pipeline import compile
from attnc.dsl.check import check
from attnc.dsl.construct import Attention, Construct
from attnc.dsl.diagnostics import Diagnostic, Severity
from attnc.dsl.frontend import compilable, compile_text
from attnc.dsl.parse import parse
from attnc.dsl.source import Source
from attnc.dsl.specialize import specialize
from attnc.runtime.reference import mask as reference_mask

ROOT = Path(__file__).resolve().parents[2]


def construct(text: str) -> Construct:
    (made,) = check(parse(Source(name="<text>", text=text))).constructs
    return made


def spec(mask: str, declared: str = "", score: str = "dot(q, k)") -> str:
    return f"attention a {{ {declared} score {score} mask {mask} normalize softmax }}"


def told(text: str, found: tuple[Diagnostic, ...]) -> list[tuple[str, str]]:
    """Codes and the places they point at."""
    return [(item.code, text[item.span.start : item.span.end]) for item in found]


def lints(mask: str, declared: str = "", score: str = "dot(q, k)") -> list[tuple[str, str]]:
    """What is said of a spec before its params are bound."""
    text = spec(mask, declared, score)
    return told(text, lint(construct(text)))


@pytest.mark.parametrize(
    ("read", "outside"),
    [
        ("x[-1]", ["-1"]),
        ("x[S - 1]", []),
        ("x[i - j]", []),
        ("x[-1 - h]", ["-1 - h"]),
        ("x[min(i, -2)]", ["min(i, -2)"]),
        ("y[4, h]", ["4"]),
        ("y[3, -3]", ["-3"]),
        ("y[i % 4, h]", []),
        ("y[i % 4 + 4, h]", ["i % 4 + 4"]),
        ("z[b, i]", []),
        ("x[-p]", []),
    ],
)
def test_reads_outside_an_axis(read: str, outside: list[str]) -> None:
    declared = "param p: int = 2  input x: f32[S]  input y: f32[4, H]  input z: f32[B, N]"
    found = lints("causal", declared, f"dot(q, k) + {read}")
    assert found == [("W008", place) for place in outside]
    made = construct(spec("causal", "param p: int = 2  input x: f32[S]", "dot(q, k) + x[-p]"))
    assert [item.code for item in lint(made, specialize(made, {}))] == ["W008"]


MEANT = {
    "dilated_heads": ["W007"],  # a remainder by a number that varies with the head has no residue classes
    "native_compressed": ["W005", "W006"],  # keys stand for tokens that are past, and there are fewer of them
}


@pytest.mark.parametrize("path", sorted((ROOT / "examples" / "zoo").glob("*.attn")), ids=lambda path: path.stem)
def test_examples_are_clean(path: Path) -> None:
    made = construct(path.read_text(encoding="utf-8"))
    assert lint(made) == ()
    assert [item.code for item in lint(made, specialize(made, {}))] == MEANT.get(path.stem, [])


def test_documented_specs_are_clean() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for block in re.findall(r"^```attn\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.M | re.S):
            for made in check(parse(Source(name=page.name, text=block))).constructs:
                assert lint(made, specialize(made, {})) == (), page.name


@pytest.mark.parametrize("local", [True, False])
def test_a_switch_is_no_clause_that_never_matters(local: bool) -> None:
    """A choice by params alone is meant; what stands beside it is looked at as ever."""
    text = spec("causal and (window(4) or not local) and (strided(2) or strided(4))", "param local: bool")
    made = construct(text)
    assert told(text, lint(made, specialize(made, {"local": local}))) == [("W004", "strided(4)")]


MASKS = {
    # empty and full, at the smallest clause that is so by itself
    "causal and not causal": [("W002", "causal and not causal")],
    "causal and (strided(3) and i < i)": [("W002", "i < i")],
    "window(2) and i - j > 5": [("W002", "window(2) and i - j > 5")],
    "block(8) and j // 8 < i // 8": [("W002", "block(8) and j // 8 < i // 8")],
    "causal or true": [("W003", "true")],
    "true": [("W003", "true")],
    "j <= i or i < j": [("W003", "j <= i or i < j")],
    "fixed(8, 8)": [("W003", "fixed(8, 8)")],
    # clauses that never matter
    "window(5) or window(9)": [("W004", "window(5)")],
    "window(5) and window(9)": [("W004", "window(9)")],
    "causal and causal": [("W004", "causal")],
    "causal and window(4, 0)": [("W004", "causal")],
    "causal and 0 <= i - j < 9": [("W004", "0 <= i - j")],
    "causal and fixed(8, 8)": [("W004", "fixed(8, 8)")],
    "causal or i < i - 3": [("W004", "i < i - 3")],
    "(causal and window(4)) or (causal and window(9))": [("W004", "causal and window(4)")],
    "causal and (prefix(4) or (window(3) and j <= i + 1))": [("W004", "j <= i + 1")],
    "not (causal and window(5, 0)) or i == j": [("W004", "causal")],
    "window(3) and (strided(2) or abs(i - j) > 3)": [("W004", "abs(i - j) > 3")],
    "block_window(8, 1) and window(15)": [("W004", "window(15)")],
    "block_window(8, 1) and window(14)": [],
    "causal and block_window(8, 1) and i - j <= 15": [("W004", "i - j <= 15")],
    "causal and block_window(8, 1) and i - j <= 14": [],
    "dilated(3, 4) and strided(2)": [("W004", "strided(2)")],
    "dilated(3, 4) and strided(8)": [],
    # queries without a key
    "j < i": [("W005", "j < i")],
    "i < j": [("W005", "i < j")],
    "j // 64 < i // 64": [("W005", "j // 64 < i // 64")],
    "j < 0": [("W005", "j < 0")],
    "j < i or i == 0": [],
    # plain masks
    "causal": [],
    "causal and window(9)": [],
    "window(9) or global(2)": [],
    "random(2, block = 8, seed = 0) or block(8)": [],
    "window(10 ** 10)": [],
}


@pytest.mark.parametrize("mask", MASKS)
def test_masks(mask: str) -> None:
    assert lints(mask) == MASKS[mask]


def test_all_are_warnings_in_the_order_of_the_text() -> None:
    found = lint(construct(spec("i < j and (window(5) or window(9))", score="dot(q, k) + i * j")))
    assert [item.code for item in found] == ["W006", "W005", "W004"]
    assert {item.severity for item in found} == {Severity.WARNING}


@pytest.mark.parametrize(
    ("mask", "label"),
    [
        ("window(5) or window(9)", "`window(9)` lets these pairs through already"),
        ("causal and window(4, 0)", "`window(4, 0)` demands it already"),
        ("causal and fixed(8, 8)", "holds for every pair"),
        ("causal or i < i", "holds for no pair"),
        ("causal and i < j + 9 and block(9)", "`block(9)` demands it already"),
        ("i <= j + 5 and j <= i + 5 and window(5)", "the rest of the mask demands it already"),
    ],
)
def test_says_why(mask: str, label: str) -> None:
    assert label in [item.label for item in lint(construct(spec(mask)))]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("j < i", "the first query never sees a key"),
        ("i - j >= 4", "the first 4 queries never see a key"),
        ("j - i >= 4", "the last 4 queries never see a key"),
        ("j < 0", "no query ever sees a key"),
    ],
)
def test_says_which_queries(mask: str, message: str) -> None:
    assert [item.message for item in lint(construct(spec(mask)))] == [message]


# --- branches, lets, params ---------------------------------------------------------------------


def test_of_several_branches_each_has_its_own_mask() -> None:
    text = (
        "attention a { branch x { score dot(q, k) mask j < i normalize softmax }"
        " branch y { score dot(q, k) mask true normalize softmax } output x + y }"
    )
    (found,) = lint(construct(text))
    assert (found.code, found.message) == ("W003", "the mask of `y` is always full")


def test_a_query_that_one_branch_gives_a_key_sees_one() -> None:
    text = (
        "attention a {{ branch x {{ score dot(q, k) mask j < i normalize softmax }}"
        " branch y {{ score dot(q, k) mask {} normalize softmax }} output x + y }}"
    )
    assert told(text, lint(construct(text.format("sink(1)")))) == []
    assert [item.code for item in lint(construct(text.format("i - j > 4")))] == ["W005"]


def test_a_let_is_told_where_it_is_written() -> None:
    assert lints("near and strided(2)", "let near = window(4) and window(5)") == [("W004", "window(5)")]
    assert lints("near and causal", "let near = causal and window(4)") == [("W004", "causal")]


def test_a_let_is_not_blamed_for_its_surroundings() -> None:
    """Beside window(4) the let's own window(9) is needless, but the let may serve another mask."""
    assert lints("window(4) and (near or strided(2))", "let near = window(9) and causal") == []


def test_a_function_is_blamed_for_what_matters_in_no_call() -> None:
    assert lints("f(1) or f(20) and causal", "let f(x) = window(x) or window(7)") == []
    found = lints("f(1) and prefix(9) or f(2) and strided(3)", "let f(x) = window(x) or window(7)")
    assert found == [("W004", "window(x)")]


def test_unbound_params_may_be_anything() -> None:
    assert lints("window(w) or window(9)", "param w: int = 5") == []
    assert lints("window(w) and i - j > w", "param w: int = 5") == [("W002", "window(w) and i - j > w")]


def test_conditions_on_params_are_known() -> None:
    assert lints("i - j <= w or i <= j", "param w: int = 5 where w >= 0") == [("W004", "i <= j")]
    assert lints("i - j <= w or i <= j", "param w: int = 5") == []


def test_what_holds_at_the_values_names_them() -> None:
    text = spec("window(w) or window(r[h]) or causal and causal", "param w: int = 5 param r: int[H] = [1, 2, 3, 4, 9]")
    made = construct(text)
    found = lint(made, specialize(made, {"w": 9}))
    assert told(text, found) == [("W004", "window(r[h])"), ("W004", "causal")]
    assert [item.label for item in found] == [
        "`window(w)` lets these pairs through already, at w = 9, r = [1, 2, 3, 4, ...]",
        "`causal` demands it already",
    ]
    assert told(text, lint(made, specialize(made, {"w": 8}))) == [("W004", "causal")]


@pytest.mark.parametrize(
    ("mask", "lengths", "places"),
    [
        ("causal and window(64)", (64, 64), [("W004", "window(64)")]),
        ("causal and window(63)", (64, 64), [("W004", "window(63)")]),
        ("causal and window(62)", (64, 64), []),
        ("window(63)", (64, 64), [("W003", "window(63)")]),
        ("causal", (1, 64), [("W003", "causal")]),
        ("window(9) or sink(0)", (64, 64), [("W004", "sink(0)")]),
        ("prefix(99) and causal", (64, 90), [("W004", "prefix(99)")]),
        ("causal", (90, 64), []),
    ],
)
def test_at_lengths_a_window_may_reach_beyond(
    mask: str, lengths: tuple[int, int], places: list[tuple[str, str]]
) -> None:
    text = spec(mask)
    assert lint(construct(text)) == ()
    found = lint(construct(text), None, lengths)
    assert told(text, found) == places
    assert all(item.label.endswith(f", at N = {lengths[0]}, M = {lengths[1]}") for item in found)


def test_values_and_lengths_are_told_apart() -> None:
    text = spec("window(w) and (window(9) or window(5)) and causal", "param w: int")
    made = construct(text)
    found = lint(made, specialize(made, {"w": 9}), (7, 7))
    assert [(item.code, text[item.span.start : item.span.end], item.label.partition(", at ")[2]) for item in found] == [
        ("W004", "window(w)", "w = 9, N = 7, M = 7"),
        ("W004", "window(9) or window(5)", "w = 9"),
        ("W004", "window(5)", ""),
    ]


def test_a_recurrence_has_no_mask() -> None:
    assert lint(construct("recurrence a { state S[D, E] step S + outer(k, v) read q @ S }")) == ()


def test_a_mask_of_very_many_clauses_is_passed_over() -> None:
    assert lints(" or ".join(f"i == {n}" for n in range(1000))) == []


# --- proofs hold ----------------------------------------------------------------------------------

_ATOMS = (
    "causal", "window({a})", "window({a}, {b})", "prefix({a})", "dilated({a}, {c})", "strided({c})", "fixed({d}, {a})",
    "block({d})", "block_window({d}, {b})", "global({a})", "j < i", "i - j < {a}", "j // {d} < i // {d}",
    "abs(i - j) != {a}", "max(i, j) % {d} < {a}", "where(causal, i - j, j) < {a}", "true", "false",
    "random({c}, block = {d}, seed = 0)", "h * 2 < {a}",
)  # fmt: skip
_CALLS = ((9, 9, None, 0), (5, 8, None, 0), (7, 4, 3, 2), (6, 6, -4, -3))
"""N, M, q_offset, kv_offset."""


@st.composite
def _atoms(draw: st.DrawFn) -> str:
    form = draw(st.sampled_from(_ATOMS))
    a, b = draw(st.integers(0, 6)), draw(st.integers(0, 4))
    return form.format(a=a, b=b, c=draw(st.integers(1, 4)), d=draw(st.integers(1, 6)))


_MASKS = st.recursive(
    _atoms(),
    lambda inner: st.one_of(
        st.builds("({}) and ({})".format, inner, inner),
        st.builds("({}) or ({})".format, inner, inner),
        st.builds("not ({})".format, inner),
    ),
    max_leaves=6,
)


def _dense(mask: str) -> list[Tensor]:
    made = construct(spec(mask))
    assert isinstance(made, Attention)
    return [reference_mask(made, N, M, 1, 3, {}, q, kv).expand(1, 3, N, M) for N, M, q, kv in _CALLS]


@given(_MASKS)
def test_what_is_told_is_so(mask: str) -> None:
    text = spec(mask)
    found = lint(construct(text))
    start = text.index(mask)
    pairs = _dense(mask)
    for item in found:
        event(item.code)
        first, last = item.span.start - start, item.span.end - start
        match item.code:
            case "W002":
                assert not any(live.any() for live in pairs)
            case "W003":
                assert all(live.all() for live in pairs)
            case "W004":
                without = [_dense(mask[:first] + word + mask[last:]) for word in ("true", "false")]
                assert any(all(map(torch.equal, pairs, other)) for other in without)
            case "W005":
                assert not pairs[0][..., 0 if "first" in item.message or "no query" in item.message else -1, :].any()
            case other:
                assert other == "W007"  # of the analysis, not of the pairs


# --- what the analysis is beyond ----------------------------------------------------------------


def test_opaque_clauses_are_told_each_at_its_place() -> None:
    mask = "causal and (max(i, j) % 64 < 8 or window(9)) and not i * j % 7 == 3"
    found = lint(construct(spec(mask)))
    assert [place for code, place in told(spec(mask), found) if code == "W007"] == [
        "max(i, j) % 64 < 8",
        "i * j % 7 == 3",
    ]
    label = "takes a remainder of both positions at once: tiles without a live pair may be computed"
    assert label in [item.label for item in found]


def test_opacity_waits_for_params() -> None:
    text = spec("strided(s)", "param s: int = 4")
    made = construct(text)
    assert lint(made) == lint(made, specialize(made, {})) == ()
    text = spec("(i + 2 * j) % s < 3", "param s: int = 4")
    made = construct(text)
    assert lint(made) == ()
    assert told(text, lint(made, specialize(made, {}))) == [("W007", "(i + 2 * j) % s < 3")]


def test_a_mask_of_too_many_cases() -> None:
    mask = " and ".join(f"(i % {n} == 0 or j % {n} == 0)" for n in (2, 3, 5, 7, 11, 13, 17, 19))
    assert ("W007", mask) in lints(mask)


# --- the width of indices -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "score", "places"),
    [
        ("causal", "dot(q, k) + i * j", ["i * j"]),
        ("causal", "dot(q, k) + (i * j) // 7 + (i * j) % 3", ["i * j"]),
        ("causal", "dot(q, k) + i ** 3", ["i ** 3"]),
        ("(i + j) * 64 % 7 < 3 or i == j", "dot(q, k)", ["(i + j) * 64 % 7"]),
        ("dilated(4, 3)", "dot(q, k) + (i - j) + 2 * M", []),
        ("causal", "dot(q, k) + i * 8 // 8", []),
        ("causal", "dot(q, k) + (i % 64) * (j % 64)", []),
    ],
)
def test_indices_that_leave_32_bits(mask: str, score: str, places: list[str]) -> None:
    assert lints(mask, score=score) == [("W006", place) for place in places]


def test_indices_wait_for_params() -> None:
    text = spec("causal", "param n: int = 4", "dot(q, k) + i * n")
    made = construct(text)
    assert lint(made) == ()
    assert lint(made, specialize(made, {"n": 2})) == ()
    assert told(text, lint(made, specialize(made, {"n": 64}))) == [("W006", "i * n")]


def test_64_bits_are_emitted_there_and_nowhere_else() -> None:
    text = spec("causal", score="dot(q, k) + i * j + abs(i - j) * (h + 1)")
    assert [place for _, place in told(text, lint(construct(text)))] == ["i * j", "abs(i - j) * (h + 1)"]

    def wide(score: str) -> list[str]:
        source = Source(name="<text>", text=spec("causal", score=score))
        return [line for line in compile(compilable(compile_text(source, {}))).splitlines() if "tl.int64" in line]

    plain = wide("dot(q, k) + abs(i - j)")
    more = [line for line in wide("dot(q, k) + i * j + abs(i - j)") if line not in plain]
    assert more
    for line in more:
        assert "tl.int64" not in line.replace("tl.cast(i, tl.int64) * tl.cast(j, tl.int64)", "")

"""Params become constants."""

from __future__ import annotations

import math
from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.dsl import ir
from attnc.dsl.construct import Attention, Recurrence
from attnc.dsl.diagnostics import SpecError
from attnc.dsl.frontend import compilable, compile_text
from attnc.dsl.ir import Kind
from attnc.dsl.sizes import size_text
from attnc.dsl.source import Source
from tests.dsl.specs import attention, compiled, fault, faults, spec

INT = spec("param w: int = 4", mask="window(w)")
FLOAT = spec("param x: float = 4", score="dot(q, k) * x")
BOOL = spec("param c: bool = true", mask="causal or not c")
HEADS = spec("param w: int[H] = [1, 2]", mask="window(w[h])")


def constants(construct: Attention) -> list[object]:
    branch = construct.branches[0]
    return [node.value for node in ir.postorder(branch.score, branch.mask) if isinstance(node, ir.Const)]


def test_defaults_and_given_values() -> None:
    assert constants(attention(INT)) == [4]
    assert constants(attention(INT, w=7)) == [7]
    assert constants(attention(FLOAT)) == [4.0]
    assert constants(attention(BOOL, c=False)) == [False]


def test_an_int_serves_a_float_exactly_as_that_float() -> None:
    assert attention(FLOAT, x=3).branches == attention(FLOAT, x=3.0).branches
    (value,) = constants(attention(FLOAT, x=3))
    assert type(value) is float


def test_a_numpy_float_is_a_float() -> None:
    (value,) = constants(attention(FLOAT, x=numpy.float64(0.5)))
    assert type(value) is float


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        (INT, "w", True), (INT, "w", 2.0), (INT, "w", "2"), (INT, "w", None), (INT, "w", [1]), (INT, "w", 2**63),
        (INT, "w", numpy.array(3)), (INT, "w", Path("x")), (FLOAT, "x", math.nan), (FLOAT, "x", math.inf),
        (FLOAT, "x", -math.inf), (FLOAT, "x", True), (FLOAT, "x", "0.5"), (FLOAT, "x", 10**400),
        (FLOAT, "x", numpy.array(0.5)), (BOOL, "c", 1), (BOOL, "c", "true"), (HEADS, "w", 3),
        (HEADS, "w", []), (HEADS, "w", [1, True]), (HEADS, "w", [1, 2.5]), (HEADS, "w", numpy.array([1, 2])),
        (HEADS, "w", "12"), (HEADS, "w", {1: 2}),
    ],
)  # fmt: skip
def test_values_of_the_wrong_kind(text: str, name: str, value: object) -> None:
    """The fault points at the param's declaration."""
    assert fault(text, **{name: value}) == ("A301", name)


def test_missing_and_unknown_params() -> None:
    text = spec("param w: int", mask="window(w)")
    assert fault(text) == ("A305", "w")
    assert fault(text, w=1, u=2)[0] == "A101"
    (found,) = faults(spec("param width: int = 1", mask="window(width)"), widht=3)
    assert found.help == "did you mean `width`?"


def test_every_wrong_param_is_told_at_once() -> None:
    text = spec("param a: int", "param c: int", "param d: int", mask="window(a + c + d)")
    assert [item.code for item in faults(text, a=1.5, d=True, x=1)] == ["A101", "A301", "A305", "A301"]


def test_params_with_one_entry_a_head_become_tables() -> None:
    made = attention(HEADS, w=(3, 5, 7))
    tables = [node for node in ir.postorder(made.branches[0].mask) if isinstance(node, ir.Table)]
    assert [(table.values, table.kind) for table in tables] == [((3, 5, 7), Kind.INT)]
    assert faults(spec("param x: float[H] = [1, 2.5]", score="dot(q, k) * x[h]")) == ()


def test_conditions_hold_for_every_head() -> None:
    (found,) = faults(HEADS, w=[1, -2, 3])
    assert found.code == "A302" and found.message == "`w` = -2 breaks `w[h] >= 0`"
    assert faults(spec("param w: int[H] = [1, 2] where w >= 0", mask="i - j < w[h]"), w=[0, -1])[0].code == "A302"


def test_declared_conditions() -> None:
    text = spec("param w: int = 8 where w >= 0 and w % 2 == 0", mask="i - j < w")
    assert faults(text, w=6) == ()
    (found,) = faults(text, w=7)
    assert found.message == "`w` = 7 breaks `(w >= 0) and ((w % 2) == 0)`"


def test_conditions_may_join_params() -> None:
    text = spec("param l: int = 1", "param r: int = 2 where r > l", mask="window(l, r)")
    assert faults(text, l=0) == ()
    (found,) = faults(text, l=2)
    assert found.message == "`r` = 2, `l` = 2 breaks `r > l`"


def test_a_default_must_hold_itself() -> None:
    text = spec("param w: int = -1", mask="window(w)")
    assert fault(text)[0] == "A302"
    assert fault(text, w=1)[0] == "A302"


def test_a_condition_without_a_value_does_not_hold() -> None:
    text = spec("param w: int = 1 where 1 // w > 0", mask="i - j < w")
    assert faults(text, w=0)[0].code == "A302"


def test_params_in_shapes() -> None:
    text = spec("param r: int = 16", "input w: f32[r, D]", score="dot(w @ q, (w @ k)[:r - 4])".replace("[:r - 4]", ""))
    made = attention(text, r=32)
    assert [size_text(axis) for axis in made.inputs[0].axes] == ["32", "D"]
    assert [size_text(token.dim) for token in made.tokens if token.dim is not None] == ["32", "32"]
    assert faults(text, r=0)[0].code == "A209"


def test_params_in_slices() -> None:
    text = "attention a { param n: int = 8 query q[64] key k[64] score dot(q[:n], k[64 - n:]) normalize softmax }"
    made = attention(text, n=16)
    assert [size_text(token.dim) for token in made.tokens if token.dim is not None] == ["16", "16"]
    assert [item.code for item in faults(text, n=65)] == ["A202", "A202"]
    assert {item.code for item in faults(text, n=0)} == {"A202"}


def test_recurrences_specialize_too() -> None:
    made = compiled("recurrence r { param x: float = 0.5 state S[D, E] step x * S + outer(k, v) read q @ S }", x=0.25)
    assert isinstance(made, Recurrence)
    assert [node.value for node in ir.postorder(made.step) if isinstance(node, ir.Const)] == [0.25]


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers()), st.binary()))
def test_any_value_is_taken_or_refused(value: object) -> None:
    for text, name in ((INT, "w"), (FLOAT, "x"), (BOOL, "c"), (HEADS, "w")):
        assert {item.code for item in faults(text, **{name: value})} <= {"A301", "A302"}


@pytest.mark.parametrize("clause", ["kv packed", "kv paged(page = 16)", "kv contiguous fp8"])
def test_what_comes_later_checks_and_is_refused(clause: str) -> None:
    made = attention(spec(clause))
    with pytest.raises(SpecError, match="does not compile yet"):
        compilable(made)
    assert compilable(attention(spec())) == attention(spec())


def test_a_file_of_several_constructs_asks_for_a_name() -> None:
    text = spec() + spec().replace("attention a", "attention other")
    source = Source(name="<text>", text=text)
    assert compile_text(source, {}, "other").name == "other"
    for name in (None, "othr"):
        with pytest.raises(SpecError, match=r"A410.*|did you mean `other`"):
            compile_text(source, {}, name)


def test_an_int_too_long_to_print() -> None:
    assert fault(BOOL, c=10**5000) == ("A301", "c")
    assert fault(INT, w=10**5000) == ("A301", "w")

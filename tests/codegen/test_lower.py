"""Lowering: which branches share a pass, which reads reach where, and divisors that stay in range."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.codegen import build
from attnc.codegen.divisor import L, M, T, scale_divisor
from attnc.codegen.lower import lower
from attnc.codegen.program import Program
from attnc.dsl.frontend import compilable, compile_text
from attnc.dsl.ir import Expr, Kind
from attnc.dsl.source import Source
from tests.codegen.evaluate import evaluate


def program(body: str) -> Program:
    return lower(compilable(compile_text(Source(name="spec.attn", text=f"attention spec {{ {body} }}"), {})))


def branch(name: str, score: str, mask: str = "causal", normalize: str = "softmax") -> str:
    return f"branch {name} {{ score {score} mask {mask} normalize {normalize} }} "


SAME = "dot(q, k) / sqrt(D)"


def test_branches_over_the_same_keys_share_a_pass_and_its_dots() -> None:
    found = program(branch("one", SAME) + branch("two", f"tanh({SAME})", normalize="sigmoid") + "output one - two")
    assert [[item.name for item in group.maps] for group in found.groups] == [["one", "two"]]
    assert len(found.groups[0].dots) == 1


@pytest.mark.parametrize(
    "body",
    [
        "query q1, q2 key k1, k2 value v "
        + branch("one", "dot(q1, k1)")
        + branch("two", "dot(q2, k2)")
        + "output one - two",  # other keys
        branch("one", SAME) + branch("two", SAME, mask="causal and window(9)") + "output one + two",  # other live keys
        "value v1, v2 "
        + "branch one { value v1 score dot(q, k) normalize softmax } "
        + "branch two { value v2 score dot(q, k) normalize softmax } output one + two",  # other values
    ],
)
def test_branches_that_share_less_pass_alone(body: str) -> None:
    assert [len(group.maps) for group in program(body).groups] == [1, 1]


def test_reads_are_summed_where_they_reach() -> None:
    body = (
        "input a: f32[H] input r: f32[B, N] input c: f32[B, M] input p: f32[H, 2 * M] input still: f32[H] nograd "
        "score dot(q, k) + a[h] + r[b, i] + c[b, j] + p[h, i - j + M] + still[h] normalize softmax"
    )
    (item,) = program(body).maps
    assert {part.read.load.tensor: part.read.reach for part in item.input_gradients} == {
        "a": "row",
        "r": "row",
        "c": "column",
        "p": "pair",
    }


NUMBER = st.floats(-3, 3).map(build.const)


def divisors() -> st.SearchStrategy[Expr]:
    leaves = st.one_of(
        st.just(T), st.floats(0.1, 3).map(build.const), NUMBER.map(lambda e: build.apply(build.Fn.EXP, e))
    )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda pair: build.add(*pair)),
            st.tuples(inner, inner).map(lambda pair: build.maximum(*pair)),
            st.tuples(inner, inner).map(lambda pair: build.minimum(*pair)),
            st.tuples(inner, inner).map(lambda pair: build.mul(*pair)),
            st.tuples(inner, inner).map(lambda pair: build.div(*pair)),
            inner.map(lambda x: build.mul(2.0, x)),
            inner.map(lambda x: build.apply(build.Fn.SQRT, x)),
            inner.map(lambda x: build.apply(build.Fn.POW, x, build.const(0.75))),
            inner.map(build.absolute),
        ),
        max_leaves=6,
    )


@given(divisor=divisors(), row=st.floats(0.5, 8), m=st.floats(-4, 4))
def test_a_scaled_divisor_is_the_divisor_over_exp_m(divisor: Expr, row: float, m: float) -> None:
    scaled, _ = scale_divisor(divisor)
    mine = evaluate(scaled, {L: row, M: m})
    plain = evaluate(divisor, {T: row * math.exp(m)})
    assert math.isclose(mine * math.exp(m), plain, rel_tol=1e-12)


def test_a_constant_or_a_sink_lifts_the_maximum() -> None:
    sink = build.symbol("e", Kind.FLOAT)
    assert scale_divisor(T)[1] == ()
    assert scale_divisor(build.add(T, 1.0))[1] == (build.const(0.0),)
    assert scale_divisor(build.add(T, build.apply(build.Fn.EXP, sink)))[1] == (sink,)

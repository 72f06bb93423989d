"""Scores split into a uniform scale and the rest: the same value, and the split that a kernel wants."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from attnc.codegen import build
from attnc.codegen.exponent import exponent, pulled, regrouped
from attnc.codegen.lower import G, lower
from attnc.dsl.frontend import compilable, compile_text
from attnc.dsl.ir import Apply, Expr, Fn, Kind, Load, dependencies, postorder
from attnc.dsl.source import Source
from tests.codegen.evaluate import evaluate

D = build.to_float(build.size("D"))
ROOT = build.div(1.0, build.apply(Fn.SQRT, D))
DOT, OTHER = build.symbol("dot0", Kind.FLOAT), build.symbol("dot1", Kind.FLOAT)
SLOPE = Load(kind=Kind.FLOAT, tensor="slope", index=(build.index("h"),))
BIAS = Load(kind=Kind.FLOAT, tensor="bias", index=(build.index("i"), build.index("j")))
DISTANCE = build.to_float(build.absolute(build.sub(build.index("i"), build.index("j"))))

FACTORS = st.sampled_from([ROOT, SLOPE, build.const(0.02), build.const(50.0), build.const(-1.0), build.const(3.0)])
TERMS = st.recursive(
    st.sampled_from([DOT, OTHER, BIAS, DISTANCE]),
    lambda inner: st.one_of(
        st.builds(build.mul, inner, FACTORS),
        st.builds(build.mul, FACTORS, inner),
        st.builds(build.div, inner, FACTORS),
        st.builds(build.add, inner, inner),
        st.builds(build.sub, inner, inner),
        st.builds(build.neg, inner),
        st.builds(lambda x: build.apply(Fn.TANH, x), inner),
    ),
    max_leaves=6,
)


def value(expr: Expr) -> float:
    leaves: dict[Expr, bool | int | float] = {
        DOT: 1.75, OTHER: -0.625, build.index("h"): 1, build.index("i"): 9, build.index("j"): 4, build.size("D"): 64,
        G: 0.375,
    }  # fmt: skip
    return float(evaluate(expr, leaves, lambda tensor, *index: 0.3125 if tensor == "slope" else -1.5))


@given(score=TERMS)
def test_a_split_score_is_the_score(score: Expr) -> None:
    found = exponent(score)
    assume(math.isfinite(value(score)))
    assert value(build.mul(found.scale, found.rest)) == pytest.approx(value(score), rel=1e-12, abs=1e-12)
    assert value(found.scale) > 0
    assert not dependencies(found.scale) and not any(isinstance(node, Load) for node in postorder(found.scale))
    assert value(regrouped(score)) == pytest.approx(value(score), rel=1e-12, abs=1e-12)


@given(term=TERMS)
def test_what_is_pulled_out_multiplies_back(term: Expr) -> None:
    rest, factor = pulled(build.mul(G, term), frozenset(("b", "h")))
    assert value(build.mul(rest, factor)) == pytest.approx(value(build.mul(G, term)), rel=1e-12, abs=1e-12)
    assert not dependencies(factor) & {"i", "j"}


def scores(text: str) -> Expr:
    spec = f"attention spec {{ input slope: f32[H]  input bias: f32[N, M]  score {text}  normalize softmax }}"
    return lower(compilable(compile_text(Source(name="spec.attn", text=spec), {}))).maps[0].score


@pytest.mark.parametrize(
    ("text", "scale", "rest", "fused"),
    [
        ("dot(q, k) / sqrt(D)", 1 / 8, "dot0", True),
        ("dot(q, k) * 0.25", 0.25, "dot0", True),
        ("dot(q, k)", 1, "dot0", False),  # above 2.3e38 it would overflow in base 2
        ("50 * tanh(dot(q, k) / sqrt(D) / 50)", 50, None, True),
        ("dot(q, k) / sqrt(D) - slope[h] * abs(i - j)", 1 / 8, None, True),
        ("dot(q, k) / sqrt(D) + bias[i, j]", 1, None, False),  # the bias may be the least float there is
        ("(dot(q, k) + bias[i, j]) / sqrt(D)", 1 / 8, None, True),
        ("slope[h] * dot(q, k) / sqrt(D)", 1 / 8, None, True),  # the slope may be negative: it stays
        ("-dot(q, k) / sqrt(D)", 1 / 8, None, True),
    ],
)
def test_what_is_taken_out(text: str, scale: float, rest: str | None, fused: bool) -> None:
    found = exponent(scores(text))
    assert evaluate(found.scale, {build.size("D"): 64}) == pytest.approx(scale)
    assert found.fused is fused
    if rest is not None:
        assert found.rest == build.symbol(rest, Kind.FLOAT)


def test_what_decides_an_integer_is_rounded_as_written() -> None:
    """8 * log(2) / log(16) is 2 in floats; times the reciprocal of log(16) it is 1.9999999999999998."""
    bucket = "int(8 * log(max(abs(i - j), 1) / 8) / log(16))"
    text = f"attention a {{ score where({bucket} == 2, dot(q, k) * 3 / 7, dot(q, k) / 7) normalize softmax }}"
    (group,) = lower(compilable(compile_text(Source(name="<text>", text=text), {}))).groups
    score = group.maps[0].score
    for form in (score, regrouped(score)):
        divisors = [node.args[1] for node in postorder(form) if isinstance(node, Apply) and node.fn is Fn.DIV]
        assert divisors == [build.const(math.log(16))]

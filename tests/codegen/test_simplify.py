"""Simplified expressions mean the same, are fixed points, and have the forms that the printers rely on."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.codegen.build import (
    FALSE,
    TRUE,
    absolute,
    add,
    all_of,
    any_of,
    apply,
    clamp,
    const,
    div,
    eq,
    floordiv,
    ge,
    le,
    lt,
    maximum,
    minimum,
    mod,
    mul,
    ne,
    neg,
    not_,
    power,
    sub,
    to_float,
    to_int,
    where,
)  # fmt: skip
from attnc.codegen.simplify import simplify
from attnc.dsl.ir import Apply, Expr, Fn, Kind, Load, Table, postorder
from tests.codegen.evaluate import Value, evaluate, same
from tests.codegen.expressions import COUNT, FLAG, KV_OFFSET, Q_OFFSET, H, I, J, M, S, T, bools, floats, ints

_FLOATS = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.3, -2.5, 7.0, 1e200, -1e-200, math.inf, -math.inf, math.nan])
_LEAVES = st.fixed_dictionaries(
    {
        **{leaf: st.integers(-12, 12) for leaf in (I, J, Q_OFFSET, KV_OFFSET, COUNT)},
        **{leaf: st.integers(0, 12) for leaf in (H, M)},
        **dict.fromkeys((S, T), _FLOATS),
        FLAG: st.booleans(),
    }
)


def simplified(expr: Expr) -> Expr:
    return simplify((expr,))[0]


def check(expr: Expr, leaves: dict[Expr, Value]) -> None:
    simple = simplified(expr)
    assert simple.kind is expr.kind
    assert same(evaluate(simple, leaves), evaluate(expr, leaves))
    assert simplified(simple) == simple
    assert len(postorder(simple)) <= 3 * len(postorder(expr)) + 3


@given(ints(), _LEAVES)
def test_integers_keep_their_value(expr: Expr, leaves: dict[Expr, Value]) -> None:
    check(expr, leaves)


@given(floats(), _LEAVES)
def test_floats_keep_their_bits(expr: Expr, leaves: dict[Expr, Value]) -> None:
    check(expr, leaves)


@given(bools(st.one_of(ints()), FLAG), _LEAVES)
def test_predicates_of_integers_keep_their_value(expr: Expr, leaves: dict[Expr, Value]) -> None:
    check(expr, leaves)


@given(bools(floats(), FLAG), _LEAVES)
def test_predicates_of_floats_keep_their_value(expr: Expr, leaves: dict[Expr, Value]) -> None:
    check(expr, leaves)


def affine_sums() -> st.SearchStrategy[Expr]:
    """Sums of few atoms, so that bounds of one sum meet often."""
    terms = st.sampled_from([I, J, sub(I, J), sub(J, I), mul(2, J), absolute(sub(I, J)), floordiv(I, 4)])
    return st.builds(add, terms, st.integers(-4, 4))


@given(bools(affine_sums()), _LEAVES)
def test_merged_bounds_keep_their_value(expr: Expr, leaves: dict[Expr, Value]) -> None:
    check(expr, leaves)


@given(ints(), st.randoms())
def test_the_order_of_a_sum_does_not_matter(expr: Expr, random: object) -> None:
    terms = [I, mul(3, J), neg(M), expr, const(5)]
    shuffled = list(terms)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = (simplified(add(add(add(add(a, b), c), d), e)) for a, b, c, d, e in (terms, shuffled))
    assert first == second


@given(st.sampled_from([2, 3, 4]), st.floats(-1e60, 1e60))
def test_small_powers_are_products(exponent: int, value: float) -> None:
    product = simplified(power(S, float(exponent)))
    assert all(node.fn is Fn.MUL for node in postorder(product) if isinstance(node, Apply))
    expected = math.pow(value, exponent)
    assert evaluate(product, {S: value}) == pytest.approx(expected, rel=4e-16, abs=1e-320)


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        (ge(I, J), le(J, I)),
        (not_(le(J, I)), lt(I, J)),
        (le(sub(J, I), 0), le(J, I)),
        (lt(J, add(2, 2)), lt(J, 4)),
        (ge(4, J), lt(J, 5)),
        (le(sub(I, 255), J), le(sub(I, J), 255)),
        (lt(absolute(sub(J, I)), 5), le(absolute(sub(I, J)), 4)),
        (le(add(mul(2, I), 3), mul(2, J)), le(sub(I, J), -2)),
        (eq(mul(2, I), add(mul(2, J), 1)), FALSE),
        (all_of((le(absolute(sub(I, J)), 4), le(J, I))), all_of((le(J, I), le(sub(I, J), 4)))),
        (all_of((le(J, I), le(J, add(I, 3)), le(J, I))), le(J, I)),
        (all_of((le(J, I), lt(I, J))), FALSE),
        (any_of((lt(J, 4), lt(J, 8), FALSE)), lt(J, 8)),
        (any_of((lt(J, 4), ge(J, 2))), TRUE),
        (any_of((lt(J, 4), ge(J, 8), ge(J, 9))), any_of((ge(J, 8), lt(J, 4)))),
        (all_of((le(J, I), ge(J, I))), eq(I, J)),
        (all_of((FLAG, TRUE, FLAG)), FLAG),
        (any_of((FLAG, not_(FLAG))), TRUE),
        (not_(eq(S, T)), ne(S, T)),
        (eq(S, S), eq(S, S)),
        (not_(lt(S, T)), not_(lt(S, T))),
        (where(FLAG, S, S), S),
        (where(not_(FLAG), S, T), where(FLAG, T, S)),
        (where(FLAG, TRUE, lt(J, 4)), any_of((FLAG, lt(J, 4)))),
        (add(sub(I, J), sub(J, I)), const(0)),
        (mul(4, sub(add(I, 1), J)), add(mul(4, sub(I, J)), 4)),
        (floordiv(add(mul(I, 64), add(J, 70)), 64), add(add(I, floordiv(add(J, 6), 64)), 1)),
        (mod(add(mul(I, 64), add(J, 70)), 64), mod(add(J, 6), 64)),
        (floordiv(floordiv(I, 4), 8), floordiv(I, 32)),
        (floordiv(-7, 2), const(-4)),
        (mod(-7, 2), const(1)),
        (mul(I, 0), const(0)),
        (mul(S, 0.0), mul(S, 0.0)),
        (add(S, 0.0), add(S, 0.0)),
        (add(to_float(I), 0.0), to_float(I)),
        (sub(S, 0.0), S),
        (mul(1.0, S), S),
        (div(S, 4.0), mul(S, 0.25)),
        (div(S, 3.0), div(S, 3.0)),
        (neg(neg(S)), S),
        (sub(S, S), sub(S, S)),
        (power(S, 0.5), power(S, 0.5)),
        (power(I, 2), mul(I, I)),
        (apply(Fn.FLOOR, to_float(I)), to_float(I)),
        (to_int(to_float(I)), I),
        (to_float(const(3)), const(3.0)),
        (minimum(add(I, 3), add(I, 5)), add(I, 3)),
        (maximum(minimum(I, J), minimum(J, I)), minimum(I, J)),
        (clamp(I, 0, 10), minimum(maximum(I, 0), 10)),
        (absolute(absolute(S)), absolute(S)),
        (apply(Fn.SQRT, 16.0), const(4.0)),
        (apply(Fn.LOG, 0.0), apply(Fn.LOG, 0.0)),
        (Table(kind=Kind.INT, values=(5, 6, 7), index=const(9)), const(7)),
        (Table(kind=Kind.INT, values=(5, 5), index=H), const(5)),
        (
            Load(kind=Kind.FLOAT, tensor="x", index=(add(I, sub(J, I)),)),
            Load(kind=Kind.FLOAT, tensor="x", index=(J,)),
        ),
    ],
)
def test_forms(expr: Expr, expected: Expr) -> None:
    assert simplified(expr) == expected


def test_shared_parts_stay_shared() -> None:
    scaled = mul(S, const(0.125))
    roots = simplify((add(apply(Fn.TANH, scaled), scaled), mul(1.0, scaled)))
    assert roots[1] in postorder(roots[0])


def test_long_sums_and_deep_nesting_take_linear_time() -> None:
    total: Expr = I
    for step in range(20_000):
        total = add(total, (I, J, M)[step % 3])
    deep: Expr = S
    for _ in range(10_000):
        deep = apply(Fn.TANH, deep)
    condition: Expr = FLAG
    for step in range(5_000):
        condition = apply(Fn.OR, condition, lt(J, step))
    began = time.perf_counter()
    assert simplified(total) == add(add(mul(6668, I), mul(6667, J)), mul(6666, M))
    assert len(postorder(simplified(deep))) == 10_001
    assert simplified(condition) == any_of((FLAG, lt(J, 4_999)))
    assert time.perf_counter() - began < 10

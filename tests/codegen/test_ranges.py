"""Ranges hold every value; proofs are true; reads called safe are safe."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.codegen.build import (
    absolute,
    add,
    clamp,
    const,
    eq,
    floordiv,
    index,
    le,
    maximum,
    minimum,
    mod,
    mul,
    power,
    size,
    sub,
    symbol,
    where,
)  # fmt: skip
from attnc.codegen.ranges import INT64, LIMIT, Facts, Range, enclose, in_bounds, int_range, needs_int64, provably_le
from attnc.codegen.simplify import simplify
from attnc.dsl.ir import Expr, Kind, Load, Table
from tests.codegen.evaluate import Value, evaluate
from tests.codegen.expressions import COUNT, KV_OFFSET, Q_OFFSET, H, I, J, M, N, ints

B = index("b")
SMALL: dict[Expr, Range] = {
    I: (-6, 6), J: (-6, 6), Q_OFFSET: (-4, 4), KV_OFFSET: (-4, 4), COUNT: (-9, 9), H: (0, 3), M: (1, 6), N: (1, 6),
}  # fmt: skip
_LEAVES = st.fixed_dictionaries({leaf: st.integers(*ends) for leaf, ends in SMALL.items()})


def read(*positions: Expr, kind: Kind = Kind.FLOAT) -> Load:
    return Load(kind=kind, tensor="x", index=positions)


@given(ints(), _LEAVES)
def test_ranges_hold_every_value(expr: Expr, leaves: dict[Expr, Value]) -> None:
    leaves |= {I: max(int(leaves[I]), int(leaves[Q_OFFSET])), J: max(int(leaves[J]), int(leaves[KV_OFFSET]))}
    low, high = int_range(expr, SMALL)
    value = evaluate(expr, leaves)
    assert low <= value <= high or INT64 in ((low, high),)


@given(ints(), ints(), _LEAVES)
def test_proofs_are_true(x: Expr, y: Expr, leaves: dict[Expr, Value]) -> None:
    facts = Facts(ranges=SMALL)
    if provably_le(*simplify((x, y)), facts):
        assert evaluate(x, leaves) <= evaluate(y, leaves)


@given(ints(), st.integers(-6, 6), st.integers(0, 6), st.integers(0, 6), _LEAVES)
def test_enclosures_hold_every_value(expr: Expr, start: int, at: int, more: int, leaves: dict[Expr, Value]) -> None:
    first, last = symbol("first", Kind.INT), symbol("last", Kind.INT)
    facts = Facts(order=((first, last),), ranges={**SMALL, first: (-6, 18), last: (-6, 18), I: (-6, 18)})
    low, high = enclose(simplify((expr,))[0], {I: (first, last)}, facts)
    leaves |= {first: start, I: start + at, last: start + at + more}
    value = evaluate(expr, leaves)
    assert low is None or evaluate(low, leaves) <= value
    assert high is None or value <= evaluate(high, leaves)


def test_enclosures_of_monotone_expressions_are_their_ends() -> None:
    first, last = symbol("first", Kind.INT), symbol("last", Kind.INT)
    ends = enclose(sub(mul(2, floordiv(I, 4)), J), {I: (first, last)}, Facts(order=((first, last),)))
    assert ends == simplify(tuple(sub(mul(2, floordiv(end, 4)), J) for end in (first, last)))


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        (sub(I, Q_OFFSET), (0, LIMIT)),
        (sub(KV_OFFSET, J), (-LIMIT, 0)),
        (floordiv(const(-7), 2), (-4, -4)),
        (mod(I, 8), (0, 7)),
        (mod(I, -8), (-7, 0)),
        (mod(mod(I, 4), 8), (0, 3)),
        (floordiv(I, 2), (-LIMIT // 2, LIMIT // 2)),
        (power(sub(mod(I, 8), 4), 2), (0, 16)),
        (clamp(I, 0, 10), (0, 10)),
        (Table(kind=Kind.INT, values=(5, -2, 7), index=H), (-2, 7)),
        (where(le(J, I), const(3), const(-1)), (-1, 3)),
        (COUNT, INT64),
    ],
)
def test_numeric_ranges(expr: Expr, expected: Range) -> None:
    assert int_range(expr) == expected


def test_common_index_arithmetic_fits_32_bits() -> None:
    relative = add(sub(I, J), M)
    assert not needs_int64((relative, absolute(sub(I, J)), eq(floordiv(I, 64), floordiv(J, 64)), sub(I, Q_OFFSET)))


def test_what_may_leave_32_bits_is_wide_with_all_that_uses_it() -> None:
    square = mul(I, J)
    capped = minimum(square, 5)
    assert needs_int64((add(capped, 1),)) == {square, capped, add(capped, 1)}
    assert COUNT in needs_int64((COUNT,))
    assert not needs_int64((COUNT,), {COUNT: (-(2**31), 2**31 - 1)})


def test_reads_within_their_axes_need_no_clamp() -> None:
    query_row, key_row = sub(I, Q_OFFSET), sub(J, KV_OFFSET)
    whole = (size("B"), size("H"), N, M)
    assert in_bounds(read(B, H, query_row, key_row), whole) == (True,) * 4
    blocks = tuple(floordiv(add(length, 63), 64) for length in (N, M))
    assert in_bounds(read(floordiv(query_row, 64), floordiv(key_row, 64)), blocks) == (True, True)
    between = add(sub(query_row, key_row), sub(M, 1))
    assert in_bounds(read(between), (sub(add(M, N), 1),)) == (True,)
    assert in_bounds(read(mod(I, 8), clamp(sub(I, J), 0, 10)), (const(8), const(11))) == (True, True)
    assert in_bounds(read(minimum(absolute(sub(I, J)), 31)), (const(32),)) == (True,)
    assert in_bounds(read(minimum(key_row, 7)), (const(8),)) == (True,)


def test_reads_that_may_leave_their_axes_are_not_called_safe() -> None:
    assert in_bounds(read(I, J), (N, M)) == (False, False)
    assert in_bounds(read(add(sub(I, J), M)), (mul(2, M),)) == (False,)
    assert in_bounds(read(mod(I, 8)), (const(7),)) == (False,)
    assert in_bounds(read(maximum(sub(J, KV_OFFSET), 7)), (M,)) == (False,)
    assert in_bounds(read(read(H, kind=Kind.INT)), (const(100),)) == (False,)
    assert in_bounds(read(sub(I, Q_OFFSET)), (M,)) == (False,)


@given(ints(), st.integers(1, 5), st.integers(1, 5), st.integers(-4, 4), st.integers(-4, 4), st.data())
def test_safe_reads_stay_inside(expr: Expr, n: int, m: int, q: int, kv: int, data: st.DataObject) -> None:
    fixed: dict[Expr, Value] = {N: n, M: m, Q_OFFSET: q, KV_OFFSET: kv, size("H"): 4, COUNT: 2}
    for length in (M, N, const(6), const(9)):
        if in_bounds(read(expr), (length,)) == (True,):
            row, column = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, m - 1))
            leaves = {**fixed, I: row + q, J: column + kv, H: data.draw(st.integers(0, 3))}
            assert 0 <= evaluate(expr, leaves) < evaluate(length, leaves)

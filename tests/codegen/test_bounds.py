"""Bounds of live positions: sound for any predicate, exact for the common ones, in both directions."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.codegen.bounds import (
    MAY_INTERVALS,
    MUST_INTERVALS,
    Bounds,
    Region,
    conjuncts,
    key_bounds,
    key_only,
    query_bounds,
    query_only,
)
from attnc.codegen.build import (
    FALSE,
    TRUE,
    absolute,
    add,
    all_of,
    any_of,
    apply,
    const,
    eq,
    floordiv,
    ge,
    gt,
    le,
    lt,
    minimum,
    mod,
    mul,
    ne,
    not_,
    sub,
)  # fmt: skip
from attnc.codegen.simplify import simplify
from attnc.dsl.ir import Expr, Fn, dependencies, postorder
from tests.codegen.evaluate import Value, evaluate
from tests.codegen.expressions import (
    COUNT,
    FLAG,
    KV_OFFSET,
    LIVE_HEAD,
    Q_OFFSET,
    H,
    I,
    J,
    M,
    N,
    bools,
    ints,
    positional,
)

CAUSAL = le(J, I)


def window(left: int, right: int) -> Expr:
    return all_of((le(sub(I, left), J), le(J, add(I, right))))


def near(width: int) -> Expr:
    return le(absolute(sub(I, J)), width)


def prefix(count: int) -> Expr:
    return lt(J, count)


def either_below(count: int) -> Expr:
    return any_of((lt(I, count), lt(J, count)))


def block(count: int) -> Expr:
    return eq(floordiv(I, count), floordiv(J, count))


EXACT: dict[str, Expr] = {
    "all": TRUE,
    "none": FALSE,
    "causal": CAUSAL,
    "not causal": not_(CAUSAL),
    "window": near(3),
    "window of two sides": window(4, 1),
    "one-sided window": all_of((CAUSAL, window(3, 0))),
    "not window": not_(near(2)),
    "prefix": prefix(5),
    "prefix of queries": lt(I, 4),
    "global": either_below(3),
    "block": block(4),
    "causal block": all_of((CAUSAL, block(4))),
    "block_window": le(absolute(sub(floordiv(I, 4), floordiv(J, 4))), 1),
    "shifted": le(add(J, 3), sub(I, 2)),
    "diagonal": eq(I, J),
    "half speed": le(mul(2, J), I),
    "by blocks": le(floordiv(J, 4), floordiv(I, 4)),
    "lengths": all_of((lt(J, COUNT), lt(I, COUNT))),
    "some heads": any_of((CAUSAL, LIVE_HEAD)),
}

# Exact where all of a tile is global or none of it is; a mixed tile is partial for want of a split.
EXACT_MAY: dict[str, Expr] = {
    "causal and (window or sink)": all_of((CAUSAL, any_of((near(3), prefix(2))))),
    "window or global": any_of((near(2), either_below(3))),
}


def leaves_of(first: int, last: int, queries: int, keys: int, q: int, kv: int, flags: int) -> dict[Expr, Value]:
    return {N: queries, M: keys, Q_OFFSET: q, KV_OFFSET: kv, H: flags % 3, COUNT: flags % 7, LIVE_HEAD: flags % 2 == 0}


def held(region: Region, leaves: dict[Expr, Value], position: int) -> int:
    """How many intervals of a region hold a position."""
    return sum(
        (low is None or evaluate(low, leaves) <= position) and (high is None or position < evaluate(high, leaves))
        for low, high in region
    )


class Tile:
    """One tile by brute force: ``outer`` positions from first to last, all ``inner`` positions."""

    def __init__(self, mask: Expr, bounds: Bounds, outer: Expr, inner: Expr, tile: range, across: range,
                 leaves: dict[Expr, Value], flag: Callable[[int, int], bool]) -> None:  # fmt: skip
        self.bounds, self.across = bounds, across
        self.leaves = {**leaves, bounds.first: tile[0], bounds.last: tile[-1]}

        def live(x: int, y: int) -> bool:
            at = {outer: x, inner: y}
            return bool(evaluate(mask, {**leaves, **at, FLAG: flag(at[I], at[J])}))

        rows = [[live(x, y) for y in across] for x in tile]
        self.some = [any(column) for column in zip(*rows, strict=True)]
        self.every = [all(column) for column in zip(*rows, strict=True)]

    def check_sound(self) -> None:
        assert len(self.bounds.may) <= MAY_INTERVALS and len(self.bounds.must) <= MUST_INTERVALS
        for position, some, every in zip(self.across, self.some, self.every, strict=True):
            count = held(self.bounds.may, self.leaves, position)
            assert count <= 1, "may is disjoint"
            assert count or not some, "may covers"
            assert every or not held(self.bounds.must, self.leaves, position), "must holds"
        cursor: int | None = None
        for low, high in self.bounds.may:  # ascending: a loop may run on from where it stopped
            start = self.across.start if low is None else max(evaluate(low, self.leaves), self.across.start)
            stop = self.across.stop if high is None else min(evaluate(high, self.leaves), self.across.stop)
            if start < stop:
                assert cursor is None or cursor <= start
                cursor = stop

    def check_exact(self) -> None:
        for position, some, every in zip(self.across, self.some, self.every, strict=True):
            assert bool(held(self.bounds.may, self.leaves, position)) == some
            assert bool(held(self.bounds.must, self.leaves, position)) == every


shapes = st.tuples(
    st.integers(0, 10), st.integers(1, 5), st.integers(8, 14), st.integers(8, 14), st.integers(-6, 6),
    st.integers(-6, 6), st.integers(0, 41),
)  # fmt: skip


def tiles(mask: Expr, shape: tuple[int, int, int, int, int, int, int]) -> list[Tile]:
    """The same tile of queries and of keys."""
    row, length, queries, keys, q, kv, flags = shape

    def flag(i: int, j: int) -> bool:
        return (i * 5 + j * 3 + flags) % 4 < 2

    found: list[Tile] = []
    for bounds, outer, inner, start, count, other, across in (
        (key_bounds(mask), I, J, q, queries, kv, keys),
        (query_bounds(mask), J, I, kv, keys, q, queries),
    ):
        first = min(row, count - 1)
        tile = range(start + first, start + min(first + length, count))
        leaves = leaves_of(tile[0], tile[-1], queries, keys, q, kv, flags)
        found.append(Tile(mask, bounds, outer, inner, tile, range(other, other + across), leaves, flag))
    return found


@given(bools(ints(), FLAG, LIVE_HEAD), shapes)
def test_any_predicate_is_bounded_soundly(mask: Expr, shape: tuple[int, int, int, int, int, int, int]) -> None:
    for tile in tiles(mask, shape):
        tile.check_sound()


@given(bools(positional(), *EXACT.values(), *EXACT_MAY.values()), shapes)
def test_masks_are_bounded_soundly(mask: Expr, shape: tuple[int, int, int, int, int, int, int]) -> None:
    for tile in tiles(mask, shape):
        tile.check_sound()


@pytest.mark.parametrize("name", EXACT)
@given(shape=shapes)
def test_common_masks_are_bounded_exactly(name: str, shape: tuple[int, int, int, int, int, int, int]) -> None:
    for tile in tiles(EXACT[name], shape):
        tile.check_sound()
        tile.check_exact()


@pytest.mark.parametrize("name", EXACT_MAY)
@given(shape=shapes)
def test_masks_with_sinks_cover_exactly(name: str, shape: tuple[int, int, int, int, int, int, int]) -> None:
    for tile in tiles(EXACT_MAY[name], shape):
        tile.check_sound()
        for position, some in zip(tile.across, tile.some, strict=True):
            assert bool(held(tile.bounds.may, tile.leaves, position)) == some


def test_the_block_part_of_a_fixed_pattern_is_full() -> None:
    fixed = any_of((block(64), ge(mod(J, 64), 60)))
    bounds = key_bounds(fixed)
    assert bounds.may == ((None, None),)
    assert bounds.must == key_bounds(block(64)).must


@pytest.mark.parametrize(
    ("mask", "may"),
    [
        (CAUSAL, lambda first, last: ((None, add(last, 1)),)),
        (near(255), lambda first, last: ((sub(first, 255), add(last, 256)),)),
        (all_of((CAUSAL, near(255))), lambda first, last: ((sub(first, 255), add(last, 1)),)),
        (not_(CAUSAL), lambda first, last: ((add(first, 1), None),)),
        (all_of((CAUSAL, block(64))), lambda first, last: ((mul(64, floordiv(first, 64)), add(last, 1)),)),
        (prefix(4), lambda first, last: ((None, const(4)),)),
        (FLAG, lambda first, last: ((None, None),)),
        (FALSE, lambda first, last: ()),
    ],
)  # fmt: skip
def test_ends_are_small(mask: Expr, may: Callable[[Expr, Expr], Region]) -> None:
    bounds = key_bounds(mask)
    assert bounds.may == may(bounds.first, bounds.last)


def test_ends_stay_readable_where_masks_combine() -> None:
    longformer = key_bounds(any_of((near(256), either_below(8))))
    ends = [end for interval in (*longformer.may, *longformer.must) for end in interval if end is not None]
    assert max(len(postorder(end)) for end in ends) <= 16


def test_conditions_of_one_side_are_found() -> None:
    long_enough, early = lt(J, COUNT), lt(I, 9)
    mask = all_of((CAUSAL, long_enough, not_(any_of((ge(I, 9), FLAG)))))
    assert conjuncts(mask) == (CAUSAL, long_enough, early, not_(FLAG))
    assert key_only(mask) == long_enough
    assert query_only(mask) == early
    assert key_only(CAUSAL) == query_only(TRUE) == TRUE
    assert key_only(all_of((LIVE_HEAD, CAUSAL))) == LIVE_HEAD
    # branches of one pass: what every alternative demands
    assert key_only(any_of((all_of((CAUSAL, long_enough)), all_of((near(3), long_enough))))) == long_enough
    assert key_only(any_of((all_of((CAUSAL, long_enough)), near(3)))) == TRUE
    held = any_of((LIVE_HEAD, long_enough))
    assert key_only(not_(all_of((not_(all_of((CAUSAL, LIVE_HEAD))), ge(J, COUNT))))) == held


@given(bools(positional(), FLAG), shapes)
def test_conjuncts_make_up_the_mask(mask: Expr, shape: tuple[int, int, int, int, int, int, int]) -> None:
    leaves = {**leaves_of(0, 0, 8, 8, 0, 0, shape[-1]), I: shape[4], J: shape[5], FLAG: shape[0] % 2 == 0}
    assert evaluate(all_of(conjuncts(mask)), leaves) == evaluate(mask, leaves)


@given(bools(positional(), FLAG), shapes)
def test_what_a_key_must_be_follows_from_the_mask(mask: Expr, shape: tuple[int, int, int, int, int, int, int]) -> None:
    leaves = {**leaves_of(0, 0, 8, 8, 0, 0, shape[-1]), I: shape[4], J: shape[5], FLAG: shape[0] % 2 == 0}
    if evaluate(mask, leaves):
        assert evaluate(key_only(mask), leaves) and evaluate(query_only(mask), leaves)
    assert "i" not in dependencies(key_only(mask)) and "j" not in dependencies(query_only(mask))


def test_huge_masks_are_answered_at_once() -> None:
    many = any_of(all_of((near(k), ne(I, add(mul(k, J), k)))) for k in range(600))
    nested: Expr = J
    for _ in range(1_000):
        nested = minimum(apply(Fn.ABS, nested), add(I, nested))
    began = time.process_time()
    assert key_bounds(many).may == ((None, None),)
    key_bounds(gt(nested, 4))
    assert len(simplify((many,))) == 1
    assert key_only(many) == TRUE
    assert time.process_time() - began < 20


def test_many_conditions_of_a_tile_are_answered_at_once() -> None:
    """A drawn predicate took minutes: ends that hang on nested conditions were compared in all their cases."""

    def interval(t: int) -> Expr:
        moduli = (p + t for p in (3, 17, 31, 53, 71, 97, 113, 131, 151))
        conditions = [lt(mod(add(N, p), p), add(floordiv(M, p), t + 1)) for p in moduli]
        low = add(floordiv(add(M, floordiv(I, t + 2)), 3), 40 * t)
        high = add(floordiv(add(N, floordiv(I, t + 3)), 2), 40 * t + 9)
        return all_of((*conditions, le(low, J), le(J, high)))

    mask = any_of(interval(t) for t in range(6))
    began = time.process_time()
    assert len(key_bounds(mask).may) <= MAY_INTERVALS
    assert time.process_time() - began < 20

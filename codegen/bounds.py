"""Where the live keys of a tile of queries lie, and the live queries of a tile of keys, as a few intervals.

A mask is read as a set: for a tile of query positions ``i0 <= i <= i1``, ``may`` covers every key that is live for
some query of the tile and ``must`` holds only keys that are live for all of them: those that no case of the mask's
negation reaches. Both are unions of projections (project.py), of which intervals alone are kept: residue classes,
tables and what projects to no interval may be live anywhere, and must be live nowhere.

This room answers with symbolic ends for the kernels, tilemap.py from the same projections with numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from attnc.codegen.build import TRUE, add, all_of, any_of, apply, le, not_, offset, size, symbol, where
from attnc.codegen.cases import Case, Cases, cases, reduced
from attnc.codegen.project import Piece, project
from attnc.codegen.ranges import Facts, provably_le
from attnc.codegen.simplify import simplify
from attnc.dsl.ir import Apply, Axis, Drawn, Expr, Fn, Kind, Listed, Load, Side, dependencies, postorder, substitute

Interval = tuple[Expr | None, Expr | None]
Region = tuple[Interval, ...]

MAY_INTERVALS = 3
MUST_INTERVALS = 2
_SPLITS = 3  # how many conditions deep two ends are compared; each may double the work
_REGION_INTERVALS = 4  # kept while a region is being worked out
_EVERYTHING: Region = ((None, None),)

# Where the tensor begins and ends, before and after all that an end is compared with.
_START, _END = symbol("start", Kind.INT), symbol("end", Kind.INT)
_FAR = 2**48


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Half-open intervals (lo, hi) of absolute positions, as INT expressions over ``first`` and ``last`` (the tile's
    first and last position), b, h, sizes, offsets and what is read at (b, h). None: no bound on that side. An
    interval with lo >= hi is empty. ``may``: at most MAY_INTERVALS, ascending and disjoint within the tensor wherever
    not empty there. ``must``: at most MUST_INTERVALS. Ends may lie outside the tensor."""

    first: Expr
    last: Expr
    may: Region
    must: Region


def key_bounds(mask: Expr, keys: Expr | None = None) -> Bounds:
    """Keys j of a tile of queries from Symbol ``i0`` to Symbol ``i1``, inclusive. ``keys``: how many there are."""
    return _bounds(mask, "i", "j", Side.KEY, size("M") if keys is None else keys)


def query_bounds(mask: Expr, queries: Expr | None = None) -> Bounds:
    """Queries i of a tile of keys from Symbol ``j0`` to Symbol ``j1``, inclusive. ``queries``: how many there are."""
    return _bounds(mask, "j", "i", Side.QUERY, size("N") if queries is None else queries)


def conjuncts(mask: Expr) -> tuple[Expr, ...]:
    """The conditions that must all hold, simplified; none for a mask that is True."""
    terms = _operands(simplify((mask,))[0], True, Fn.AND)
    found = dict.fromkeys(node if asserted else simplify((not_(node),))[0] for node, asserted in terms)
    return tuple(term for term in found if term != TRUE)


def _operands(node: Expr, asserted: bool, fn: Fn) -> list[tuple[Expr, bool]]:
    """What a condition, or its negation where it is not ``asserted``, is the conjunction or the disjunction of."""
    found: list[tuple[Expr, bool]] = []
    stack = [(node, asserted)]
    while stack:
        node, asserted = stack.pop()
        match node:
            case Apply(fn=Fn.NOT, args=(x,)):
                stack.append((x, not asserted))
            case Apply(fn=Fn.AND | Fn.OR, args=(x, y)) if (node.fn is fn) is asserted:
                stack += [(y, asserted), (x, asserted)]
            case _:
                found.append((node, asserted))
    return found


def key_only(mask: Expr) -> Expr:
    """What a live pair demands of its key alone, whatever the query: a key without it can be masked at its load."""
    return simplify((_without("i", simplify((mask,))[0]),))[0]


def query_only(mask: Expr) -> Expr:
    """What a live pair demands of its query alone."""
    return simplify((_without("j", simplify((mask,))[0]),))[0]


def _without(axis: Axis, mask: Expr, asserted: bool = True) -> Expr:
    """What follows from a mask, or from its negation where it is not ``asserted``, and does not depend on an index."""
    if axis not in dependencies(mask):
        return mask if asserted else not_(mask)
    for fn, join in ((Fn.AND, all_of), (Fn.OR, any_of)):
        terms = _operands(mask, asserted, fn)
        if len(terms) > 1:
            return join(_without(axis, node, truth) for node, truth in terms)
    return TRUE


@lru_cache(maxsize=64)
def _bounds(mask: Expr, outer: Axis, inner: Axis, side: Side, count: Expr) -> Bounds:
    first, last = symbol(f"{outer}0", Kind.INT), symbol(f"{outer}1", Kind.INT)
    start = offset(side)
    (end,) = simplify((add(start, count),))
    tile = _Tile(facts=Facts(order=((first, last),), ranges={_START: (-_FAR, -_FAR), _END: (_FAR, _FAR)}))
    holds, fails = cases(simplify((mask,))[0])
    live, dead = (
        [piece for case in _told(found) if (piece := project(case, outer, inner, first, last)) is not None]
        for found in (holds, fails)
    )
    may = tile.ascending(tile.union(map(tile.interval, live)))
    must = tile.complement(map(tile.interval, dead))[:MUST_INTERVALS]
    ends: dict[Expr, Expr] = {_START: start, _END: end}
    return Bounds(first=first, last=last, may=_placed(may, ends), must=_placed(must, ends))


def _told(found: Cases) -> Cases:
    """The cases without what tells no interval: truths and comparisons that read tensors along i or j."""

    def tells(*nodes: Expr) -> bool:
        reads = (part for part in postorder(*nodes) if isinstance(part, Load | Drawn | Listed))
        return all(dependencies(part).isdisjoint("ij") for part in reads)

    return reduced(
        Case(
            bounds={terms: const for terms, const in case.bounds.items() if tells(*(atom for atom, _ in terms))},
            residues=case.residues,
            truths={node: value for node, value in case.truths.items() if dependencies(node).isdisjoint("ij")},
        )
        for case in found
    )


def _placed(region: Region, ends: dict[Expr, Expr]) -> Region:
    """The region with the positions of the tensor's ends in place of their symbols; the end itself is open."""
    placed: list[Interval] = []
    for interval in region:
        low, high = (None if x in (None, _START, _END) else simplify(substitute((x,), ends))[0] for x in interval)
        placed.append((low, high))
    return tuple(placed)


@dataclass(frozen=True, kw_only=True)
class _Tile:
    """Regions of one tile, by what can be proved of it."""

    facts: Facts

    def interval(self, piece: Piece) -> Interval:
        """The positions of a piece between its ends; none unless its conditions hold."""
        low: Expr | None = None
        high: Expr | None = None
        for limit in piece.lows:
            low = self._extreme(Fn.MAX, low, limit)
        for limit in piece.highs:
            high = self._extreme(Fn.MIN, high, simplify((add(limit, 1),))[0])
        for condition in piece.when:
            (high,) = simplify((where(condition, _END if high is None else high, _START),))
        return low, high

    # --- sets --------------------------------------------------------------------------------

    def union(self, intervals: Iterable[Interval]) -> Region:
        """A superset of few intervals, without those that are surely empty, merged where they surely touch."""
        merged: list[Interval] = []
        for interval in intervals:
            if self._surely_empty(interval):
                continue
            current: Interval | None = interval
            while current is not None:
                interval, current = current, None
                for place, other in enumerate(merged):
                    current = self._joined(interval, other) or self._joined(other, interval)
                    if current is not None:
                        del merged[place]
                        break
            merged.append(interval)
            merged = self._grown(merged)
        return _by_ends(merged)

    def complement(self, intervals: Iterable[Interval]) -> Region:
        """A subset, of few intervals, of what lies outside of all the intervals."""
        kept: list[Interval] = [_EVERYTHING[0]]
        for low, high in self._outermost(intervals):
            sides: list[Interval] = []
            match high:
                case Apply(fn=Fn.WHERE, args=(condition, reached, end)) if end == _START:  # nothing unless it holds
                    sides += [(None, where(condition, _START if low is None else low, _END))]
                    sides += [] if reached == _END else [(reached, None)]
                case _:
                    sides += [] if low is None else [(None, low)]
                    sides += [] if high is None else [(high, None)]
            pairs = (
                (self._extreme(Fn.MAX, a[0], b[0]), self._extreme(Fn.MIN, a[1], b[1])) for a in kept for b in sides
            )
            kept = self._outermost(pairs)[:_REGION_INTERVALS]
        return _by_ends(kept)

    def _outermost(self, intervals: Iterable[Interval]) -> list[Interval]:
        """Without those that are surely empty, or surely within another."""
        kept: list[Interval] = []
        for interval in intervals:
            if not self._surely_empty(interval) and not any(self._within(interval, other) for other in kept):
                kept = [other for other in kept if not self._within(other, interval)]
                kept.append(interval)
        return kept

    def _within(self, x: Interval, y: Interval) -> bool:
        return (y[0] is None or self._le(y[0], x[0])) and (y[1] is None or self._le(x[1], y[1]))

    def _joined(self, x: Interval, y: Interval) -> Interval | None:
        """The union of two intervals as one, if it surely is one: y begins within x, or both have an open end."""
        (low, high), (other_low, other_high) = x, y
        if low is None and other_low is None:
            return None, self._extreme(Fn.MAX, high, other_high, open_wins=True)
        if high is None and other_high is None:
            return self._extreme(Fn.MIN, low, other_low, open_wins=True), None
        if (low is None or self._le(low, other_low)) and (high is None or self._le(other_low, high)):
            return low, self._extreme(Fn.MAX, high, other_high, open_wins=True)
        if other_high is None and high is not None and self._le(other_low, high):
            return self._extreme(Fn.MIN, low, other_low, open_wins=True), None
        return None

    def _surely_empty(self, interval: Interval) -> bool:
        low, high = interval
        return low is not None and high is not None and self._le(high, low)

    def _le(self, x: Expr | None, y: Expr | None) -> bool:
        match x, y:
            case (None, _) | (_, None):
                return False
            case Apply(fn=Fn.WHERE, args=(c, a, b)), Apply(fn=Fn.WHERE, args=(d, e, f)) if c == d:
                return self._le(a, e) and self._le(b, f)
            case _:
                return x in (y, _START) or y == _END or provably_le(x, y, self.facts)

    def _extreme(self, fn: Fn, x: Expr | None, y: Expr | None, *, open_wins: bool = False) -> Expr | None:
        """``min`` or ``max`` of two ends. None is the open end, which wins or never does."""
        if x is None or y is None:
            return None if open_wins else y if x is None else x
        found = self._choice(fn, x, y)
        return simplify((apply(fn, x, y),))[0] if found is None else found

    def _choice(self, fn: Fn, x: Expr, y: Expr, splits: int = _SPLITS) -> Expr | None:
        """``min`` or ``max`` of two ends without a word for it, if it surely is one of them in every case."""
        if self._le(x, y):
            return x if fn is Fn.MIN else y
        if self._le(y, x):
            return y if fn is Fn.MIN else x
        for chosen, other in ((x, y), (y, x)) if splits else ():
            match chosen, other:
                case Apply(fn=Fn.WHERE, args=(c, a, b)), Apply(fn=Fn.WHERE, args=(d, e, f)) if c == d:
                    pairs = (a, e), (b, f)
                case Apply(fn=Fn.WHERE, args=(c, a, b)), _:
                    pairs = (a, other), (b, other)
                case _:
                    continue
            first = self._choice(fn, *pairs[0], splits - 1)
            second = None if first is None else self._choice(fn, *pairs[1], splits - 1)
            if first is not None and second is not None:
                return simplify((where(c, first, second),))[0]
        return None

    def _grown(self, parts: list[Interval]) -> list[Interval]:
        """Few intervals that cover all of them."""
        while len(parts) > _REGION_INTERVALS:
            parts[-2:] = [self._hull(parts[-2], parts[-1])]
        return parts

    def _hull(self, x: Interval, y: Interval) -> Interval:
        return (
            self._extreme(Fn.MIN, x[0], y[0], open_wins=True),
            self._extreme(Fn.MAX, x[1], y[1], open_wins=True),
        )

    def ascending(self, region: Region) -> Region:
        """The region as at most MAY_INTERVALS intervals, ascending and disjoint within the tensor: one open to the
        left, bounded ones, one open to the right."""
        if _EVERYTHING[0] in region:
            return _EVERYTHING
        left = [part for part in region if part[0] is None]
        right = [part for part in region if part[0] is not None and part[1] is None]
        middle = [part for part in region if part[0] is not None and part[1] is not None]
        while len(left) + len(middle) + len(right) > MAY_INTERVALS:
            pairs = [(x, y) for n, x in enumerate(middle) for y in middle[n + 1 :]]
            x, y = next((pair for pair in pairs if self._before(*pair) is None), None) or self._sorted(middle)[-2:]
            middle = [*(part for part in middle if part not in (x, y)), self._hull(x, y)]
        middle = self._sorted(middle)
        edge = left[0][1] if left else None
        wall = right[0][0] if right else None
        ordered: list[Interval] = list(left)
        reached = edge
        for low, high in middle:
            begin, end = self._extreme(Fn.MAX, low, reached), self._extreme(Fn.MIN, high, wall)
            ordered.append((begin, end))
            reached = self._extreme(Fn.MAX, reached, end)
        if right:
            ordered.append((self._extreme(Fn.MAX, wall, edge), None))
        return tuple(part for part in ordered if not self._surely_empty(part))

    def _before(self, x: Interval, y: Interval) -> bool | None:
        """Whether x begins before y; None if that is known at run time only."""
        return True if self._le(x[0], y[0]) else False if self._le(y[0], x[0]) else None

    def _sorted(self, parts: Iterable[Interval]) -> list[Interval]:
        """Bounded intervals by their beginnings: where the order is not provable, two are exchanged as they must be."""
        done: list[Interval] = []
        for part in parts:
            for place, other in enumerate(done):
                first = self._before(other, part)
                if first is None:
                    done[place], part = self._exchanged(other, part)
                elif not first:
                    done[place], part = part, other
            done.append(part)
        return done

    def _exchanged(self, x: Interval, y: Interval) -> tuple[Interval, Interval]:
        (low, high), (other_low, other_high) = x, y
        assert low is not None and high is not None and other_low is not None and other_high is not None
        first = le(low, other_low)
        earlier, later = simplify((where(first, high, other_high), where(first, other_high, high)))
        return (self._extreme(Fn.MIN, low, other_low), earlier), (self._extreme(Fn.MAX, low, other_low), later)


def _by_ends(region: list[Interval]) -> Region:
    """Those with an open low end first, those with an open high end last."""
    ranks = [(low is not None) + (low is not None and high is None) for low, high in region]
    return tuple(region[place] for place in sorted(range(len(region)), key=ranks.__getitem__))

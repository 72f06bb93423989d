"""Where the live keys of a tile of queries lie, and the live queries of a tile of keys, as a few intervals.

A mask is read as a set: for a tile of query positions ``i0 <= i <= i1``, ``may`` covers every key that is live for
some query of the tile and ``must`` holds only keys that are live for all of them. Both follow the mask's own algebra:
``and`` intersects, ``or`` unites, ``not`` turns one into the other's complement, and a comparison is solved for j
with the rest of it at its least and greatest over the tile. What cannot be read so (``%``, loads over i or j, drawn
and listed blocks) may be live anywhere and must be live nowhere.

This room answers with intervals alone and never evaluates the mask; everything it knows passes through ``Bounds``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce

from attnc.codegen.build import (
    TRUE,
    add,
    all_of,
    apply,
    floordiv,
    index,
    le,
    mul,
    neg,
    not_,
    offset,
    size,
    sub,
    symbol,
    where,
)  # fmt: skip
from attnc.codegen.integers import Affine, affine, collect, comparison, number, to_expr
from attnc.codegen.ranges import Facts, enclose, provably_le
from attnc.codegen.simplify import simplify
from attnc.dsl.ir import Apply, Axis, Const, Expr, Fn, Index, Kind, Side, dependencies, postorder

Interval = tuple[Expr | None, Expr | None]
Region = tuple[Interval, ...]

MAY_INTERVALS = 3
MUST_INTERVALS = 2
_REGION_INTERVALS = 4  # kept while a region is being worked out
_CHOICES = 4  # how many min, max, abs and where of one comparison are split into cases
_ANALYSED_NODES = 1000  # a mask of more conditions is not read: everything may be live

_EVERYTHING: Region = ((None, None),)
_NOTHING: Region = ()


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Half-open intervals (lo, hi) of absolute positions, as INT expressions over ``first`` and ``last`` (the tile's
    first and last position), b, h, sizes, offsets and what is read at (b, h). None: no bound on that side. An
    interval with lo >= hi is empty. ``may``: at most MAY_INTERVALS, ascending and disjoint wherever not empty.
    ``must``: at most MUST_INTERVALS. Ends may lie outside the tensor."""

    first: Expr
    last: Expr
    may: Region
    must: Region


@dataclass(frozen=True, kw_only=True)
class _Live:
    """A condition as sets: a superset of where it holds for some, a subset of where it holds for all."""

    may: Region
    must: Region


_UNKNOWN = _Live(may=_EVERYTHING, must=_NOTHING)


def key_bounds(mask: Expr, keys: Expr | None = None) -> Bounds:
    """Keys j of a tile of queries from Symbol ``i0`` to Symbol ``i1``, inclusive. ``keys``: how many there are."""
    return _bounds(mask, "i", "j", Side.KEY, size("M") if keys is None else keys)


def query_bounds(mask: Expr, queries: Expr | None = None) -> Bounds:
    """Queries i of a tile of keys from Symbol ``j0`` to Symbol ``j1``, inclusive. ``queries``: how many there are."""
    return _bounds(mask, "j", "i", Side.QUERY, size("N") if queries is None else queries)


def conjuncts(mask: Expr) -> tuple[Expr, ...]:
    """The conditions that must all hold, simplified; none for a mask that is True."""
    found: dict[Expr, None] = {}
    stack = [(simplify((mask,))[0], True)]
    while stack:
        node, asserted = stack.pop()
        match node:
            case Apply(fn=Fn.NOT, args=(x,)):
                stack.append((x, not asserted))
            case Apply(fn=Fn.AND | Fn.OR as fn, args=(x, y)) if (fn is Fn.AND) is asserted:
                stack += [(y, asserted), (x, asserted)]
            case _:
                found[node if asserted else simplify((not_(node),))[0]] = None
    return tuple(term for term in found if term != TRUE)


def key_only(mask: Expr) -> Expr:
    """The conjuncts that do not depend on the query position: what can be masked at the load of a key."""
    return all_of(term for term in conjuncts(mask) if "i" not in dependencies(term))


def query_only(mask: Expr) -> Expr:
    """The conjuncts that do not depend on the key position."""
    return all_of(term for term in conjuncts(mask) if "j" not in dependencies(term))


def _bounds(mask: Expr, outer: Axis, inner: Axis, side: Side, count: Expr) -> Bounds:
    first, last = symbol(f"{outer}0", Kind.INT), symbol(f"{outer}1", Kind.INT)
    start = offset(side)
    tile = _Tile(
        outer=index(outer),
        inner=index(inner),
        first=first,
        last=last,
        start=start,
        end=simplify((add(start, count),))[0],
        facts=Facts(order=((first, last),)),
    )
    live = tile.read(simplify((mask,))[0])
    return Bounds(first=first, last=last, may=tile.ascending(live.may), must=live.must[:MUST_INTERVALS])


@dataclass(frozen=True, kw_only=True)
class _Tile:
    """``outer`` runs from first to last; the answer is about ``inner``, which runs over [start, end)."""

    outer: Index
    inner: Index
    first: Expr
    last: Expr
    start: Expr
    end: Expr
    facts: Facts

    # --- conditions --------------------------------------------------------------------------

    def read(self, mask: Expr) -> _Live:
        conditions = [node for node in postorder(mask) if node.kind is Kind.BOOL]
        if len(conditions) > _ANALYSED_NODES:
            return _UNKNOWN
        known: dict[Expr, _Live] = {}
        for node in conditions:
            known[node] = self._condition(node, known)
        return known[mask]

    def _condition(self, node: Expr, known: dict[Expr, _Live]) -> _Live:
        if not self._varies(node):
            return _Live(may=self._all_if(node), must=self._all_if(node))
        found = comparison(node)
        if found is not None:
            fn, form = found
            match fn:
                case Fn.LE:
                    return self._at_most_zero(form, known, _CHOICES)
                case Fn.EQ:
                    parts = (form, form.scaled(-1))
                    return self._both(*(self._at_most_zero(part, known, _CHOICES) for part in parts))
                case _:
                    parts = (form.shifted(1), form.scaled(-1).shifted(1))
                    return self._either(*(self._at_most_zero(part, known, _CHOICES) for part in parts))
        match node:
            case Apply(fn=Fn.AND, args=(x, y)):
                return self._both(known[x], known[y])
            case Apply(fn=Fn.OR, args=(x, y)):
                return self._either(known[x], known[y])
            case Apply(fn=Fn.NOT, args=(x,)):
                return self._negated(known[x])
            case Apply(fn=Fn.WHERE, args=(condition, x, y)):
                return self._chosen(known[condition], known[x], known[y])
            case Apply(fn=Fn.EQ | Fn.NE as fn, args=(x, y)) if x.kind is Kind.BOOL:
                same, other = known[y], self._negated(known[y])
                return self._chosen(known[x], *((same, other) if fn is Fn.EQ else (other, same)))
            case _:
                return _UNKNOWN

    def _varies(self, node: Expr) -> bool:
        return not dependencies(node).isdisjoint("ij")

    def _both(self, x: _Live, y: _Live) -> _Live:
        return _Live(may=self._intersection(x.may, y.may, self._grown), must=self._intersection(x.must, y.must, _cut))

    def _either(self, x: _Live, y: _Live) -> _Live:
        return _Live(may=self._union((*x.may, *y.may), self._grown), must=self._union((*x.must, *y.must), _cut))

    def _negated(self, x: _Live) -> _Live:
        return _Live(may=self._complement(x.must, self._grown), must=self._complement(x.may, _cut))

    def _chosen(self, condition: _Live, x: _Live, y: _Live) -> _Live:
        return self._either(self._both(condition, x), self._both(self._negated(condition), y))

    def _all_if(self, condition: Expr) -> Region:
        """Everything or nothing, by a condition that the whole tile shares."""
        (condition,) = simplify((condition,))
        if isinstance(condition, Const):
            return _EVERYTHING if condition.value else _NOTHING
        return ((None, where(condition, self.end, self.start)),)

    # --- comparisons -------------------------------------------------------------------------

    def _at_most_zero(self, form: Affine, known: dict[Expr, _Live], choices: int) -> _Live:
        """Where ``form <= 0``: choices are split into cases, then it is solved for ``inner``."""
        for atom, factor in form.terms:
            if not self._varies(atom):
                continue
            rest = form.minus(Affine(terms=((atom, factor),), const=0))

            def case(choice: Expr, rest: Affine = rest, factor: int = factor) -> _Live:
                return self._at_most_zero(collect(((rest, 1), (affine(choice), factor))), known, choices - 1)

            match atom:
                case Apply(fn=Fn.MIN | Fn.MAX | Fn.ABS | Fn.WHERE) if choices == 0:
                    return _UNKNOWN
                case Apply(fn=Fn.MIN | Fn.MAX as fn, args=(x, y)):
                    return (self._both if (fn is Fn.MAX) is (factor > 0) else self._either)(case(x), case(y))
                case Apply(fn=Fn.ABS, args=(x,)):
                    return (self._both if factor > 0 else self._either)(case(x), case(neg(x)))
                case Apply(fn=Fn.WHERE, args=(condition, x, y)):
                    return self._chosen(known[condition], case(x), case(y))
                case Apply(fn=Fn.FLOORDIV, args=(x, Const(value=value))) if (
                    value > 0 and abs(factor) == 1 and choices and dependencies(x) >= {"i", "j"}
                ):
                    # x // n <= -rest  is  x + n rest <= n - 1;  rest <= x // n  is  n rest - x <= 0
                    flat = collect(((affine(x), factor), (rest, int(value))))
                    flat = flat.shifted(1 - int(value)) if factor > 0 else flat
                    return self._at_most_zero(flat, known, choices - 1)
        return self._solved(form)

    def _solved(self, form: Affine) -> _Live:
        """Where ``form <= 0``, with one term of it solved for ``inner`` and the rest at its least and greatest."""
        box: dict[Expr, Interval] = {self.outer: (self.first, self.last)}
        main: tuple[Expr, int] | None = None
        lows: list[tuple[Affine, int]] | None = [(number(form.const), 1)]
        highs: list[tuple[Affine, int]] | None = [(number(form.const), 1)]
        for atom, factor in form.terms:
            if self.inner.axis in dependencies(atom):
                if main is None and self._solvable(atom):
                    main = atom, factor
                    continue
                low, high = _numeric(atom, self.facts)
            else:
                low, high = enclose(atom, box, self.facts)
            if factor < 0:
                low, high = high, low
            lows = None if lows is None or low is None else [*lows, (affine(low), factor)]
            highs = None if highs is None or high is None else [*highs, (affine(high), factor)]
        return _Live(
            may=_EVERYTHING if lows is None else self._where_at_most(main, collect(lows)),
            must=_NOTHING if highs is None else self._where_at_most(main, collect(highs)),
        )

    def _solvable(self, atom: Expr) -> bool:
        """inner, or inner // n // m ... with sums of what the tile shares in between."""
        while atom != self.inner:
            match atom:
                case Apply(fn=Fn.FLOORDIV, args=(x, Const(value=value))) if value > 0:
                    varying = [part for part, _ in affine(x).terms if self._varies(part)]
                    if len(varying) != 1:
                        return False
                    (atom,) = varying
                case _:
                    return False
        return True

    def _where_at_most(self, main: tuple[Expr, int] | None, rest: Affine) -> Region:
        """Where ``factor * atom + rest <= 0``; the tile shares ``rest``."""
        if main is None:
            return self._all_if(le(to_expr(rest), 0))
        atom, factor = main
        while True:
            # atom <= -rest // factor, or atom >= ceil(rest / -factor)
            limit = floordiv(to_expr(rest.scaled(-1)), abs(factor))
            (limit,) = simplify((limit if factor > 0 else neg(limit),))
            if not isinstance(atom, Apply):
                (above,) = simplify((add(limit, 1),))
                return ((None, above),) if factor > 0 else ((limit, None),)
            x, divisor = atom.args
            # x // n <= limit  is  x - n limit - n + 1 <= 0;  x // n >= limit  is  n limit - x <= 0
            (reach,) = simplify((sub(mul(divisor, add(limit, 1)), 1) if factor > 0 else mul(divisor, limit),))
            sign = 1 if factor > 0 else -1
            inside = affine(x).minus(affine(reach)).scaled(sign)
            ((atom, factor),) = [term for term in inside.terms if self._varies(term[0])]
            rest = inside.minus(Affine(terms=((atom, factor),), const=0))

    # --- sets --------------------------------------------------------------------------------

    def _intersection(self, x: Region, y: Region, limited: Callable[[Region], Region]) -> Region:
        pairs = [(self._extreme(Fn.MAX, a[0], b[0]), self._extreme(Fn.MIN, a[1], b[1])) for a in x for b in y]
        return self._union(pairs, limited)

    def _complement(self, region: Region, limited: Callable[[Region], Region]) -> Region:
        sides = [tuple(part for part in ((None, low), (high, None)) if part != (None, None)) for low, high in region]
        return reduce(lambda x, y: self._intersection(x, y, limited), sides, _EVERYTHING)

    def _union(self, intervals: Iterable[Interval], limited: Callable[[Region], Region]) -> Region:
        """Intervals without those that are surely empty; merged where they surely touch."""
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
        merged.sort(key=lambda interval: (interval[0] is not None) + (interval[0] is not None and interval[1] is None))
        return limited(tuple(merged))

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
        return x is not None and y is not None and provably_le(x, y, self.facts)

    def _extreme(self, fn: Fn, x: Expr | None, y: Expr | None, *, open_wins: bool = False) -> Expr | None:
        """``min`` or ``max`` of two ends. None is the open end, which wins or never does."""
        if x is None or y is None:
            return None if open_wins else y if x is None else x
        if self._le(x, y):
            return x if fn is Fn.MIN else y
        if self._le(y, x):
            return y if fn is Fn.MIN else x
        return simplify((apply(fn, x, y),))[0]

    def _grown(self, region: Region) -> Region:
        """A region of few intervals that covers all of ``region``."""
        parts = list(region)
        while len(parts) > _REGION_INTERVALS:
            parts[-2:] = [self._hull(parts[-2], parts[-1])]
        return tuple(parts)

    def _hull(self, x: Interval, y: Interval) -> Interval:
        return (
            self._extreme(Fn.MIN, x[0], y[0], open_wins=True),
            self._extreme(Fn.MAX, x[1], y[1], open_wins=True),
        )

    def ascending(self, region: Region) -> Region:
        """The region as at most MAY_INTERVALS intervals, ascending and disjoint wherever not empty: one open to the
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


def _numeric(atom: Expr, facts: Facts) -> Interval:
    """The range of an atom that cannot be solved, where it has one (``j % 4`` has)."""
    return enclose(atom, {part: (None, None) for part in postorder(atom) if isinstance(part, Index)}, facts)


def _cut(region: Region) -> Region:
    return region[:_REGION_INTERVALS]

"""What intervals over indices cannot say of a mask, made once a call as small tables: spans and lists of tiles.

A condition on tensors that splits into a side of the query and a side of the key (``ids[b, i] == ids[b, j]``,
``t[b, j]``) becomes a span: from the least and greatest value of every tile follow, for each tile of one side, the rows
of the other between which the condition may hold, and between which it does. To the algebra of intervals a span is
four Symbols, so that it intersects and unites with everything else. O(N + M) a call.

A block that a table draws or lists is no interval. Where no table holds, the mask leaves what intervals visit anyway;
where one does, the pair lies in a tile that its blocks touch, and in the intervals of the mask with every table true,
which cut the list. Together they hold every live pair. Under ``not`` a table may hold anywhere. A listed tile that
one table fills is full where the mask needs nothing else than that table. O(live tiles) a call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attnc.codegen import build
from attnc.codegen.bounds import Bounds, Region, key_bounds, query_bounds
from attnc.codegen.integers import Affine, comparison, to_expr
from attnc.codegen.residue import Residue
from attnc.codegen.simplify import simplify
from attnc.dsl.ir import Apply, Const, Expr, Fn, Index, Kind, Load, Side, Symbol, dependencies, postorder

ENDS = ("lo", "hi", "from", "to")  # outside [lo, hi) it holds for no pair of the two tiles, inside [from, to) for all


@dataclass(frozen=True, kw_only=True)
class Span:
    """``column <= row``, or ``column == row`` where ``equal``: what tensors say at a key and at a query, as INTs over
    (b, h, j) and (b, h, i). ``ends``: rows of the other side, by ENDS, for one tile of this side."""

    equal: bool
    row: Expr
    column: Expr

    @property
    def ends(self) -> tuple[Symbol, ...]:
        digest = f"{'==' if self.equal else '<='} {(self.row.digest + self.column.digest).hex()}"
        return tuple(Symbol(kind=Kind.INT, name=f"span {digest} {end}") for end in ENDS)


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A table of blocks: ``drawn`` holds the numbers of key blocks of each block of query positions, the other kind is
    boolean, [B or 1, H or 1, blocks of query rows, blocks of key rows]."""

    tensor: str
    block: int
    drawn: bool


@dataclass(frozen=True, kw_only=True)
class Visits:
    """What one direction visits: tiles of intervals, and listed tiles as far as ``cut``, also intervals, reaches.
    ``sure``: where the pairs that each listing holds are live, whatever else there is."""

    bounds: Bounds
    cut: Region
    sure: tuple[Region, ...]

    @property
    def regions(self) -> tuple[Region, ...]:
        return self.bounds.may, self.bounds.must, self.cut, *self.sure


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What a pass visits by tiles of queries (``keys``) and by tiles of keys (``queries``), and what that takes."""

    keys: Visits
    queries: Visits
    spans: tuple[Span, ...]
    listings: tuple[Listing, ...]


def reach(some: Expr, every: Expr, drawn: Mapping[str, int], length: Expr, residue: Residue | None) -> Reach:
    """What a pass visits whose pairs are live in some map where ``some`` holds, in all where ``every`` does.
    ``drawn``: the blocks of drawn tables. ``length``: how many keys there are. Tiles of a residue class are no
    neighbours: they go by intervals alone."""
    reader = _Reader(drawn, residue is None)

    def visits(side: Side) -> Visits:
        whole, alone, full, *sure = (
            key_bounds(mask, length) if side is Side.KEY else query_bounds(mask)
            for mask in reader.read(some, every, side)
        )
        bounds = Bounds(first=whole.first, last=whole.last, may=alone.may, must=full.must)
        return Visits(bounds=bounds, cut=whole.may, sure=tuple(item.must for item in sure))

    keys, queries = visits(Side.KEY), visits(Side.QUERY)
    regions = [region for item in (keys, queries) for region in item.regions]
    used = set(postorder(*(end for region in regions for interval in region for end in interval if end is not None)))
    spans = dict.fromkeys(span for end, span in reader.spans.items() if end in used)
    # Nothing is listed where intervals visit all that lists could hold.
    listed = any(item.bounds.may != item.cut for item in (keys, queries))
    return Reach(keys=keys, queries=queries, spans=tuple(spans), listings=tuple(reader.listings) if listed else ())


class _Reader:
    """A mask as conditions over indices alone: spans as Symbols, tables as true or false."""

    def __init__(self, drawn: Mapping[str, int], tensors: bool) -> None:
        self.drawn = drawn
        self.tensors = tensors
        self.spans: dict[Expr, Span] = {}
        self.listings: dict[Listing, None] = {}

    def read(self, some: Expr, every: Expr, side: Side) -> tuple[Expr, ...]:
        """Conditions that hold wherever ``some`` does; wherever it does and no table holds; only where ``every`` does;
        and, for each listing, only where ``every`` does if the pair is listed there. ``side``: whose rows they are
        about."""
        found = (
            self._split(some, side, build.TRUE)[0],
            self._split(some, side, build.FALSE)[0],
            self._split(every, side, build.TRUE)[1],
        )
        return *found, *(self._split(every, side, build.TRUE, listing)[1] for listing in tuple(self.listings))

    def _split(self, mask: Expr, side: Side, table: Expr, sure: Listing | None = None) -> tuple[Expr, Expr]:
        """(over, under): what holds wherever the mask does, and only where it does. ``table``: what ``over`` takes a
        table for; ``sure``: the one that holds, elsewhere none is sure to."""
        known: dict[Expr, tuple[Expr, Expr]] = {}
        for node in postorder(mask):
            if node.kind is not Kind.BOOL:
                continue
            match node:
                case Apply(fn=Fn.NOT, args=(x,)):
                    known[node] = _negated(known[x])
                case Apply(fn=Fn.AND | Fn.OR as fn, args=(x, y)):
                    known[node] = build.apply(fn, known[x][0], known[y][0]), build.apply(fn, known[x][1], known[y][1])
                case Apply(fn=Fn.WHERE, args=(c, x, y)):
                    known[node] = _chosen(known[c], known[x], known[y])
                case Apply(fn=Fn.EQ | Fn.NE as fn, args=(x, y)) if x.kind is Kind.BOOL:
                    same, other = known[y], _negated(known[y])
                    known[node] = _chosen(known[x], *((same, other) if fn is Fn.EQ else (other, same)))
                case Apply(fn=Fn.NE, args=(x, y)):
                    known[node] = _negated(self._condition(build.eq(x, y), side, table, sure))
                case _:
                    known[node] = self._condition(node, side, table, sure)
        return known[mask]

    def _condition(self, node: Expr, side: Side, table: Expr, sure: Listing | None) -> tuple[Expr, Expr]:
        reads = [part for part in postorder(node) if isinstance(part, Load) and dependencies(part) & {"i", "j"}]
        if not reads or not self.tensors:
            return node, node
        listing = _listing(node, self.drawn)
        if listing is not None:
            self.listings[listing] = None
            return table, build.TRUE if listing == sure else build.FALSE
        span = None if any(part.tensor in self.drawn for part in reads) else _span(node)
        if span is None:
            return node, node
        self.spans |= dict.fromkeys(span.ends, span)
        row = build.sub(build.index("j" if side is Side.KEY else "i"), build.offset(side))
        lo, hi, start, stop = span.ends
        return _within(row, lo, hi), _within(row, start, stop)


def _within(row: Expr, low: Expr, high: Expr) -> Expr:
    return build.apply(Fn.AND, build.le(low, row), build.lt(row, high))


def _negated(x: tuple[Expr, Expr]) -> tuple[Expr, Expr]:
    over, under = x
    return build.not_(under), build.not_(over)


def _chosen(c: tuple[Expr, Expr], x: tuple[Expr, Expr], y: tuple[Expr, Expr]) -> tuple[Expr, Expr]:
    """``where(c, x, y)``: as ``c and x or not c and y`` where it is not exact."""
    if all(over == under for over, under in (c, x, y)):
        exact = build.where(c[0], x[0], y[0])
        return exact, exact
    other = _negated(c)
    over, under = (
        build.apply(Fn.OR, build.apply(Fn.AND, c[part], x[part]), build.apply(Fn.AND, other[part], y[part]))
        for part in (0, 1)
    )
    return over, under


def _span(node: Expr) -> Span | None:
    """A condition that reads tensors over i or j, as a span; None where its sides do not come apart."""
    sides = dependencies(node) & {"i", "j"}
    compared = comparison(node)
    if compared is not None:
        fn, form = compared
        columns = tuple(term for term in form.terms if "j" in dependencies(term[0]))
        if any("i" in dependencies(atom) for atom, _ in columns):
            return None
        rows = tuple(term for term in form.terms if term not in columns)
        sign = -1 if fn is Fn.EQ and columns and columns[0][1] < 0 else 1
        column = to_expr(Affine(terms=columns, const=0).scaled(sign))
        row = to_expr(Affine(terms=rows, const=form.const).scaled(-sign))
        return Span(equal=fn is Fn.EQ, row=row, column=column)
    if sides == {"j"}:
        return Span(equal=False, row=build.const(0), column=build.where(node, 0, 1))
    if sides == {"i"}:
        return Span(equal=False, row=build.where(node, 1, 0), column=build.const(1))
    return None


def _listing(node: Expr, drawn: Mapping[str, int]) -> Listing | None:
    """A read of a boolean table by blocks of rows, or a drawn number that is the key's block; None for others."""
    if isinstance(node, Load):
        if node.kind is not Kind.BOOL or len(node.index) != 4:
            return None
        *lead, row, column = node.index
        found = _block(row, "i", Side.QUERY), _block(column, "j", Side.KEY)
        if lead != [build.index("b"), build.index("h")] or found[0] is None or found[0] != found[1]:
            return None
        return Listing(tensor=node.tensor, block=found[0], drawn=False)
    compared = comparison(node)
    if compared is None or compared[0] is not Fn.EQ or compared[1].const:
        return None
    match dict(compared[1].terms), [*(atom for atom, _ in compared[1].terms if isinstance(atom, Load))]:
        case terms, [read] if read.tensor in drawn and len(terms) == 2:
            block = drawn[read.tensor]
            (column,) = simplify((build.floordiv(build.index("j"), block),))
            if terms.get(column) == -terms[read] and abs(terms[read]) == 1:
                return Listing(tensor=read.tensor, block=block, drawn=True)
    return None


def _block(at: Expr, axis: str, side: Side) -> int | None:
    """n of ``(index - offset) // n``."""
    n = 1
    match at:
        case Apply(fn=Fn.FLOORDIV, args=(inner, Const(value=int(value)))):
            at, n = inner, value
    match at:
        case Apply(fn=Fn.SUB, args=(Index(axis=found), start)) if found == axis and start == build.offset(side):
            return n
    return None


__all__ = ["ENDS", "Listing", "Reach", "Span", "Visits", "reach"]

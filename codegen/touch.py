"""Pieces over numbers: which tiles hold a pair of a piece, as runs of tiles, for all rows of tiles at once.

Rows of tiles are cut into strips of consecutive outer positions, few where the algebra is exact for any rows, and as
many as rows satisfy what (``rows``), as blocks a table has, or as rows there are where nothing less is exact. A strip
sees intervals of inner positions; an interval touches a run of tiles. Nothing is ever made for a pair of positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from attnc.codegen.arrays import Array, Reads, complete, drawn, evaluate
from attnc.codegen.build import index
from attnc.codegen.project import Arc, Limit, Piece, Step
from attnc.codegen.tell import tell
from attnc.dsl.ir import Apply, Axis, Drawn, Expr, Fn, Listed, Load, Symbol, dependencies, postorder

WORK = 2**22  # strips or intervals held at once; what would need more is left out, and the map is not sure


@dataclass(frozen=True, kw_only=True)
class Side:
    """Positions of one axis, cut into tiles: start, start + 1, ... (count of them), ``block`` to a tile."""

    axis: Axis
    start: int
    count: int
    block: int

    @property
    def tiles(self) -> int:
        return -(-self.count // self.block)

    @property
    def positions(self) -> Array:
        return np.arange(self.start, self.start + self.count, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Disjoint runs of tiles, inclusive, in the order of rows: a tile is row * width + column, with at least one
    column between rows that is no tile."""

    first: Array
    last: Array


def united(runs: Iterable[tuple[Array, Array]]) -> Runs:
    """The union of runs that overlap, touch, or stand in any order."""
    parts = list(runs)
    first = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0, dtype=np.int64)
    last = np.concatenate([part[1] for part in parts]) if parts else np.zeros(0, dtype=np.int64)
    if len(first) > 1:
        if not (first[1:] >= first[:-1]).all():
            order = np.argsort(first, kind="stable")
            first, last = first[order], last[order]
        last = np.maximum.accumulate(last)
        begins = np.concatenate(([True], first[1:] > last[:-1] + 1))
        first, last = first[begins], last[np.concatenate((begins[1:], [True]))]
    return Runs(first=first, last=last)


def overlaid(layers: Sequence[Runs]) -> tuple[Array, Array, list[Array]]:
    """Several unions of runs cut at each other's ends: the first and last tile of each part, and for each layer
    whether it holds the part. Parts that none holds may be among them."""
    edges = np.concatenate([edge for runs in layers for edge in (runs.first, runs.last + 1)])
    change = np.concatenate(
        [
            np.full(len(runs.first), sign << 8 * place, dtype=np.int64)
            for place, runs in enumerate(layers)
            for sign in (1, -1)
        ]
    )
    order = np.argsort(edges, kind="stable")
    edges, held = edges[order], np.cumsum(change[order])
    final = np.concatenate((edges[1:] != edges[:-1], [True]))[: len(edges)]
    edges, held = edges[final], held[final]
    inside = [(held >> 8 * place & 1).astype(bool) for place in range(len(layers))]
    return edges[:-1], edges[1:] - 1, [layer[:-1] for layer in inside]


@dataclass(frozen=True, kw_only=True)
class _Sets:
    """For each label, sorted disjoint intervals of inner positions, inclusive: those of label x stand at
    begin[x]..begin[x + 1]."""

    begin: Array
    low: Array
    high: Array


@dataclass(frozen=True, kw_only=True)
class _Strips:
    """Outer positions first..last of a row of tiles, and the inner positions low..high that they may see."""

    row: Array
    first: Array
    last: Array
    low: Array
    high: Array

    def __len__(self) -> int:
        return len(self.row)

    def take(self, which: Array) -> _Strips:
        return _Strips(**{name: value[which] for name, value in vars(self).items()})

    def within(self, low: Array, high: Array) -> _Strips:
        """Narrowed to low..high; strips that see nothing are gone."""
        low, high = np.maximum(self.low, low), np.minimum(self.high, high)
        kept = low <= high
        every = bool(kept.all())
        narrowed = _Strips(row=self.row, first=self.first, last=self.last, low=low, high=high)
        return narrowed if every else narrowed.take(kept)


@dataclass(kw_only=True)
class Grid:
    """Rows of tiles of one (b, h): outer and inner side, the values of what else expressions name."""

    outer: Side
    inner: Side
    first: Symbol
    last: Symbol
    leaves: Mapping[Expr, Array | int]
    reads: Reads
    tables: dict[Expr, tuple[Array, _Sets] | None] = field(default_factory=dict)
    known: dict[Axis, dict[Expr, Array]] = field(default_factory=dict)
    directions: dict[tuple[Expr, Axis], int] = field(default_factory=dict)

    @property
    def width(self) -> int:
        return self.inner.tiles + 1

    def touched(self, piece: Piece) -> tuple[Array, Array, tuple[str, ...]]:
        """Runs of tiles (inclusive, as in Runs) that cover every tile with a pair of the piece, and why not all of
        them may hold one; nothing if they do."""
        why = [f"no interval follows from {tell(positive(condition))}" for condition in piece.opaque]
        strips, reason = self._strips(piece)
        why += reason
        if piece.when:
            values = self._of_tiles(piece.when, strips)
            kept = np.ones(len(strips), dtype=bool)
            for value in values:
                kept &= value
            strips = strips.take(kept)
        ends = self._of_tiles((*piece.lows, *piece.highs), strips)
        low, high = strips.low, strips.high
        for value in ends[: len(piece.lows)]:
            low = np.maximum(low, value)
        for value in ends[len(piece.lows) :]:
            high = np.minimum(high, value)
        strips = strips.within(low, high)
        for limit in piece.limits:
            strips, reason = self._limited(strips, limit)
            why += reason
        for step in piece.steps:
            strips = self._stepped(strips, step)
        for node, wanted in piece.tables:
            strips, reason = self._in_table(strips, node, wanted)
            why += reason
        arcs = sorted(piece.arcs, key=lambda arc: arc.modulus)
        while arcs:
            arc = arcs.pop()
            strips, reason = self._in_arc(strips, arc, last=not arcs and not piece.columns)
            why += reason
        if piece.columns:
            strips = self._in_columns(strips, piece.columns)
        first = strips.row * self.width + (strips.low - self.inner.start) // self.inner.block
        last = strips.row * self.width + (strips.high - self.inner.start) // self.inner.block
        return first, last, tuple(why)

    # --- strips --------------------------------------------------------------------------------

    def _strips(self, piece: Piece) -> tuple[_Strips, Sequence[str]]:
        """The rows of tiles as strips that a piece is exact for, and why it is not."""
        outer, block = self.outer, self.outer.block
        why, single = self._steps(piece)
        cuts: list[Array] = []
        for node, _ in piece.tables:
            found = self._table(node)
            if found is not None:
                cuts.append(found[0])
        if single and outer.count > WORK:
            why, single = [*why, "its conditions are joined row by row, and there are too many rows"], False
        close = bool(piece.arcs or piece.steps or (piece.lower and piece.upper))
        live = self._all(piece.rows, outer)
        if live is None and not cuts and not single:
            rows = np.arange(outer.tiles, dtype=np.int64)
            first = outer.start + rows * block
            last = np.minimum(first + block, outer.start + outer.count) - 1
        elif live is not None and not cuts and not single and not close:  # only the outermost rows matter
            at = np.flatnonzero(live)
            rows, begins = np.unique(at // block, return_index=True)
            first = outer.start + at[begins]
            last = outer.start + at[np.concatenate((begins[1:], [len(at)]))[: len(begins)] - 1]
        else:
            at = np.arange(outer.count, dtype=np.int64) if live is None else np.flatnonzero(live)
            begins = np.ones(len(at), dtype=bool)
            if not single:
                begins[1:] = (np.diff(at) != 1) | (at[1:] % block == 0)
                for labels in cuts:
                    begins[1:] |= labels[at[1:]] != labels[at[:-1]]
            starts = np.flatnonzero(begins)
            ends = np.concatenate((starts[1:], [len(at)]))[: len(starts)] - 1
            rows, first, last = at[starts] // block, outer.start + at[starts], outer.start + at[ends]
        low = np.full(len(rows), self.inner.start, dtype=np.int64)
        high = np.full(len(rows), self.inner.start + self.inner.count - 1, dtype=np.int64)
        return _Strips(row=rows, first=first, last=last, low=low, high=high), why

    def _of_tiles(self, roots: Sequence[Expr], strips: _Strips) -> list[Array]:
        return evaluate(roots, {**self.leaves, self.first: strips.first, self.last: strips.last}, self.reads)

    def _along(self, root: Expr, side: Side) -> Array:
        """The values of an expression at every position of a side."""
        known = self.known.setdefault(
            side.axis,
            {**{leaf: np.asarray(value) for leaf, value in self.leaves.items()}, index(side.axis): side.positions},
        )
        complete((root,), known, self.reads)
        return np.broadcast_to(known[root], (side.count,))

    def _direction(self, root: Expr, side: Side) -> int:
        """1 for values that never fall along a side, -1 for those that never rise, 0 for others."""
        found = self.directions.get((root, side.axis))
        if found is None:
            values = self._along(root, side)
            rises, falls = (values[1:] >= values[:-1]).all(), (values[1:] <= values[:-1]).all()
            found = self.directions[root, side.axis] = 1 if rises else -1 if falls else 0
        return found

    def _all(self, conditions: Sequence[Expr], side: Side) -> Array | None:
        """Where all conditions of one position hold; None for none."""
        if not conditions:
            return None
        return np.asarray(np.logical_and.reduce([self._along(condition, side) for condition in conditions]))

    # --- comparisons that are not solved -----------------------------------------------------------

    def _steps(self, piece: Piece) -> tuple[Sequence[str], bool]:
        """Why a piece's steps cannot be told exactly, if so, and whether it takes one row at a time."""
        if not piece.steps:
            return [], piece.single
        why = [_unsorted(step.inner) for step in piece.steps if not self._direction(step.inner, self.inner)]
        if why or piece.single or piece.arcs:
            return why, piece.single or not why
        directions = [self._direction(step.outer, self.outer) for step in piece.steps]
        if len(directions) == 1 and not piece.lower and not piece.upper:
            return [], False
        if all(directions) and not ((piece.lower or min(directions) < 0) and (piece.upper or max(directions) > 0)):
            return [], False  # bounds of one side only
        start = min(self.outer.start, self.inner.start)
        stop = max(self.outer.start + self.outer.count, self.inner.start + self.inner.count)
        if not piece.own or stop - start > 4 * (self.outer.count + self.inner.count):
            return [], True
        both = Side(axis=self.outer.axis, start=start, count=stop - start, block=self.outer.block)
        grid = self if both == self.outer else replace(self, outer=both, known={}, directions={})
        return [], not all(step.own and grid._direction(step.outer, both) for step in piece.steps)

    def _stepped(self, strips: _Strips, step: Step) -> _Strips:
        """Where ``outer + inner <= 0`` for some outer position of the strip: from the first inner position to the
        last that is small enough."""
        if not len(strips):
            return strips
        values = self._along(step.outer, self.outer)
        begin, end = strips.first - self.outer.start, strips.last - self.outer.start
        if self._direction(step.outer, self.outer):
            least = np.minimum(values[begin], values[end])
        else:
            padded = np.append(values, values[-1:])
            least = np.minimum.reduceat(padded, np.stack((begin, end + 1), axis=1).reshape(-1))[::2]
        return self._below(strips, -least, step.inner)

    def _limited(self, strips: _Strips, limit: Limit) -> tuple[_Strips, Sequence[str]]:
        """Where ``tile + inner <= 0``, and why that is not all of an interval."""
        (value,) = self._of_tiles((limit.tile,), strips)
        why = () if self._direction(limit.inner, self.inner) else (_unsorted(limit.inner),)
        return self._below(strips, -value, limit.inner), why

    def _below(self, strips: _Strips, limit: Array, inner: Expr) -> _Strips:
        """From the first inner position whose value is at most the strip's limit to the last."""
        across, direction = self._along(inner, self.inner), self._direction(inner, self.inner)
        low, high = np.asarray(self.inner.start), np.asarray(self.inner.start + self.inner.count - 1)
        if direction <= 0:
            falling = across if direction else np.minimum.accumulate(across)
            low = np.asarray(high + 1 - np.searchsorted(falling[::-1], limit, side="right"))
        if direction >= 0:
            rising = across if direction else np.minimum.accumulate(across[::-1])[::-1]
            high = np.asarray(self.inner.start + np.searchsorted(rising, limit, side="right") - 1)
        return strips.within(low, high)

    # --- sets of inner positions ---------------------------------------------------------------------

    def _in_columns(self, strips: _Strips, conditions: Sequence[Expr]) -> _Strips:
        """Narrowed to runs of tiles that hold an inner position of the conditions."""
        live = self._all(conditions, self.inner)
        assert live is not None
        at = np.flatnonzero(live)
        if not len(at):
            return strips.take(np.zeros(len(strips), dtype=bool))
        start, block = self.inner.start, self.inner.block
        next_at, last_at = (
            np.searchsorted(at, strips.low - start),
            np.searchsorted(at, strips.high - start, "right") - 1,
        )
        kept = next_at <= last_at
        strips, next_at, last_at = strips.take(kept), next_at[kept], last_at[kept]
        strips = _Strips(
            row=strips.row, first=strips.first, last=strips.last, low=start + at[next_at], high=start + at[last_at]
        )
        tiles = np.unique(at // block)
        begins = np.flatnonzero(np.diff(tiles, prepend=-2) != 1)
        ends = np.append(begins[1:], len(tiles)) - 1
        sets = _Sets(
            begin=np.array([0, len(begins)]),
            low=start + tiles[begins] * block,
            high=start + tiles[ends] * block + block - 1,
        )
        return self._in_sets(strips, sets, np.zeros(len(strips), dtype=np.int64))

    def _in_sets(self, strips: _Strips, sets: _Sets, label: Array) -> _Strips:
        """Each strip as one for each interval of its label's that it meets."""
        begin, end = sets.begin[label], sets.begin[label + 1]
        if len(sets.begin) == 2:  # one label: only what overlaps is looked at
            begin = np.searchsorted(sets.high, strips.low)
            end = np.searchsorted(sets.low, strips.high, side="right")
        count = np.maximum(end - begin, 0)
        which, place = _spread(begin, count)
        return strips.take(which).within(sets.low[place], sets.high[place])

    def _in_arc(self, strips: _Strips, arc: Arc, *, last: bool) -> tuple[_Strips, Sequence[str]]:
        """Narrowed to a residue class. ``last``: nothing else narrows, so that gaps shorter than a tile are none."""
        start, width = self._of_tiles((arc.start, arc.width), strips)
        start, width = np.broadcast_to(start, strips.row.shape), np.broadcast_to(width, strips.row.shape)
        width = np.minimum(width, arc.modulus - 1)
        past = (strips.low - start) % arc.modulus
        low = strips.low + np.where(past <= width, 0, arc.modulus - past)
        high = strips.high - np.maximum((strips.high - start) % arc.modulus - width, 0)
        kept = (low <= high) & (width >= 0)
        strips = _Strips(row=strips.row, first=strips.first, last=strips.last, low=low, high=high).take(kept)
        start, width = start[kept], width[kept]
        whole = width >= arc.modulus - 1
        if last:
            whole |= arc.modulus - width <= self.inner.block
        count = np.where(whole, 1, (strips.high - start) // arc.modulus - (strips.low - start) // arc.modulus + 1)
        if int(count.sum()) > WORK:
            return strips, (f"residue classes modulo {arc.modulus} meet others too often to be listed",)
        if (count == 1).all():
            return strips, ()
        begin = start + (strips.low - start) // arc.modulus * arc.modulus
        which, turn = _spread(np.zeros(len(strips), dtype=np.int64), count)
        begin = begin[which] + turn * arc.modulus
        narrowed = strips.take(which)
        free = whole[which]
        low = np.where(free, narrowed.low, begin)
        return narrowed.within(low, np.where(free, narrowed.high, begin + width[which])), ()

    # --- tables ------------------------------------------------------------------------------------

    def _in_table(self, strips: _Strips, node: Expr, value: bool) -> tuple[_Strips, Sequence[str]]:
        found = self._table(node)
        if found is None:
            return strips, (f"{tell(node)} has too many entries",)
        labels, sets = found
        label = labels[strips.first - self.outer.start] if len(strips) else np.zeros(0, dtype=np.int64)
        if not value:
            sets = _complement(sets, self.inner)
        if int((sets.begin[label + 1] - sets.begin[label]).sum()) > WORK:
            return strips, (f"{tell(node)} has too many entries",)
        return self._in_sets(strips, sets, label), ()

    def _table(self, node: Expr) -> tuple[Array, _Sets] | None:
        """The label of each outer position, and what each label sees; None where that is too much."""
        if node not in self.tables:
            self.tables[node] = self._read_table(node)
        return self.tables[node]

    def _read_table(self, node: Expr) -> tuple[Array, _Sets] | None:
        sides = (self.outer, self.inner)
        if isinstance(node, Load):
            parts = [[at for at in node.index if side.axis in dependencies(at)] for side in sides]
            labels, outer_runs = self._blocks(parts[0], self.outer)
            _, inner_runs = self._blocks(parts[1], self.inner)
            if len(outer_runs) * len(inner_runs) > WORK:
                return None
            places: dict[Expr, Array | int] = {
                index(self.outer.axis): (self.outer.start + outer_runs)[:, None],
                index(self.inner.axis): (self.inner.start + inner_runs)[None, :],
            }
            (live,) = evaluate((node,), {**self.leaves, **places}, self.reads)
            label, column = np.nonzero(np.broadcast_to(live, (len(outer_runs), len(inner_runs))))
            ends = np.append(inner_runs[1:], self.inner.count) - 1
            return labels, _sets(label, inner_runs[column], ends[column], len(outer_runs), self.inner)
        assert isinstance(node, Drawn | Listed)
        side, across = sides if self.outer.axis in dependencies(node.row) else sides[::-1]
        row_labels, row_runs = self._blocks([node.row], side)
        column_labels, column_runs = self._blocks([node.column], across)
        row = self._along(node.row, side)[row_runs] if len(row_runs) else row_runs
        column = self._along(node.column, across)[column_runs] if len(column_runs) else column_runs
        slots = self._slots(node, row)
        order = np.argsort(column, kind="stable")
        begin, end = np.searchsorted(column[order], slots), np.searchsorted(column[order], slots, side="right")
        count = np.where(slots >= 0, end - begin, 0).reshape(-1)
        if int(count.sum()) > WORK:
            return None
        which, place = _spread(begin.reshape(-1), count)
        at_row, at_column = which // max(slots.shape[-1], 1), order[place]
        row_ends, column_ends = (
            np.append(runs[1:], s.count) - 1 for runs, s in ((row_runs, side), (column_runs, across))
        )
        if side is self.outer:
            return row_labels, _sets(at_row, column_runs[at_column], column_ends[at_column], len(row_runs), self.inner)
        return column_labels, _sets(at_column, row_runs[at_row], row_ends[at_row], len(column_runs), self.inner)

    def _slots(self, node: Drawn | Listed, row: Array) -> Array:
        """The columns that each row lists: [rows, slots]."""
        if isinstance(node, Listed):
            tensor = self.reads.tensors[node.tensor]
            b, h = (int(np.asarray(self.leaves[index(axis)])) for axis in ("b", "h"))
            table = tensor[min(b, tensor.shape[0] - 1), min(h, tensor.shape[1] - 1)]
            return np.asarray(table[np.clip(row, 0, len(table) - 1)], dtype=np.int64)
        head, *fixed = evaluate((node.head, node.seed, node.count, node.blocks), self.leaves, self.reads)
        return drawn([int(value) for value in fixed], np.broadcast_to(head, row.shape), row, self.reads)

    def _blocks(self, indices: Sequence[Expr], side: Side) -> tuple[Array, Array]:
        """Runs of positions at which all indices stay the same: the run of each position, the first of each run."""
        changes = np.zeros(side.count, dtype=bool)
        changes[:1] = True
        for at in indices:
            value = self._along(at, side)
            changes[1:] |= value[1:] != value[:-1]
        return np.cumsum(changes) - 1, np.flatnonzero(changes)


def _sets(label: Array, low: Array, high: Array, labels: int, inner: Side) -> _Sets:
    """Intervals of rows of ``inner``, in any order and repeated, by label."""
    order = np.lexsort((low, label))
    label, low, high = label[order], low[order], high[order]
    if len(label):
        new = np.concatenate(([True], (label[1:] != label[:-1]) | (low[1:] != low[:-1])))
        label, low, high = label[new], low[new], high[new]
    begin = np.searchsorted(label, np.arange(labels + 1))
    return _Sets(begin=begin, low=inner.start + low, high=inner.start + high)


def _complement(sets: _Sets, inner: Side) -> _Sets:
    """What lies between the intervals of each label, and before and after them."""
    labels = len(sets.begin) - 1
    count = np.diff(sets.begin)
    label = np.repeat(np.arange(labels), count)
    at = np.arange(len(sets.low)) + label
    low = np.full(len(sets.low) + labels, inner.start, dtype=np.int64)
    high = np.full(len(sets.low) + labels, inner.start + inner.count - 1, dtype=np.int64)
    low[at + 1] = sets.high + 1
    high[at] = sets.low - 1
    return _Sets(begin=sets.begin + np.arange(labels + 1), low=low, high=high)


def _spread(begin: Array, count: Array) -> tuple[Array, Array]:
    """For each x, count[x] times: x, and begin[x], begin[x] + 1, ..."""
    which = np.repeat(np.arange(len(count)), count)
    place = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    return which, begin[which] + place


def positive(condition: Expr) -> Expr:
    """What a negated condition denies, for one reason names both."""
    return condition.args[0] if isinstance(condition, Apply) and condition.fn is Fn.NOT else condition


def _unsorted(node: Expr) -> str:
    read = dict.fromkeys(part.tensor for part in postorder(node) if isinstance(part, Load))
    return f"{', '.join(read) or tell(node)} neither only rises nor only falls with the position"

"""What algebra leaves open, decided by bisection: rectangles of pairs, all at once, by interval arithmetic.

A rectangle on which the mask is surely true, or surely false, is decided; so is a tile with one live and one dead
pair. Every other rectangle is cut in half along its longer side. A mask of few intervals costs its boundary; one that
alternates from pair to pair is soon seen to hold both. The work is bounded: what it does not decide stays partial.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from attnc.codegen.arrays import Array, Reads, value_of
from attnc.codegen.build import index
from attnc.codegen.project import rounded
from attnc.dsl.ir import Apply, Const, Drawn, Expr, Fn, Kind, Listed, children, postorder

RECTANGLES = 2**18  # looked at for one map of one (b, h)
_AT_ONCE = 2**12  # tiles
_HUGE = 2**61
_MIRRORED = {Fn.GT: Fn.LT, Fn.GE: Fn.LE}


@dataclass(frozen=True, kw_only=True)
class Rectangles:
    """Pairs (i, j) with i0 <= i <= i1 and j0 <= j <= j1, each a part of the tile numbered ``tile``."""

    tile: Array
    i0: Array
    i1: Array
    j0: Array
    j1: Array

    def __len__(self) -> int:
        return len(self.tile)

    def take(self, which: Array) -> Rectangles:
        return Rectangles(**{name: value[which] for name, value in vars(self).items()})

    def corners(self) -> Rectangles:
        """Four rectangles of one pair for each."""
        i = np.concatenate((self.i0, self.i0, self.i1, self.i1))
        j = np.concatenate((self.j0, self.j1, self.j0, self.j1))
        return Rectangles(tile=np.tile(self.tile, 4), i0=i, i1=i, j0=j, j1=j)

    def halves(self) -> Rectangles:
        by_rows = self.i1 - self.i0 >= self.j1 - self.j0
        i, j = (self.i0 + self.i1) // 2, (self.j0 + self.j1) // 2
        return Rectangles(
            tile=np.concatenate((self.tile, self.tile)),
            i0=np.concatenate((self.i0, np.where(by_rows, i + 1, self.i0))),
            i1=np.concatenate((np.where(by_rows, i, self.i1), self.i1)),
            j0=np.concatenate((self.j0, np.where(by_rows, self.j0, j + 1))),
            j1=np.concatenate((np.where(by_rows, self.j1, j), self.j1)),
        )


def decide(
    mask: Expr, tiles: Rectangles, live: Array, dead: Array, leaves: Mapping[Expr, Array | int], reads: Reads
) -> Array:
    """Which of the tiles are decided; ``live`` and ``dead``, what is known of each to hold a live and a dead pair, are
    completed in place."""
    decided = np.zeros(len(tiles), dtype=bool)
    budget = RECTANGLES
    for start in range(0, len(tiles), _AT_ONCE):
        part = tiles.take(slice(start, start + _AT_ONCE))  # type: ignore[arg-type]  # a slice takes as well
        open_tiles = np.zeros(len(tiles), dtype=bool)
        while len(part) and budget >= 5 * len(part):
            budget -= 5 * len(part)
            may_live, may_dead = ternary(mask, part, leaves, reads)
            live[part.tile[~may_dead]] = True
            dead[part.tile[~may_live]] = True
            part = part.take(may_live & may_dead)
            corners = part.corners()
            may_live, may_dead = ternary(mask, corners, leaves, reads)
            live[corners.tile[~may_dead]] = True
            dead[corners.tile[~may_live]] = True
            part = part.take(~(live & dead)[part.tile])
            single = (part.i0 == part.i1) & (part.j0 == part.j1)
            open_tiles[part.tile[single]] = True
            part = part.take(~open_tiles[part.tile]).halves()
        open_tiles[part.tile] = True
        decided[start : start + _AT_ONCE] = ~open_tiles[start : start + _AT_ONCE]
        decided |= live & dead
        if budget < 5:
            break
    return decided


def ternary(mask: Expr, parts: Rectangles, leaves: Mapping[Expr, Array | int], reads: Reads) -> tuple[Array, Array]:
    """For each rectangle, whether some pair may be live, and whether some may be dead."""
    ranges = _Ranges(leaves, reads, {index("i"): (parts.i0, parts.i1), index("j"): (parts.j0, parts.j1)})
    low, high = ranges.of(mask)
    shape = parts.tile.shape
    return np.broadcast_to(high, shape).astype(bool), ~np.broadcast_to(low, shape).astype(bool)


class _Ranges:
    """The least and greatest value of every node; of a BOOL, False < True. Exact where the operands are single values;
    FLOATs are followed through functions that round alike everywhere, and NaN makes a comparison unknown."""

    def __init__(
        self, leaves: Mapping[Expr, Array | int], reads: Reads, boxes: Mapping[Expr, tuple[Array, Array]]
    ) -> None:
        self.leaves, self.reads = leaves, reads
        self.known = dict(boxes)

    def of(self, root: Expr) -> tuple[Array, Array]:
        with np.errstate(all="ignore"):
            for node in postorder(root):
                if node in self.known:
                    continue
                if node in self.leaves:
                    value = np.asarray(self.leaves[node])
                    self.known[node] = value, value
                else:
                    self.known[node] = self._range(node)
        return self.known[root]

    def _range(self, node: Expr) -> tuple[Array, Array]:
        ends = [self.known[child] for child in children(node)]
        if isinstance(node, Const):
            value = value_of(node, {}, self.reads)
            return value, value
        if isinstance(node, Apply) and rounded(node):
            return _unknown(node.kind)
        single = np.asarray(True)
        for low, high in ends:
            single = single & (low == high)
        low, high = _unknown(node.kind) if not isinstance(node, Apply) else _apply_range(node, ends)
        if not single.any():
            return low, high
        exact = self._exact(node, single)
        return np.where(single, exact, low), np.where(single, exact, high)

    def _exact(self, node: Expr, single: Array) -> Array:
        """The value where all operands are single values; anything elsewhere."""
        values = {child: self.known[child][0] for child in children(node)}
        if isinstance(node, Drawn):  # not drawn for rectangles that are larger
            values[node.row] = np.where(single, values[node.row], 0)
        if isinstance(node, Listed):
            values |= {leaf: np.asarray(self.leaves[leaf]) for leaf in (index("b"), index("h"))}
        return value_of(node, values, self.reads)


def _unknown(kind: Kind) -> tuple[Array, Array]:
    match kind:
        case Kind.BOOL:
            return np.asarray(False), np.asarray(True)
        case Kind.INT:
            return np.asarray(-_HUGE), np.asarray(_HUGE)
        case Kind.FLOAT:
            return np.asarray(np.nan, dtype=np.float32), np.asarray(np.nan, dtype=np.float32)


def _apply_range(node: Apply, ends: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    match node.fn, ends:
        case Fn.NOT, [(low, high)]:
            return ~high, ~low
        case (Fn.AND | Fn.OR) as fn, [(a, b), (c, d)]:
            return (a & c, b & d) if fn is Fn.AND else (a | c, b | d)
        case Fn.WHERE, [(a, b), (c, d), (e, f)]:
            return np.where(a, c, np.where(b, np.minimum(c, e), e)), np.where(a, d, np.where(b, np.maximum(d, f), f))
        case ((Fn.GT | Fn.GE), [x, y]):
            return _compared(_MIRRORED[node.fn], y, x)
        case ((Fn.EQ | Fn.NE | Fn.LT | Fn.LE), [x, y]):
            return _compared(node.fn, x, y)
        case _:
            low, high = _arithmetic(node, ends)
            if node.kind is not Kind.INT:
                return low, high
            return np.maximum(low, -_HUGE), np.minimum(high, _HUGE)


def _compared(fn: Fn, x: tuple[Array, Array], y: tuple[Array, Array]) -> tuple[Array, Array]:
    """NaN at an end: nothing is known."""
    (a, b), (c, d) = x, y
    match fn:
        case Fn.LT:
            low, high = b < c, a < d
        case Fn.LE:
            low, high = b <= c, a <= d
        case _:
            low, high = (a == b) & (c == d) & (a == c), (a <= d) & (c <= b)
            low, high = (low, high) if fn is Fn.EQ else (~high, ~low)
    nan = np.asarray(False)
    for end in (a, b, c, d):
        if end.dtype.kind == "f":
            nan = nan | np.isnan(end)
    return low & ~nan, high | nan


def _arithmetic(node: Apply, ends: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    fn, kind = node.fn, node.kind
    if kind is Kind.FLOAT:
        ends = [(low.astype(np.float32), high.astype(np.float32)) for low, high in ends]
    match fn, ends:
        case Fn.ADD, [(a, b), (c, d)]:
            return a + c, b + d
        case Fn.SUB, [(a, b), (c, d)]:
            return a - d, b - c
        case Fn.NEG, [(a, b)]:
            return -b, -a
        case Fn.FLOAT, [(a, b)]:
            return a, b
        case Fn.FLOOR, [(a, b)]:
            return np.floor(a), np.floor(b)
        case Fn.INT, [(a, b)]:
            whole = np.isfinite(a) & np.isfinite(b)
            low, high = np.trunc(np.where(whole, a, 0)), np.trunc(np.where(whole, b, 0))
            return np.where(whole, low.astype(np.int64), -_HUGE), np.where(whole, high.astype(np.int64), _HUGE)
        case Fn.MIN, [(a, b), (c, d)]:
            return np.minimum(a, c), np.minimum(b, d)
        case Fn.MAX, [(a, b), (c, d)]:
            return np.maximum(a, c), np.maximum(b, d)
        case Fn.CLAMP, [(a, b), (c, d), (e, f)]:
            return np.minimum(np.maximum(a, c), e), np.minimum(np.maximum(b, d), f)
        case Fn.RELU, [(a, b)]:
            return np.maximum(a, 0), np.maximum(b, 0)
        case Fn.ABS, [(a, b)]:
            return np.maximum(np.maximum(a, -b), 0), np.maximum(b, -a)
        case Fn.SIGN, [(a, b)]:
            return np.sign(a), np.sign(b)
        case Fn.MUL, [(a, b), (c, d)]:
            products = (a * c, a * d, b * c, b * d)
            low, high = np.minimum.reduce(products), np.maximum.reduce(products)
            if kind is Kind.FLOAT:
                return low, high
            reach = np.maximum(np.abs(a), np.abs(b)).astype(np.float64) * np.maximum(np.abs(c), np.abs(d))
            return np.where(reach < _HUGE, low, -_HUGE), np.where(reach < _HUGE, high, _HUGE)
        case Fn.FLOORDIV, [(a, b), (c, d)] if kind is Kind.INT:
            safe = (c > 0) | (d < 0)
            c, d = np.where(safe, c, 1), np.where(safe, d, 1)
            quotients = (a // c, a // d, b // c, b // d)
            most = np.maximum(np.abs(a), np.abs(b))
            low, high = np.minimum.reduce(quotients), np.maximum.reduce(quotients)
            return np.where(safe, low, -most), np.where(safe, high, most)
        case Fn.MOD, [(a, b), (c, d)] if kind is Kind.INT:
            safe = np.where((c == d) & (c > 0), c, 1)
            inside = (c == d) & (c > 0) & (a // safe == b // safe)
            low = np.where(c > 0, 0, np.minimum(np.minimum(c + 1, a), 0))
            high = np.where(c > 0, d - 1, np.maximum(np.maximum(d - 1, b), 0))
            return np.where(inside, a % safe, low), np.where(inside, b % safe, high)
        case _:
            return _unknown(kind)

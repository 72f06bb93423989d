"""The tile map: which tiles of queries and keys are empty, partial or full, without evaluating the mask over pairs.

A tile is empty if no pair of it is live, full if every pair that exists is. Both ask one question, of the mask and of
its negation: does the tile hold a pair? The mask is a union of cases (cases.py), each is projected to the inner
positions that a row of tiles sees (project.py), and the tiles that those touch are found for all rows at once
(touch.py). A tile that neither the algebra nor these numbers decide is decided by bisection (refine.py), as far as a
stated budget goes; beyond it is called partial, and the map is not exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from attnc.codegen.arrays import Array, Draw, Reads
from attnc.codegen.build import const, index, offset, size, symbol
from attnc.codegen.cases import cases
from attnc.codegen.project import Piece, project
from attnc.codegen.refine import RECTANGLES, Rectangles, decide
from attnc.codegen.simplify import simplify
from attnc.codegen.touch import Grid, Runs, Side, overlaid, united
from attnc.dsl.ir import Axis, Expr, Kind, dependencies, postorder, substitute
from attnc.dsl.ir import Side as Sequence

EMPTY, PARTIAL, FULL = 0, 1, 2

_ROWS = 1024  # rows of tiles mapped at once where nothing is made for a position: they fit a cache
_NO_TILES, _NO_KINDS = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int8)
_FIRST, _LAST = symbol("first", Kind.INT), symbol("last", Kind.INT)


class Counts(NamedTuple):
    """How many tiles of each kind, over batch and heads of the map."""

    empty: int
    partial: int
    full: int


@dataclass(frozen=True, kw_only=True)
class TileMap:
    """Runs of tiles of equal kind, row after row of tiles: memory O(live runs).

    ``block``: (BLOCK_M, BLOCK_N). ``lengths``: (N, M). ``shape``: (B or 1, H or 1, query tiles, key tiles), with the
    key tiles before the query tiles where ``transposed``. Row r of tiles (batch, head, row, flattened) has the runs
    offsets[r]..offsets[r + 1]: tiles starts[x]..stops[x] (exclusive) are of kind kinds[x], PARTIAL or FULL; all others
    are EMPTY. ``exact``: no tile called partial is empty or full. ``why``: what kept it from being so."""

    block: tuple[int, int]
    lengths: tuple[int, int]
    shape: tuple[int, int, int, int]
    transposed: bool
    exact: bool
    why: tuple[str, ...]
    offsets: Array
    starts: Array
    stops: Array
    kinds: Array

    def dense(self) -> Array:
        """int8 in the map's shape: 0 empty, 1 partial, 2 full."""
        lines, columns = self.shape[0] * self.shape[1] * self.shape[2], self.shape[3]
        change = np.zeros((lines, columns + 1), dtype=np.int8)
        line = np.repeat(np.arange(lines), np.diff(self.offsets))
        np.add.at(change, (line, self.starts), self.kinds)
        np.subtract.at(change, (line, self.stops), self.kinds)
        return np.cumsum(change, axis=1, dtype=np.int8)[:, :columns].reshape(self.shape)

    def counts(self) -> Counts:
        length = self.stops.astype(np.int64) - self.starts
        partial, full = (int(length[self.kinds == kind].sum()) for kind in (PARTIAL, FULL))
        total = self.shape[0] * self.shape[1] * self.shape[2] * self.shape[3]
        return Counts(empty=total - partial - full, partial=partial, full=full)


def tile_map(
    mask: Expr,
    N: int,
    M: int,
    block: tuple[int, int] = (128, 64),
    *,
    B: int = 1,
    H: int = 1,
    q_offset: int | Array | None = None,
    kv_offset: int = 0,
    inputs: Mapping[str, Any] | None = None,
    sizes: Mapping[str, int] | None = None,
    draw: Draw | None = None,
    transposed: bool = False,
) -> TileMap:
    """The map of a branch's mask. Tiles are cut from row 0 of the tensors. The analysis of a mask is kept; what is made
    for a call is O(rows of tiles + live runs), and O(N + M) where the mask reads tensors or joins residue classes.

    ``q_offset``: an int or int [B], by default M - N. ``inputs``: the tensors that the mask reads, as arrays.
    ``sizes``: what other sizes the mask names. ``draw``: how random blocks are drawn, (seed, head, row, count, blocks)
    -> int64 [rows, count]. ``transposed``: by rows of key tiles, as the gradients of keys and values run.
    Raises KeyError for an input that is missing, ValueError for lengths or blocks below 1."""
    if min(N, M, B, H) < 0 or min(block) < 1:
        raise ValueError(f"a tile map needs lengths of at least 0 and blocks of at least 1: {N}, {M}, {block}")
    offsets = np.atleast_1d(np.asarray(M - N if q_offset is None else q_offset, dtype=np.int64))
    tensors = {name: np.asarray(value) for name, value in (inputs or {}).items()}
    lengths = {"B": B, "H": H, "N": N, "M": M, **(sizes or {})}
    reads = Reads(tensors=tensors, draw=draw)
    plan = analyse(mask, "j" if transposed else "i")
    batches, heads = _leading(mask, B, H, len(offsets))
    step = _ROWS * block[transposed] if plan.closed else max(N, M)
    parts: list[_Lines] = []
    why: dict[str, None] = {}
    for b in range(batches):
        start = int(offsets[min(b, len(offsets) - 1)])
        queries = Side(axis="i", start=start, count=N, block=block[0])
        keys = Side(axis="j", start=kv_offset, count=M, block=block[1])
        outer, inner = (keys, queries) if transposed else (queries, keys)
        for h in range(heads):
            leaves: dict[Expr, Array | int] = {index("b"): b, index("h"): h}
            leaves |= {offset(Sequence.QUERY): start, offset(Sequence.KEY): kv_offset}
            leaves |= {size(name): value for name, value in lengths.items()}
            for at in range(0, outer.count, step):
                rows = replace(outer, start=outer.start + at, count=min(step, outer.count - at))
                grid = Grid(outer=rows, inner=inner, first=_FIRST, last=_LAST, leaves=leaves, reads=reads)
                parts.append(_lines(*_mapped(plan, grid, why), grid))
    tiles = (-(-M // block[1]), -(-N // block[0])) if transposed else (-(-N // block[0]), -(-M // block[1]))
    counts = np.concatenate([np.zeros(1, dtype=np.int64), *(part.counts for part in parts)])
    return TileMap(
        block=block,
        lengths=(N, M),
        shape=(batches, heads, *tiles),
        transposed=transposed,
        exact=not why,
        why=tuple(why),
        offsets=np.cumsum(counts, out=counts),
        starts=np.concatenate([_NO_TILES, *(part.starts for part in parts)]),
        stops=np.concatenate([_NO_TILES, *(part.stops for part in parts)]),
        kinds=np.concatenate([_NO_KINDS, *(part.kinds for part in parts)]),
    )


@dataclass(frozen=True, kw_only=True)
class _Lines:
    """Some rows of a TileMap: how many runs each has, and the runs."""

    counts: Array
    starts: Array
    stops: Array
    kinds: Array


def _lines(runs: Runs, kinds: Array, grid: Grid) -> _Lines:
    row = runs.first // grid.width
    return _Lines(
        counts=np.bincount(row, minlength=grid.outer.tiles),
        starts=(runs.first - row * grid.width).astype(np.int32),
        stops=(runs.last - row * grid.width + 1).astype(np.int32),
        kinds=kinds,
    )


def _leading(mask: Expr, B: int, H: int, offsets: int) -> tuple[int, int]:
    """Over how many batches and heads a mask varies."""
    query = offset(Sequence.QUERY)
    moving = offsets > 1 and not {query, index("i")}.isdisjoint(postorder(mask))
    found = dependencies(*substitute((mask,), {query: const(0)}))
    return B if moving or "b" in found else 1, H if "h" in found else 1


# --- the analysis, once a mask ------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A mask analysed for one direction: pieces of its live pairs and of those that are not."""

    mask: Expr
    live: tuple[Piece, ...]
    dead: tuple[Piece, ...]

    @property
    def opaque(self) -> tuple[Expr, ...]:
        """Conditions that algebra leaves open: tiles that hang on them are found by bisection, if at all."""
        return tuple(dict.fromkeys(condition for piece in (*self.live, *self.dead) for condition in piece.opaque))

    @property
    def closed(self) -> bool:
        """Whether nothing has to be looked at position by position."""
        return not any(
            piece.single or piece.rows or piece.columns or piece.tables or piece.steps or piece.limits
            for piece in (*self.live, *self.dead)
        )


@lru_cache(maxsize=256)
def analyse(mask: Expr, outer: Axis) -> Plan:
    """The pieces of a mask and of its negation, for rows of tiles along ``outer``."""
    (mask,) = simplify((mask,))
    inner: Axis = "j" if outer == "i" else "i"
    holds, fails = cases(mask)
    live, dead = (
        tuple(piece for case in found if (piece := project(case, outer, inner, _FIRST, _LAST)) is not None)
        for found in (holds, fails)
    )
    return Plan(mask=mask, live=live, dead=dead)


def _mapped(plan: Plan, grid: Grid, why: dict[str, None]) -> tuple[Runs, Array]:
    """Runs of live tiles of one (b, h) and the kind of each."""
    if not grid.inner.count:
        nothing = np.zeros(0, dtype=np.int64)
        return Runs(first=nothing, last=nothing), np.zeros(0, dtype=np.int8)
    reasons: dict[str, None] = {}
    live, surely_live = _covered(plan.live, grid, reasons)
    dead, surely_dead = _covered(plan.dead, grid, reasons)
    first, last, inside = overlaid((live, dead, surely_live, surely_dead) if reasons else (live, dead))
    kept = inside[0]
    first, last, partial = first[kept], last[kept], inside[1][kept]
    kind = np.where(partial, PARTIAL, FULL).astype(np.int8)
    if reasons:
        sure = [surely[kept] for surely in inside[2:]]
        unsure = partial & ~(sure[0] & sure[1])
        if unsure.any():
            first, last, kind, done = _refined(plan.mask, grid, first, last, kind, unsure, sure)
            if not done:
                why |= reasons
    return Runs(first=first, last=last), kind


def _refined(
    mask: Expr, grid: Grid, first: Array, last: Array, kind: Array, unsure: Array, sure: list[Array]
) -> tuple[Array, Array, Array, bool]:
    """The runs with those that are unsure decided tile by tile, as far as the budget goes, and whether it did."""
    count = np.where(unsure, last - first + 1, 0)
    if int(count.sum()) > RECTANGLES:
        return first, last, kind, False
    which = np.repeat(np.arange(len(first)), count)
    tile = first[which] + np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    row, column = np.divmod(tile, grid.width)
    o0, x0 = grid.outer.start + row * grid.outer.block, grid.inner.start + column * grid.inner.block
    o1 = np.minimum(o0 + grid.outer.block, grid.outer.start + grid.outer.count) - 1
    x1 = np.minimum(x0 + grid.inner.block, grid.inner.start + grid.inner.count) - 1
    i, j = ((o0, o1), (x0, x1)) if grid.outer.axis == "i" else ((x0, x1), (o0, o1))
    tiles = Rectangles(tile=np.arange(len(tile)), i0=i[0], i1=i[1], j0=j[0], j1=j[1])
    live, dead = sure[0][which], sure[1][which]
    decided = decide(mask, tiles, live, dead, grid.leaves, grid.reads)
    kinds = np.where(decided & ~live, EMPTY, np.where(decided & ~dead, FULL, PARTIAL)).astype(np.int8)
    first = np.concatenate((first[~unsure], tile))
    last = np.concatenate((last[~unsure], tile))
    kind = np.concatenate((kind[~unsure], kinds))
    order = np.argsort(first, kind="stable")
    order = order[kind[order] != EMPTY]
    first, last, kind = first[order], last[order], kind[order]
    begins = np.ones(len(first), dtype=bool)
    begins[1:] = (first[1:] != last[:-1] + 1) | (kind[1:] != kind[:-1])
    return first[begins], last[np.append(begins[1:], True)[: len(begins)]], kind[begins], bool(decided.all())


def _covered(pieces: tuple[Piece, ...], grid: Grid, reasons: dict[str, None]) -> tuple[Runs, Runs]:
    """The tiles that may hold a pair of some piece, and those that surely do."""
    parts: list[tuple[Array, Array]] = []
    sure: list[tuple[Array, Array]] = []
    for piece in pieces:
        first, last, why = grid.touched(piece)
        parts.append((first, last))
        if not why:
            sure.append((first, last))
        reasons |= dict.fromkeys(why)
    covered = united(parts)
    return covered, covered if len(sure) == len(parts) else united(sure)


__all__ = ["EMPTY", "FULL", "PARTIAL", "Counts", "TileMap", "analyse", "tile_map"]

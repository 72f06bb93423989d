"""How many programs a kernel is launched as: the arithmetic of a module's host side (templates/host.py.j2), so that a
plan can say it. tests/backends/test_split.py holds the two against each other."""

from __future__ import annotations

from typing import NamedTuple

from attnc.codegen.planner.tile import Tile
from attnc.codegen.program import Group


class Launch(NamedTuple):
    """One launch: ``programs``, each with a block of rows; ``splits`` of them share the other axis of one block."""

    programs: int
    splits: int


def launches(group: Group, tile: Tile, heads: int, lengths: tuple[int, int], processors: int) -> tuple[Launch, ...]:
    """The launches of one pass of a group, one for each of its passes over disjoint keys. ``heads``: blocks of rows
    for every (batch, query head), or (batch, key head) in the pass by keys; ``lengths``: N and M."""
    rows, columns = lengths if tile.step != "key" else lengths[::-1]
    found = []
    for part in group.passes:
        programs = -(-rows // (part.step * tile.held)) * min(part.step, rows) * heads
        tiles = -(-columns // (part.step * tile.moved))
        shared = splits(programs, tiles, processors) if part.splits and tile.step == "forward" else 1
        found.append(Launch(programs=programs * shared, splits=shared))
    return tuple(found)


def splits(programs: int, tiles: int, processors: int) -> int:
    """How many programs share the keys of one block of queries: a module's ``_splits``."""
    most = max(1, min(processors // max(1, programs), tiles // 4))
    return 1 << most.bit_length() - 1

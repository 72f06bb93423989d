"""Tiles, warps and stages: a small table that a module looks up by head dim and element size.

For now a closed form from the bytes of shared memory that a tile needs; the planner with targets as data replaces it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Pass = Literal["forward", "query", "key"]

# Shared memory a block may use, in bytes: the least of a target's family, less what reductions take.
SHARED_MEMORY = {
    "generic": 96 * 1024,
    "sm_75": 60 * 1024,
    "sm_80": 160 * 1024,
    "sm_86": 96 * 1024,
    "sm_89": 96 * 1024,
    "sm_90": 220 * 1024,
    "sm_100": 220 * 1024,
    "sm_120": 96 * 1024,
    "gfx942": 60 * 1024,
}
DIMS = (16, 32, 64, 128, 256, 512, 1024)
BYTES = (2, 4, 8)


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One row of the table: for vectors padded to ``dim`` and elements of ``itemsize`` bytes."""

    step: Pass
    dim: int
    itemsize: int
    block_m: int
    block_n: int
    warps: int
    stages: int
    shared: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The tiles of every pass on one target."""

    target: str
    limit: int
    tiles: tuple[Tile, ...]

    @property
    def precision(self) -> str:
        """How float32 tiles are multiplied, as source text: on tensor cores in three TF32 products where the target
        has them, else in float32 (AMD's matrix cores take float32)."""
        if self.target == "generic":
            return '"ieee" if torch.version.hip else "tf32x3"'
        return repr("ieee" if self.target in ("sm_75", "gfx942") else "tf32x3")


def plan(target: str) -> Plan:
    """The plan for a target by name. Raises ValueError for an unknown one."""
    if target not in SHARED_MEMORY:
        raise ValueError(f"unknown target {target!r}; known are {', '.join(SHARED_MEMORY)}")
    limit = SHARED_MEMORY[target]
    tiles = [
        _fit(step, dim, itemsize, limit) for step in ("forward", "query", "key") for dim in DIMS for itemsize in BYTES
    ]
    return Plan(target=target, limit=limit, tiles=tuple(tiles))


def _fit(step: Pass, dim: int, itemsize: int, limit: int) -> Tile:
    """The first candidate, largest first, whose bytes fit; the smallest if none does."""
    candidates = [(128, 64, 3), (128, 64, 2), (64, 64, 2), (64, 32, 2), (32, 32, 2), (32, 32, 1), (16, 16, 1)]
    if step == "key":
        candidates = [(n, m, stages) for m, n, stages in candidates]
    heavy = dim * itemsize > 512 or step != "forward"
    usable = candidates[2:] if heavy else candidates
    for block_m, block_n, stages in usable:
        shared = _shared(step, dim, itemsize, block_m, block_n, stages)
        if shared <= limit:
            break
    warps = 8 if max(block_m, block_n) >= 128 and dim >= 128 else 4
    return Tile(
        step=step,
        dim=dim,
        itemsize=itemsize,
        block_m=block_m,
        block_n=block_n,
        warps=warps,
        stages=stages,
        shared=shared,
    )


def _shared(step: Pass, dim: int, itemsize: int, block_m: int, block_n: int, stages: int) -> int:
    """Bytes of the tiles that stay (queries, or keys) and of those that are staged, with the weights' tile."""
    kept, moved = (block_m, block_n) if step != "key" else (block_n, block_m)
    held = 1 if step == "forward" else 2
    return dim * itemsize * (held * kept + 2 * moved * stages) + block_m * block_n * itemsize * held

"""The choice of a tile: candidates, those that do not fit refused with a reason, the cheapest of the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from attnc.codegen.planner.budget import Budget, budget
from attnc.codegen.planner.cost import Clocks, clocks
from attnc.codegen.planner.targets import Gpu
from attnc.codegen.planner.tile import Tile
from attnc.codegen.planner.work import Work

# Rows that stay, rows that move, warps. A warp has 16 rows or more (a wavefront 32), a warp group 64.
SHAPES = (
    (128, 128, 8), (128, 64, 8), (128, 64, 4), (128, 32, 8), (128, 32, 4), (64, 64, 4), (64, 64, 8), (64, 32, 4),
    (64, 32, 8), (64, 16, 4), (32, 32, 4), (32, 16, 4), (16, 16, 4),
)  # fmt: skip
LARGE = 256  # elements of a vector, beyond which the largest tile that fits is taken, unpriced


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A candidate that was not taken, and why; ``spill``: it would run, with so many bytes a thread spilled."""

    tile: Tile
    reason: str
    spill: int | None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The tile taken. ``refused``: what is cheaper by the model, and why not; ``spill``: bytes a thread, where
    nothing that fits does without."""

    tile: Tile
    dtype: str
    dim: int
    budget: Budget
    clocks: Clocks
    refused: tuple[Refusal, ...]
    spill: int | None = None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What Triton and ptxas reported for a tile, compiled with a plain causal spec; None: not asked."""

    shared: int
    columns: int
    registers: int | None
    stack: int | None


@cache
def calibration() -> Mapping[tuple[Any, ...], Measured]:
    """codegen/data/calibration.json by (architecture, step, dtype, dim, held, moved, warps, stages)."""
    text = files("attnc.codegen").joinpath("data/calibration.json").read_text(encoding="utf-8")
    return {
        tuple(key): Measured(shared=shared, columns=columns, registers=registers, stack=stack)
        for *key, shared, columns, registers, stack in json.loads(text)["kernels"]
    }


def measured(tile: Tile, dtype: str, dim: int, gpu: Gpu) -> Measured | None:
    """What the calibration says of a tile; architectures whose products are alike compile to the same kernel."""
    alike = "sm_80" if gpu.architecture in ("sm_86", "sm_89", "sm_120") else gpu.architecture
    _, held, moved, warps, stages = tile
    return calibration().get((alike, tile.step, dtype, dim, held, moved, warps, stages))


def shapes(dtype: str, dim: int, gpu: Gpu) -> Iterator[tuple[int, int, int]]:
    """Rows that stay, rows that move, warps: every shape that is considered, large ones first."""
    for held, moved, warps in SHAPES[-6:] if dim > LARGE or dtype == "f64" else SHAPES:
        if gpu.warp == 32 or held >= 16 * warps:
            yield held, moved, warps


def stages(dtype: str, dim: int, gpu: Gpu) -> tuple[int, ...]:
    """Triton's num_stages, the one preferred first."""
    if gpu.matrix == "fma":
        return (1,)
    return (2, 1) if dim > LARGE or dtype == "f64" or gpu.matrix == "mfma" else (3, 2)


def fault(work: Work, tile: Tile, dtype: str, dim: int, gpu: Gpu, found: Budget) -> Refusal | None:
    """Why a tile is not taken on a GPU, if it is not."""
    seen = measured(tile, dtype, dim, gpu)
    shared = max(found.shared_bytes, seen.shared if seen else 0)
    if shared > gpu.shared_block:
        reason = f"{shared:,} bytes of shared memory; {gpu.name} has {gpu.shared_block:,} a block"
        return Refusal(tile=tile, reason=reason, spill=None)
    columns = seen.columns if seen and work.plain else found.columns
    if columns > gpu.tensor_columns:
        reason = f"{columns} columns of tensor memory; {gpu.name} has {gpu.tensor_columns}"
        return Refusal(tile=tile, reason=reason, spill=None)
    if seen is not None and seen.stack is not None and (seen.stack or work.plain):
        reason = f"spills {seen.stack} bytes a thread, as compiled for {gpu.architecture}"
        return Refusal(tile=tile, reason=reason, spill=seen.stack) if seen.stack else None
    beyond = found.registers_thread - gpu.registers_thread
    reason = f"about {found.registers_thread} registers a thread; {gpu.name} has {gpu.registers_thread}"
    return Refusal(tile=tile, reason=reason, spill=4 * beyond) if beyond > 0 else None


def choose(work: Work, dtype: str, dim: int, gpu: Gpu, members: tuple[Gpu, ...]) -> Choice | None:
    """The cheapest candidate on ``gpu`` that fits every GPU of ``members``. Where all that fit spill, the one that
    spills least; None where none fits."""
    counts = stages(dtype, dim, gpu)
    priced: list[tuple[float, Tile, Budget, Clocks]] = []
    for place, (held, moved, warps) in enumerate(shapes(dtype, dim, gpu)):
        for count in counts:
            tile = Tile(work.step, held, moved, warps, count)
            found = budget(work, tile, dtype, dim, gpu)
            if found.blocks == 0 and count != counts[-1]:
                continue
            cost = clocks(work, tile, dtype, dim, gpu, found.blocks)
            price = (
                place + 1.0 / count
                if len(counts) == 2 and counts[-1] == 1 and gpu.matrix != "mfma"
                else cost.tile / (held * moved)
            )
            priced.append((price, tile, found, cost))
    priced.sort(key=lambda item: item[0])
    refused: list[Refusal] = []
    for _, tile, found, cost in priced:
        reason = _gravest(work, tile, dtype, dim, members, found, gpu)
        if reason is None:
            return Choice(tile=tile, dtype=dtype, dim=dim, budget=found, clocks=cost, refused=tuple(refused))
        refused.append(reason)
    spilling = [(reason.spill, place) for place, reason in enumerate(refused) if reason.spill is not None]
    if not spilling:
        return None
    least, place = min(spilling)
    _, tile, found, cost = priced[place]
    return Choice(tile=tile, dtype=dtype, dim=dim, budget=found, clocks=cost, refused=tuple(refused), spill=least)


def _gravest(
    work: Work, tile: Tile, dtype: str, dim: int, members: tuple[Gpu, ...], found: Budget, gpu: Gpu
) -> Refusal | None:
    """The gravest fault on any member: one that a launch refuses before one that costs time."""
    faults = [
        fault(work, tile, dtype, dim, member, found if member is gpu else budget(work, tile, dtype, dim, member))
        for member in members
    ]
    return max(
        (item for item in faults if item is not None),
        key=lambda item: (item.spill is None, item.spill or 0),
        default=None,
    )

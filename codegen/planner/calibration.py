"""What Triton and ptxas reported of compiled kernels: codegen/data/calibration.json, and whose kernels a row speaks of.

The table has kernels of a few scores: a plain causal one, and heavier ones, whose operations a pair are kept beside
their rows. What is asked of another score is answered by the lightest of them that is no lighter in any operation; a
tile that only lighter ones were compiled with, by the heaviest of those. benchmarks/calibrate.py writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from attnc.codegen.planner.targets import Gpu
from attnc.codegen.planner.tile import Tile
from attnc.codegen.planner.work import Work


class Measured(NamedTuple):
    """What was reported for a tile; None: not asked. ``shared`` and ``stack`` in bytes, of a block and of a thread;
    ``hot``: instructions of a hot loop that spill or reload; ``lighter``: of a score with fewer operations than the one
    asked about, not counting those of masks, which partial tiles alone have."""

    shared: int
    columns: int
    registers: int | None
    stack: int | None
    hot: int | None
    lighter: bool = False


Key = tuple[Any, ...]
"""Architecture, pass, dtype, dim, rows that stay and that move, warps, stages; most registers, where limited; True for
roles."""


class Calibration(NamedTuple):
    """``specs``: the text of every score, light ones first; ``pairs``: its operations a pair, by pass; ``rows``: what
    was reported, by kernel and score."""

    specs: Mapping[str, str]
    pairs: Mapping[str, Mapping[str, tuple[float, ...]]]
    rows: Mapping[Key, Mapping[str, Measured]]


@cache
def calibration() -> Calibration:
    text = files("attnc.codegen").joinpath("data/calibration.json").read_text(encoding="utf-8")
    scores, rows = json.loads(text)["scores"], dict[Key, dict[str, Measured]]()
    for name, score in scores.items():
        for *key, shared, columns, registers, stack, hot in score["kernels"]:
            rows.setdefault(tuple(key), {})[name] = Measured(shared, columns, registers, stack, hot)
    return Calibration(
        specs={name: score["spec"] for name, score in scores.items()},
        pairs={name: {step: tuple(counts) for step, counts in score["pair"].items()} for name, score in scores.items()},
        rows=rows,
    )


@cache
def answering(step: str, pair: tuple[float, ...]) -> tuple[tuple[str, bool], ...]:
    """The scores that are asked about one of these operations a pair, in turn, and whether they are ``lighter``."""

    def within(x: tuple[float, ...], y: tuple[float, ...]) -> bool:
        return all(a <= b for a, b in zip(x, y, strict=True))

    known = {name: counts[step] for name, counts in calibration().pairs.items()}
    heavier = [name for name, counts in known.items() if within(pair, counts)]
    # The plainest answers for all: what it spills, every kernel does.
    lighter = [name for place, name in enumerate(known) if place == 0 or within(known[name][:-1], pair[:-1])]
    found = [(name, False) for name in heavier]
    found += [(name, not within(pair[:-1], known[name][:-1])) for name in reversed(lighter) if name not in heavier]
    return tuple(found)


def alike(architecture: str) -> str:
    """The architecture whose kernels are compiled in this one's stead: they are the same."""
    return "sm_80" if architecture in ("sm_86", "sm_89", "sm_120") else architecture


def calibrated(work: Work, gpu: Gpu) -> bool:
    """Whether a kernel is of the kind that the calibration compiled, which on sm_100 reads vectors by descriptors."""
    return work.plain and (work.described or gpu.matrix != "tcgen05")


def measured(work: Work, tile: Tile, dtype: str, dim: int, gpu: Gpu) -> Measured | None:
    """What the calibration says of a tile. A limit of registers that the kernel keeps to anyway changes nothing."""
    rows = calibration().rows
    key = (alike(gpu.architecture), tile.step, dtype, dim, *tile[1:5])
    free = rows.get((*key, True) if tile.roles else key)
    bound = rows.get((*key, tile.registers)) if tile.registers else None
    if free is None and bound is None:
        return None
    for name, lighter in answering(tile.step, work.pair):
        seen = bound.get(name) if bound else None
        if seen is None and free is not None and (seen := free.get(name)) is not None and tile.registers:
            seen = seen if (seen.registers or 0) <= tile.registers else None
        if seen is not None:
            return seen._replace(lighter=True) if lighter else seen
    return None

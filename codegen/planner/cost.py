"""What a tile costs: clocks of every pipe of an SM for one tile of pairs, and for a whole call of a known shape.

The pipes are those of the CUDA guide's throughput table, and the rule for how they overlap is the balanced-job bound
that runtime/machine applies to real instructions: ``n`` contexts, each of which uses one pipe after another, share
the pipes, so a tile takes (serial + (n - 1) * busiest) / n clocks. A static estimate: it ranks tiles, and overstates
absolute speed, for clocks, latencies of memory and power are not in it.
"""

from __future__ import annotations

from typing import NamedTuple

from attnc.codegen.planner.budget import crosses_warps, matrix
from attnc.codegen.planner.targets import Gpu
from attnc.codegen.planner.tile import ITEMSIZE, Tile
from attnc.codegen.planner.work import Work

# Clocks a tile waits at barriers and for the first result of each product, while its own block has nothing else to do.
WAIT = 60
# Clocks from a copy's issue to its data, from L2: what buffers ahead have to cover.
MEMORY = 600


class Clocks(NamedTuple):
    """Clocks of one tile of pairs on an SM, by pipe; ``tile`` is what it takes with everything overlapped as far as
    ``contexts`` allow."""

    pipes: tuple[tuple[str, float], ...]
    tile: float
    contexts: float

    @property
    def bound(self) -> str:
        return max(self.pipes, key=lambda item: item[1])[0]


def clocks(work: Work, tile: Tile, dtype: str, dim: int, gpu: Gpu, blocks: int, *, partial: bool = False) -> Clocks:
    """The clocks of one full (or ``partial``) tile, with ``blocks`` on the SM."""
    size = ITEMSIZE[dtype]
    kind = matrix(tile, dtype, gpu)
    pairs = tile.held * tile.moved
    rate = gpu.tensor[dtype] * (gpu.warp_rate if kind == "mma" else 1.0)
    products = pairs * dim * work.products / rate
    if work.wide:  # weights that are no exponentials are multiplied in float32
        narrow = work.dots / work.products
        products *= narrow + (1 - narrow) * max(1.0, gpu.tensor[dtype] / gpu.tensor["f32"])
    special = pairs * work.special / gpu.special
    rescale = work.totals * tile.held * dim if work.step == "forward" and not work.wide else 0
    fp32 = (pairs * work.vector + rescale) / gpu.fp32
    integer = pairs * (work.integer + 0.5 * work.maps + (work.mask if partial else 0)) / gpu.integer
    shared = _shared_bytes(work, tile, dim * size, size, kind) / gpu.shared_bandwidth
    if crosses_warps(tile, dim) and kind == "mma":
        shared += 2 * pairs * size / gpu.shared_bandwidth
    issue = (fp32 * gpu.fp32 + special * gpu.special + integer * gpu.integer) / 128 + shared / 4
    pipes = [
        ("matrix", products),
        ("special", special),
        ("fp32", fp32),
        ("integer", integer),
        ("shared", shared),
        ("issue", issue),
    ]
    if kind == "tcgen05":  # a register a thread and clock: scores out, weights in, sums both ways for a rescale
        passed = (
            work.scores * pairs
            + work.maps * pairs / 2
            + (2 * work.totals * tile.held * dim if work.step == "forward" else 0)
        )
        pipes.append(("tensor memory", passed / 128))
        contexts = float(max(blocks, 1))
    else:
        contexts = max(1.0, tile.warps / 4 * blocks)
    busiest = max(amount for _, amount in pipes)
    # Operands are read while a product runs; what is beyond it is not hidden by it.
    alone = sum(amount for name, amount in pipes if name not in ("shared", "issue")) + max(0.0, shared - products)
    alone += WAIT * (work.products if kind != "mma" else 1)
    ahead = tile.stages - (1.5 if kind in ("mma", "mfma") else 1.0)
    alone += max(0.0, MEMORY - ahead * alone)
    return Clocks(
        pipes=tuple(pipes), tile=max(busiest, (alone + (contexts - 1) * busiest) / contexts), contexts=contexts
    )


def _shared_bytes(work: Work, tile: Tile, vector: int, size: int, kind: str) -> float:
    """Bytes through shared memory for one tile: what moves is written once, and read by every product."""
    moved, held = tile.moved * vector, tile.held * vector
    written = work.moved * moved
    match kind:
        case "wgmma" | "tcgen05":
            rows = 64 if kind == "wgmma" else 128
            return written + work.products * moved * max(1, tile.held // rows) + work.held * held
        case "mma" | "mfma":
            if crosses_warps(tile, vector // size) and kind == "mma":
                return written + work.products * (held * tile.warps + moved)
            return written + work.products * moved * tile.warps + (work.held * held if work.step != "forward" else 0)
    # Ordinary multiply-adds on 4 x 4 registers: two operands of 16 bytes for 16 of them.
    return written + work.products * tile.held * tile.moved * (vector // size) * 2.0

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

# Clocks a tile waits for barriers and for the first result of each product, while its own block does nothing else;
# the more where warps share rows, for weights and row sums pass between them. Fitted to runtime/machine's estimates.
WAIT = 60
CROSSING = 300
# Instructions of a warp for each tile beside those of its pairs: addresses, barriers, reductions.
LOOP = 64
# Clocks from a copy's issue to its data, from L2: what buffers ahead have to cover. Microbenchmarks have 250 to 600.
MEMORY = 600
# Bytes a clock that an SM reads from L2: 5,120 a clock for the 108 SMs of an A100 (its whitepaper), less elsewhere.
L2 = 32
# The length that tiles are ranked for where no shape is given, and the clocks in which a block begins and ends.
LENGTH = 2048
BLOCK = 1500


PIPES = ("matrix units", "special functions", "fp32", "integers", "shared memory", "issue", "L2", "tensor memory")


class Clocks(NamedTuple):
    """Clocks of one tile of pairs on an SM: of every pipe of PIPES; ``tile`` is what it takes, overlapped as far as
    ``contexts`` allow."""

    pipes: tuple[float, ...]
    tile: float
    contexts: float

    @property
    def bound(self) -> str:
        """The busiest pipe."""
        return PIPES[self.pipes.index(max(self.pipes))]


def clocks(work: Work, tile: Tile, dtype: str, dim: int, gpu: Gpu, blocks: int, *, partial: bool = False) -> Clocks:
    """The clocks of one full (or ``partial``) tile, with ``blocks`` on the SM."""
    size = ITEMSIZE[dtype]
    kind = matrix(tile, dtype, gpu)
    pairs = tile.held * tile.moved
    vector = dim * size
    crossing = kind == "mma" and crosses_warps(tile, dim)
    products = pairs * dim * work.products / gpu.tensor[dtype]
    if kind == "mma":
        products /= gpu.warp_rate
        if not crossing and 16 * tile.warps > tile.held:  # more warps than rows: some compute the same
            products *= 16 * tile.warps / tile.held
    if work.wide:  # weights that are no exponentials are multiplied in float32
        narrow = work.dots / work.products
        products *= narrow + (1 - narrow) * max(1.0, gpu.tensor[dtype] / gpu.tensor["f32"])
    hardware = size == 2 and gpu.warp == 32  # tanh.approx, which kernels for 16-bit vectors take
    special = pairs * (work.special + work.tanh * (1 if hardware else 2)) / gpu.special
    rescaled = work.totals * tile.held * dim if work.step == "forward" and not work.wide else 0
    fp32 = (pairs * (work.vector + (0 if hardware else 8 * work.tanh)) + rescaled) / gpu.fp32
    integer = pairs * (work.integer + 0.5 * work.maps + (work.mask if partial else 0)) / gpu.integer
    crossed = 2 * pairs * size if crossing else 0
    shared = (_shared_bytes(work, tile, vector, kind, crossing) + crossed) / gpu.shared_bandwidth
    issue = (fp32 * gpu.fp32 + special * gpu.special + integer * gpu.integer) / 128 + shared / 4 + LOOP * tile.warps / 4
    memory = work.moved * tile.moved * vector / L2
    columns = 0.0
    if kind == "tcgen05":  # a register a thread and clock: scores out, weights in, sums both ways for a rescale
        columns = (work.scores * pairs + work.maps * pairs / 2 + 2 * rescaled) / 128
    contexts = float(max(1, blocks)) if kind == "tcgen05" else max(1.0, tile.warps / 4 * blocks)
    busiest = max(products, special, fp32, integer, shared, issue, memory, columns)
    # Operands are read while a product runs; what is beyond it is not hidden by it.
    wait = LOOP + (CROSSING if crossing else WAIT * (1 if kind == "mma" else work.products))
    if tile.roles:  # products, loads and the rescaling of sums run beside the scores' own warps, which are contexts
        parts = (special, fp32 - rescaled / gpu.fp32, integer, columns - 2 * rescaled / 128)
        count = max(1.0, tile.warps / 4)
        # Warps that share rows exchange maxima of rows in the forward.
        wait = LOOP + CROSSING if work.step == "forward" and 32 * tile.warps > tile.held else wait
        alone = max(products, shared, wait + (sum(parts) + (count - 1) * max(parts)) / count)
        ahead = float(tile.stages)
    else:
        chain = (products, special, fp32, integer, columns)
        # A warp with rows for two instructions has two chains, and fills the gaps of one with the other (read of bf16).
        chains = max(1.0, tile.held / (16 * tile.warps)) if kind == "mma" and size == 2 and not crossing else 1.0
        alone = max(chain) + (sum(chain) - max(chain)) / chains + max(0.0, shared - products) + wait
        ahead = tile.stages - (1.5 if kind in ("mma", "mfma") else 1.0)
    alone += max(0.0, MEMORY - ahead * alone)
    return Clocks(
        pipes=(products, special, fp32, integer, shared, issue, memory, columns),
        tile=max(busiest, (alone + (contexts - 1) * busiest) / contexts),
        contexts=contexts,
    )


def overhead(work: Work, tile: Tile, dtype: str, dim: int, blocks: int) -> float:
    """Clocks of an SM that a block takes beside its tiles: its rows come in, its sums go out."""
    size = ITEMSIZE[dtype]
    return BLOCK / max(1, blocks) + tile.held * dim * (work.held * size + 2 * work.totals * size) / L2


def price(
    work: Work, tile: Tile, dtype: str, dim: int, cost: Clocks, blocks: int, stack: int = 0, *, spread: bool = False
) -> float:
    """Clocks of an SM for a pair, a block's beginning and end spread over its tiles: what candidates are ranked by.
    ``stack``: bytes that a thread of the calibration's kernel spills outside its loops, written and read once a block,
    32 a clock. A score that takes more than that kernel's has no registers left there: ``spread``, it spills as much in
    every tile, 128 a clock."""
    spilled = 2 * stack * tile.warps * 32
    once = overhead(work, tile, dtype, dim, blocks) + spilled / L2
    inside = spilled / 128 if spread else 0.0
    return (cost.tile + inside + once * tile.moved / LENGTH) / (tile.held * tile.moved)


def _shared_bytes(work: Work, tile: Tile, vector: int, kind: str, crossing: bool) -> float:
    """Bytes through shared memory for one tile: what moves is written once, and read by every product."""
    moved, held = tile.moved * vector, tile.held * vector
    written = work.moved * moved
    match kind:
        case "wgmma":
            return written + work.products * moved * max(1, tile.held // 64) + work.held * held
        case "tcgen05":
            return written + work.products * moved * max(1, tile.held // 128) + work.held * held
        case "fma":  # two operands of 4 bytes for each multiply-add, shared by 4 x 4 of a thread's
            return written + work.products * tile.held * tile.moved * vector * 0.5
        case _ if crossing:
            return written + work.products * (held * tile.warps + moved)
        case _:
            return written + work.products * moved * tile.warps + (work.held * held if work.step != "forward" else 0)

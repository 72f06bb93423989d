"""What is said of a kernel's machine code. Every figure is static: nothing was run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attnc.codegen.planner.work import Pass

CAVEAT = (
    "A static estimate from machine code: nothing was run. `est` overstates absolute speed by 1.35 to 1.65 times; "
    "differences under 10% are noise."
)


@dataclass(frozen=True, kw_only=True)
class Occupancy:
    """Blocks and warps resident on an SM, and what limits them. No blocks: the kernel cannot be launched."""

    blocks: int
    warps: int
    limit: str


@dataclass(frozen=True, kw_only=True)
class LoopFacts:
    """A hot loop: the innermost around matrix products, one tile of pairs an iteration.

    ``tiles``: "full" for the loop of fewest instructions, "partial" for others, "all" where there is one. Counts are of
    one iteration of one warp; ``*_per_score`` are instructions of a thread for each pair and map. ``clocks`` and
    ``least_clocks`` are those of an SM for 1024 scores: estimated, and the least that the busiest pipe (``bound``)
    permits. ``est`` and ``limit`` are the same as shares of the dense bf16 peak in percent, all of a loop's products
    counted. ``products`` are those products in units of (scores x head dim); ``waits`` are the waits for wgmma;
    ``descriptors`` says whether tiles are loaded by TMA."""

    tiles: str
    address: int
    instructions: int
    scores: int
    products: float
    instructions_per_score: float
    fp32_per_score: float
    integer_per_score: float
    special_per_score: float
    memory_per_score: float
    waits: int
    spills: int
    atomics: int
    descriptors: bool
    bound: str
    pipes: Mapping[str, float]
    clocks: float
    least_clocks: float
    est: float
    limit: float


@dataclass(frozen=True, kw_only=True)
class KernelFacts:
    """One kernel: its tile, what a thread and a block take, and its hot loops.

    ``registers`` and ``stack`` (bytes) of a thread, ``spills`` instructions that spill or reload (LDL, STL; for AMD the
    registers spilled), ``shared`` bytes of a block, ``tensor_columns`` of tensor memory. ``occupancy`` is None and
    ``loops`` is empty where the architecture's code is not modelled; ``note`` then says so."""

    kernel: str
    step: Pass
    target: str
    dtype: str
    dim: int
    block_m: int
    block_n: int
    warps: int
    stages: int
    shared: int
    tensor_columns: int = 0
    registers: int = 0
    stack: int = 0
    spills: int = 0
    instructions: int = 0
    occupancy: Occupancy | None = None
    loops: tuple[LoopFacts, ...] = ()
    note: str = ""

    @property
    def hot_spills(self) -> int:
        """Spills and reloads of the hot loops' iterations."""
        return sum(loop.spills for loop in self.loops)

    def loop(self, tiles: str) -> LoopFacts:
        """The loop over tiles of a kind; where one loop has all tiles, that one. Raises LookupError for none."""
        for loop in self.loops:
            if loop.tiles in (tiles, "all"):
                return loop
        raise LookupError(f"{self.kernel} for {self.target} has no hot loop of {tiles} tiles")

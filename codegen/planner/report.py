"""A program on a target at a shape, by the model: tiles live and executed, operations, bytes, time and what bounds it.

Every figure is the model's unless it says otherwise; nothing here was run. Times overstate speed, as clocks do
(codegen/planner/cost.py); bytes count each tensor once, read or written, as a cache that holds them would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attnc.codegen import build
from attnc.codegen.arrays import Draw
from attnc.codegen.names import Naming
from attnc.codegen.plan import Plan, Row
from attnc.codegen.planner.budget import Budget
from attnc.codegen.planner.calibration import Measured, calibrated, measured
from attnc.codegen.planner.cost import Clocks, clocks, overhead
from attnc.codegen.planner.launch import Launch, launches
from attnc.codegen.planner.search import Refusal, occupied
from attnc.codegen.planner.targets import Cpu, Gpu
from attnc.codegen.planner.tile import ITEMSIZE, Tile, padded, parts
from attnc.codegen.planner.work import PASSES, Pass, Work, of_group
from attnc.codegen.program import Group, Program
from attnc.codegen.ranges import LIMIT, LIMIT_TEXT
from attnc.codegen.tilemap import TileMap, tile_map
from attnc.dsl.ir import Const, Expr, Size

EXACT_ROWS = 1 << 20  # rows of pairs that are counted one by one; beyond, partial tiles count as half live


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A call's sizes: queries [B, H, N, D], keys [B, G, M, D], values [B, G, M, E]. Raises ValueError for sizes that
    no call can have."""

    B: int = 1
    H: int
    G: int
    N: int
    M: int
    D: int
    E: int

    def __post_init__(self) -> None:
        for name in ("B", "H", "G", "N", "M", "D", "E"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: sizes are positive")
        if self.H % self.G:
            raise ValueError(f"H = {self.H} query heads are no multiple of G = {self.G} key-value heads")
        if max(self.N, self.M) > LIMIT:
            raise ValueError(f"{max(self.N, self.M)} positions are not supported: {LIMIT_TEXT} are")
        if max(self.D, self.E) > 576:
            raise ValueError(f"vectors of {max(self.D, self.E)} are not supported: 1 to 576 are")


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """What the compiler made of a kernel; None: not said."""

    registers: int
    stack: int
    spills: int
    shared: int
    blocks: int | None
    est: float | None


@dataclass(frozen=True, kw_only=True)
class Split:
    """A head dim that is no power of two: taken in ``parts``, of which ``padded`` is the only one where two are no
    cheaper; ``saves``: the share of the clocks of a pair that they save beside padding, each with its own tile."""

    dim: int
    padded: int
    parts: tuple[int, ...]
    saves: float


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel. ``live`` pairs of ``tiles`` full and partial (of ``empty`` none is visited), over batch and heads;
    ``useful`` operations are those of live pairs at the true head dim, ``executed`` those of whole tiles at the one
    that is computed; ``bytes`` of device memory; ``compute_ms`` and ``memory_ms`` by the model; ``launches``: programs,
    and how many share a query's keys, of each pass over disjoint keys; ``waves`` of them over the SMs."""

    name: str
    step: Pass
    tile: Tile
    budget: Budget
    clocks: Clocks
    refused: tuple[Refusal, ...]
    spill: int | None
    calibrated: Measured | None
    compiled: Compiled | None
    full: int
    partial: int
    empty: int
    live: int
    exact: bool
    why: tuple[str, ...]
    useful: float
    executed: float
    bytes: int
    compute_ms: float
    memory_ms: float
    launches: tuple[Launch, ...]
    waves: float
    split: Split | None
    better: tuple[Tile, float] | None

    @property
    def bound(self) -> str:
        return "device memory" if self.memory_ms > self.compute_ms else self.clocks.bound

    @property
    def milliseconds(self) -> float:
        return max(self.memory_ms, self.compute_ms)


@dataclass(frozen=True, kw_only=True)
class Report:
    """All kernels of a program at a shape, and the KV cache of a layer: bytes of a token, and of all of them."""

    plan: Plan
    shape: Shape
    dtype: str
    kernels: tuple[Kernel, ...]
    unplanned: tuple[str, ...]
    cache_token: int
    cache: int


def report(
    program: Program,
    plan: Plan,
    shape: Shape,
    dtype: str,
    *,
    inputs: Mapping[str, Any] | None = None,
    draw: Draw | None = None,
    compiled: Mapping[str, Compiled] | None = None,
) -> Report:
    """The report of a program. ``inputs`` and ``draw``: what its masks read, as ``tile_map`` takes them; ``compiled``:
    what the compiler reports, by kernel."""
    kernels: list[Kernel] = []
    unplanned: list[str] = []
    naming = Naming(program)
    for group in program.groups:
        # Without what it reads, a mask is priced as if every pair were live.
        known = _known(_mask(program, group), shape, inputs, draw)
        for step in PASSES:
            name = f"{naming.function(group.name)}_{step}_kernel"
            found = _kernel(program, group, name, step, plan, shape, dtype, known, inputs, draw, compiled or {})
            if found is None:
                unplanned.append(name)
            else:
                kernels.append(found)
    token = shape.G * (shape.D + shape.E) * ITEMSIZE[dtype]
    return Report(
        plan=plan,
        shape=shape,
        dtype=dtype,
        kernels=tuple(kernels),
        unplanned=tuple(unplanned),
        cache_token=token,
        cache=token * shape.B * shape.M,
    )


def _mask(program: Program, group: Group) -> Expr:
    """Live where some branch of the group is, as the spec says it: random blocks not yet tables."""
    names = {item.name for item in group.maps}
    return build.any_of(branch.mask for branch in program.attention.branches if branch.name in names)


@dataclass(frozen=True, kw_only=True)
class _Known:
    """A mask and what is live of it: pairs a head, times how many heads and batches its map stands for."""

    mask: Expr
    lacks: str | None
    live: int | None


def _known(mask: Expr, shape: Shape, inputs: Mapping[str, Any] | None, draw: Draw | None) -> _Known:
    lacks = None
    try:
        _map(mask, shape, (shape.N, shape.M), inputs, draw, transposed=False)
    except (KeyError, ValueError) as error:
        lacks = str(error).strip("'\"")
        mask = build.TRUE
    live = None
    if shape.N <= EXACT_ROWS:
        pairs = _map(mask, shape, (1, 1), inputs, draw, transposed=False)
        live = pairs.counts().full * _times(pairs, shape)
    return _Known(mask=mask, lacks=lacks, live=live)


def _map(
    mask: Expr,
    shape: Shape,
    block: tuple[int, int],
    inputs: Mapping[str, Any] | None,
    draw: Draw | None,
    *,
    transposed: bool,
) -> TileMap:
    return tile_map(
        mask, shape.N, shape.M, block, B=shape.B, H=shape.H, inputs=inputs, draw=draw, transposed=transposed
    )


def _times(found: TileMap, shape: Shape) -> int:
    """How many (batch, head) a map that does not depend on them stands for."""
    return shape.B // found.shape[0] * (shape.H // found.shape[1])


def _kernel(
    program: Program,
    group: Group,
    name: str,
    step: Pass,
    plan: Plan,
    shape: Shape,
    dtype: str,
    known: _Known,
    inputs: Mapping[str, Any] | None,
    draw: Draw | None,
    compiled: Mapping[str, Compiled],
) -> Kernel | None:
    gpu, dim = plan.gpu, plan.width(step, dtype, shape.D, shape.E)
    row = plan.row(step, dtype, dim)
    if row.choice is None:
        return None
    element = row.choice.dtype if dtype in ("f16", "bf16") else dtype
    work = of_group(program, group, step)

    def counted(tile: Tile) -> tuple[TileMap, int]:
        found = _map(known.mask, shape, (tile.block_m, tile.block_n), inputs, draw, transposed=step == "key")
        return found, _times(found, shape)

    def launched(tile: Tile) -> tuple[Launch, ...]:
        heads = shape.B * (shape.G if step == "key" else shape.H)
        return launches(group, tile, heads, (shape.N, shape.M), gpu.sms)

    def timed(tile: Tile, full: int, partial: int) -> tuple[float, float, Budget, Clocks]:
        """Milliseconds, waves of blocks."""
        use = occupied(work, tile, element, dim, gpu)
        whole = clocks(work, tile, element, dim, gpu, use.blocks)
        part = clocks(work, tile, element, dim, gpu, use.blocks, partial=True)
        blocks = [item.programs for item in launched(tile)]
        total = full * whole.tile + partial * part.tile + sum(blocks) * overhead(work, tile, element, dim, use.blocks)
        together = gpu.sms * max(1, use.blocks)
        waves = sum(blocks) / together
        tail = sum(-(-count // together) for count in blocks) / waves if waves < 4 else 1.0
        return 1e-6 * total * tail / gpu.sms / gpu.clock_ghz, waves, use, whole

    tile = row.choice.tile
    found, times = counted(tile)
    counts = found.counts()
    full, partial = counts.full * times, counts.partial * times
    compute, waves, use, whole = timed(tile, full, partial)
    better: tuple[Tile, float] | None = None
    for other in row.choice.next_best:
        there, _ = counted(other)
        seen = there.counts()
        there_ms = timed(other, seen.full * times, seen.partial * times)[0]
        if there_ms < 0.95 * compute and (better is None or there_ms < better[1]):
            better = (other, there_ms)
    pairs = tile.held * tile.moved
    live = known.live if known.live is not None else pairs * full + pairs * partial // 2
    qk, pv = _products(work)
    moved_bytes = _bytes(work, shape, ITEMSIZE[dtype], step) + _merged(work, shape, launched(tile))
    return Kernel(
        name=name,
        step=step,
        tile=tile,
        budget=use,
        clocks=whole,
        refused=row.choice.refused,
        spill=row.choice.spill,
        calibrated=measured(work, tile, element, dim, gpu) if calibrated(work, gpu) else None,
        compiled=compiled.get(name),
        full=full,
        partial=partial,
        empty=counts.empty * times,
        live=live,
        exact=found.exact and known.lacks is None,
        why=found.why if known.lacks is None else (f"{known.lacks}: every pair is counted as live",),
        useful=2.0 * live * (qk * shape.D + pv * shape.E),
        executed=2.0 * (full + partial) * pairs * dim * work.products,
        bytes=moved_bytes,
        compute_ms=compute,
        memory_ms=1e-6 * moved_bytes / gpu.bandwidth_gbs,
        launches=launched(tile),
        waves=waves,
        split=_split(max(shape.D, shape.E), work, row, plan.row(step, dtype, padded(max(shape.D, shape.E))), gpu),
        better=better,
    )


def _products(work: Work) -> tuple[int, int]:
    """Matrix products along the query's dim and along the value's."""
    match work.step:
        case "forward":
            return work.dots, work.maps
        case "query":
            return work.products - work.maps, work.maps
        case _:
            return 2 * work.dots, 2 * work.maps


def _bytes(work: Work, shape: Shape, size: int, step: Pass) -> int:
    """Bytes of device memory: every vector read once, every result written once, and the rows' statistics."""
    query = shape.B * shape.H * shape.N
    key = shape.B * shape.G * shape.M
    vectors = work.queries * query * shape.D + key * (work.keys * shape.D + shape.E)
    outputs = work.maps * query * shape.E
    rows = 4 * work.maps * query
    match step:
        case "forward":
            return size * (vectors + outputs) + rows
        case "query":
            return size * (vectors + outputs + work.queries * query * shape.D) + 2 * rows
        case _:
            return size * (vectors + outputs + key * (work.keys * shape.D + shape.E)) + 2 * rows


def _merged(work: Work, shape: Shape, found: tuple[Launch, ...]) -> int:
    """Bytes of what several programs, or passes, give of one query: sums and a statistic, written and read again."""
    partial = sum(item.splits for item in found)
    if partial == 1 or work.step != "forward":
        return 0
    return 8 * partial * work.maps * shape.B * shape.H * shape.N * (shape.E + 1)


def _split(dim: int, work: Work, taken: Row, whole: Row, gpu: Gpu) -> Split | None:
    if whole.dim == dim:
        return None
    saves = 0.0
    if taken.choice is not None and whole.choice is not None:
        saves = 1 - taken.choice.price(work, gpu) / whole.choice.price(work, gpu)
    return Split(dim=dim, padded=whole.dim, parts=parts(taken.dim), saves=saves)


def cpu_bound(machine: Cpu, kernels: Sequence[Kernel], dtype: str) -> tuple[float, float]:
    """Milliseconds of a processor at its peak: for the useful operations, and for the bytes."""
    useful, moved = sum(item.useful for item in kernels), sum(item.bytes for item in kernels)
    return 1e-9 * useful / machine.tflops(dtype), 1e-6 * moved / machine.bandwidth_gbs


def sizes_of(program: Program) -> dict[str, int]:
    """D and E where the spec itself fixes them."""
    found = {}
    for vector in program.attention.vectors:
        match vector.dim:
            case Const(value=int(value)):
                found["E" if vector.role == "value" else "D"] = value
            case Size():
                pass
    return found


__all__ = ["Compiled", "Kernel", "Report", "Shape", "Split", "cpu_bound", "parts", "report", "sizes_of"]

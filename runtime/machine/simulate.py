"""A small in-order simulation of one block's warps on one sub-partition of an SM, running a loop's real instructions:
a scoreboard of registers with nominal latencies, the rates of the pipes, barriers, groups of wgmma. Loads from global
memory are taken as prefetched and instruction fetch as free."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from attnc.codegen.planner.targets import Gpu
from attnc.runtime.machine.disassembly import Instruction
from attnc.runtime.machine.pipes import Pipe, Product, bytes_moved, columns_moved, pipe_of, registers

# Clocks from an instruction to one that needs its result: what microbenchmarks publish (arXiv 1804.06826, 2208.11174,
# 2402.13499), rounded. Ratios of est between kernels of one GPU hardly depend on them.
LATENCY: dict[Pipe, int] = {
    "tensor": 26,
    "special": 20,
    "fp32": 4,
    "half": 5,
    "imad": 5,
    "convert": 5,
    "integer": 5,
    "uniform": 8,
    "memory": 30,
    "tma": 1,
    "tmem": 30,
    "barrier": 2,
    "branch": 1,
    "constant": 8,
    "other": 8,
}
SHUFFLE, GLOBAL, BARRIER, WARPGROUP, BLOCK_PRODUCT, BRANCH = 24, 40, 16, 24, 30, 8
ITERATIONS = 6  # the first is warm-up, the mean of the others is taken


@dataclass(frozen=True, kw_only=True, slots=True)
class _Step:
    """An instruction as it is simulated: registers, the queue it waits in and for how long it occupies it, how far
    ahead of the queue it may issue, and the latency of its result."""

    instruction: Instruction
    product: Product | None
    writes: tuple[str, ...]
    reads: tuple[str, ...]
    queue: str
    busy: float
    ahead: float
    latency: float
    late: bool  # the latency counts from the end of its time in the pipe
    branch: bool
    solo: bool  # one warp of the block executes it
    pending: int  # groups of wgmma that a wait leaves in flight; -1 for no wait
    closes: bool  # ends a group of wgmma
    meets: bool  # waits for the block's other warps


@dataclass(kw_only=True, slots=True)
class _Warp:
    number: int
    at: float = 0.0
    place: int = 0
    iteration: int = 0
    waiting: bool = False
    ready: dict[str, float] = field(default_factory=dict)
    groups: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)


def clocks(
    code: Sequence[Instruction],
    numbers: Iterable[int],
    solo: frozenset[int],
    products: dict[int, Product],
    warps: int,
    gpu: Gpu,
) -> float:
    """Clocks of one iteration of a loop for a block of ``warps`` that has the SM to itself."""
    steps = [_step(code[number], products.get(number), number in solo, gpu) for number in numbers]
    crew = [_Warp(number=number) for number in range(max(1, round(warps / 4)))]
    free: dict[str, float] = defaultdict(float)
    block_product, last = 0.0, -1.0
    met: dict[tuple[int, int], list[_Warp]] = {}
    while any(warp.iteration < ITERATIONS for warp in crew):
        able = [warp for warp in crew if warp.iteration < ITERATIONS and not warp.waiting]
        if not able:  # a barrier that not every warp comes to
            for warp in crew:
                if warp.waiting:
                    warp.at, warp.waiting = max(item.at for item in crew) + BARRIER, False
            met.clear()
            continue
        times = [_earliest(steps[warp.place], warp, last, free, block_product) for warp in able]
        now = min(times)
        warp = able[times.index(now)]
        step = steps[warp.place]
        if step.solo and warp.number:
            warp.at = now  # another warp's
        else:
            warp.at, last = now + (BRANCH if step.branch else 1), now
            start = max(now, free[step.queue]) if step.queue else now
            if step.queue:
                free[step.queue] = start + step.busy
            if step.product is not None:
                if step.product.issuer == "warpgroup" and step.closes:
                    warp.groups.append(start + step.busy)
                elif step.product.issuer == "block":
                    block_product = start + step.busy
            done = start + step.latency + (max(step.busy, 1) - 1 if step.late else 0)
            for name in step.writes:
                warp.ready[name] = done
            if step.meets:
                here = met.setdefault((warp.iteration, warp.place), [])
                here.append(warp)
                warp.waiting = len(here) < len(crew)
                if not warp.waiting:
                    for item in here:
                        item.at, item.waiting = now + BARRIER, False
        warp.place += 1
        if warp.place == len(steps):
            warp.place, warp.iteration = 0, warp.iteration + 1
            warp.ends.append(now)
    return sum(warp.ends[-1] - warp.ends[1] for warp in crew) / len(crew) / (ITERATIONS - 2)


def _earliest(step: _Step, warp: _Warp, last: float, free: dict[str, float], block_product: float) -> float:
    """When a warp could issue its next instruction."""
    now = max(warp.at, last + 1)
    if step.solo and warp.number:
        return now
    for name in step.reads:
        now = max(now, warp.ready.get(name, 0.0))
    if step.queue:
        now = max(now, free[step.queue] - step.ahead)
    if step.instruction.base == "LDTM":
        now = max(now, block_product + BLOCK_PRODUCT)
    if 0 <= step.pending < len(warp.groups):
        now = max(now, warp.groups[len(warp.groups) - step.pending - 1] + WARPGROUP)
    return now


def _step(instruction: Instruction, product: Product | None, solo: bool, gpu: Gpu) -> _Step:
    pipe = pipe_of(instruction)
    base = instruction.base
    writes, reads = registers(instruction, product)
    queue, busy, ahead, latency = str(pipe), 1.0, 0.0, float(LATENCY[pipe])
    match pipe:
        case "tensor" if product is not None and product.issuer == "warp":
            busy = product.size / (gpu.tensor["bf16"] * gpu.warp_rate / 4) * product.slow
        case "tensor" if product is not None:
            rate = product.size / gpu.tensor["bf16"] * product.slow
            busy, ahead = max(rate, product.bytes / gpu.shared_bandwidth), float("inf")
        case "special":
            busy, ahead = 128 / gpu.special, 16
        case "fp32" | "half" | "imad":
            queue, busy = "fma", 128 / gpu.fp32 * (2 if pipe == "fp32" and base.endswith("2") else 1)
        case "integer" | "convert":
            queue, busy = "integer", 128 / gpu.integer
        case "memory":
            busy, ahead = 4 * bytes_moved(instruction) / gpu.shared_bandwidth, 64
            latency = SHUFFLE if base == "SHFL" else GLOBAL if base in ("LDG", "LD", "LDL") else latency
        case "tmem":
            busy, ahead = float(columns_moved(instruction)), 64
        case "barrier" | "branch" | "constant" | "other" | "tma":
            queue = ""
        case _:
            pass
    pending = -1
    if base == "WARPGROUP" and "DEPBAR" in instruction.opcode:
        left = re.search(r"gsb0, (0x[0-9a-f]+)", instruction.operands)
        pending = int(left[1], 16) if left else 0
    return _Step(
        instruction=instruction,
        product=product,
        writes=tuple(writes),
        reads=tuple(reads),
        queue=queue,
        busy=busy,
        ahead=ahead,
        latency=latency,
        late=pipe in ("tmem", "memory", "special"),
        branch=pipe == "branch",
        solo=solo,
        pending=pending,
        closes="gsb0" in instruction.operands,
        meets=base == "BAR" and "ARV" not in instruction.opcode and not solo,
    )

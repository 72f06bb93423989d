"""From machine code to facts: hot loops, instructions by pipe, and how many clocks an iteration takes.

Two figures for a loop. ``least``: the clocks of its busiest pipe alone, a hard bound as far as the rates are right.
``est``: a simulation of one context on its own (simulate.py), the others added by the pessimistic balanced-job bound of
a closed queueing network, (alone + (n - 1) least) / n: what remains of the waiting when n contexts fill one another's
gaps. A context is a warp a sub-partition where warps issue products themselves, a block where it waits on one product.
Not modelled: global memory and L2, bank conflicts, instruction cache, clocks under load, tails."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attnc.codegen.planner.targets import Gpu
from attnc.runtime.machine.disassembly import Code, Instruction
from attnc.runtime.machine.facts import LoopFacts
from attnc.runtime.machine.loops import Loop, loops
from attnc.runtime.machine.pipes import Pipe, Product, bytes_moved, columns_moved, pipe_of, product
from attnc.runtime.machine.simulate import clocks

WAITING = 8  # instructions of a loop that only waits for a barrier: it has fewer
ATOMICS = ("RED", "REDG", "ATOM", "ATOMG", "UTMAREDG")


def specialized(code: Code) -> bool:
    """Whether warps have roles of their own: a switch beside tcgen05."""
    bases = {item.base for item in code.instructions}
    return "BRX" in bases and any(base.startswith("UTC") for base in bases)


def hot_loops(
    code: Code, gpu: Gpu, *, warps: int, blocks: int, scores: int, dim: int, rescaling: int = 0
) -> tuple[LoopFacts, ...]:
    """The innermost loops that hold matrix products, in order of address; an iteration has ``scores`` scores of vectors
    of ``dim`` elements, and ``blocks`` blocks of ``warps`` warps share an SM. Where warps have roles, ``rescaling``
    warps are those of the role that rescales sums."""
    instructions, by_role = code.instructions, role_loops(code)
    if len(by_role) == 1:
        groups = [[_part(instructions, loop, gpu, warps, max(1, blocks))] for loop in by_role[0]]
    else:
        crews = (1, warps, rescaling, 1)
        groups = [
            [
                _part(instructions, found[part], gpu, crew, 1)
                for found, crew in zip(by_role, crews, strict=True)
                if found
            ]
            for part in range(len(by_role[0]))
        ]
    least = min((sum(part.instructions for part in group) for group in groups), default=0)
    found = []
    for group in groups:
        whole = sum(part.instructions for part in group) == least
        tiles = "all" if len(groups) == 1 else "full" if whole else "partial"
        found.append(_facts(group, gpu, tiles, max(1, blocks), scores, dim))
    return tuple(found)


def role_loops(code: Code) -> tuple[Sequence[Loop], ...]:
    """The innermost loops around matrix products; where warps have roles, also those of the other roles, one for each
    of the first. Raises ValueError where they cannot be told apart."""
    every = loops(code.instructions, code.labels)
    around = [loop for loop in every if _holds(code.instructions, loop, "tensor")]
    innermost = [loop for loop in around if not any(loop.holds(other) for other in around)]
    return _roles(code.instructions, every, innermost) if specialized(code) else (innermost,)


def _holds(code: Sequence[Instruction], loop: Loop, pipe: Pipe) -> bool:
    return any(pipe_of(code[number]) == pipe for number in loop.numbers)


def _roles(code: Sequence[Instruction], every: Sequence[Loop], products: Sequence[Loop]) -> tuple[Sequence[Loop], ...]:
    """The loops of every role, one for each part of the kernel, in the same order: those that issue products, those
    with exponentials, those that only pass tensor memory through registers, and those that load. An empty list for a
    role that the kernel has not."""
    leaves = [
        loop
        for loop in every
        if len(loop.numbers) >= WAITING
        and not _holds(code, loop, "tensor")
        and all(len(other.numbers) < WAITING for other in every if loop.holds(other))
    ]
    scores = [
        loop for loop in leaves if sum(code[number].opcode.startswith("MUFU.EX2") for number in loop.numbers) >= WAITING
    ]
    sums = [loop for loop in leaves if loop not in scores and _holds(code, loop, "tmem")]
    loads = [loop for loop in leaves if loop not in scores and loop not in sums and _holds(code, loop, "tma")]
    if len(scores) != len(products) or any(len(found) not in (0, len(products)) for found in (sums, loads)):
        counts = (len(products), len(scores), len(sums), len(loads))
        raise ValueError(f"the loops of roles are not told apart: {counts} of products, scores, sums and loads")
    return products, scores, sums, loads


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A loop as one role's warps run it, or all warps of a block: its instructions by kind, each as often as a block
    issues it, the clocks of pipes and of an iteration, alone on the SM and beside other blocks."""

    address: int
    instructions: int
    kinds: Mapping[str, float]
    cycles: Mapping[str, float]
    size: float
    waits: int
    spills: int
    atomics: int
    alone: float
    est: float


def _part(code: Sequence[Instruction], loop: Loop, gpu: Gpu, warps: int, blocks: int) -> _Part:
    numbers = loop.numbers
    # tcgen05 and TMA are issued by one warp of a block, and so is all that stands in their basic blocks
    solo = frozenset(
        number
        for block in loop.blocks
        if any(code[member].base.startswith(("UTC", "UTM")) for member in block)
        for number in block
    )
    products = {number: product(code, number) for number in numbers if pipe_of(code[number]) == "tensor"}
    cycles = _cycles(code, numbers, solo, products, gpu, warps)
    least = max(cycles.values())
    by_block = any(item.issuer == "block" for item in products.values())
    contexts = max(1.0, blocks if by_block else warps / 4 * blocks)
    alone = clocks(code, numbers, solo, products, warps if by_block else 4, gpu)
    one = contexts / blocks
    kinds = Counter[str](pipe_of(code[number]) for number in numbers)
    opcodes = Counter(code[number].base for number in numbers)
    return _Part(
        address=code[numbers[0]].address,
        instructions=len(numbers),
        kinds={kind: count * warps for kind, count in kinds.items()},
        cycles=cycles,
        size=sum(item.size * _times(item, warps) for item in products.values()),
        waits=sum(code[number].opcode.startswith("WARPGROUP.DEPBAR") for number in numbers),
        spills=opcodes["LDL"] + opcodes["STL"],
        atomics=sum(opcodes[name] for name in ATOMICS),
        alone=max(least, (alone * one + (one - 1) * least) / one),
        est=max(least, (alone * one + (contexts - 1) * least) / contexts),
    )


def _facts(group: Sequence[_Part], gpu: Gpu, tiles: str, blocks: int, scores: int, dim: int) -> LoopFacts:
    """The facts of a loop, or of one loop in several roles: these run beside each other, so that an iteration takes
    the slowest of them, or the busiest pipe that they share. That they wait for one another is not modelled."""
    cycles = Counter[str]()
    kinds = Counter[str]()
    for part in group:
        cycles.update(part.cycles)
        kinds.update(part.kinds)
    least, size = max(cycles.values()), sum(part.size for part in group)
    est = group[0].est
    if len(group) > 1:
        slowest = max(cycles["tensor"], *(part.alone for part in group[1:]))
        est = max(least, (slowest + (blocks - 1) * least) / blocks)
    return LoopFacts(
        tiles=tiles,
        address=group[0].address,
        instructions=sum(part.instructions for part in group),
        scores=scores,
        products=size / (scores * dim),
        instructions_per_score=cycles["issue"] * 128 / scores,
        fp32_per_score=kinds["fp32"] * 32 / scores,
        integer_per_score=kinds["integer"] * 32 / scores,
        special_per_score=kinds["special"] * 32 / scores,
        memory_per_score=kinds["memory"] * 32 / scores,
        waits=sum(part.waits for part in group),
        spills=sum(part.spills for part in group),
        atomics=sum(part.atomics for part in group),
        descriptors=kinds["tma"] > 0,
        bound=cycles.most_common(1)[0][0],
        pipes=dict(cycles.most_common()),
        clocks=1024 * est / scores,
        least_clocks=1024 * least / scores,
        est=100 * size / gpu.tensor["bf16"] / est,
        limit=100 * size / gpu.tensor["bf16"] / least,
    )


def _times(item: Product, warps: int) -> float:
    """How often a block executes a matrix instruction."""
    return {"warp": warps, "warpgroup": warps / 4, "block": 1}[item.issuer]


def _cycles(
    code: Sequence[Instruction],
    numbers: Sequence[int],
    solo: frozenset[int],
    products: dict[int, Product],
    gpu: Gpu,
    warps: int,
) -> dict[str, float]:
    """Clocks that every pipe needs for one iteration of one block, the busiest first."""
    cycles: dict[str, float] = defaultdict(float)
    for number in numbers:
        instruction = code[number]
        pipe = pipe_of(instruction)
        crew = 1 if number in solo else warps
        quarter = crew / 4  # warps of a sub-partition, which issues one instruction a clock
        cycles["issue"] += quarter
        match pipe:
            case "tensor":
                item = products[number]
                times = _times(item, crew)
                rate = gpu.tensor["bf16"] * (gpu.warp_rate if item.issuer == "warp" else 1.0)
                cycles["tensor"] += item.size * times / rate * item.slow
                cycles["memory"] += item.bytes * times / gpu.shared_bandwidth
            case "special":
                cycles["special"] += quarter * 128 / gpu.special
            case "fp32" | "half" | "imad":
                packed = 2 if pipe == "fp32" and instruction.base.endswith("2") else 1
                cycles["fma"] += quarter * 128 / gpu.fp32 * packed
            case "integer" | "convert":
                cycles["integer"] += quarter * 128 / gpu.integer
            case "memory":
                cycles["memory"] += crew * bytes_moved(instruction) / gpu.shared_bandwidth
            case "tmem":
                columns = columns_moved(instruction)
                cycles["tmem"] += quarter * (columns / 2 if "16dp" in instruction.opcode else columns)
            case _:
                pass
    return dict(sorted(cycles.items(), key=lambda item: -item[1]))

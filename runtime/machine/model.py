"""From machine code to facts: hot loops, instructions by pipe, and how many clocks an iteration takes.

Two figures for a loop. ``least``: the clocks of its busiest pipe alone, a hard bound as far as the rates are right.
``est``: a simulation of one context on its own (simulate.py), the others added by the pessimistic balanced-job bound of
a closed queueing network, (alone + (n - 1) least) / n: what remains of the waiting when n contexts fill one another's
gaps. A context is a warp a sub-partition where warps issue products themselves, a block where it waits on one product.
Not modelled: global memory and L2, bank conflicts, instruction cache, clocks under load, tails."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from attnc.codegen.planner.targets import Gpu
from attnc.runtime.machine.disassembly import Code, Instruction
from attnc.runtime.machine.facts import LoopFacts
from attnc.runtime.machine.loops import Loop, loops
from attnc.runtime.machine.pipes import Product, bytes_moved, columns_moved, pipe_of, product
from attnc.runtime.machine.simulate import clocks

ATOMICS = ("RED", "REDG", "ATOM", "ATOMG", "UTMAREDG")


def specialized(code: Code) -> bool:
    """Whether warps have roles of their own (a switch beside tcgen05): their loops are not one loop's facts."""
    bases = {item.base for item in code.instructions}
    return "BRX" in bases and any(base.startswith("UTC") for base in bases)


def hot_loops(code: Code, gpu: Gpu, *, warps: int, blocks: int, scores: int, dim: int) -> tuple[LoopFacts, ...]:
    """The innermost loops that hold matrix products, in order of address; an iteration has ``scores`` scores of vectors
    of ``dim`` elements, and ``blocks`` blocks of ``warps`` warps share an SM."""
    instructions = code.instructions
    around = [
        loop
        for loop in loops(instructions, code.labels)
        if any(pipe_of(instructions[number]) == "tensor" for number in loop.numbers)
    ]
    innermost = [loop for loop in around if not any(loop.holds(other) for other in around)]
    least = min((len(loop.numbers) for loop in innermost), default=0)
    found = []
    for loop in innermost:
        tiles = "all" if len(innermost) == 1 else "full" if len(loop.numbers) == least else "partial"
        found.append(_facts(instructions, loop, gpu, tiles, warps, max(1, blocks), scores, dim))
    return tuple(found)


def _facts(
    code: Sequence[Instruction],
    loop: Loop,
    gpu: Gpu,
    tiles: str,
    warps: int,
    blocks: int,
    scores: int,
    dim: int,
) -> LoopFacts:
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
    est = max(least, (alone * contexts / blocks + (contexts - 1) * least) / contexts)
    kinds = Counter(pipe_of(code[number]) for number in numbers)
    opcodes = Counter(code[number].base for number in numbers)
    size = sum(item.size * _times(item, warps) for item in products.values())
    thread = 32 * warps / scores
    return LoopFacts(
        tiles=tiles,
        address=code[numbers[0]].address,
        instructions=len(numbers),
        scores=scores,
        products=size / (scores * dim),
        instructions_per_score=cycles["issue"] * 128 / scores,
        fp32_per_score=kinds["fp32"] * thread,
        integer_per_score=kinds["integer"] * thread,
        special_per_score=kinds["special"] * thread,
        memory_per_score=kinds["memory"] * thread,
        waits=sum(code[number].opcode.startswith("WARPGROUP.DEPBAR") for number in numbers),
        spills=opcodes["LDL"] + opcodes["STL"],
        atomics=sum(opcodes[name] for name in ATOMICS),
        descriptors=kinds["tma"] > 0,
        bound=next(iter(cycles)),
        pipes=cycles,
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

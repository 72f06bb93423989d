"""Kernels judged from their machine code, with no GPU: registers, spills, occupancy, and a static estimate of speed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from attnc.codegen.planner.budget import occupancy
from attnc.codegen.planner.targets import Gpu, targets
from attnc.codegen.planner.tile import Tile
from attnc.codegen.planner.work import Pass
from attnc.dsl.construct import Construct
from attnc.runtime.aot import Compiled, compile_kernels
from attnc.runtime.machine import amd, model
from attnc.runtime.machine.disassembly import disassemble
from attnc.runtime.machine.facts import CAVEAT, KernelFacts, LoopFacts, Occupancy
from attnc.runtime.machine.gates import Miss, misses
from attnc.runtime.machine.report import as_json, as_text

__all__ = [
    "CAVEAT",
    "KernelFacts",
    "LoopFacts",
    "Miss",
    "as_json",
    "as_text",
    "inspect",
    "inspect_kernel",
    "misses",
]


def inspect(
    construct: Construct,
    target: str,
    dtype: str = "bf16",
    dim: int = 64,
    tiles: Mapping[Pass, Tile] | None = None,
    passes: Iterable[Pass] = ("forward", "query", "key"),
) -> tuple[KernelFacts, ...]:
    """The facts of every kernel of a spec, compiled for ``target`` with the planner's tiles, or with ``tiles`` by
    pass.

    Raises ValueError for a target that no kernel can be compiled for, RuntimeError under TRITON_INTERPRET=1 and for a
    kernel that Triton's compiler refuses, ModuleNotFoundError without triton."""
    return tuple(inspect_kernel(item) for item in compile_kernels(construct, target, dtype, dim, tiles, passes))


def inspect_kernel(compiled: Compiled) -> KernelFacts:
    """The facts of one kernel."""
    gpu = targets().find(compiled.target)
    assert isinstance(gpu, Gpu), "compile_kernels refuses processors"
    signature = compiled.signature
    tile = signature.tile
    block_m, block_n = tile.block_m, tile.block_n
    facts = KernelFacts(
        kernel=compiled.kernel,
        step=signature.step,
        target=compiled.target,
        dtype=compiled.dtype,
        dim=compiled.dim,
        block_m=block_m,
        block_n=block_n,
        warps=tile.warps,
        stages=tile.stages,
        shared=compiled.shared,
        tensor_columns=compiled.tensor_columns,
    )
    if gpu.matrix == "mfma":
        usage = amd.usage(compiled.binary)
        note = "registers, spilled registers and stack are the hsaco's metadata; its code is not read"
        return replace(facts, registers=usage.registers, stack=usage.stack, spills=usage.spilled, note=note)
    code = disassemble(compiled.binary)
    resident = tile._replace(warps=compiled.block_warps)
    blocks, limit = occupancy(gpu, resident, compiled.shared, code.registers, compiled.tensor_columns)
    facts = replace(
        facts,
        registers=code.registers,
        stack=code.stack,
        spills=sum(item.base in ("LDL", "STL") for item in code.instructions),
        instructions=len(code.instructions),
        occupancy=Occupancy(blocks=blocks, warps=blocks * compiled.block_warps, limit=limit),
    )
    scores = block_m * block_n * signature.maps
    try:
        loops = model.hot_loops(
            code, gpu, warps=tile.warps, blocks=blocks, scores=scores, dim=compiled.dim, rescaling=compiled.rescaling
        )
    except ValueError as error:
        return replace(facts, note=f"not priced: {error}")
    return replace(facts, loops=loops)

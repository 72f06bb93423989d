"""Kernels judged from their machine code, with no GPU: registers, spills, occupancy, and a static estimate of speed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attnc.codegen.plan import Pass
from attnc.dsl.ir import Construct
from attnc.runtime.aot import Compiled, Tiling, compile_kernels
from attnc.runtime.machine import amd, model
from attnc.runtime.machine.architectures import ARCHITECTURES
from attnc.runtime.machine.disassembly import disassemble
from attnc.runtime.machine.facts import CAVEAT, KernelFacts, LoopFacts
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
    tiles: Mapping[Pass, Tiling] | None = None,
    passes: Iterable[Pass] = ("forward", "query", "key"),
) -> tuple[KernelFacts, ...]:
    """The facts of every kernel of a spec, compiled for ``target`` with the planner's tiles, or with ``tiles``:
    (BLOCK_M, BLOCK_N, warps, stages) by pass.

    Raises ValueError for a target that no kernel can be compiled for, RuntimeError under TRITON_INTERPRET=1 and for a
    kernel that Triton's compiler refuses, ModuleNotFoundError without triton."""
    return tuple(inspect_kernel(item) for item in compile_kernels(construct, target, dtype, dim, tiles, passes))


def inspect_kernel(compiled: Compiled) -> KernelFacts:
    """The facts of one kernel."""
    signature = compiled.signature
    block_m, block_n = int(signature.constants["BLOCK_M"]), int(signature.constants["BLOCK_N"])
    if compiled.target.startswith("gfx"):
        usage = amd.usage(compiled.binary)
        return KernelFacts(
            kernel=compiled.kernel,
            step=signature.step,
            target=compiled.target,
            dtype=compiled.dtype,
            dim=compiled.dim,
            block_m=block_m,
            block_n=block_n,
            warps=signature.warps,
            stages=signature.stages,
            registers=usage.registers,
            stack=usage.stack,
            spills=usage.spilled,
            shared=compiled.shared,
            note="registers, spilled registers and stack from the hsaco's metadata; its code is not read",
        )
    architecture = ARCHITECTURES.get(compiled.target)
    code = disassemble(compiled.binary)
    note, occupancy = "", None
    loops: tuple[LoopFacts, ...] = ()
    if architecture is None:
        note = f"no rates of {compiled.target} are known (known: {', '.join(ARCHITECTURES)}): its loops are not priced"
    else:
        occupancy = architecture.occupancy(code.registers, signature.warps, compiled.shared, compiled.tensor_columns)
        if model.specialized(code):
            note = "warps have roles of their own: the model does not price their loops"
        else:
            loops = model.hot_loops(
                code,
                architecture,
                warps=signature.warps,
                blocks=occupancy.blocks,
                scores=block_m * block_n * signature.maps,
                dim=compiled.dim,
            )
    return KernelFacts(
        kernel=compiled.kernel,
        step=signature.step,
        target=compiled.target,
        dtype=compiled.dtype,
        dim=compiled.dim,
        block_m=block_m,
        block_n=block_n,
        warps=signature.warps,
        stages=signature.stages,
        registers=code.registers,
        stack=code.stack,
        spills=sum(item.base in ("LDL", "STL") for item in code.instructions),
        shared=compiled.shared,
        tensor_columns=compiled.tensor_columns,
        instructions=len(code.instructions),
        occupancy=occupancy,
        loops=loops,
        note=note,
    )

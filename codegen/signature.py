"""The type of every argument of a kernel, for compiling it where no GPU is: what Triton's own launcher would infer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attnc.codegen.emit_triton import kernels
from attnc.codegen.kernel import Kernel
from attnc.codegen.lower import Program
from attnc.codegen.names import Naming
from attnc.codegen.plan import Pass, Plan
from attnc.codegen.planner.tile import padded

TYPES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "f64": "fp64", "i32": "i32", "i64": "i64", "bool": "u8"}
_STEP: dict[str, Pass] = {"forward": "forward", "query": "query", "key": "key"}


@dataclass(frozen=True, kw_only=True)
class Signature:
    """One kernel at one dtype and one size of vectors. ``types`` has every argument in order; ``aligned`` are the
    pointers and strides that a launch finds divisible by 16; ``acc`` is the accumulation type's name; ``maps`` are the
    attention maps that the kernel computes side by side; ``registers``: the most that a thread may take, 0 for any."""

    kernel: str
    step: Pass
    maps: int
    types: Mapping[str, str]
    constants: Mapping[str, int | bool]
    aligned: tuple[str, ...]
    acc: str
    warps: int
    stages: int
    registers: int = 0


def signatures(program: Program, plan: Plan, dtype: str, dim: int) -> tuple[Signature, ...]:
    """Every kernel of a program for vectors of ``dim`` elements of ``dtype`` (as the language spells it). Raises
    ValueError where no tile fits."""
    naming = Naming(program)
    return tuple(
        _signature(kernel, plan, dtype, dim) for group in program.groups for kernel in kernels(program, group, naming)
    )


def _signature(kernel: Kernel, plan: Plan, dtype: str, dim: int) -> Signature:
    acc = "f64" if dtype == "f64" else "f32"
    types: dict[str, str] = {}
    aligned: list[str] = []
    for tensor in kernel.tensors:
        element = {"vector": dtype, "acc": acc}.get(tensor.element, tensor.element)
        types[f"{tensor.name}_ptr"] = f"*{TYPES[element]}"
        aligned.append(f"{tensor.name}_ptr")
        for name in tensor.arguments:
            types[name] = "i32"
            if tensor.element == "vector":
                aligned.append(name)
    types |= {"q_offset": "i32", "q_offsets_ptr": "*i64", "kv_offset": "i32"}
    types |= dict.fromkeys(("H", "G", "N", "M", *kernel.sizes), "i32")
    if kernel.strips:
        types |= {"row_start": "i32", "row_stop": "i32", "PAIRS": "constexpr"}
    block = padded(dim)
    row = plan.row(_STEP[kernel.kind], dtype, block)
    if row.choice is None:
        raise ValueError(f"{kernel.name}: no tile fits {plan.target} for vectors of {dim} elements of {dtype}")
    tile = row.choice.tile
    constants: dict[str, int | bool] = {}
    for name in kernel.dims:
        constants |= {name: dim, f"BLOCK_{name}": block}
    constants |= {"BLOCK_M": tile.block_m, "BLOCK_N": tile.block_n}
    for name in (*constants, "ACC", "PER_BATCH"):
        types[name] = "constexpr"
    constants["PER_BATCH"] = False
    if kernel.splits:
        types["SPLITS"] = "constexpr"
        constants["SPLITS"] = 1
    if kernel.strips:
        constants["PAIRS"] = True
    return Signature(
        kernel=kernel.name,
        step=_STEP[kernel.kind],
        maps=len(kernel.maps),
        types=types,
        constants=constants,
        aligned=tuple(aligned),
        acc=TYPES[acc],
        warps=tile.warps,
        stages=tile.stages,
        registers=tile.registers,
    )

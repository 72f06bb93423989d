"""The type of every argument of a kernel, for compiling it where no GPU is: what Triton's own launcher would infer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attnc.codegen.emit_triton import kernels
from attnc.codegen.kernel import Kernel
from attnc.codegen.names import Naming
from attnc.codegen.plan import Pass, Plan
from attnc.codegen.planner.tile import ITEMSIZE, Tile, parts
from attnc.codegen.program import Program

TYPES = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "f64": "fp64", "i32": "i32", "i64": "i64", "bool": "u8"}
_STEP: dict[str, Pass] = {"forward": "forward", "query": "query", "key": "key"}


@dataclass(frozen=True, kw_only=True)
class Signature:
    """One kernel at one dtype, one size of vectors and one tile. ``types`` has every argument in order; ``aligned`` are
    the pointers and strides that a launch finds divisible by 16; ``acc`` is the accumulation type's name; ``maps`` are
    the attention maps that the kernel computes side by side."""

    kernel: str
    step: Pass
    maps: int
    types: Mapping[str, str]
    constants: Mapping[str, int | bool]
    aligned: tuple[str, ...]
    acc: str
    tile: Tile


def signatures(
    program: Program,
    plan: Plan,
    dtype: str,
    dim: int,
    tiles: Mapping[Pass, Tile] | None = None,
    width: int | None = None,
) -> tuple[Signature, ...]:
    """Every kernel of a program for vectors of ``dim`` elements of ``dtype`` (as the language spells it), with the
    plan's tiles or with ``tiles``, padded or taken in parts as the plan does or as ``width`` says. Raises ValueError
    where no tile fits, and for parts that the plan has none of."""
    naming = Naming(program)

    def made(kernel: Kernel) -> Signature:
        step = _STEP[kernel.kind]
        tile = (tiles or {}).get(step) or _planned(kernel, plan, dtype, dim)
        return _signature(kernel, tile, dtype, dim, parts(width or plan.width(step, dtype, dim)))

    return tuple(made(kernel) for group in program.groups for kernel in kernels(program, group, naming, plan))


def _planned(kernel: Kernel, plan: Plan, dtype: str, dim: int) -> Tile:
    choice = plan.row(_STEP[kernel.kind], dtype, plan.width(_STEP[kernel.kind], dtype, dim)).choice
    if choice is None:
        raise ValueError(f"{kernel.name}: no tile fits {plan.target} for vectors of {dim} elements of {dtype}")
    return choice.tile


def _signature(kernel: Kernel, tile: Tile, dtype: str, dim: int, cut: tuple[int, ...]) -> Signature:
    acc = "f64" if dtype == "f64" else "f32"
    if len(cut) > 1 and not kernel.split:
        raise ValueError(f"{kernel.name}: this module takes no vectors in parts")
    types: dict[str, str] = {}
    aligned: list[str] = []
    described = kernel.described and ITEMSIZE[dtype] == 2 and dim % 8 == 0  # as the module's _describable
    for tensor in kernel.tensors:
        element = {"vector": dtype, "acc": acc}.get(tensor.element, tensor.element)
        types[f"{tensor.name}_ptr"] = f"*{TYPES[element]}"
        if described and tensor.block:
            rows = tile.block_m if tensor.block == "BLOCK_M" else tile.block_n
            types[f"{tensor.name}_ptr"] = f"tensordesc<{TYPES[element]}[1, 1, {rows}, {cut[0]}]>"
        aligned.append(f"{tensor.name}_ptr")
        for name in tensor.arguments:
            types[name] = "i32"
            if tensor.element == "vector":
                aligned.append(name)
    types |= {"q_offset": "i32", "q_offsets_ptr": "*i64", "kv_offset": "i32"}
    types |= dict.fromkeys(("H", "G", "N", "M", *kernel.sizes), "i32")
    if kernel.strips:
        types |= {"row_start": "i32", "row_stop": "i32", "PAIRS": "constexpr"}
    constants: dict[str, int | bool] = {}
    for name in kernel.dims:
        constants |= {name: dim, f"BLOCK_{name}": cut[0]}
        if kernel.split:
            constants[f"TAIL_{name}"] = cut[1] if len(cut) > 1 else 0
    constants |= {"BLOCK_M": tile.block_m, "BLOCK_N": tile.block_n}
    for name in (*constants, "ACC", "PER_BATCH"):
        types[name] = "constexpr"
    constants["PER_BATCH"] = False
    if kernel.splits:
        types["SPLITS"] = "constexpr"
        constants["SPLITS"] = 1
    if kernel.described:
        types |= {"DESCRIBED": "constexpr", "ROLES": "constexpr"}
        constants |= {"DESCRIBED": described, "ROLES": described and tile.roles}
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
        tile=tile,
    )

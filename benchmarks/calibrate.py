"""The planner's tiles, compiled: what Triton and ptxas report, kept in codegen/data/calibration.json.

    python benchmarks/calibrate.py                  compile what the planner chooses, until it chooses nothing new
    python benchmarks/calibrate.py --fresh          the same from nothing: after a change to the kernels
    python benchmarks/calibrate.py --again          what is chosen once more: after a small change to the kernels
    python benchmarks/calibrate.py --quick          only what is chosen, nothing that an estimate alone refuses
    python benchmarks/calibrate.py --report         the model's errors against the table, by architecture
    python benchmarks/calibrate.py --spills         what is chosen and spills, and what was not compiled, by the table
    python benchmarks/calibrate.py --check          Triton asked again for what is chosen; writes nothing
    python benchmarks/calibrate.py --grid           the model against Triton over the whole grid; writes nothing

The spec is examples/zoo/causal.attn; --check and --grid take another (--spec examples/zoo/linear.attn). A tile that
spills is recorded, so that the planner passes it over and the next best is compiled in the next round. Every kernel is
written as soon as it is known: stop it and start it again at will. One process; nothing is run on a GPU.
TRITON_INTERPRET must not be set.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from attnc.codegen.emit import emit
from attnc.codegen.lower import Program, lower
from attnc.codegen.plan import choose_for, plan
from attnc.codegen.planner import search
from attnc.codegen.planner.budget import matrix, shared_lines
from attnc.codegen.planner.targets import FAMILY, GENERIC, Gpu, targets
from attnc.codegen.planner.tile import Tile, padded
from attnc.codegen.planner.work import PASSES, work
from attnc.codegen.signature import Signature, signatures
from attnc.dsl.frontend import compilable, compile_text
from attnc.dsl.source import Source

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "codegen" / "data" / "calibration.json"
ASSEMBLED = ("sm_80", "sm_90", "sm_100")  # whose registers are asked; gfx942's cost 10 s a kernel, sm_75's a minute
ARCHITECTURES = ("sm_90", "sm_80", "sm_100", "sm_89", GENERIC, "gfx942", "sm_75")
Key = tuple[Any, ...]
"""Architecture, pass, dtype, dim, rows that stay and that move, warps, stages; most registers, where limited; True for
roles."""
Report = tuple[int, int, int | None, int | None, int | None]


CAUSAL = ROOT / "examples" / "zoo" / "causal.attn"
spec = [CAUSAL]  # whose kernels are asked for


@cache
def program() -> Program:
    path = spec[-1]
    return lower(compilable(compile_text(Source(name=path.name, text=path.read_text(encoding="utf-8")), {})))


@cache
def module(architecture: str) -> ModuleType:
    """The generated module, its kernels ready to be compiled."""
    text = emit(program(), plan(program(), architecture))
    path = Path(tempfile.mkdtemp(prefix="attnc-calibrate-")) / f"causal_{architecture}.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    import triton  # noqa: F401  # a module defines kernels only beside triton

    spec.loader.exec_module(made)
    return made


def signature(tile: Tile, dtype: str, dim: int, architecture: str) -> Signature:
    """The causal kernel of a pass with this tile."""
    found = signatures(program(), plan(program(), architecture), dtype, dim, {tile.step: tile})
    return next(item for item in found if item.step == tile.step)


def stages(tile: Tile, dtype: str, dim: int, architecture: str) -> tuple[Any, Any, Any, dict[str, Any]]:
    """Triton's source, target, options and compiler stages of one kernel."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.compiler.compiler import make_backend

    amd = architecture.startswith("gfx")
    target = GPUTarget("hip", architecture, 64) if amd else GPUTarget("cuda", int(architecture[3:]), 32)
    made = signature(tile, dtype, dim, architecture)
    kernels = module(architecture)
    names = list(made.types)
    constants = {**made.constants, "ACC": triton.language.float64 if made.acc == "fp64" else triton.language.float32}
    source = ASTSource(
        getattr(kernels, made.kernel),
        dict(made.types),
        {(names.index(name),): value for name, value in constants.items()},
        {(names.index(name),): [["tt.divisibility", 16]] for name in made.aligned},
    )
    backend = make_backend(target)
    options = backend.parse_options({"num_warps": tile.warps, "num_stages": tile.stages})
    found: dict[str, Any] = {}
    backend.add_stages(found, options, source.language)
    return source, target, (backend, options), found


def allocated(tile: Tile, dtype: str, dim: int, architecture: str) -> tuple[int, int]:
    """Bytes of shared memory and columns of tensor memory that Triton allocates: its pipeline up to there, which is a
    tenth of the whole."""
    from triton._C.libtriton import amd, ir, nvidia, passes

    source, target, (backend, options), made = stages(tile, dtype, dim, architecture)
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    code = backend.get_codegen_implementation(options)
    mlir = source.make_ir(target, options, code, backend.get_module_map(), context)
    mlir = made["ttgir"](made["ttir"](mlir, {}), {})
    manager = ir.pass_manager(mlir.context)
    if target.backend == "cuda":  # as make_llir of triton.backends begins, in 3.7.1
        from triton.backends.nvidia.compiler import get_ptx_version_from_options

        version = get_ptx_version_from_options(options, target.arch)
        passes.ttgpuir.add_combine_tensor_select_and_if(manager)
        passes.ttgpuir.add_allocate_warp_groups(manager)
        passes.convert.add_scf_to_cf(manager)
        passes.gluon.add_inliner(manager)
        nvidia.passes.ttgpuir.add_allocate_shared_memory_nv(manager, target.arch, version)
        nvidia.passes.ttnvgpuir.add_allocate_tensor_memory(manager)
    else:
        amd.passes.ttgpuir.add_update_async_wait_count(manager, options.arch)
        amd.passes.ttgpuir.add_warp_pipeline_conversion(manager, options.arch)
        passes.convert.add_scf_to_cf(manager)
        passes.gluon.add_inliner(manager)
        passes.convert.add_index_to_llvmir(manager)
        amd.passes.ttgpuir.add_allocate_shared_memory(manager)
    manager.run(mlir, "allocate")
    return mlir.get_int_attr("ttg.shared"), mlir.get_int_attr("ttg.tensor_memory_size") or 0


def assembled(tile: Tile, dtype: str, dim: int, architecture: str) -> Report:
    """Bytes of shared memory, columns of tensor memory, registers and bytes of stack a thread, and spills and reloads
    in hot loops, from the cubin."""
    import triton

    source, target, _, _ = stages(tile, dtype, dim, architecture)
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    if tile.registers:
        options["maxnreg"] = tile.registers
    made = triton.compile(source, target=target, options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = dict(re.findall(r"\b(REG|STACK):(\d+)", text))
    columns = getattr(made.metadata, "tmem_size", None) or 0
    stack = int(found["STACK"])
    hot = spills_in_loops(made.asm["cubin"]) if stack else 0
    return made.metadata.shared, columns, int(found["REG"]), stack, hot


def spills_in_loops(cubin: bytes) -> int:
    """Instructions that spill or reload in the innermost loops around matrix products, and in those of other roles."""
    from attnc.runtime.machine.disassembly import disassemble
    from attnc.runtime.machine.model import role_loops

    code = disassemble(cubin)
    numbers = [number for found in role_loops(code) for loop in found for number in loop.numbers]
    return sum(code.instructions[number].base in ("LDL", "STL") for number in numbers)


class Table:
    """The table in its file: what was reported, by architecture, pass, dtype, dim and tile."""

    def __init__(self) -> None:
        kernels = json.loads(FILE.read_text(encoding="utf-8"))["kernels"]
        self.rows: dict[Key, Report] = {tuple(row[:-5]): tuple(row[-5:]) for row in kernels}

    def write(self) -> None:
        import triton

        lines = ",\n".join(json.dumps([*key, *rest]) for key, rest in sorted(self.rows.items()))
        FILE.write_text(f'{{"triton": "{triton.__version__}", "kernels": [\n{lines}\n]}}\n', encoding="utf-8")
        search.calibration.cache_clear()
        choose_for.cache_clear()

    def lacking(self, key: Key) -> bool:
        """Whether a kernel is still to be compiled."""
        return key not in self.rows or (key[0] in ASSEMBLED and self.rows[key][2] is None)


def key_of(architecture: str, tile: Tile, dtype: str, dim: int) -> Key:
    limit = [tile.registers] if tile.registers else []
    return (architecture, tile.step, dtype, dim, *tile[1:5], *limit, *([True] if tile.roles else []))


def chosen(
    architectures: list[str], dtypes: list[str], dims: list[int], *, explore: bool = False
) -> Iterator[tuple[Key, Tile]]:
    """What the planner takes now, and for which architecture it has to be compiled; to ``explore``, also what comes
    next and what only an estimate of registers refuses."""
    for name in architectures:
        found = plan(program(), name)
        members = FAMILY if name == GENERIC else (name,)
        for dtype in dtypes:
            for dim in dims:
                for step in PASSES:
                    choice = found.row(step, dtype, padded(dim)).choice
                    if choice is not None:
                        for member in dict.fromkeys(search.alike(each) for each in members):
                            element = "f16" if dtype == "bf16" and member == "sm_75" else dtype
                            yield key_of(member, choice.tile, element, dim), choice.tile
                    if choice is not None and explore and name in ASSEMBLED:
                        counted, gpu = work(program(), step), found.gpu
                        for tile in (
                            *search.with_roles(counted, choice.dtype, gpu),
                            *choice.next_best[:2],
                            *search.doubtful(counted, choice.dtype, padded(dim), gpu, choice),
                        ):
                            yield key_of(name, tile, choice.dtype, dim), tile


def calibrate(
    architectures: list[str], dtypes: list[str], dims: list[int], *, seconds: float, again: bool, explore: bool
) -> None:
    """Compile what is chosen until nothing new is; ``again``: also what the table has of it."""
    table, start, failed = Table(), time.monotonic(), set[Key]()
    if again:
        for key, _ in chosen(architectures, dtypes, dims):
            table.rows.pop(key, None)
    while todo := {
        key: tile for key, tile in chosen(architectures, dtypes, dims, explore=explore) if table.lacking(key)
    }:
        todo = {key: tile for key, tile in todo.items() if key not in failed}
        if not todo:
            break
        for key, tile in todo.items():
            if time.monotonic() - start > seconds:
                print(f"stopped after {seconds:.0f} s; {len(todo)} kernels of this round were asked for")
                return
            began = time.monotonic()
            architecture, _, dtype, dim = key[:4]
            try:
                if architecture in ASSEMBLED:
                    table.rows[key] = assembled(tile, dtype, dim, architecture)
                else:
                    table.rows[key] = (*allocated(tile, dtype, dim, architecture), None, None, None)
            except Exception as error:  # of Triton: reported, and the next one compiled
                failed.add(key)
                print(f"{key}: {type(error).__name__}: {str(error)[:200]}", flush=True)
                continue
            table.write()
            print(f"{key} {table.rows[key]} {time.monotonic() - began:.1f} s", flush=True)


def compared() -> Iterator[tuple[Key, int, int]]:
    """Every kernel of the table: the model's bytes of shared memory, and Triton's."""
    for key, report in Table().rows.items():
        architecture, step, dtype, dim, *rest = key
        gpu, tile = targets().find(architecture), Tile(step, *rest[:4], roles=len(rest) > 4)  # type: ignore[misc]
        assert isinstance(gpu, Gpu)
        lines = shared_lines(work(program(), tile.step), tile, dtype, dim, matrix(tile, dtype, gpu))
        yield key, sum(line.amount for line in lines), report[0]


def report() -> bool:
    """Print the errors of the model; whether all are between 0 and 5%."""
    by: dict[str, list[float]] = {}
    for key, model, triton in compared():
        by.setdefault(key[0], []).append(model / triton - 1)
    for architecture, errors in sorted(by.items()):
        print(f"{architecture:8} {len(errors):4} kernels: {100 * min(errors):+.1f}% to {100 * max(errors):+.1f}%")
    for (architecture, step, dtype, dim, *tile), (*_, registers, stack, hot) in sorted(Table().rows.items()):
        if stack:
            where = f"{hot} in hot loops" if hot else "none in a hot loop"
            print(f"spills: {architecture} {step} {dtype} {dim} {tile}: {stack} bytes, {registers} registers, {where}")
    return all(0 <= error <= 0.05 for errors in by.values() for error in errors)


def spills(architectures: list[str], dtypes: list[str], dims: list[int]) -> bool:
    """Print what is chosen and spills, by the table, and what it lacks; whether nothing spills in a loop."""
    fine, clean, lacking = True, 0, []
    for name in (name for name in architectures if name in ASSEMBLED):
        found = plan(program(), name)
        for dtype in dtypes:
            for dim in sorted(dims):
                for step in PASSES:
                    choice = found.row(step, dtype, padded(dim)).choice
                    seen = choice and search.measured(choice.tile, dtype, dim, found.gpu)
                    if choice is None or seen is None or seen.stack is None:
                        lacking.append(f"{name} {step} {dtype} {dim}")
                    elif seen.stack:
                        fine &= not seen.hot
                        print(f"| {name} | {step} | {dtype} | {dim} | {choice.tile} | {seen.stack} | {seen.hot} |")
                    else:
                        clean += 1
    print(f"{clean} others have no stack; {len(lacking)} are not compiled: {', '.join(lacking)}")
    return fine


def check(architectures: list[str], dtypes: list[str], dims: list[int]) -> bool:
    """Triton asked again for what is chosen: the model is within 5% above it, and the table says the same."""
    fine, rows = True, Table().rows
    for key, tile in dict(chosen(architectures, dtypes, dims)).items():
        architecture, _, dtype, dim = key[:4]
        gpu = targets().find(architecture)
        assert isinstance(gpu, Gpu)
        lines = shared_lines(work(program(), tile.step), tile, dtype, padded(dim), matrix(tile, dtype, gpu))
        model, (triton, columns) = sum(line.amount for line in lines), allocated(tile, dtype, dim, architecture)
        same = spec[-1] != CAUSAL or key not in rows or rows[key][:2] == (triton, columns)
        right = triton <= model <= 1.05 * triton and triton <= gpu.shared_block and columns <= gpu.tensor_columns
        fine &= same and right
        print(
            f"{key}: model {model}, Triton {triton}{'' if same else ', the table differs: calibrate again'}", flush=True
        )
    return fine


def grid(architectures: list[str], dtypes: list[str], dims: list[int]) -> bool:
    """The model against Triton for every candidate that a block could hold."""
    fine, count, least, most = True, 0, 0.0, 0.0
    for architecture in architectures:
        gpu = targets().find(architecture)
        assert isinstance(gpu, Gpu)
        for dtype in dtypes:
            element = "f16" if dtype == "bf16" and architecture == "sm_75" else dtype
            for dim in dims:
                for step in PASSES:
                    for tile in search.candidates(step, element, padded(dim), gpu):
                        lines = shared_lines(
                            work(program(), step), tile, element, padded(dim), matrix(tile, element, gpu)
                        )
                        model = sum(line.amount for line in lines)
                        if model > gpu.shared_block:
                            continue
                        triton, _ = allocated(tile, element, dim, architecture)
                        count, error = count + 1, model / triton - 1
                        least, most = min(least, error), max(most, error)
                        if not 0 <= error <= 0.05:
                            fine = False
                            print(f"{architecture} {element} {dim} {tile}: model {model}, Triton {triton}", flush=True)
    print(f"{count} kernels: {100 * least:+.1f}% to {100 * most:+.1f}%")
    return fine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="*", default=list(ARCHITECTURES))
    parser.add_argument("--dtypes", nargs="*", default=["bf16", "f32"])
    parser.add_argument("--dims", nargs="*", type=int, default=[64, 128, 32, 256, 16])
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--spills", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--grid", action="store_true")
    parser.add_argument("--spec", type=Path, help="of --check and --grid, in place of causal.attn")
    options = parser.parse_args()
    if options.spec is not None and not (options.check or options.grid):
        parser.error("--spec goes with --check or --grid: the table is of causal.attn")
    spec.append(options.spec or CAUSAL)
    if options.report:
        return 0 if report() else 1
    if options.spills:
        return 0 if spills(options.targets, options.dtypes, options.dims) else 1
    if options.check:
        return 0 if check(options.targets, options.dtypes, options.dims) else 1
    if options.grid:
        return 0 if grid([x for x in options.targets if x != GENERIC], options.dtypes, options.dims) else 1
    if options.fresh:
        FILE.write_text('{"triton": "", "kernels": []}\n', encoding="utf-8")
    explore = not (options.again or options.quick)
    limits = {"seconds": options.seconds, "again": options.again, "explore": explore}
    calibrate(options.targets, options.dtypes, options.dims, **limits)
    return 0 if report() else 1


if __name__ == "__main__":
    sys.exit(main())

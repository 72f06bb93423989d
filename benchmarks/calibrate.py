"""The planner's tiles, compiled: what Triton and ptxas report, kept in codegen/data/calibration.json.

    python benchmarks/calibrate.py                  compile what the planner chooses, until it chooses nothing new
    python benchmarks/calibrate.py --fresh          the same from nothing: after a change to the kernels
    python benchmarks/calibrate.py --again          what is chosen once more: after a small change to the kernels
    python benchmarks/calibrate.py --quick          only what is chosen, nothing that an estimate alone refuses
    python benchmarks/calibrate.py --report         the model's errors against the table, by architecture
    python benchmarks/calibrate.py --spills         what is chosen and spills, and what was not compiled, by the table
    python benchmarks/calibrate.py --check          Triton asked again for what is chosen; writes nothing
    python benchmarks/calibrate.py --grid           the model against Triton over the whole grid; writes nothing

The kernels are of the four scores below (--scores softcap: of these alone); --check and --grid take another spec
(--spec examples/zoo/linear.attn). A tile that spills is recorded, so that the planner passes it over for scores that
take as much, and the next best is compiled in the next round. Every kernel is
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
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

from attnc.codegen.emit import emit
from attnc.codegen.lower import lower
from attnc.codegen.plan import Plan, plan, rows_for
from attnc.codegen.planner import search
from attnc.codegen.planner.budget import shared_lines, total
from attnc.codegen.planner.calibration import Key, alike, answering, calibration
from attnc.codegen.planner.search import Choice
from attnc.codegen.planner.targets import FAMILY, GENERIC, Gpu, targets
from attnc.codegen.planner.tile import Tile, parts
from attnc.codegen.planner.work import PASSES, Pass, work
from attnc.codegen.program import Program
from attnc.codegen.signature import Signature, signatures
from attnc.dsl.frontend import compilable, compile_text
from attnc.dsl.source import Source
from attnc.runtime.aot import allocated, sourced

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "codegen" / "data" / "calibration.json"
ASSEMBLED = ("sm_80", "sm_90", "sm_100")  # whose registers are asked; gfx942's cost 10 s a kernel, sm_75's a minute
ARCHITECTURES = ("sm_90", "sm_80", "sm_100", "sm_89", GENERIC, "gfx942", "sm_75")
Report = tuple[int, int, int | None, int | None, int | None]

SCORE = "dot(q, k) / sqrt(D)"
SCORES = {  # light ones first; each takes as much as the first, or more, in every operation of a pair
    "causal": f"score {SCORE} mask causal",
    "window": f"score {SCORE} mask causal and window(1023)",
    "alibi": f"input slope: f32[H] nograd score {SCORE} - slope[h] * abs(i - j) mask causal",
    "softcap": f"score 50.0 * tanh({SCORE} / 50.0) mask causal and window(1023)",
}
HEAVY = {"dtypes": ("bf16",), "dims": (64, 128)}  # all but the first are compiled for these
texts = {name: f"attention {name} {{ {body} normalize softmax }}" for name, body in SCORES.items()}


@cache
def program(name: str) -> Program:
    """One of the scores', or of a file that was asked for."""
    return lower(compilable(compile_text(Source(name=name, text=texts[name]), {})))


@cache
def module(name: str, architecture: str) -> ModuleType:
    """The generated module, its kernels ready to be compiled."""
    text = emit(program(name), plan(program(name), architecture))
    path = Path(tempfile.mkdtemp(prefix="attnc-calibrate-")) / f"{name}_{architecture}.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    import triton  # noqa: F401  # a module defines kernels only beside triton

    spec.loader.exec_module(made)
    return made


def signature(name: str, tile: Tile, dtype: str, dim: int, architecture: str) -> Signature:
    """The kernel of a pass with this tile."""
    found = signatures(program(name), plan(program(name), architecture), dtype, dim, {tile.step: tile}, dim)
    return next(item for item in found if item.step == tile.step)


def asked_of(name: str, tile: Tile, dtype: str, dim: int, architecture: str) -> tuple[int, int]:
    """Bytes of shared memory and columns of tensor memory that Triton allocates."""
    return allocated(module(name, architecture), signature(name, tile, dtype, dim, architecture), architecture)


def assembled(name: str, tile: Tile, dtype: str, dim: int, architecture: str) -> Report:
    """Bytes of shared memory, columns of tensor memory, registers and bytes of stack a thread, and spills and reloads
    in hot loops, from the cubin."""
    import triton

    kernel = signature(name, tile, dtype, dim, architecture)
    source, target, options = sourced(module(name, architecture), kernel, architecture)
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
    """The table in its file: what was reported, by score and by architecture, pass, dtype, dim and tile."""

    def __init__(self) -> None:
        scores = json.loads(FILE.read_text(encoding="utf-8"))["scores"]
        kernels = {name: scores.get(name, {}).get("kernels", []) for name in SCORES}
        self.rows: dict[tuple[str, Key], Report] = {
            (name, tuple(row[:-5])): tuple(row[-5:]) for name, rows in kernels.items() for row in rows
        }

    def write(self) -> None:
        import triton

        scores = []
        for name in SCORES:
            pair = {step: [float(count) for count in work(program(name), step).pair] for step in PASSES}
            rows = sorted([*key, *rest] for (score, key), rest in self.rows.items() if score == name)
            lines = ",\n".join(json.dumps(row) for row in rows)
            head = f'"{name}": {{"spec": {json.dumps(texts[name])},\n"pair": {json.dumps(pair)},\n"kernels": '
            scores.append(f"{head}[\n{lines}\n]}}")
        inner = ",\n".join(scores)
        FILE.write_text(f'{{"triton": "{triton.__version__}", "scores": {{\n{inner}\n}}}}\n', encoding="utf-8")
        calibration.cache_clear()
        answering.cache_clear()
        rows_for.cache_clear()

    def of(self, name: str, architecture: str, tile: Tile, dtype: str, dim: int) -> Report:
        """A tile's row; that of the kernel without a limit of registers where it keeps to the limit anyway."""
        none = (0, 0, None, None, None)
        seen = self.rows.get((name, key_of(architecture, tile, dtype, dim)), none)
        free = self.rows.get((name, key_of(architecture, tile._replace(registers=0), dtype, dim)), none)
        return free if seen[2] is None and free[2] is not None and free[2] <= tile.registers else seen

    def lacking(self, name: str, key: Key, tile: Tile) -> bool:
        """Whether a kernel is still to be compiled."""
        architecture, _, dtype, dim = key[:4]
        return self.of(name, architecture, tile, dtype, dim)[2 if architecture in ASSEMBLED else 0] in (None, 0)


def key_of(architecture: str, tile: Tile, dtype: str, dim: int) -> Key:
    limit = [tile.registers] if tile.registers else []
    return (architecture, tile.step, dtype, dim, *tile[1:5], *limit, *([True] if tile.roles else []))


def within(name: str, values: list[Any], what: str) -> list[Any]:
    """The dtypes or head dims that a score is compiled for."""
    return values if name == "causal" or name not in SCORES else [value for value in values if value in HEAVY[what]]


def _choice(found: Plan, step: Pass, dtype: str, dim: int) -> Choice | None:
    """A plan's for vectors of ``dim``; for a sum of two powers of two, only where it takes them apart."""
    return found.row(step, dtype, dim).choice if found.width(step, dtype, dim) == dim else None


def chosen(
    name: str, architectures: list[str], dtypes: list[str], dims: list[int], *, explore: bool = False
) -> Iterator[tuple[Key, Tile]]:
    """What the planner takes now, and for which architecture it has to be compiled; to ``explore``, also what comes
    next and what only an estimate of registers refuses."""
    for target in architectures:
        found = plan(program(name), target)
        members = FAMILY if target == GENERIC else (target,)
        for dtype, dim, step in product(within(name, dtypes, "dtypes"), within(name, dims, "dims"), PASSES):
            choice = _choice(found, step, dtype, dim)
            if choice is None:
                continue
            for member in dict.fromkeys(alike(each) for each in members):
                if len(parts(dim)) > 1 and not plan(program(name), member).split:  # generic's there: by pointers
                    continue
                element = "f16" if dtype == "bf16" and member == "sm_75" else dtype
                yield key_of(member, choice.tile, element, dim), choice.tile
            if explore and target in ASSEMBLED:
                counted, gpu = work(program(name), step), found.gpu
                for tile in (
                    *search.with_roles(counted, choice.dtype, gpu),
                    *choice.next_best[:2],
                    *search.doubtful(counted, choice.dtype, dim, gpu, choice),
                ):
                    yield key_of(target, tile, choice.dtype, dim), tile


def calibrate(
    names: list[str],
    architectures: list[str],
    dtypes: list[str],
    dims: list[int],
    *,
    seconds: float,
    again: bool,
    explore: bool,
) -> None:
    """Compile what is chosen until nothing new is; ``again``: also what the table has of it."""
    table, start, failed = Table(), time.monotonic(), set[tuple[str, Key]]()

    def asked() -> dict[tuple[str, Key], Tile]:
        found = ((name, chosen(name, architectures, dtypes, dims, explore=explore)) for name in names)
        return {(name, key): tile for name, tiles in found for key, tile in tiles}

    if again:
        for item in asked():
            table.rows.pop(item, None)
    while todo := {item: tile for item, tile in asked().items() if table.lacking(*item, tile) and item not in failed}:
        for (name, key), tile in todo.items():
            if time.monotonic() - start > seconds:
                print(f"stopped after {seconds:.0f} s; {len(todo)} kernels of this round were asked for")
                return
            began = time.monotonic()
            architecture, _, dtype, dim = key[:4]
            try:
                if architecture in ASSEMBLED:
                    report = assembled(name, tile, dtype, dim, architecture)
                else:
                    report = (*asked_of(name, tile, dtype, dim, architecture), None, None, None)
            except Exception as error:  # of Triton: reported, and the next one compiled
                failed.add((name, key))
                print(f"{name} {key}: {type(error).__name__}: {str(error)[:200]}", flush=True)
                continue
            table.rows[name, key] = report
            table.write()
            print(f"{name} {key} {report} {time.monotonic() - began:.1f} s", flush=True)


def modelled(name: str, key: Key) -> int:
    """Bytes of shared memory by the model."""
    architecture, step, dtype, dim, *rest = key
    gpu, tile = targets().find(architecture), Tile(step, *rest[:4], roles=rest[-1] is True)
    assert isinstance(gpu, Gpu)
    return total(shared_lines(work(program(name), tile.step), tile, dtype, dim, gpu))


def report() -> bool:
    """Print the errors of the model; whether all are between 0 and 5%."""
    by: dict[tuple[str, str], list[float]] = {}
    rows = Table().rows
    for (name, key), row in rows.items():
        by.setdefault((key[0], name), []).append(modelled(name, key) / row[0] - 1)
    for (architecture, name), errors in sorted(by.items()):
        share = f"{100 * min(errors):+.1f}% to {100 * max(errors):+.1f}%"
        print(f"{architecture:8} {name:8} {len(errors):4} kernels: {share}")
    for (name, (architecture, step, dtype, dim, *tile)), (*_, registers, stack, hot) in sorted(rows.items()):
        if stack:
            where = f"{hot} in hot loops" if hot else "none in a hot loop"
            kernel = f"{name} {architecture} {step} {dtype} {dim} {tile}"
            print(f"spills: {kernel}: {stack} bytes, {registers} registers, {where}")
    return all(0 <= error <= 0.05 for errors in by.values() for error in errors)


def spills(names: list[str], architectures: list[str], dtypes: list[str], dims: list[int]) -> bool:
    """Print what is chosen and spills, by the table, and what it lacks; whether nothing spills in a loop."""
    fine, clean, lacking, table = True, 0, [], Table()
    for name, target in product(names, (target for target in architectures if target in ASSEMBLED)):
        found = plan(program(name), target)
        for dtype, dim, step in product(within(name, dtypes, "dtypes"), sorted(within(name, dims, "dims")), PASSES):
            choice = _choice(found, step, dtype, dim)
            *_, stack, hot = table.of(name, target, choice.tile, dtype, dim) if choice is not None else (None, None)
            if choice is None or stack is None:
                lacking.append(f"{name} {target} {step} {dtype} {dim}")
            elif stack:
                fine &= not hot
                print(f"| {name} | {target} | {step} | {dtype} | {dim} | {choice.tile} | {stack} | {hot} |")
            else:
                clean += 1
    print(f"{clean} others have no stack; {len(lacking)} are not compiled: {', '.join(lacking)}")
    return fine


def check(names: list[str], architectures: list[str], dtypes: list[str], dims: list[int]) -> bool:
    """Triton asked again for what is chosen: the model is within 5% above it, and the table says the same."""
    fine, rows = True, Table().rows
    for name in names:
        for key, tile in dict(chosen(name, architectures, dtypes, dims)).items():
            gpu = targets().find(key[0])
            assert isinstance(gpu, Gpu)
            model, (triton, columns) = modelled(name, key), asked_of(name, tile, key[2], key[3], key[0])
            same = (name, key) not in rows or rows[name, key][:2] == (triton, columns)
            right = triton <= model <= 1.05 * triton and triton <= gpu.shared_block and columns <= gpu.tensor_columns
            fine &= same and right
            differs = "" if same else ", the table differs: calibrate again"
            print(f"{name} {key}: model {model}, Triton {triton}{differs}", flush=True)
    return fine


def grid(names: list[str], architectures: list[str], dtypes: list[str], dims: list[int]) -> bool:
    """The model against Triton for every candidate that a block could hold."""
    fine, count, least, most = True, 0, 0.0, 0.0
    for name, architecture, dtype, dim, step in product(names, architectures, dtypes, dims, PASSES):
        gpu = targets().find(architecture)
        assert isinstance(gpu, Gpu)
        element = "f16" if dtype == "bf16" and architecture == "sm_75" else dtype
        for tile in search.candidates(step, element, dim, gpu):
            model = modelled(name, key_of(architecture, tile, element, dim))
            if model > gpu.shared_block:
                continue
            triton, _ = asked_of(name, tile, element, dim, architecture)
            count, error = count + 1, model / triton - 1
            least, most = min(least, error), max(most, error)
            if not 0 <= error <= 0.05:
                fine = False
                print(f"{name} {architecture} {element} {dim} {tile}: model {model}, Triton {triton}", flush=True)
    print(f"{count} kernels: {100 * least:+.1f}% to {100 * most:+.1f}%")
    return fine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scores", nargs="*", choices=SCORES, default=list(SCORES))
    parser.add_argument("--targets", nargs="*", default=list(ARCHITECTURES))
    parser.add_argument("--dtypes", nargs="*", default=["bf16", "f32"])
    parser.add_argument("--dims", nargs="*", type=int, default=[64, 128, 96, 80, 192, 32, 256, 16])
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so long")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--spills", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--grid", action="store_true")
    parser.add_argument("--spec", type=Path, help="of --check and --grid, in place of the scores")
    options = parser.parse_args()
    if options.spec is not None and not (options.check or options.grid):
        parser.error("--spec goes with --check or --grid: the table is of the scores here")
    names = options.scores
    if options.spec is not None:
        texts[options.spec.name] = options.spec.read_text(encoding="utf-8")
        names = [options.spec.name]
    asked = names, options.targets, options.dtypes, options.dims
    if options.report:
        return 0 if report() else 1
    if options.spills:
        return 0 if spills(*asked) else 1
    if options.check:
        return 0 if check(*asked) else 1
    if options.grid:
        return 0 if grid(names, [x for x in options.targets if x != GENERIC], *asked[2:]) else 1
    if options.fresh:
        FILE.write_text('{"triton": "", "scores": {}}\n', encoding="utf-8")
    explore = not (options.again or options.quick)
    limits = {"seconds": options.seconds, "again": options.again, "explore": explore}
    calibrate(*asked, **limits)
    return 0 if report() else 1


if __name__ == "__main__":
    sys.exit(main())

"""Emitted kernels beside FlexAttention's, judged from machine code alone: nothing is run on a GPU.

    python benchmarks/gpu_static.py [--targets sm_90 ...] [--dims 64 128] [--write]    the table of docs/performance.md
    python benchmarks/gpu_static.py --gates [--targets ...] [--dims ...] [EXAMPLE ...]  what passes a limit, by loop

Compiling takes seconds a kernel; facts are kept in build/gpu_static, keyed by the module's text and the reader's own,
so that a run that was cut off goes on where it stopped. ``est`` overstates absolute speed by 1.35 to 1.65 times; within
one GPU, head dim and pass, differences under 10% are noise.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path

os.environ.pop("TRITON_INTERPRET", None)  # kernels are compiled here, before anything imports triton

from attnc.codegen.lower import lower
from attnc.codegen.pipeline import compile as module_text
from attnc.codegen.plan import plan
from attnc.codegen.planner.targets import Gpu, targets
from attnc.codegen.planner.work import PASSES as PASS_NAMES
from attnc.codegen.planner.work import Pass
from attnc.dsl.construct import Construct
from attnc.dsl.frontend import compilable, compile_text
from attnc.dsl.source import Source
from attnc.dsl.version import VERSION
from attnc.runtime import machine
from attnc.runtime.machine import CAVEAT, KernelFacts, LoopFacts, inspect, misses

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "build" / "gpu_static"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- gpu_static.py --write: begin -->", "<!-- gpu_static.py --write: end -->"
TARGETS, DIMS = ("sm_80", "sm_90", "sm_100"), (64, 128)
LENGTH, WINDOW = 8192, 1024

SCORE = "dot(q, k) / sqrt(D)"
SPECS = {  # of the same heads and lengths as FlexAttention's kernels below
    "full": f"score {SCORE}",
    "causal": f"score {SCORE} mask causal",
    "window": f"score {SCORE} mask causal and window({WINDOW - 1})",
    "softcap": f"score 50.0 * tanh({SCORE} / 50.0) mask causal",
    "alibi": f"input slope: f32[H] nograd score {SCORE} - slope[h] * abs(i - j) mask causal",
}
PASSES: dict[str, tuple[tuple[Pass, ...], int]] = {"forward": (("forward",), 2), "backward": (("query", "key"), 5)}
"""The kernels of a pass, and the matrix products that a score needs: what is recomputed in the second kernel of a split
backward is no progress."""

# FlexAttention's own kernels (torch 2.13, inductor's default configurations, bf16, N = 8192, window 1024), compiled by
# triton 3.7.1 and read offline with the script that this package's reader is tested against: est and its bound, percent
# of the dense bf16 peak. Rows: pass, mask; columns: sm_80, sm_90, sm_100, each with D 64 and 128.
FLEX = {
    ("forward", "full"): ((72, 100), (64, 78), (51, 91), (62, 94), (24, 48), (27, 64)),
    ("forward", "causal"): ((65, 98), (63, 76), (50, 85), (61, 91), (23, 44), (27, 61)),
    ("forward", "window"): ((54, 83), (56, 69), (40, 69), (52, 79), (17, 33), (23, 48)),
    ("forward", "softcap"): ((15, 43), (25, 74), (8, 24), (15, 42), (4, 12), (8, 21)),
    ("forward", "alibi"): ((60, 95), (60, 76), (35, 63), (58, 91), (11, 27), (24, 47)),
    ("backward", "full"): ((39, 47), (42, 50), (46, 66), (58, 71), (18, 37), (28, 43)),
    ("backward", "causal"): ((33, 46), (38, 47), (43, 64), (55, 69), (18, 35), (27, 42)),
    ("backward", "window"): ((29, 42), (33, 42), (36, 54), (48, 62), (14, 29), (23, 37)),
    ("backward", "softcap"): ((15, 42), (22, 45), (9, 25), (17, 46), (3, 13), (5, 25)),
    ("backward", "alibi"): ((28, 46), (36, 47), (41, 62), (53, 67), (14, 32), (24, 38)),
}
GOALS = {"softcap": 3.0}  # times FlexAttention's est; 1.10 for the others
GOAL, NEAR_FULL = 1.10, 0.95  # the second: window and ALiBi beside full, per live tile


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A pass of one spec on one target: est and its bound, in percent of the dense bf16 peak, and its kernels."""

    est: float
    limit: float
    kernels: tuple[KernelFacts, ...]


def flex(name: str, mask: str, target: str, dim: int) -> tuple[int, int]:
    return FLEX[name, mask][TARGETS.index(target) * 2 + DIMS.index(dim)]


# --- facts, kept ------------------------------------------------------------------------------


def construct(name: str, text: str) -> Construct:
    return compile_text(Source(name=name, text=text), {})


def kernels(spec: Construct, target: str, step: Pass) -> str:
    """The text of a pass's kernels, of the functions that they may call and of the constants beside them."""
    parts = module_text(spec, target).split("\n\n\n")
    others = tuple(f"_{other}_kernel(" for other in PASS_NAMES if other != step)
    taken = [part for part in parts if "@triton.jit" in part or " = tl.constexpr(" in part]
    return "\n".join(part for part in taken if not any(other in part for other in others))


def facts(spec: Construct, target: str, dim: int, step: Pass, compiling: bool = True) -> tuple[KernelFacts, ...]:
    """What ``inspect`` says, or said when kernels, tile and reader were the same; LookupError where it never did and is
    not to be asked."""
    reader = "".join(path.read_text() for path in sorted(Path(str(machine.__file__)).parent.glob("*.py")))
    choice = plan(lower(compilable(spec)), target).row(step, "bf16", dim).choice
    tile = tuple(choice.tile) if choice is not None else None
    parts = (kernels(spec, target, step), tile, reader, version("triton"), target, str(dim), step)
    path = KEPT / f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:24]}.pickle"
    if path.exists():
        found: tuple[KernelFacts, ...] = pickle.loads(path.read_bytes())
        return found
    if not compiling:
        raise LookupError(path)
    found = inspect(spec, target, "bf16", dim, passes=(step,))
    KEPT.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_bytes(pickle.dumps(found))
    partial.replace(path)
    return found


# --- a cell -----------------------------------------------------------------------------------


def tiles(mask: str, block_m: int, block_n: int) -> tuple[int, int]:
    """How many tiles of LENGTH x LENGTH pairs are full, and partial: of a mask that asks ``0 <= i - j < width``."""
    if mask == "full":
        return (LENGTH // block_m) * (LENGTH // block_n), 0
    width = WINDOW if mask == "window" else LENGTH
    full = partial = 0
    for i, j in product(range(0, LENGTH, block_m), range(0, LENGTH, block_n)):
        least, most = i - (j + block_n - 1), i + block_m - 1 - j
        full += least >= 0 and most < width
        partial += (most >= 0 and least < width) and not (least >= 0 and most < width)
    return full, partial


def clocks(item: KernelFacts, mask: str, of: Callable[[LoopFacts], float]) -> float:
    """Clocks for 1024 scores over the live tiles: those of full and of partial ones, as often as they are met."""
    full, partial = tiles(mask, item.block_m, item.block_n)
    return (full * of(item.loop("full")) + (partial * of(item.loop("partial")) if partial else 0)) / (full + partial)


def cell(name: str, mask: str, target: str, dim: int, compiling: bool) -> Cell:
    steps, products = PASSES[name]
    spec = construct(mask, f"attention {mask} {{ {SPECS[mask]} normalize softmax }}")
    kernels = tuple(item for step in steps for item in facts(spec, target, dim, step, compiling))
    # a score's products at the peak's rate, for 1024 scores
    gpu = targets().find(target)
    assert isinstance(gpu, Gpu)
    ideal = 1024 * products * dim / gpu.tensor["bf16"]
    est = sum(clocks(item, mask, lambda loop: loop.clocks) for item in kernels)
    least = sum(clocks(item, mask, lambda loop: loop.least_clocks) for item in kernels)
    return Cell(est=100 * ideal / est, limit=100 * ideal / least, kernels=kernels)


# --- tables -----------------------------------------------------------------------------------


def table(targets: Sequence[str], dims: Sequence[int], compiling: bool) -> Iterator[str]:
    """Markdown: est beside FlexAttention's with the ratio; what reaches its goal is bold. Then the kernels."""
    columns = list(product(targets, dims))
    found: dict[tuple[str, str, str, int], Cell] = {}
    for name, mask, (target, dim) in product(PASSES, SPECS, columns):
        with suppress(LookupError):
            made = found[name, mask, target, dim] = cell(name, mask, target, dim, compiling)
            print(f"{name} {mask} {target} D {dim}: {made.est:.1f}", file=sys.stderr)
    yield "| pass, mask | " + " | ".join(f"{target} D {dim}" for target, dim in columns) + " |"
    yield "| --- |" + " --- |" * len(columns)
    reached = 0
    for name, mask in product(PASSES, SPECS):
        texts = []
        for target, dim in columns:
            if (name, mask, target, dim) not in found:
                texts.append("-")
                continue
            ours, theirs = found[name, mask, target, dim].est, flex(name, mask, target, dim)[0]
            good = ours >= GOALS.get(mask, GOAL) * theirs
            reached += good
            texts.append(f"{ours:.0f} / {theirs} = {'**' if good else ''}{ours / theirs:.2f}{'**' if good else ''}")
        yield f"| {name}, {mask} | " + " | ".join(texts) + " |"
    yield ""
    yield (
        f"est of ours / of FlexAttention's = ratio; bold where the goal is reached ({GOAL} times, soft-cap "
        f"{GOALS['softcap']:.0f} times): {reached} of {len(found)} cells."
    )
    yield ""
    yield "| per live tile, beside full | " + " | ".join(f"{target} D {dim}" for target, dim in columns) + " |"
    yield "| --- |" + " --- |" * len(columns)
    for name, mask in product(PASSES, ("window", "alibi")):
        texts = []
        for target, dim in columns:
            if not {(name, mask, target, dim), (name, "full", target, dim)} <= found.keys():
                texts.append("-")
                continue
            ratio = found[name, mask, target, dim].est / found[name, "full", target, dim].est
            texts.append(f"**{ratio:.2f}**" if ratio >= NEAR_FULL else f"{ratio:.2f}")
        yield f"| {name}, {mask} | " + " | ".join(texts) + " |"
    yield ""
    yield f"Bold where it is at least {NEAR_FULL}."
    yield ""
    heads = (
        "tile, warps, stages",
        "registers",
        "stack",
        "spills in loops",
        "blocks an SM",
        "est (bound) full",
        "partial",
    )
    yield f"| kernels of causal | {' | '.join(heads)} |"
    yield "| --- |" + " --- |" * len(heads)
    for (_, mask, target, dim), item in found.items():
        if mask == "causal":
            for kernel in item.kernels:
                yield _kernel(kernel, target, dim)


def _kernel(item: KernelFacts, target: str, dim: int) -> str:
    loops = [f"{loop.est:.0f} ({loop.limit:.0f} {loop.bound})" for loop in (item.loop("full"), item.loop("partial"))]
    blocks = item.occupancy.blocks if item.occupancy else 0
    return (
        f"| {item.step}, {target} D {dim} | {item.block_m} x {item.block_n}, {item.warps}, {item.stages} "
        f"| {item.registers} | {item.stack} | {item.hot_spills} | {blocks} | {' | '.join(loops)} |"
    )


def gates(examples: Sequence[str], targets: Iterable[str], dims: Iterable[int]) -> Iterator[str]:
    """One line for each limit that a loop passes."""
    files = sorted((ROOT / "examples" / "zoo").glob("*.attn"))
    cells = list(product([path for path in files if not examples or path.stem in examples], targets, dims))
    checked = 0
    for path, target, dim in cells:
        spec = construct(path.name, path.read_text())
        for step in ("forward", "query", "key"):
            for item in facts(spec, target, dim, step):
                checked += len(item.loops)
                yield from (f"{path.stem} {target} D {dim} {item.kernel}: {miss}" for miss in misses(item))
    yield f"{checked} loops checked."


def commit() -> str:
    """Which version of the compiler the kernels are from."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return f"commit {done.stdout.strip()}" if done.returncode == 0 else f"attnc {VERSION}"


def write(lines: Sequence[str]) -> None:
    """Put the table between its marks in docs/performance.md."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text("\n".join([before + BEGIN, "", *lines, "", END]) + after, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("examples", nargs="*", metavar="EXAMPLE", help="with --gates; all of them if none is named")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--dims", nargs="+", type=int, choices=DIMS, default=DIMS)
    parser.add_argument("--gates", action="store_true", help="the limits that the examples' kernels pass")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.relative_to(ROOT)}")
    parser.add_argument("--kept", action="store_true", help="compile nothing: what was not read before is `-`")
    options = parser.parse_args()
    if options.gates:
        for line in gates(options.examples, options.targets, options.dims):
            print(line, flush=True)
        return
    lines = [
        f"Kernels of {commit()}, triton {version('triton')}.",
        "",
        *table(options.targets, options.dims, not options.kept),
    ]
    print("\n".join(lines), CAVEAT, sep="\n")
    if options.write:
        write(lines)


if __name__ == "__main__":
    main()

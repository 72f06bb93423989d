"""Tiles of one kernel tried one after another: what the machine code of each is estimated to take, beside the model.

    python benchmarks/gpu_sweep.py causal forward sm_80 128                 every candidate of the planner
    python benchmarks/gpu_sweep.py alibi forward sm_90 64 128x64x8x3x128    these: rows that stay, that move, warps,
                                                                            stages, and most registers; `r` behind
                                                                           them gives warps roles (sm_100)

Read like benchmarks/gpu_static.py, and kept in build/gpu_static like its facts. ``est`` is the share of the dense bf16
peak that this one kernel is estimated to have over the tiles of the spec at N = 8192, ``model`` what the planner
ranks by, both as clocks of an SM for 1024 scores. Nothing is run on a GPU.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
from collections.abc import Iterator
from importlib.metadata import version

from gpu_static import KEPT, SPECS, Gpu, clocks, construct, inspect, kernels, targets  # first: it imports no triton

from attnc.codegen.lower import lower
from attnc.codegen.planner import cost, search
from attnc.codegen.planner.tile import Tile
from attnc.codegen.planner.work import PASSES, Pass, work
from attnc.dsl.construct import Construct
from attnc.dsl.frontend import compilable
from attnc.runtime.machine import KernelFacts


def parsed(step: Pass, text: str) -> Tile:
    held, moved, warps, stages, registers = (*map(int, text.removesuffix("r").split("x")), 0)[:5]
    return Tile(step, held, moved, warps, stages, registers, text.endswith("r"))


def facts(spec: Construct, target: str, dim: int, tile: Tile) -> KernelFacts:
    """One kernel's, read or kept."""
    parts = ("sweep", kernels(spec, target, tile.step), version("triton"), target, dim, tuple(tile))
    path = KEPT / f"{hashlib.sha256(repr(parts).encode()).hexdigest()[:24]}.pickle"
    if path.exists():
        found: KernelFacts = pickle.loads(path.read_bytes())
        return found
    (found,) = inspect(spec, target, "bf16", dim, tiles={tile.step: tile}, passes=(tile.step,))
    KEPT.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_bytes(pickle.dumps(found))
    partial.replace(path)
    return found


def lines(mask: str, step: Pass, target: str, dim: int, wanted: list[str]) -> Iterator[str]:
    spec = construct(mask, f"attention {mask} {{ {SPECS[mask]} normalize softmax }}")
    gpu = targets().find(target)
    assert isinstance(gpu, Gpu)
    counted = work(lower(compilable(spec)), step)
    choice = search.choose(counted, "bf16", dim, gpu, (gpu,))
    asked = [parsed(step, text) for text in wanted] or list(search.candidates(step, "bf16", dim, gpu))
    for tile in asked:
        found = search.budget(counted, tile, "bf16", dim, gpu)
        if found.shared_bytes > gpu.shared_block:
            continue
        try:
            item = facts(spec, target, dim, tile)
        except RuntimeError as error:
            yield f"{tuple(tile)}: {str(error)[:100]}"
            continue
        blocks = item.occupancy.blocks if item.occupancy else 0
        made = cost.clocks(counted, tile, "bf16", dim, gpu, max(1, blocks))
        model = 1024 * cost.price(counted, tile, "bf16", dim, made, max(1, blocks))
        read = clocks(item, mask, lambda loop: loop.clocks)
        ideal = 1024 * counted.products * dim / gpu.tensor["bf16"]
        full, partial = item.loop("full"), item.loop("full" if mask == "full" else "partial")
        yield (
            f"{'*' if choice and choice.tile == tile else ' '} {tuple(tile)[1:]!s:24} est {100 * ideal / read:5.1f} "
            f"clk {read:6.1f} model {model:6.1f} ({1024 * made.tile / tile.held / tile.moved:6.1f} {made.bound}) "
            f"regs {item.registers} (model {found.registers_thread}) stack {item.stack} hot {item.hot_spills} "
            f"blocks {blocks} full {full.est:.0f} ({full.limit:.0f} {full.bound}) partial {partial.est:.0f} | "
            f"ins {full.instructions_per_score:.1f} fp32 {full.fp32_per_score:.2f} int {full.integer_per_score:.2f} "
            f"mem {full.memory_per_score:.2f} sp {full.special_per_score:.2f}; partial "
            f"ins {partial.instructions_per_score:.1f} int {partial.integer_per_score:.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", choices=SPECS)
    parser.add_argument("step", choices=PASSES)
    parser.add_argument("target")
    parser.add_argument("dim", type=int)
    parser.add_argument("tiles", nargs="*", metavar="TILE")
    options = parser.parse_args()
    for line in lines(options.spec, options.step, options.target, options.dim, options.tiles):
        print(line, flush=True)


if __name__ == "__main__":
    main()

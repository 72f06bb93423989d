"""Machine code and its facts in a process of its own, without TRITON_INTERPRET. Prints a line of JSON for each job:
``fixed:TARGET`` (fixed_kernel.py), or ``EXAMPLE:TARGET:DIM:PASSES``."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def fixed(target: str) -> dict[str, Any]:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from attnc.codegen.planner.budget import occupancy
    from attnc.codegen.planner.targets import Gpu, targets
    from attnc.codegen.planner.tile import Tile
    from attnc.runtime.machine.disassembly import disassemble
    from attnc.runtime.machine.model import hot_loops
    from tests.backends.fixed_kernel import attend

    types = dict.fromkeys(("Q", "K", "V", "Out"), "*bf16") | {"stride": "i32", "N": "i32"}
    constants = {"BLOCK_M": 128, "BLOCK_N": 64, "D": 64}
    source = ASTSource(
        attend,
        types | dict.fromkeys(constants, "constexpr"),
        constants,
        {(place,): [["tt.divisibility", 16]] for place in range(4)},
    )
    made = triton.compile(
        source, target=GPUTarget("cuda", int(target[3:]), 32), options={"num_warps": 4, "num_stages": 2}
    )
    code, gpu = disassemble(made.asm["cubin"]), targets().find(target)
    assert isinstance(gpu, Gpu)
    # the script prices the professional cards of sm_89 and sm_120; the GeForce ones multiply at half their rate
    gpu = replace(gpu, tensor={"bf16": 512}) if target in ("sm_89", "sm_120") else gpu
    columns = getattr(made.metadata, "tmem_size", None) or 0
    blocks, _ = occupancy(gpu, Tile("forward", 128, 64, 4, 2), made.metadata.shared, code.registers, columns)
    (loop,) = hot_loops(code, gpu, warps=4, blocks=blocks, scores=128 * 64, dim=64)
    return {"registers": code.registers, "stack": code.stack, "blocks": blocks, **asdict(loop)}


def example(name: str, target: str, dim: str, passes: str) -> list[dict[str, Any]]:
    from attnc.dsl.frontend import compile_text
    from attnc.dsl.source import Source
    from attnc.runtime.machine import inspect, misses

    path = ROOT / "examples" / "zoo" / f"{name}.attn"
    construct = compile_text(Source(name=path.name, text=path.read_text()), {})
    facts = inspect(construct, target, "bf16", int(dim), passes=passes.split("+"))  # type: ignore[arg-type]
    return [asdict(item) | {"misses": [asdict(miss) for miss in misses(item)]} for item in facts]


def main(jobs: list[str]) -> Iterator[str]:
    for job in jobs:
        kind, *rest = job.split(":")
        made = fixed(*rest) if kind == "fixed" else example(kind, *rest)
        yield json.dumps({"job": job, "made": made})


if __name__ == "__main__":
    os.environ.pop("TRITON_INTERPRET", None)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        for line in main(sys.argv[1:]):
            print(line, flush=True)

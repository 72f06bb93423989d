"""Machine code and its facts in a process of its own, without TRITON_INTERPRET. Prints a line of JSON for each job:
``fixed:TARGET`` (fixed_kernel.py), or ``EXAMPLE:TARGET:DIM:PASSES``."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def fixed(target: str) -> dict[str, Any]:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from attnc.runtime.machine.architectures import ARCHITECTURES
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
    code, architecture = disassemble(made.asm["cubin"]), ARCHITECTURES[target]
    columns = getattr(made.metadata, "tmem_size", None) or 0
    occupancy = architecture.occupancy(code.registers, 4, made.metadata.shared, columns)
    loops = hot_loops(code, architecture, warps=4, blocks=occupancy.blocks, scores=128 * 64, dim=64)
    return {
        "registers": code.registers,
        "stack": code.stack,
        "occupancy": asdict(occupancy),
        "loops": [asdict(loop) for loop in loops],
    }


def example(name: str, target: str, dim: str, passes: str) -> list[dict[str, Any]]:
    from attnc.dsl.frontend import compile_text
    from attnc.dsl.source import Source
    from attnc.runtime.machine import inspect, misses

    path = ROOT / "examples" / f"{name}.attn"
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

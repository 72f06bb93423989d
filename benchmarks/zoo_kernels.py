"""Every kernel of the zoo, compiled with the tile that the planner takes: what spills, and the model of shared memory.

    python benchmarks/zoo_kernels.py                                         all of them: hours
    python benchmarks/zoo_kernels.py linear relu --targets sm_90 --dims 64   these specs alone

A line for each kernel that has a stack, whose loops spill, or whose shared memory the model has not within 5% above
Triton's; then how many were compiled and what the worst errors are. Vectors are bf16. Nothing is run on a GPU.
TRITON_INTERPRET must not be set."""

from __future__ import annotations

import argparse
import sys
from itertools import product
from pathlib import Path

from attnc.codegen.lower import lower
from attnc.codegen.names import Naming
from attnc.codegen.planner.budget import shared_lines, total
from attnc.codegen.planner.targets import Gpu, targets
from attnc.codegen.planner.work import PASSES, of_group
from attnc.dsl.frontend import compilable, compile_text
from attnc.dsl.source import Source
from attnc.runtime.aot import compile_kernels
from attnc.runtime.machine import inspect_kernel

ZOO = Path(__file__).resolve().parents[1] / "examples" / "zoo"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="*", default=sorted(path.stem for path in ZOO.glob("*.attn")))
    parser.add_argument("--targets", nargs="+", default=["sm_80", "sm_90", "sm_100"])
    parser.add_argument("--dims", nargs="+", type=int, default=[64, 128])
    options = parser.parse_args()
    count, stacks, hot, errors = 0, 0, 0, [0.0]
    for dim, target, name in product(options.dims, options.targets, options.specs):
        gpu = targets().find(target)
        assert isinstance(gpu, Gpu), f"{target} is no GPU"
        construct = compile_text(Source(name=name, text=(ZOO / f"{name}.attn").read_text(encoding="utf-8")), {})
        program = lower(compilable(construct))
        naming = Naming(program)
        works = {
            f"{naming.function(group.name)}_{step}_kernel": of_group(program, group, step)
            for group, step in product(program.groups, PASSES)
        }
        for made in compile_kernels(construct, target, "bf16", dim):
            facts, tile = inspect_kernel(made), made.signature.tile
            error = total(shared_lines(works[made.kernel], tile, "bf16", dim, gpu)) / made.shared - 1
            count, stacks, hot = count + 1, stacks + bool(facts.stack), hot + bool(facts.hot_spills)
            errors.append(error)
            if facts.stack or facts.note or not 0 <= error <= 0.05:
                print(
                    f"{name} {target} {dim} {made.kernel}: {tile}; {facts.stack} bytes of stack, {facts.hot_spills} "
                    f"spills in loops; model of shared memory {100 * error:+.1f}%"
                    + (f"; {facts.note}" if facts.note else ""),
                    flush=True,
                )
    print(f"{count} kernels: {stacks} have a stack, {hot} spill in a loop; ", end="")
    print(f"model of shared memory {100 * min(errors):+.1f}% to {100 * max(errors):+.1f}%")
    return 1 if hot else 0


if __name__ == "__main__":
    sys.exit(main())

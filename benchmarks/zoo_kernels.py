"""Every kernel of the zoo, compiled with the tile that the planner takes: what spills, and the model of shared memory.

    python benchmarks/zoo_kernels.py                                         all of them: hours
    python benchmarks/zoo_kernels.py linear relu --targets sm_90 --dims 64   these specs alone
    python benchmarks/zoo_kernels.py --shared                                their shared memory alone: minutes

A line for each kernel that has a stack, whose loops spill, or whose shared memory the model has not within 5% above
Triton's; then how many were compiled and what the worst errors are. Nothing is run on a GPU.
TRITON_INTERPRET must not be set."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from attnc.codegen.lower import lower
from attnc.codegen.names import Naming
from attnc.codegen.planner.budget import shared_lines, total
from attnc.codegen.planner.targets import Gpu, targets
from attnc.codegen.planner.work import PASSES, of_group
from attnc.codegen.signature import Signature
from attnc.dsl.frontend import compilable, compile_text
from attnc.dsl.source import Source
from attnc.runtime.aot import allocations, compile_kernels
from attnc.runtime.machine import KernelFacts, inspect_kernel

ZOO = Path(__file__).resolve().parents[1] / "examples" / "zoo"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="*", default=sorted(path.stem for path in ZOO.glob("*.attn")))
    parser.add_argument("--targets", nargs="+", default=["sm_80", "sm_90", "sm_100"])
    parser.add_argument("--dims", nargs="+", type=int, default=[64, 128])
    parser.add_argument("--dtype", choices=("bf16", "f32"), default="bf16")
    parser.add_argument("--shared", action="store_true", help="only as far as Triton's allocation of shared memory")
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
        made: Iterator[tuple[Signature, int, KernelFacts | None]]
        if options.shared:
            made = ((kernel, bytes, None) for kernel, bytes, _ in allocations(construct, target, options.dtype, dim))
        else:
            compiled = compile_kernels(construct, target, options.dtype, dim)
            made = ((item.signature, item.shared, inspect_kernel(item)) for item in compiled)
        for kernel, bytes, facts in made:
            count, found = count + 1, []
            if kernel.kernel in works:  # not sums of weights over queries: they take less, with the tile by keys
                model = total(shared_lines(works[kernel.kernel], kernel.tile, options.dtype, dim, gpu))
                errors.append(model / bytes - 1)
                if not 0 <= errors[-1] <= 0.05:
                    found.append(f"model of shared memory {model}, Triton {bytes}: {100 * errors[-1]:+.1f}%")
            if facts is not None:
                stacks, hot = stacks + bool(facts.stack), hot + bool(facts.hot_spills)
                if facts.stack:
                    found.append(f"{facts.stack} bytes of stack, {facts.hot_spills} spills in loops")
                if facts.note:
                    found.append(facts.note)
            if found:
                print(f"{name} {target} {dim} {kernel.kernel}: {kernel.tile}; {'; '.join(found)}", flush=True)
    print(f"{count} kernels: ", end="")
    print(f"{stacks} have a stack, {hot} spill in a loop; " if not options.shared else "", end="")
    print(f"model of shared memory {100 * min(errors):+.1f}% to {100 * max(errors):+.1f}%")
    return 1 if hot or not 0 <= min(errors) <= max(errors) <= 0.05 else 0


if __name__ == "__main__":
    sys.exit(main())

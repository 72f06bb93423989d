"""How long the first native call of a spec takes: to compile the spec, to build its C++, and again from a warm cache.

    python benchmarks/first_call.py [--specs causal longformer ...] [--dtype f32] [--dim 64] [--runs 3]

Every figure is of a fresh process that has imported torch and attnc; best of --runs: wall clock / processor time, the
compiler's included. The two differ where the machine is busy. ``load``: attnc.load; ``forward``: the first call,
without gradients; ``backward``: the first gradients after it; both less a second call; ``warm``: the same from the
cache."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile

PROGRAM = """
import json, resource, sys, time
import torch, attnc
import attnc.dsl.frontend, attnc.codegen.pipeline, attnc.runtime.op
path, dtype, dim = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
dtype = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[dtype]
def now():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(item.ru_utime + item.ru_stime for item in used)
def timed(run):
    before = now()
    result = run()
    return [a - b for a, b in zip(now(), before)], result
load, op = timed(lambda: attnc.load(path))
from attnc.runtime.bench import make_inputs, make_vectors
sizes = {"B": 1, "H": 2, "G": 2, "N": 64, "M": 64, "D": dim, "E": dim}
inputs = make_inputs(op.construct, sizes, {})
vectors = list(make_vectors(op, sizes, dtype).values())
def call():
    out = op(*vectors, backend="native", **inputs)
    return out if isinstance(out, torch.Tensor) else out[0]
forward, _ = timed(call)
again, _ = timed(call)
for x in vectors:
    x.requires_grad_()
out = call()
backward, _ = timed(lambda: out.sum().backward(retain_graph=True))
more, _ = timed(lambda: out.sum().backward(retain_graph=True))
print(json.dumps([load, [a - b for a, b in zip(forward, again)], [a - b for a, b in zip(backward, more)]]))
"""
Figures = list[list[float]]


def run(spec: str, dtype: str, dim: int, cache: str) -> Figures:
    """[load, forward, backward], each [wall, processor], of one fresh process."""
    environment = {**os.environ, "ATTNC_CACHE_DIR": cache}
    command = [sys.executable, "-c", PROGRAM, spec, dtype, str(dim)]
    made: Figures = json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)
    return made


def best(runs: list[Figures]) -> Figures:
    return [[min(found[step][clock] for found in runs) for clock in (0, 1)] for step in range(3)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    examples = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "examples", "zoo")
    parser.add_argument("--specs", nargs="+", default=["causal", "alibi", "longformer", "sinks", "differential"])
    parser.add_argument("--dtype", choices=("f32", "bf16", "f16"), default="f32")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'spec':14}{'load':>14}{'forward':>14}{'backward':>14}{'warm load':>16}{'forward':>16}{'backward':>16}")
    for spec in options.specs:
        path = spec if os.path.exists(spec) else os.path.join(examples, f"{spec}.attn")
        cold, warm = [], []
        for _ in range(options.runs):
            with tempfile.TemporaryDirectory() as cache:
                cold.append(run(path, options.dtype, options.dim, cache))
                warm.append(run(path, options.dtype, options.dim, cache))
        seconds = "".join(f"{f'{wall:.2f}/{used:.2f} s':>14}" for wall, used in best(cold))
        milliseconds = "".join(f"{f'{1e3 * wall:.1f}/{1e3 * used:.1f} ms':>16}" for wall, used in best(warm))
        print(f"{spec:14}{seconds}{milliseconds}", flush=True)


if __name__ == "__main__":
    main()

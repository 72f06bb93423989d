"""How long a tile map takes, and what memory: attnc's beside FlexAttention's ``create_block_mask`` on this machine.

    python benchmarks/tilemap.py [--lengths 1024 4096 16384 65536 1048576] [--flex-limit 16384] [--runs 5]

Each cell is one fresh process: the median over its runs of processor time and of wall clock in ms (they differ where
the machine is busy), after one run that is not timed, so that attnc's analysis of the mask, kept once a mask, is not
in it (``analysis`` has it). Memory is the peak that one more run adds: what Python and NumPy allocate (tracemalloc) for
attnc, the process's largest resident set for FlexAttention, whose tensors tracemalloc does not see. FlexAttention runs
up to --flex-limit; beyond, its n x n mask takes 10 n^2 bytes. Tiles are 128 x 128 for both."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys

SPECS = {
    "causal + window + global": "causal and (window(512) or global(64))",
    "BigBird": "block_window(64, 1) or global(128) or random(3, block = 64, seed = 0)",
    "documents": "causal and document(ids)",
    "dilated": "causal and dilated(256, 8)",
}

COMMON = """
import json, resource, sys, time, tracemalloc
from statistics import median
name, mask, n, runs = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
def timed(make):
    times = []
    for _ in range(runs):
        start = time.process_time(), time.perf_counter()
        make()
        times.append((time.process_time() - start[0], time.perf_counter() - start[1]))
    return [1e3 * median(column) for column in zip(*times)]
"""
OURS = (
    COMMON
    + """
import numpy as np
from attnc.codegen.tilemap import analyse, tile_map
from attnc.dsl.frontend import compile_text
from attnc.dsl.source import Source
text = "attention a { input ids: i32[B, M]  score dot(q, k) / sqrt(D)  mask " + mask + "  normalize softmax }"
mask = compile_text(Source(name="<benchmark>", text=text), {}).branches[0].mask
inputs = {"ids": (np.arange(n) // 1000)[None].astype(np.int32)} if name == "documents" else {}
draw = None
if name == "BigBird":
    import torch
    from attnc.runtime.draw import draw as drawn
    def draw(seed, head, row, count, blocks):
        return drawn(seed, torch.tensor(head), torch.tensor(row), count, blocks).numpy()
def make():
    return tile_map(mask, n, n, (128, 128), inputs=inputs, draw=draw)
def analysed():
    analyse.cache_clear()
    analyse.__wrapped__(mask, "i")
start = time.process_time()
analysed()
analysis = 1e3 * (time.process_time() - start)
made = make()
times = timed(make)
tracemalloc.start()
make()
peak = tracemalloc.get_traced_memory()[1]
print(json.dumps({"times": times, "peak": peak, "analysis": analysis, "exact": made.exact, "counts": made.counts()}))
"""
)
THEIRS = (
    COMMON
    + """
import torch
from torch.nn.attention.flex_attention import create_block_mask
torch.set_num_threads(2)
documents = torch.arange(n) // 1000
blocks = -(-n // 64)
generator = torch.Generator().manual_seed(0)
table = torch.zeros(blocks, blocks, dtype=torch.bool)
table.scatter_(1, torch.randint(0, blocks, (blocks, 3), generator=generator), True)
MASKS = {
    "causal + window + global": lambda b, h, i, j: (j <= i) & (((i - j).abs() <= 512) | (i < 64) | (j < 64)),
    "BigBird": lambda b, h, i, j: ((i // 64 - j // 64).abs() <= 1) | (i < 128) | (j < 128) | table[i // 64, j // 64],
    "documents": lambda b, h, i, j: (j <= i) & (documents[i] == documents[j]),
    "dilated": lambda b, h, i, j: (j <= i) & ((i - j).abs() <= 2048) & ((i - j) % 8 == 0),
}
def make():
    return create_block_mask(MASKS[name], None, None, n, n, device="cpu", BLOCK_SIZE=128)
def resident():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
create_block_mask(MASKS[name], None, None, 128, 128, device="cpu", BLOCK_SIZE=128)
before = resident()
make()
peak = resident() - before
print(json.dumps({"times": timed(make), "peak": peak}))
"""
)


def run(program: str, name: str, length: int, runs: int) -> dict[str, object] | None:
    """What one fresh process measured; None if it died, as of memory."""
    command = [sys.executable, "-W", "ignore", "-c", program, name, SPECS[name], str(length), str(runs)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    return None if done.returncode else json.loads(done.stdout)


def cell(found: dict[str, object] | None) -> str:
    if found is None:
        return f"{'-':>26}"
    processor, wall = found["times"]  # type: ignore[misc]  # two numbers
    return f"{processor:8.1f} / {wall:8.1f} {size(int(found['peak'])):>8}"  # type: ignore[call-overload]  # bytes


def size(count: int) -> str:
    return f"{count / 2**20:.1f} MB" if count >= 2**20 else f"{count / 2**10:.0f} kB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096, 16384, 65536, 1048576])
    parser.add_argument("--flex-limit", type=int, default=16384)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print("ms of processor / of wall clock, peak memory; tiles of 128 x 128")
    print(f"{'mask':26} {'N = M':>8} {'attnc':>28} {'create_block_mask':>28}  exact  analysis")
    for name in SPECS:
        for length in options.lengths:
            ours = run(OURS, name, length, options.runs)
            theirs = run(THEIRS, name, length, options.runs) if length <= options.flex_limit else None
            assert ours is not None
            exact, analysis = "yes" if ours["exact"] else "no", f"{ours['analysis']:.1f} ms"
            print(f"{name:26} {length:8} {cell(ours):>28} {cell(theirs):>28}  {exact:5}  {analysis}", flush=True)


if __name__ == "__main__":
    main()

"""Peak memory of native calls at 32,768 tokens, in a process of its own: never a matrix of queries by keys."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

N, D, THREADS = 32768, 16, 2
TENSOR = N * D * 4  # bytes: queries, keys, values, the output and each one's gradient
# Scratch, per thread: tiles and a block of keys, under 64 KiB at these dims; in the backward a chunk of keys, 640 KiB.
WORKER = 2**20
SLACK = 4 * 2**20  # what allocators round up, statistics of rows, Python
MEASURE = f"""
import json, sys
from pathlib import Path
import torch, attnc

torch.set_num_threads({THREADS})
op = attnc.loads("attention a {{ score dot(q, k) / sqrt(D)  mask causal  normalize softmax }}")

def peak(run):  # bytes above what is resident before
    status = lambda name: int(Path("/proc/self/status").read_text().split(name)[1].split()[0]) * 1024
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what is resident now
    before = status("VmRSS:")
    run()
    return status("VmHWM:") - before

def leaves(n):
    return [torch.randn(1, 1, n, {D}).requires_grad_() for _ in range(3)]

kept = {{}}
def forward(x):
    kept["out"] = op(*x, backend="native")
def backward(x):
    kept["grads"] = torch.autograd.grad(kept["out"], x, torch.ones_like(x[0]))

small, large = leaves(64), leaves({N})
forward(small), backward(small)  # built, loaded, threads started
print(json.dumps({{
    "forward": peak(lambda: forward(large)),
    "backward": peak(lambda: backward(large)),
    "a KiB a query": peak(lambda: torch.ones({N}, 256)),
}}))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's own account of a process")
def test_scratch_does_not_grow_with_length() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peaks = json.loads(done.stdout)
    seen = N * 1024 - 2**20  # Linux counts pages a thread, 64 at a time
    assert peaks["a KiB a query"] >= seen, f"the measure sees what is allocated: {peaks}"
    # the output; three gradients, what is sent back, its product with the output
    allowed = {
        "forward": TENSOR + THREADS * WORKER + SLACK,
        "backward": 5 * TENSOR + THREADS * WORKER + SLACK,
    }
    assert max(allowed.values()) < seen
    for name, most in allowed.items():
        assert peaks[name] <= most, f"{name}: {peaks[name] / 2**20:.1f} MiB, at most {most / 2**20:.1f}: {peaks}"

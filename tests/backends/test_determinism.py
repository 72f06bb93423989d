"""Same inputs, same bits: forward and backward, run after run and from several threads."""

from __future__ import annotations

import pytest
import torch

import attnc
from attnc.testing.call import make, outcome

SPECS = [
    "score dot(q, k) / sqrt(D)  mask causal  normalize softmax  emit lse, entropy, colsum",
    "input bias: f32[H, 2 * M]  score dot(q, k) + bias[h, i - j + M]  normalize softmax1",
    "input bias: f32[3, H]  score dot(q, k) * bias[(i * j) % 3, h]  mask random(2, block = 8, seed = 1)  "
    "normalize sigmoid",
    "input e: f32[H]  input kb: f32[B, M]  score dot(q, k) + kb[b, j]  normalize softmax(sink = e[h])  emit lse",
]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("backend", ["eager", "native", "interpret"])
def test_same_bits_twice(spec: str, backend: str) -> None:
    N = 40 if backend == "interpret" else 300
    op = attnc.loads(f"attention spec {{ {spec} }}")
    call = make(op, {"B": 2, "H": 4, "G": 2, "N": N, "M": N, "D": 16, "E": 24}).prepared(torch.float32)
    first = outcome(call, backend)
    for _ in range(2):
        again = outcome(call, backend)
        for name, x in first.items():
            assert torch.equal(x.view(torch.int32), again[name].view(torch.int32)), name


@pytest.mark.parametrize("spec", SPECS)
def test_same_bits_on_any_number_of_threads(spec: str) -> None:
    op = attnc.loads(f"attention spec {{ {spec} }}")
    call = make(op, {"B": 1, "H": 2, "G": 1, "N": 700, "M": 700, "D": 16, "E": 24}).prepared(torch.float32)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        first = outcome(call, "native")
        for count in (2, 3, 8):
            torch.set_num_threads(count)
            again = outcome(call, "native")
            for name in ("out", "lse"):
                if name in first:
                    assert torch.equal(first[name].view(torch.int32), again[name].view(torch.int32)), name
    finally:
        torch.set_num_threads(threads)

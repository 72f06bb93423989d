"""Same inputs, same bits: forward and backward, run after run and from several threads."""

from __future__ import annotations

import pytest
import torch

import attnc
from tests.backends.calls import make, outcome

SPECS = [
    "score dot(q, k) / sqrt(D)  mask causal  normalize softmax  emit lse, entropy, colsum",
    "input bias: f32[H, 2 * M]  score dot(q, k) + bias[h, i - j + M]  normalize softmax1",
    "input bias: f32[3, H]  score dot(q, k) * bias[(i * j) % 3, h]  mask random(2, block = 8, seed = 1)  "
    "normalize sigmoid",
    "input e: f32[H]  input kb: f32[B, M]  score dot(q, k) + kb[b, j]  normalize softmax(sink = e[h])  emit lse",
]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("backend", ["eager", "interpret"])
def test_same_bits_twice(spec: str, backend: str) -> None:
    N = 300 if backend == "eager" else 40
    op = attnc.loads(f"attention spec {{ {spec} }}")
    call = make(op, {"B": 2, "H": 4, "G": 2, "N": N, "M": N, "D": 16, "E": 24}).prepared(torch.float32)
    first = outcome(call, backend)
    for _ in range(2):
        again = outcome(call, backend)
        for name, x in first.items():
            assert torch.equal(x.view(torch.int32), again[name].view(torch.int32)), name

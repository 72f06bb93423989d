"""No result depends on what memory held before: everything that is allocated empty is filled with NaN first."""

from __future__ import annotations

import pytest
import torch

import attnc
from attnc.testing.call import make, outcome
from attnc.testing.memory import poisoned

SPECS = [
    "score dot(q, k) / sqrt(D)  mask causal and j > 2 and i % 5 != 4  normalize softmax  "
    "emit lse, total, rowmax, entropy, colsum",
    "input bias: f32[B, H, N, M]  score dot(q, k) * bias[b, h, i, j]  mask window(3) or global(2)  normalize softmax1  "
    "emit lse, total",
    "input bias: f32[H, 2 * M]  input kb: f32[B, M]  score dot(q, k) + bias[h, i - j + M] + kb[b, j]  mask block(9)  "
    "normalize sigmoid  emit total, colsum",
    "input e: f32[H]  score dot(q, k)  mask random(1, block = 8, seed = 2)  normalize softmax(sink = e[h])  emit lse",
    "score dot(q, k)  mask false  normalize softmax  emit lse",
]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("backend", ["eager", "native", "interpret"])
def test_results_do_not_depend_on_old_memory(spec: str, backend: str) -> None:
    op = attnc.loads(f"attention spec {{ {spec} }}")
    call = make(op, {"B": 2, "H": 2, "G": 1, "N": 37, "M": 41, "D": 5, "E": 17}).prepared(torch.float32)
    clean = outcome(call, backend)
    with poisoned():
        dirty = outcome(call, backend)
    for name, x in clean.items():
        assert not x.isnan().any(), name
        assert torch.equal(x, dirty[name]), name

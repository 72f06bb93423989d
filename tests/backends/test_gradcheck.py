"""torch.autograd.gradcheck: derived gradients against finite differences, in float64, with nothing in between."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import attnc

SPECS = {
    "dense": "score dot(q, k) / sqrt(D)  normalize softmax  emit lse, total",
    "causal window": "score dot(q, k)  mask causal and window(3)  normalize softmax  emit lse",
    "alibi": "input slope: f32[H]  score dot(q, k) - slope[h] * abs(i - j)  mask causal  normalize softmax",
    "softcap": "score 5 * tanh(dot(q, k) / 5)  mask causal  normalize softmax",
    "relative bias": "input bias: f32[H, 2 * M]  score dot(q, k) + bias[h, i - j + M]  normalize softmax",
    "pair bias": "input bias: f32[B, H, N, M]  score dot(q, k) * bias[b, h, i, j]  normalize softmax1  emit lse",
    "sink": "input anchor: f32[H]  score dot(q, k)  mask window(2)  normalize softmax(sink = anchor[h])  "
    "emit lse, total",
    "sigmoid": "input beta: f32  score dot(q, k) + beta  mask causal  normalize sigmoid  emit total",
    "abs_sum": "score dot(q, k)  mask causal  normalize abs_sum  emit total",
    "linear": "let phi(x) = elu(x) + 1  score dot(phi(q), phi(k))  mask causal  normalize sum  emit total",
    "own pair": "input c: f32[B, H, N]  score dot(q, k)  "
    "normalize weight(s) = softplus(s) divisor(t) = sqrt(t ** 2 + c[b, h, i] ** 2 + 1)  emit total",
    "rope": "score dot(rope(q, i), rope(k, j)) / sqrt(D)  mask causal  normalize softmax",
    "norms": "input w: f32[D]  score dot(rmsnorm(q, w), l2norm(k))  normalize softmax",
    "linformer": "input e: f32[R, M]  input f: f32[R, M]  key kp = e @ k  value vp = f @ v  "
    "score dot(q, kp)  normalize softmax",
    "decay": "input a: f32[B, H, M]  score dot(q, k) * exp(-abs(a[b, h, j]) * (i - j))  mask causal  normalize none",
    "differential": "input lam: f32[H]  branch x { score dot(q, k)  mask causal  normalize softmax }  "
    "branch y { score dot(q, k) * 0.5  normalize softmax }  output x - lam[h] * y  emit x.lse",
}


@pytest.mark.parametrize("name", SPECS)
def test_gradients_equal_differences(name: str) -> None:
    op = attnc.loads(f"attention spec {{ {SPECS[name]} }}")
    B, H, G, N, M, D, E, R = 1, 2, 1, 4, 5, 4, 3, 3
    generator = torch.Generator().manual_seed(0)

    def leaf(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    shapes = {
        "slope": (H,), "bias": (H, 2 * M) if "relative" in name else (B, H, N, M), "anchor": (H,), "beta": (),
        "c": (B, H, N), "w": (D,), "e": (R, M), "f": (R, M), "a": (B, H, M), "lam": (H,),
    }  # fmt: skip
    names = [item.name for item in op.construct.inputs]
    leaves = [leaf(B, H, N, D), leaf(B, G, M, D), leaf(B, G, M, E), *(leaf(*shapes[name]) for name in names)]

    def run(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inputs: dict[str, Any] = dict(zip(names, values[3:], strict=True))
        result = op(*values[:3], **inputs, backend="eager")
        results = (result,) if isinstance(result, torch.Tensor) else tuple(result)
        return tuple(x for x in results if x.requires_grad)

    assert torch.autograd.gradcheck(run, leaves, fast_mode=False, nondet_tol=0.0)

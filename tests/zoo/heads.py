"""Entries whose mechanism is heads, projections or several maps."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor

from tests.zoo.authorities import sdpa
from tests.zoo.registry import B, D, H, N, Trial, entry, heads, noise
from tests.zoo.scores import lower

EQUATION = "the paper's equation, densely"


@entry(authority="torch's scaled_dot_product_attention, enable_gqa")
def gqa() -> Trial:
    return Trial(leaves=heads(kv_heads=2), theirs=lambda q, k, v: sdpa(q, k, v, is_causal=True, enable_gqa=True))


@entry(authority=EQUATION)
def differential() -> Trial:
    def theirs(q1: Tensor, q2: Tensor, k1: Tensor, k2: Tensor, v: Tensor, lam: Tensor) -> Tensor:
        return sdpa(q1, k1, v, is_causal=True) - lam[:, None, None] * sdpa(q2, k2, v, is_causal=True)

    return Trial(leaves={**heads(names="q1 q2 k1 k2 v"), "lam": noise(H)}, theirs=theirs)


@entry(authority=EQUATION)
def linformer() -> Trial:
    def theirs(q: Tensor, k: Tensor, v: Tensor, e: Tensor, f: Tensor) -> Tensor:
        return (q @ (e @ k).mT / sqrt(D)).softmax(-1) @ (f @ v)

    return Trial(leaves={**heads(), "e": noise(6, N, seed=3), "f": noise(6, N, seed=4)}, theirs=theirs)


@entry(authority=EQUATION)
def performer() -> Trial:
    def theirs(q: Tensor, k: Tensor, v: Tensor, omega: Tensor) -> Tensor:
        def phi(x: Tensor) -> Tensor:
            x = x / D**0.25
            return torch.exp(x @ omega.mT - (x * x).sum(-1, keepdim=True) / 2) / sqrt(len(omega))

        weights = phi(q) @ phi(k).mT
        return (weights / weights.sum(-1, keepdim=True)) @ v

    return Trial(leaves={**heads(), "omega": noise(24, D)}, theirs=theirs)


@entry(
    authority=EQUATION,
    scene=lambda n: {
        "chosen": (torch.arange(-(-n // 64), dtype=torch.int32)[:, None] // torch.tensor([1, 2, 4]))[None, None].int()
    },
)
def native_sparse() -> Trial:
    w, n = 6, 8
    chosen = torch.tensor([[0, -1], [1, 0], [0, 2], [3, 1], [4, 0]], dtype=torch.int32)

    def theirs(q: Tensor, k: Tensor, v: Tensor, gate: Tensor) -> Tensor:
        i, j = torch.arange(N)[:, None], torch.arange(N)
        selected = (chosen[i // n] == (j // n)[:, None]).any(-1) & lower()
        return gate[..., :1] * sdpa(q, k, v, selected) + gate[..., 1:] * sdpa(q, k, v, (i - j < w) & lower())

    fixed = {"chosen": chosen.expand(B, H, 5, 2)}
    return Trial(leaves={**heads(), "gate": noise(B, H, N, 2)}, params={"w": w, "n": n}, fixed=fixed, theirs=theirs)

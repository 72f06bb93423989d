"""Other people's attention, called on vectors [B, H, N, D]: torch's, and modules of transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

HUGE = torch.finfo(torch.float32).min  # what transformers adds where a pair is masked


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, **options: Any) -> Tensor:
    """torch's scaled_dot_product_attention; ``mask``: bool or added to the scores, [N, M] or with heads and batches."""
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, **options)


def pairs(n: int, seen: Callable[[int], Iterable[int]]) -> Tensor:
    """bool [n, n] of the sets that a paper gives: ``seen(i)`` are the keys of query i, those outside 0 ... n - 1 do
    not exist."""
    mask = torch.zeros(n, n, dtype=torch.bool)
    for i in range(n):
        mask[i, [j for j in seen(i) if 0 <= j < n]] = True
    return mask


def added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A bool mask as transformers takes it: zeros, and a huge negative number where a pair is masked."""
    return torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, HUGE)


def merged(x: Tensor) -> Tensor:
    """[B, H, N, D] -> [B, N, H * D]"""
    return x.transpose(1, 2).flatten(2)


def split(x: Tensor, heads: int) -> Tensor:
    """[B, N, H * D] -> [B, H, N, D]"""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class Part(nn.Module):
    """Stands in for a projection: gives a part of the hidden states."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.stop = start, stop

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden[..., self.start : self.stop]


def hidden(module: nn.Module, projections: Mapping[str, Tensor]) -> Tensor:
    """Hidden states [B, N, *] made of vectors [B, H, N, D] side by side; the projections of the module that have their
    names are replaced by what takes each out again. What is left of the module is attention."""
    start = 0
    for name, x in projections.items():
        stop = start + x.shape[1] * x.shape[3]
        setattr(module, name, Part(start, stop))
        start = stop
    return torch.cat([merged(x) for x in projections.values()], dim=-1)

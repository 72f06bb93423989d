"""Entries whose mechanism is how scores become weights."""

from __future__ import annotations

from collections.abc import Callable
from math import log, sqrt
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn.functional import elu
from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward as gpt_oss_attention

from tests.zoo.authorities import added, merged, split
from tests.zoo.registry import D, H, N, Trial, entry, heads, noise
from tests.zoo.scores import lower


@entry(authority="transformers: attention of gpt-oss")
def sinks() -> Trial:
    def theirs(q: Tensor, k: Tensor, v: Tensor, sink_logit: Tensor) -> Tensor:
        module = SimpleNamespace(num_key_value_groups=1, training=False, sinks=sink_logit)
        return gpt_oss_attention(module, q, k, v, added(lower(), q.dtype), D**-0.5)[0].transpose(1, 2)

    return Trial(leaves={**heads(), "sink_logit": noise(H)}, theirs=theirs)


@entry(authority="the paper's equation, densely")
def sigmoid() -> Trial:
    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (torch.sigmoid(q @ k.mT / sqrt(D) - log(N)) * lower()) @ v

    return Trial(leaves=heads(), theirs=theirs)


@entry(authority="the paper's recurrent form, step by step (equations 18 to 20)")
def linear() -> Trial:
    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        state, total, rows = torch.zeros_like(k[:, :, 0, :, None] @ v[:, :, 0, None]), torch.zeros_like(k[:, :, 0]), []
        for i in range(N):
            feature = elu(k[:, :, i]) + 1
            state = state + feature[..., None] * v[:, :, i, None]
            total = total + feature
            query = elu(q[:, :, i]) + 1
            rows.append((query[..., None, :] @ state)[..., 0, :] / (query * total).sum(-1, keepdim=True))
        return torch.stack(rows, dim=2)

    return Trial(leaves=heads(), theirs=theirs)


@entry(authority="the paper's recurrent form, step by step (equation 6), normalized by its state's own sum")
def retention() -> Trial:
    def theirs(q: Tensor, k: Tensor, v: Tensor, gamma: Tensor) -> Tensor:
        state, total, rows = torch.zeros_like(k[:, :, 0, :, None] @ v[:, :, 0, None]), torch.zeros_like(k[:, :, 0]), []
        decay = gamma[:, None]
        for i in range(N):
            state = decay[..., None] * state + k[:, :, i, :, None] * v[:, :, i, None]
            total = decay * total + k[:, :, i]
            query = q[:, :, i] / sqrt(D)
            divisor = (query * total).sum(-1, keepdim=True).abs().clamp(min=1)
            rows.append((query[..., None, :] @ state)[..., 0, :] / divisor)
        return torch.stack(rows, dim=2)

    return Trial(leaves={**heads(), "gamma": 1 - 2.0 ** (-5 - torch.arange(float(H))).double()}, theirs=theirs)


@entry(authority="torch's MultiheadAttention with add_zero_attn, a key and a value of zeros")
def softmax1() -> Trial:
    width = H * D
    module = nn.MultiheadAttention(width, H, bias=False, add_zero_attn=True, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        module.in_proj_weight.copy_(torch.eye(width).repeat(3, 1))
        module.out_proj.weight.copy_(torch.eye(width))

    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return split(module(merged(q), merged(k), merged(v), need_weights=False, attn_mask=~lower())[0], H)

    return Trial(leaves=heads(), theirs=theirs)


def dense(weights: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The attention whose weights are made of the products of queries and keys, [B, H, N, M]."""
    return lambda q, k, v: weights(q @ k.mT) @ v


@entry(authority="the paper's equation, densely")
def relu() -> Trial:
    return Trial(leaves=heads(), theirs=dense(lambda x: (x / sqrt(D)).clamp(min=0) / N))


@entry(authority="the paper's equation, densely")
def squared_relu() -> Trial:
    return Trial(leaves=heads(), theirs=dense(lambda x: ((x / N).clamp(min=0) * lower()).square()))


@entry(authority="the paper's equation, densely")
def power() -> Trial:
    def weights(x: Tensor) -> Tensor:
        fourth = x**4 * lower()
        return fourth / fourth.sum(-1, keepdim=True)

    return Trial(leaves=heads(), theirs=dense(weights))

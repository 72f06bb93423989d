"""Entries whose mechanism is how scores become weights."""

from __future__ import annotations

from math import log, sqrt
from types import SimpleNamespace

import torch
from performer_pytorch.performer_pytorch import causal_linear_attention_noncuda, generalized_kernel
from torch import Tensor, nn
from torch.nn.functional import elu
from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward as gpt_oss_attention
from x_transformers.attend import Attend
from x_transformers.x_transformers import ReluSquared

from tests.zoo.authorities import added, merged, split
from tests.zoo.registry import D, H, N, Trial, entry, heads, noise
from tests.zoo.scores import lower


@entry(authority="transformers: attention of gpt-oss")
def sinks() -> Trial:
    def theirs(q: Tensor, k: Tensor, v: Tensor, sink_logit: Tensor) -> Tensor:
        module = SimpleNamespace(num_key_value_groups=1, training=False, sinks=sink_logit)
        return gpt_oss_attention(module, q, k, v, added(lower(), q.dtype), D**-0.5)[0].transpose(1, 2)

    return Trial(leaves={**heads(), "sink_logit": noise(H)}, theirs=theirs)


def attend(q: Tensor, k: Tensor, v: Tensor, *, bias: Tensor | None = None, **options: object) -> Tensor:
    """x-transformers' attention of vectors."""
    return Attend(**options)(q, k, v, attn_bias=bias)[0]


@entry(authority="x-transformers' Attend, sigmoid")
def sigmoid() -> Trial:
    bias = torch.tensor(-log(N), dtype=torch.float64)
    return Trial(leaves=heads(), theirs=lambda q, k, v: attend(q, k, v, bias=bias, causal=True, sigmoid=True))


@entry(authority="performer-pytorch's causal_linear_attention_noncuda of its generalized_kernel")
def linear() -> Trial:
    def phi(x: Tensor) -> Tensor:
        options = {"projection_matrix": None, "kernel_fn": lambda x: elu(x) + 1}
        return generalized_kernel(x, kernel_epsilon=0.0, normalize_data=False, **options)

    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return causal_linear_attention_noncuda(phi(q), phi(k), v, chunk_size=5, eps=0.0)

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


@entry(authority="x-transformers' Attend, its weights by torch's relu")
def relu() -> Trial:
    return Trial(
        leaves=heads(),
        theirs=lambda q, k, v: attend(q, k, v, scale=1 / (N * sqrt(D)), custom_attn_fn=nn.ReLU()),
    )


@entry(authority="x-transformers' Attend, its weights by its ReluSquared")
def squared_relu() -> Trial:
    return Trial(
        leaves=heads(),
        theirs=lambda q, k, v: attend(q, k, v, causal=True, scale=1 / N, custom_attn_fn=ReluSquared()),
    )


@entry(authority="the paper's equation, densely")
def power() -> Trial:
    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        fourth = (q @ k.mT) ** 4 * lower()
        return (fourth / fourth.sum(-1, keepdim=True)) @ v

    return Trial(leaves=heads(), theirs=theirs)

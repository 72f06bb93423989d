"""Entries whose mechanism is how scores become weights."""

from __future__ import annotations

from math import log, sqrt
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn.functional import elu
from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward as gpt_oss_attention

from tests.zoo.authorities import added
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

"""Entries whose mechanism is the score of a pair."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import LlamaConfig, T5Config
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward as gemma_attention
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb
from transformers.models.t5.modeling_t5 import T5Attention

from tests.zoo.authorities import added, sdpa
from tests.zoo.registry import B, D, H, N, Trial, entry, heads, noise


def lower(n: int = N) -> Tensor:
    return torch.ones(n, n, dtype=torch.bool).tril()


@entry(authority="transformers: build_alibi_tensor of BLOOM, in torch's scaled_dot_product_attention")
def alibi() -> Trial:
    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        bias = build_alibi_tensor(torch.ones(B, N), H, q.dtype).view(B, H, 1, N)
        return sdpa(q, k, v, bias.masked_fill(~lower(), -torch.inf))

    return Trial(leaves=heads(), fixed={"slope": 4.0 ** -torch.arange(1.0, H + 1)}, theirs=theirs)


@entry(authority="transformers: compute_bias of T5Attention, in torch's scaled_dot_product_attention")
def t5_bias() -> Trial:
    length = 150  # beyond the last bucket on both sides

    def theirs(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        module = T5Attention(T5Config(d_model=32, d_kv=D, num_heads=H), has_relative_attention_bias=True)
        del module.relative_attention_bias.weight
        module.relative_attention_bias.weight = bias
        return sdpa(q, k, v, module.compute_bias(length, length), scale=1.0)

    return Trial(leaves={**heads(n=length), "bias": noise(32, H, seed=5)}, theirs=theirs)


@entry(authority="transformers: attention of Gemma 2", length=16384)
def softcap() -> Trial:
    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        module = SimpleNamespace(num_key_value_groups=1, training=False)
        mask = added(lower(), q.dtype)
        return gemma_attention(module, q, k, v, mask, scaling=D**-0.5, softcap=2.0)[0].transpose(1, 2)

    return Trial(leaves=heads(), params={"cap": 2}, theirs=theirs, dtype=torch.float32)


def rotated(config: LlamaConfig, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """transformers' rotary embedding of a config, in torch's attention; its angles are in float32."""
    cos, sin = LlamaRotaryEmbedding(config)(v, torch.arange(q.shape[2])[None])
    return sdpa(*apply_rotary_pos_emb(q, k, cos, sin), v, is_causal=True)


@entry(authority="transformers: LlamaRotaryEmbedding, in torch's scaled_dot_product_attention")
def rope() -> Trial:
    config = LlamaConfig(head_dim=D)
    return Trial(leaves=heads(), theirs=lambda q, k, v: rotated(config, q, k, v), dtype=torch.float32)


@entry(authority="torch's normalize and scaled_dot_product_attention")
def qk_norm() -> Trial:
    def theirs(q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
        unit = normalize(q, dim=-1) * g[:, None, None]
        return sdpa(unit, normalize(k, dim=-1), v, is_causal=True, scale=1.0)

    return Trial(leaves={**heads(), "g": 4 + noise(H)}, theirs=theirs)

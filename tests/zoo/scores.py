"""Entries whose mechanism is the score of a pair."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, normalize
from transformers import DebertaV2Config, LlamaConfig, Qwen3Config, T5Config
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention
from transformers.models.esm.modeling_esmfold import EsmFoldSelfAttention
from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward as gemma_attention
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention
from transformers.models.speecht5.modeling_speecht5 import SpeechT5ScaledPositionalEncoding
from transformers.models.t5.modeling_t5 import T5Attention
from x_transformers.attend import Attend
from x_transformers.x_transformers import DataDependentAlibi

from tests.zoo.authorities import added, hidden, merged, sdpa, split
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


def scaled(**parameters: object) -> Trial:
    """A rotary embedding of transformers with this kind of scaling."""
    config = LlamaConfig(head_dim=D, max_position_embeddings=16, rope_parameters={"rope_theta": 1e4, **parameters})
    return Trial(leaves=heads(), theirs=lambda q, k, v: rotated(config, q, k, v), dtype=torch.float32)


@entry(authority="transformers: LlamaRotaryEmbedding of type linear, in torch's scaled_dot_product_attention")
def rope_linear() -> Trial:
    return replace(scaled(rope_type="linear", factor=3.0), params={"factor": 3})


@entry(authority="transformers: LlamaRotaryEmbedding of type dynamic, in torch's scaled_dot_product_attention")
def rope_ntk() -> Trial:
    return replace(scaled(rope_type="dynamic", factor=3.0), params={"factor": 3, "length": 16})


@entry(authority="transformers: LlamaRotaryEmbedding of type yarn, in torch's scaled_dot_product_attention")
def yarn() -> Trial:
    own = {"factor": 3.0, "beta_fast": 4.0, "beta_slow": 0.25}  # in 16 positions some pairs lie beyond both ends
    made = scaled(rope_type="yarn", original_max_position_embeddings=16, **own)
    params = {"factor": 3, "length": 16, "fast": 4, "slow": 0.25}
    return replace(made, params=params, fixed={"pair": torch.arange(D // 2, dtype=torch.int32)})


@entry(authority="transformers: LlamaRotaryEmbedding of type longrope, in torch's scaled_dot_product_attention")
def longrope() -> Trial:
    short, long = 1 + torch.arange(8.0) / 8, 1 + torch.arange(8.0)
    made = scaled(
        rope_type="longrope", original_max_position_embeddings=16, factor=3.0,
        short_factor=short.tolist(), long_factor=long.tolist(),
    )  # fmt: skip
    return replace(made, params={"factor": 3, "length": 16}, fixed={"short": short, "long": long})


@entry(authority="transformers: Qwen3Attention without rotation")
def qk_rmsnorm() -> Trial:
    config = Qwen3Config(
        hidden_size=3 * H * D, num_attention_heads=H, num_key_value_heads=H, head_dim=D, attn_implementation="eager"
    )

    def theirs(q: Tensor, k: Tensor, v: Tensor, gq: Tensor, gk: Tensor) -> Tensor:
        module = Qwen3Attention(config, 0).eval()
        module.o_proj = nn.Identity()
        for norm, gain in ((module.q_norm, gq), (module.k_norm, gk)):
            del norm.weight
            norm.weight = gain
        still = torch.ones(1, N, D, dtype=q.dtype), torch.zeros(1, N, D, dtype=q.dtype)
        states = hidden(module, {"q_proj": q, "k_proj": k, "v_proj": v})
        return split(module(states, still, added(lower(), q.dtype))[0], H)

    gains = {"gq": 1 + noise(D, seed=3) / 4, "gk": 1 + noise(D, seed=4) / 4}
    return Trial(leaves={**heads(), **gains}, theirs=theirs, dtype=torch.float32)


@entry(authority="transformers: positional encoding of SpeechT5, in torch's scaled_dot_product_attention")
def sinusoidal() -> Trial:
    positions = SpeechT5ScaledPositionalEncoding(0.0, D, N).pe  # in float32

    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return sdpa(q + positions, k + positions, v)

    fixed = {"dim": torch.arange(D, dtype=torch.int32)}
    return Trial(leaves=heads(), fixed=fixed, theirs=theirs, dtype=torch.float32)


@entry(authority="transformers: EsmFoldSelfAttention with a bias")
def pair_bias() -> Trial:
    def theirs(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        module = EsmFoldSelfAttention(H * D, H, D)
        together = torch.cat([q, k, v], dim=-1)  # [B, H, N, 3 D]: so its projection lays them
        module.proj, module.o_proj = nn.Identity(), nn.Identity()
        return split(module(merged(together), bias=bias.permute(0, 2, 3, 1))[0], H)

    return Trial(leaves={**heads(), "bias": noise(B, H, N, N)}, theirs=theirs)


@entry(authority="x-transformers: DataDependentAlibi, in its Attend")
def forgetting() -> Trial:
    def theirs(q: Tensor, k: Tensor, v: Tensor, gates: Tensor) -> Tensor:
        module = DataDependentAlibi(H, H)
        module.to_forget_gates[0] = nn.Identity()  # [B, N, H]: its projection's result
        return Attend(causal=True)(q, k, v, attn_bias=module(gates.mT))[0]

    def mine(op: partial[Tensor], gates: Tensor, **vectors: Tensor) -> Tensor:
        return op(*vectors.values(), c=logsigmoid(gates).cumsum(-1))

    return Trial(leaves={**heads(), "gates": 2 + noise(B, H, N)}, theirs=theirs, mine=mine, dtype=torch.float32)


@entry(authority="transformers: DisentangledSelfAttention of DeBERTa-v2")
def disentangled() -> Trial:
    span = 12  # shorter than the text: both ends are clamped

    def theirs(q: Tensor, k: Tensor, v: Tensor, kr: Tensor, qr: Tensor) -> Tensor:
        config = DebertaV2Config(
            hidden_size=H * D, num_attention_heads=H, relative_attention=True, pos_att_type=["c2p", "p2c"],
            max_relative_positions=span,
        )  # fmt: skip
        module = DisentangledSelfAttention(config).eval()
        states = hidden(module, {"query_proj": q, "key_proj": k, "value_proj": v})
        positions = hidden(module, {"pos_key_proj": kr[None], "pos_query_proj": qr[None]})[0]
        every = torch.ones(B, 1, N, N, dtype=torch.bool)
        return split(module(states, every, rel_embeddings=positions)[0], H)

    def mine(op: partial[Tensor], q: Tensor, k: Tensor, v: Tensor, kr: Tensor, qr: Tensor) -> Tensor:
        return op(q, k, v, c2p=q @ kr.mT, p2c=k @ qr.mT)

    positions = {name: noise(H, 2 * span, D, seed=seed) for seed, name in ((3, "kr"), (4, "qr"))}
    return Trial(leaves={**heads(), **positions}, params={"span": span}, theirs=theirs, mine=mine, dtype=torch.float32)

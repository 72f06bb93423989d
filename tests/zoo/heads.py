"""Entries whose mechanism is heads, projections or several maps."""

from __future__ import annotations

from functools import partial
from math import sqrt
from typing import Any

import torch
from linformer import LinformerSelfAttention
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import DeepseekV3Config, DiffLlamaConfig, ReformerConfig
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention
from transformers.models.diffllama.modeling_diffllama import DiffLlamaAttention
from transformers.models.reformer.modeling_reformer import LSHSelfAttention

import attnc
from attnc.helpers import lsh_order, merge, nsa_blocks
from tests.zoo.authorities import added, hidden, sdpa, split
from tests.zoo.registry import ZOO, B, D, H, N, Trial, entry, heads, noise
from tests.zoo.scores import lower

EQUATION = "the paper's equation, densely"


@entry(authority="torch's scaled_dot_product_attention, enable_gqa")
def gqa() -> Trial:
    """Each query head its own, two for one, all for one: multi-head, grouped-query and multi-query attention."""

    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shared = [sdpa(q, k[:, :g], v[:, :g], is_causal=True, enable_gqa=True) for g in (H, 2, 1)]
        return torch.cat(shared, dim=-1)

    def mine(op: partial[Tensor], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.cat([op(q, k[:, :g], v[:, :g]) for g in (H, 2, 1)], dim=-1)

    return Trial(leaves=heads(), mine=mine, theirs=theirs)


def _latent() -> tuple[dict[str, Tensor], Any]:
    """Queries, latents, the shared key and the up-projection of DeepSeek-V3's layer; and the layer called on them. No
    rotation: of position 0."""
    r, rank, e = 8, 24, D
    leaves = {
        "q": noise(B, H, N, D + r),
        "c": noise(B, 1, N, rank, seed=1),
        "kr": noise(B, 1, N, r, seed=2),
        "up": noise(H * (D + e), rank, seed=3) / 4,
    }

    class Up(nn.Module):
        """kv_b_proj with a leaf for its weight; taken before vectors are made hidden states."""

        weight: Tensor

        def forward(self, x: Tensor) -> Tensor:
            return linear(x, self.weight)

    def theirs(q: Tensor, c: Tensor, kr: Tensor, up: Tensor) -> Tensor:
        config = DeepseekV3Config(
            hidden_size=H * D,
            num_attention_heads=H,
            num_key_value_heads=H,
            q_lora_rank=None,
            kv_lora_rank=rank,
            qk_nope_head_dim=D,
            qk_rope_head_dim=r,
            v_head_dim=e,
        )
        config._attn_implementation = "eager"
        layer = DeepseekV3Attention(config, 0)
        x = hidden(layer, {"q_proj": q, "kv_a_proj_with_mqa": torch.cat([c, kr], dim=-1)})
        layer.kv_a_layernorm, layer.o_proj, layer.kv_b_proj = nn.Identity(), nn.Identity(), Up()
        layer.kv_b_proj.weight = up
        still = torch.ones(B, N, r, dtype=x.dtype), torch.zeros(B, N, r, dtype=x.dtype)
        out: Tensor = layer(x, still, added(lower()[None, None], x.dtype))[0]
        return split(out, H)

    return leaves, theirs


@entry(authority="transformers' DeepseekV3Attention")
def mla() -> Trial:
    leaves, theirs = _latent()

    def mine(op: partial[Tensor], q: Tensor, c: Tensor, kr: Tensor, up: Tensor) -> Tensor:
        k, v = linear(c[:, 0], up).unflatten(-1, (H, -1)).transpose(1, 2).split(D, dim=-1)
        return op(q[..., :D], q[..., D:], k, kr.expand(-1, H, -1, -1), v)

    return Trial(leaves=leaves, params={"r": 8}, mine=mine, theirs=theirs, dtype=torch.float32)


@entry(authority="transformers' DeepseekV3Attention")
def mla_absorbed() -> Trial:
    leaves, theirs = _latent()

    def mine(op: partial[Tensor], q: Tensor, c: Tensor, kr: Tensor, up: Tensor) -> Tensor:
        up_key, up_value = up.unflatten(0, (H, -1)).split(D, dim=1)
        row = torch.cat([c, kr], dim=-1)
        out = op(torch.cat([q[..., :D] @ up_key, q[..., D:]], dim=-1), row, row[..., : c.shape[-1]])
        return out @ up_value.mT

    return Trial(leaves=leaves, params={"d": D + 8}, mine=mine, theirs=theirs, dtype=torch.float32)


@entry(authority="transformers' DiffLlamaAttention")
def differential() -> Trial:
    """Its lambda is one for all heads, and learned; its group norm and scale come after."""

    def theirs(q1: Tensor, q2: Tensor, k1: Tensor, k2: Tensor, v: Tensor, lam: Tensor) -> Tensor:
        config = DiffLlamaConfig(hidden_size=2 * H * D, num_attention_heads=2 * H, num_key_value_heads=2 * H)
        config._attn_implementation = "eager"
        layer = DiffLlamaAttention(config, 0)
        x = hidden(
            layer,
            {
                "q_proj": torch.cat([q1, q2], dim=1),
                "k_proj": torch.cat([k1, k2], dim=1),
                "v_proj": torch.cat(v.chunk(2, dim=-1), dim=1),
            },
        )
        layer.groupnorm, layer.o_proj, layer.lambda_init = nn.Identity(), nn.Identity(), 0.0
        for name in ("q1", "k1", "q2", "k2"):  # exp(lam) - exp(0)
            delattr(layer, f"lambda_{name}")
            setattr(layer, f"lambda_{name}", torch.zeros(1, dtype=x.dtype))
        layer.lambda_q1, layer.lambda_k1 = lam, torch.ones_like(lam)
        still = torch.ones(B, N, D, dtype=x.dtype), torch.zeros(B, N, D, dtype=x.dtype)
        return split(layer(x, still, added(lower()[None, None], x.dtype))[0], H)

    def mine(op: partial[Tensor], q1: Tensor, q2: Tensor, k1: Tensor, k2: Tensor, v: Tensor, lam: Tensor) -> Tensor:
        return op(q1, q2, k1, k2, v, lam=(lam.exp() - 1).expand(H))

    vectors = heads(names="q1 q2 k1 k2") | {"v": noise(B, H, N, 2 * D, seed=4)}
    return Trial(leaves={**vectors, "lam": noise(1)}, mine=mine, theirs=theirs, dtype=torch.float32)


@entry(authority="linformer's LinformerSelfAttention")
def linformer() -> Trial:
    def theirs(q: Tensor, k: Tensor, v: Tensor, e: Tensor, f: Tensor) -> Tensor:
        layer = LinformerSelfAttention(H * D, N, k=len(e), heads=H)
        x = hidden(layer, {"to_q": q, "to_k": k, "to_v": v})
        del layer.proj_k, layer.proj_v
        layer.to_out, layer.proj_k, layer.proj_v = nn.Identity(), e.mT, f.mT
        return split(layer(x), H)

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


@entry(authority=EQUATION)
def random_features() -> Trial:
    """cos(a) cos(b) + sin(a) sin(b) = cos(a - b): the paper's kernel, with no feature written out."""

    def theirs(q: Tensor, k: Tensor, v: Tensor, omega: Tensor) -> Tensor:
        q, k = q / q.norm(dim=-1, keepdim=True), k / k.norm(dim=-1, keepdim=True)
        angle = (q[:, :, :, None] - k[:, :, None]) @ omega.mT
        weights = angle.cos().mean(-1).masked_fill(~lower(), 0.0)
        return (weights / weights.sum(-1, keepdim=True)) @ v

    return Trial(leaves={**heads(), "omega": noise(24, D) / 2}, theirs=theirs)


L, STRIDE, BLOCK = 8, 4, 8  # tokens of a compressed key, from one to the next, of a selected block


def compressed_pairs() -> Tensor:
    """bool [N, C]: the compressed keys that are whole at each query."""
    keys = (N - L) // STRIDE + 1
    return torch.tensor([[STRIDE * c + L <= i + 1 for c in range(keys)] for i in range(N)])


@entry(authority=EQUATION)
def native_compressed() -> Trial:
    seen = compressed_pairs()
    rows = seen.any(1)[:, None]

    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.where(rows, sdpa(q, k, v, seen | ~rows, enable_gqa=True), 0.0)

    def mine(op: partial[Tensor], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return op(q, k, v, q_offset=0)

    leaves = heads(kv_heads=2) | {name: noise(B, 2, seen.shape[1], D, seed=seed) for seed, name in ((5, "k"), (6, "v"))}
    return Trial(leaves=leaves, params={"l": L, "d": STRIDE}, mine=mine, theirs=theirs)


def _selection(n: int) -> dict[str, Tensor]:
    """The first block, the query's own and the one before, and those at a half and a quarter of the way."""
    own, block = torch.arange(n)[:, None] // 64, torch.arange(-(-n // 64))
    chosen = (block == 0) | (block == own) | (block == own - 1) | (block == own // 2) | (block == own // 4)
    return {"chosen": chosen[None, None], "table": chosen[None, None, ::64]}


@entry(authority=EQUATION, scene=_selection)
def native_sparse() -> Trial:
    """All three branches: compressed keys are means here, their weights select."""
    w, count = 6, 3
    sizes = {"length": L, "stride": STRIDE, "block": BLOCK, "count": count, "local": 1}

    def compress(x: Tensor) -> Tensor:
        return x.unfold(2, L, STRIDE).mean(-1)

    def theirs(q: Tensor, k: Tensor, v: Tensor, gate: Tensor, third: Tensor) -> Tensor:
        k, v = (x.repeat_interleave(2, dim=1) for x in (k, v))
        seen = compressed_pairs()
        rows = seen.any(1)[:, None]
        weights = (q @ compress(k).mT / sqrt(D)).masked_fill(~seen, -torch.inf).softmax(-1).nan_to_num(0.0).detach()
        weights = weights[:, ::2] + weights[:, 1::2]  # equation 10: heads of a group share their blocks
        blocks = -(-N // BLOCK)
        worth = torch.zeros(B, 2, N, blocks, dtype=q.dtype)
        for block in range(1, blocks + 1):  # equation 9, as it is printed: from 1
            for m in range(BLOCK // STRIDE):
                for n in range(L // STRIDE):
                    at = BLOCK // STRIDE * block - m - n
                    if 1 <= at <= weights.shape[-1]:
                        worth[..., block - 1] += weights[..., at - 1]
        chosen = torch.zeros(B, 2, N, blocks, dtype=torch.bool)
        for i in range(N):
            forced = {0, i // BLOCK}
            for b in range(B):
                for g in range(2):
                    others = sorted((-worth[b, g, i, at], at) for at in set(range(i // BLOCK)) - forced)
                    chosen[b, g, i, [*forced, *(at for _, at in others[: count - len(forced)])]] = True
        i, j = torch.arange(N)[:, None], torch.arange(N)
        selected = chosen.repeat_interleave(2, dim=1)[..., j // BLOCK] & lower()
        parts = [
            torch.where(rows, sdpa(q, compress(k), compress(v), seen | ~rows), 0.0),
            sdpa(q, k, v, selected),
            sdpa(q, k, v, (i - j < w) & lower()),
        ]
        gates = torch.cat([third, gate], dim=-1)
        return sum(gates[..., at, None] * part for at, part in enumerate(parts))

    def mine(op: partial[Tensor], q: Tensor, k: Tensor, v: Tensor, gate: Tensor, third: Tensor) -> Tensor:
        first = attnc.load(ZOO / "native_compressed.attn", l=L, d=STRIDE)
        keys, values = (compress(x).contiguous() for x in (k, v))
        chosen, table = nsa_blocks(q, keys, **sizes)
        compressed = first(q, keys, values, q_offset=0, **op.keywords)
        return third * compressed + op(q, k, v, chosen=chosen, table=table, gate=gate)

    leaves = {**heads(kv_heads=2), "gate": noise(B, H, N, 2), "third": noise(B, H, N, 1)}
    return Trial(leaves=leaves, params={"w": w, "n": BLOCK}, mine=mine, theirs=theirs)


def _sorted_by_bucket(n: int) -> dict[str, Tensor]:
    """64 buckets of every 64th token."""
    row = torch.arange(n)
    return {"pos": (row % (n // 64) * 64 + row // (n // 64))[None, None].int()}


@entry(authority="transformers' LSHSelfAttention", scene=_sorted_by_bucket)
def reformer() -> Trial:
    """The layer draws its rotations from a seed; here the same are drawn, and both sides hash by them. The score of a
    token itself is not its -10^5, which would leave 10^5 roundoffs in its sum over the rounds."""
    length, chunk, rounds, buckets, seed, own = 40, 8, 2, 4, 3, -64.0

    def theirs(q: Tensor, v: Tensor) -> Tensor:
        config = ReformerConfig(
            hidden_size=H * D,
            num_attention_heads=H,
            attention_head_size=D,
            lsh_attn_chunk_length=chunk,
            num_hashes=rounds,
            num_buckets=buckets,
            hash_seed=seed,
            is_decoder=True,
            lsh_attention_probs_dropout_prob=0.0,
        )
        layer = LSHSelfAttention(config)
        layer.self_mask_value_float32.fill_(own)
        out: Tensor = layer(hidden(layer, {"query_key": q, "value": v})).hidden_states
        return split(out, H)

    def mine(op: partial[Any], q: Tensor, v: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        rotations = torch.randn(H, D, rounds, buckets // 2, generator=generator, dtype=torch.float64)
        order = lsh_order(q.double(), rotations)
        rows = order.flatten(2)[..., None]
        by_bucket = q.take_along_dim(rows, 2)
        result = op(by_bucket, by_bucket, v.take_along_dim(rows, 2), pos=rows[..., 0].int())
        back = order.argsort(-1)
        out = result.out.unflatten(2, (rounds, length)).take_along_dim(back[..., None], 3)
        return merge(out, result.lse.unflatten(2, (rounds, length)).take_along_dim(back, 3), dim=2)

    leaves = {"q": noise(B, H, length, D), "v": noise(B, H, length, D, seed=1)}
    return Trial(leaves=leaves, params={"n": chunk, "own": own}, mine=mine, theirs=theirs)


@entry(authority=EQUATION)
def heavy_hitters() -> Trial:
    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = (q @ k.mT / sqrt(D)).masked_fill(~lower(), -torch.inf).softmax(-1)
        return torch.cat([weights @ v, weights.sum(-2).detach()[..., None]], dim=-1)

    def mine(op: partial[Any], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        result = op(q, k, v)
        return torch.cat([result.out, result.colsum[..., None]], dim=-1)

    return Trial(leaves=heads(), mine=mine, theirs=theirs)

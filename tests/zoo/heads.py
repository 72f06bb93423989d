"""Entries whose mechanism is heads, projections or several maps."""

from __future__ import annotations

import copy
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from linformer import LinformerSelfAttention
from native_sparse_attention_pytorch import SparseAttention
from performer_pytorch.performer_pytorch import linear_attention, softmax_kernel
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import DeepseekV3Config, DiffLlamaConfig, ReformerConfig
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention
from transformers.models.diffllama.modeling_diffllama import DiffLlamaAttention
from transformers.models.mistral.modeling_mistral import eager_attention_forward as mistral_attention
from transformers.models.reformer.modeling_reformer import LSHSelfAttention

import attnc
from attnc.helpers import lsh_order, merge, nsa_blocks
from tests.zoo.authorities import Part, added, hidden, merged, sdpa, split
from tests.zoo.patterns import SETS
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
        out = op(torch.cat([q[..., :D] @ up_key, q[..., D:]], dim=-1), row)
        return out @ up_value.mT

    return Trial(leaves=leaves, params={"d": D + 8, "r": 24}, mine=mine, theirs=theirs, dtype=torch.float32)


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


@entry(authority="performer-pytorch's linear_attention of its softmax_kernel, without its epsilon")
def performer() -> Trial:
    """It sums keys first, and takes a maximum out of each exponent that cancels."""

    def theirs(q: Tensor, k: Tensor, v: Tensor, omega: Tensor) -> Tensor:
        queries, keys = (
            softmax_kernel(x, projection_matrix=omega, is_query=is_query, eps=0.0)
            for x, is_query in ((q, True), (k, False))
        )
        return linear_attention(queries, keys, v)

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


@entry(authority=SETS)
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


@entry(authority="native-sparse-attention-pytorch's SparseAttention, its networks copied", scene=_selection)
def native_sparse() -> Trial:
    """All three branches. The package compresses by networks that it learns, here with blocks that do not overlap, and
    has a key and a value of zeros before the compressed ones; rotation is left out. So that its choice of blocks is the
    paper's (it sums scores of heads, the paper weights), each head has its own keys."""
    w, count = 6, 2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = SparseAttention(
            dim=D, dim_head=D, heads=H, kv_heads=H, causal=True, norm=False, sliding_window_size=w,
            num_selected_blocks=count, selection_block_size=BLOCK, compress_block_size=BLOCK,
            compress_block_sliding_stride=BLOCK,
        ).double()  # fmt: skip
    layer.rotary_emb.rotate_queries_with_cached_keys = lambda q, k: (q, k)
    layer.to_qkv, layer.combine_heads = Part(0, 3 * H * D), nn.Identity()
    layer.to_strategy_combine[0] = Part(3 * H * D, 3 * H * D + 3 * H)

    def theirs(q: Tensor, k: Tensor, v: Tensor, logits: Tensor) -> Tensor:
        states = torch.cat([*map(merged, (q, k, v)), logits], dim=-1)
        return split(layer(states), H)

    def compressed(x: Tensor, network: nn.Module) -> Tensor:
        blocks = x[:, :, : N // BLOCK * BLOCK].unflatten(2, (-1, BLOCK))
        return torch.cat([torch.zeros_like(x[:, :, :1]), copy.deepcopy(network).to(x.dtype)(blocks)], dim=2)

    def mine(op: partial[Tensor], q: Tensor, k: Tensor, v: Tensor, logits: Tensor) -> Tensor:
        gate = logits.sigmoid().unflatten(-1, (H, 3)).transpose(1, 2)
        first = attnc.load(ZOO / "native_compressed.attn", l=1, d=BLOCK)  # the zeros are key 0, seen by all
        keys, values = compressed(k, layer.k_compress), compressed(v, layer.v_compress)
        blocks = nsa_blocks(
            q, keys[:, :, 1:], length=BLOCK, stride=BLOCK, block=BLOCK, count=count + 1, first=0, local=1
        )
        coarse = first(q, keys, values, q_offset=0, **op.keywords)
        return gate[..., :1] * coarse + op(q, k, v, gate=gate[..., 1:].contiguous(), **blocks._asdict())

    leaves = {**heads(), "logits": noise(B, N, 3 * H)}
    return Trial(leaves=leaves, params={"w": w + 1, "n": BLOCK}, mine=mine, theirs=theirs)


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


@entry(authority="transformers: attention of Mistral, the columns of its weights summed")
def heavy_hitters() -> Trial:
    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        module = SimpleNamespace(num_key_value_groups=1, training=False)
        out, weights = mistral_attention(module, q, k, v, added(lower(), q.dtype), D**-0.5)
        return torch.cat([out.transpose(1, 2), weights.sum(-2).detach()[..., None]], dim=-1)

    def mine(op: partial[Any], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        result = op(q, k, v)
        return torch.cat([result.out, result.colsum[..., None]], dim=-1)

    return Trial(leaves=heads(), mine=mine, theirs=theirs, dtype=torch.float32)

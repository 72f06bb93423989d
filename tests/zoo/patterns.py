"""Entries whose mechanism is which keys a query sees."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor
from transformers import ReformerConfig
from transformers.masking_utils import (
    and_masks,
    causal_mask_function,
    packed_sequence_mask_function,
    padding_mask_function,
    sliding_window_causal_mask_function,
)
from transformers.models.mistral.modeling_mistral import eager_attention_forward as mistral_attention
from transformers.models.reformer.modeling_reformer import LocalSelfAttention

from attnc.runtime.draw import draw
from tests.zoo.authorities import added, hidden, pairs, sdpa, split
from tests.zoo.registry import B, H, N, Trial, entry, heads

SETS = "the paper's sets of keys, listed for each query, in torch's scaled_dot_product_attention"


def of_transformers(function: object, n: int = N) -> Tensor:
    """A mask function of transformers over all pairs of n positions, bool [B, 1, n, n]."""
    b, h, i, j = torch.meshgrid(torch.arange(B), torch.arange(1), torch.arange(n), torch.arange(n), indexing="ij")
    mask = function(b, h, i, j)  # type: ignore[operator]
    return torch.as_tensor(mask).expand(B, 1, n, n)


def mistral(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """transformers' attention of Mistral; its softmax is in float32."""
    module = SimpleNamespace(num_key_value_groups=q.shape[1] // k.shape[1], training=False)
    out, _ = mistral_attention(module, q, k, v, added(mask, q.dtype), q.shape[-1] ** -0.5)
    return out.transpose(1, 2)


@entry(authority="torch's scaled_dot_product_attention")
def dense() -> Trial:
    return Trial(leaves=heads(), theirs=sdpa)


@entry(authority="torch's scaled_dot_product_attention, is_causal")
def causal() -> Trial:
    return Trial(leaves=heads(), theirs=lambda q, k, v: sdpa(q, k, v, is_causal=True))


@entry(authority="transformers: attention of Mistral with sliding_window_causal_mask_function", length=16384)
def sliding() -> Trial:
    mask = of_transformers(sliding_window_causal_mask_function(9))
    return Trial(leaves=heads(), params={"w": 9}, theirs=lambda q, k, v: mistral(q, k, v, mask), dtype=torch.float32)


@entry(authority=SETS)
def dilated() -> Trial:
    w, s = 3, 4
    mask = pairs(N, lambda i: [i + s * n for n in range(-w, w + 1)])
    return Trial(leaves=heads(), params={"w": w, "s": s}, theirs=lambda q, k, v: sdpa(q, k, v, mask))


@entry(authority=SETS)
def longformer() -> Trial:
    w, g = 5, 2
    mask = pairs(N, lambda i: range(N) if i < g else {*range(g), *range(i - w, i + w + 1)})
    return Trial(leaves=heads(), params={"w": w, "g": g}, theirs=lambda q, k, v: sdpa(q, k, v, mask))


@entry(authority=SETS + "; the random blocks are this project's own draw")
def bigbird() -> Trial:
    n, r = 4, 1
    blocks = -(-N // n)
    drawn = draw(0, torch.arange(H)[:, None], torch.arange(blocks), r, blocks)  # [H, blocks, r]

    def seen(h: int, i: int) -> list[int]:
        block = i // n
        if block < 2:
            return list(range(N))
        return [n * at + c for at in {0, 1, block - 1, block, block + 1, *drawn[h, block].tolist()} for c in range(n)]

    mask = torch.stack([pairs(N, lambda i, h=h: seen(h, i)) for h in range(H)])  # type: ignore[misc]
    return Trial(leaves=heads(), params={"n": n, "r": r}, theirs=lambda q, k, v: sdpa(q, k, v, mask))


@entry(authority=SETS)
def sparse_strided() -> Trial:
    s = 5
    mask = pairs(N, lambda i: {*range(max(0, i - s), i + 1), *range(i, -1, -s)})
    return Trial(leaves=heads(), params={"s": s}, theirs=lambda q, k, v: sdpa(q, k, v, mask))


@entry(authority=SETS)
def sparse_fixed() -> Trial:
    l, c = 7, 2
    mask = pairs(N, lambda i: [j for j in range(i + 1) if j // l == i // l or j % l in range(l - c, l)])
    return Trial(leaves=heads(), params={"l": l, "c": c}, theirs=lambda q, k, v: sdpa(q, k, v, mask))


@entry(authority="transformers: LocalSelfAttention of Reformer, no neighbouring chunks")
def block_local() -> Trial:
    n = 8
    config = ReformerConfig(
        attention_head_size=16, num_attention_heads=H, local_attn_chunk_length=n, local_num_chunks_before=0,
        local_num_chunks_after=0, is_decoder=False,
    )  # fmt: skip

    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        module = LocalSelfAttention(config).eval()
        return split(module(hidden(module, {"query": q, "key": k, "value": v})).hidden_states, H)

    return Trial(leaves=heads(n=40), params={"n": n}, theirs=theirs)


@entry(
    authority="transformers: attention of Mistral with padding_mask_function",
    scene=lambda n: {"len": torch.tensor([5 * n // 8], dtype=torch.int32)},
)
def padded() -> Trial:
    length = torch.tensor([5, N], dtype=torch.int32)
    mask = of_transformers(padding_mask_function(torch.arange(N) < length[:, None]))
    return Trial(
        leaves=heads(), fixed={"len": length}, theirs=lambda q, k, v: mistral(q, k, v, mask), dtype=torch.float32
    )


@entry(authority=SETS, scene=lambda n: {"n": torch.tensor([n // 4], dtype=torch.int32)})
def prefix_lm() -> Trial:
    n = torch.tensor([3, 20], dtype=torch.int32)
    mask = torch.stack([pairs(N, lambda i, p=p: range(max(i + 1, p))) for p in n.tolist()])[:, None]  # type: ignore[misc]
    return Trial(leaves=heads(), fixed={"n": n}, theirs=lambda q, k, v: sdpa(q, k, v, mask))


def documents(*lengths: int) -> Tensor:
    """int32 [1, sum of lengths], the number of each token's document."""
    return torch.arange(len(lengths), dtype=torch.int32).repeat_interleave(torch.tensor(lengths))[None]


@entry(
    authority="transformers: attention of Mistral with packed_sequence_mask_function",
    scene=lambda n: {"ids": documents(n // 8, n // 2, n // 4, n - 7 * n // 8)},
)
def document() -> Trial:
    ids = torch.cat([documents(9, 20, 8), documents(36, 1)])
    mask = of_transformers(and_masks(causal_mask_function, packed_sequence_mask_function(ids)))
    return Trial(leaves=heads(), fixed={"ids": ids}, theirs=lambda q, k, v: mistral(q, k, v, mask), dtype=torch.float32)


@entry(authority=SETS)
def streaming() -> Trial:
    w, n = 9, 2
    mask = pairs(N, lambda i: [j for j in {*range(n), *range(i - w, i + 1)} if j <= i])
    return Trial(leaves=heads(), params={"w": w, "n": n}, theirs=lambda q, k, v: sdpa(q, k, v, mask))

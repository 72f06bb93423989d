"""Entries whose mechanism is which keys a query sees."""

from __future__ import annotations

from functools import partial
from itertools import product
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import linear
from transformers import BigBirdConfig, Gemma3TextConfig, LongformerConfig, ReformerConfig, SwinConfig
from transformers.masking_utils import (
    and_masks,
    causal_mask_function,
    packed_sequence_mask_function,
    padding_mask_function,
    sliding_window_causal_mask_function,
)
from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention, BigBirdModel
from transformers.models.gemma3.modeling_gemma3 import Gemma3Attention, Gemma3RotaryEmbedding
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention
from transformers.models.mistral.modeling_mistral import eager_attention_forward as mistral_attention
from transformers.models.reformer.modeling_reformer import LocalSelfAttention
from transformers.models.swin.modeling_swin import SwinLayer, window_partition, window_reverse

import attnc
from attnc.helpers import moba_blocks, tree_ancestors
from attnc.runtime.draw import draw
from tests.zoo.authorities import added, hidden, merged, pairs, sdpa, split
from tests.zoo.registry import ZOO, B, D, H, N, Trial, entry, heads, noise

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


@entry(authority=SETS)
def dilated_heads() -> Trial:
    w, steps = 3, [1, 1, 2, 4]
    mask = torch.stack([pairs(N, lambda i, s=s: [i + s * n for n in range(-w, w + 1)]) for s in steps])  # type: ignore[misc]
    return Trial(leaves=heads(), params={"w": w, "s": steps}, theirs=lambda q, k, v: sdpa(q, k, v, mask))


def marked(n: int, *places: int) -> Tensor:
    """bool [1, n], true at these places."""
    return torch.isin(torch.arange(n), torch.tensor(places))[None]


@entry(
    authority="transformers: LongformerSelfAttention, its weights copied",
    scene=lambda n: {"t": marked(n, 0, n // 3, 2 * n // 3)},
)
def longformer_global() -> Trial:
    n, w, width = 48, 4, H * D
    config = LongformerConfig(attention_window=[2 * w], num_attention_heads=H, hidden_size=width, num_hidden_layers=1)
    t = torch.cat([marked(n, 0, 1, 30), marked(n, 17)])
    module = LongformerSelfAttention(config, 0).eval()
    leaves = {}  # without biases: gradients of keys' are 0, a sum that cancels
    for seed, (name, x) in enumerate(module.named_parameters()):
        nn.init.zeros_(x)
        if name.endswith("weight"):
            leaves[name] = noise(*x.shape, seed=seed) / 8

    def theirs(x: Tensor, **weights: Tensor) -> Tensor:
        masks = {"attention_mask": t * 10000.0, "is_index_masked": torch.zeros_like(t), "is_index_global_attn": t}
        return functional_call(module, weights, (x,), {**masks, "is_global_attn": True})[0]

    def mine(op: partial[Tensor], /, x: Tensor, **weights: Tensor) -> Tensor:
        vectors = [
            split(linear(x, weights[f"{role}{kind}.weight"]), H)
            for role in ("query", "key", "value")
            for kind in ("", "_global")
        ]
        return merged(op(*vectors, t=t))

    return Trial(
        leaves={"x": noise(B, n, width), **leaves}, params={"w": w}, fixed={"t": t}, theirs=theirs, mine=mine,
        dtype=torch.float32,
    )  # fmt: skip


@entry(
    authority="transformers: BigBirdBlockSparseAttention, with the random blocks that it draws",
    scene=lambda n: {"drawn": spread(-(-n // 64), 3)},
)
def bigbird_blocks() -> Trial:
    size, n, r = 48, 4, 2
    config = BigBirdConfig(
        num_attention_heads=H, hidden_size=H * D, block_size=n, num_random_blocks=r, max_position_embeddings=size
    )
    module = BigBirdBlockSparseAttention(config, seed=0).train()  # it draws in training alone, and has no dropout
    draw_blocks, found = module._bigbird_block_rand_mask_with_head, []

    def recorded(**options: object) -> object:
        found[:] = draw_blocks(**options)
        return found

    module._bigbird_block_rand_mask_with_head = recorded
    ones = torch.ones(B, size, dtype=torch.float64)
    blocked, band, rows, columns = BigBirdModel.create_masks_for_block_sparse_attn(ones, n)

    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        states = hidden(module, {"query": q, "key": k, "value": v})
        return split(module(states, band, rows, columns, blocked, blocked)[0], H)

    x = heads(n=size)
    theirs(**x)
    drawn = torch.full((B, H, size // n, r), -1, dtype=torch.int32)
    drawn[:, :, 1:-1] = torch.tensor(np.stack(found), dtype=torch.int32)
    return Trial(leaves=x, params={"n": n}, fixed={"drawn": drawn}, theirs=theirs)


def spread(blocks: int, count: int) -> Tensor:
    """An index list int32 [1, 1, blocks, count]: for each block of queries some that lie apart."""
    rows, slots = torch.arange(blocks)[:, None], torch.arange(1, count + 1)
    return ((rows * (2 * slots + 1) + 7 * slots) % blocks)[None, None].int()


@entry(authority="transformers: two layers of Gemma3Attention, local and global, their weights copied")
def gemma3() -> Trial:
    w, width = 9, 32
    config = Gemma3TextConfig(
        hidden_size=width, num_attention_heads=H, num_key_value_heads=2, head_dim=D, query_pre_attn_scalar=D,
        layer_types=["sliding_attention", "full_attention"], sliding_window=w, num_hidden_layers=2,
        attn_implementation="eager",
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        },
    )  # fmt: skip
    layers = nn.ModuleList([Gemma3Attention(config, layer) for layer in range(2)]).eval()
    turned = Gemma3RotaryEmbedding(config)
    masks = [of_transformers(f) for f in (sliding_window_causal_mask_function(w), causal_mask_function)]
    leaves = {name: noise(*x.shape, seed=seed) / 4 for seed, (name, x) in enumerate(layers.named_parameters())}

    def theirs(x: Tensor, **weights: Tensor) -> Tensor:
        for layer, module in enumerate(layers):
            own = {name.partition(".")[2]: y for name, y in weights.items() if name.startswith(f"{layer}.")}
            angles = turned(x, torch.arange(N)[None], config.layer_types[layer])
            x = x + functional_call(module, own, (x, angles, added(masks[layer], x.dtype)))[0]
        return x

    def mine(op: partial[Tensor], /, x: Tensor, **weights: Tensor) -> Tensor:
        whole = partial(attnc.load(ZOO / "gemma3.attn", local=False), **op.keywords)
        for layer, called in enumerate((op, whole)):
            q, k, v = (
                split(x @ weights[f"{layer}.{name}_proj.weight"].mT, count)
                for name, count in (("q", H), ("k", 2), ("v", 2))
            )
            gains = {f"g{name}": weights[f"{layer}.{name}_norm.weight"] for name in "qk"}
            x = x + merged(called(q, k, v, **gains)) @ weights[f"{layer}.o_proj.weight"].mT
        return x

    return Trial(
        leaves={"x": noise(B, N, width), **leaves}, params={"w": w}, theirs=theirs, mine=mine, dtype=torch.float32
    )


@entry(authority=SETS)
def neighborhood() -> Trial:
    n = 7
    mask = pairs(N, lambda i: sorted(range(N), key=lambda j: (abs(j - i), j))[:n])
    return Trial(leaves=heads(), params={"n": n}, theirs=lambda q, k, v: sdpa(q, k, v, mask))


@entry(authority=SETS, length=56 * 56)
def neighborhood_2d() -> Trial:
    n, height, width = 3, 6, 7

    def near(at: int, length: int) -> list[int]:
        return sorted(range(length), key=lambda j: abs(j - at))[:n]

    mask = pairs(height * width, lambda i: [
        width * row + column for row in near(i // width, height) for column in near(i % width, width)
    ])  # fmt: skip
    return Trial(
        leaves=heads(n=height * width), params={"n": n, "width": width}, theirs=lambda q, k, v: sdpa(q, k, v, mask)
    )


def listed(blocks: Tensor) -> Tensor:
    """An index list [..., rows, slots] as a table bool [..., rows, blocks]."""
    return (blocks[..., None] == torch.arange(blocks.shape[-2])).any(-2)


@entry(
    authority="the table's blocks spread over pairs by torch's repeat_interleave, in its scaled_dot_product_attention",
    scene=lambda n: {"table": listed(spread(-(-n // 64), 8))},
)
def block_table() -> Trial:
    n = 8
    table = (noise(B, H, 5, 5) > 0.5) | torch.eye(5, dtype=torch.bool)
    mask = table.repeat_interleave(n, 2).repeat_interleave(n, 3)[:, :, :N, :N].tril()
    return Trial(leaves=heads(), params={"n": n}, fixed={"table": table}, theirs=lambda q, k, v: sdpa(q, k, v, mask))


def gate(q: Tensor, k: Tensor, n: int, top: int) -> Tensor:
    """MoBA's gate, equations 5 and 6, query by query: of the blocks before the query's own the ``top`` with the
    largest q . mean(K_block); bool [B, H, N, blocks]."""
    blocks = -(-k.shape[2] // n)
    means = torch.stack([k[:, :, at * n : (at + 1) * n].mean(2) for at in range(blocks)], dim=2)
    chosen = torch.zeros(*q.shape[:3], blocks, dtype=torch.bool)
    for i in range(q.shape[2]):
        scores = (q[:, :, i, None] * means).sum(-1)[..., : i // n]
        best = scores.topk(min(top, i // n), dim=-1).indices
        chosen[:, :, i].scatter_(-1, best, True)
    return chosen


def _alike(n: int) -> dict[str, Tensor]:
    """Queries of a block that choose alike."""
    q = noise(1, 1, n // 64, 16).repeat_interleave(64, dim=2)
    return moba_blocks(q, noise(1, 1, n, 16, seed=1), block=64, count=3)._asdict()


@entry(authority="the paper's equations 2 to 6, query by query, in torch's scaled_dot_product_attention", scene=_alike)
def moba() -> Trial:
    n, top = 8, 2

    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        chosen = gate(q, k, n, top)
        mask = torch.zeros(B, H, N, N, dtype=torch.bool)
        for b, h, i in product(range(B), range(H), range(N)):
            mask[b, h, i, i // n * n : i + 1] = True
            for block in chosen[b, h, i].nonzero().flatten().tolist():
                mask[b, h, i, block * n : (block + 1) * n] = True
        return sdpa(q, k, v, mask)

    x = heads()
    return Trial(
        leaves=x, params={"n": n}, fixed=moba_blocks(x["q"], x["k"], block=n, count=top)._asdict(), theirs=theirs
    )


def _drafted(n: int) -> dict[str, Tensor]:
    """64 guesses, two after each."""
    return {"above": tree_ancestors((torch.arange(64) - 1)[None] // 2)}


@entry(authority="each path from the text to a leaf by itself, in torch's scaled_dot_product_attention", scene=_drafted)
def tree() -> Trial:
    """Two trees of seven tokens after a text; the keys of another path are never given to the authority."""
    parents = torch.tensor([[-1, -1, 0, 0, 1, 2, 2], [-1, 0, 1, 2, 3, -1, 5]])
    count, text = parents.shape[1], N - 7

    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = sdpa(q, k, v, is_causal=True)
        rows = [list(out[b].unbind(1)) for b in range(B)]
        for b, leaf in product(range(B), range(count)):
            path = [leaf]
            while (parent := int(parents[b, path[0]])) >= 0:
                path.insert(0, parent)
            seen = [*range(text), *(text + x for x in path)]
            rows[b][text + leaf] = sdpa(*(x[b, :, seen] for x in (q, k, v)), is_causal=True)[:, -1]
        return torch.stack([torch.stack(x, dim=1) for x in rows])

    return Trial(leaves=heads(), fixed={"above": tree_ancestors(parents)}, theirs=theirs)


@entry(authority="transformers: SwinLayer's windows, shift and mask, and its SwinAttention", length=56 * 56)
def swin() -> Trial:
    w, shift, height, width = 3, 1, 6, 9
    config = SwinConfig(window_size=w, qkv_bias=False)
    layer = SwinLayer(config, H * D, (height, width), H, shift_size=shift).eval()

    def theirs(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        states = hidden(layer.attention, {"q_proj": q, "k_proj": k, "v_proj": v})
        image = layer.cyclic_shift(states.unflatten(1, (height, width)))
        mask = layer.get_attn_mask(height, width, dtype=q.dtype, device=q.device)
        layer.attention.o_proj = nn.Identity()
        del layer.attention.relative_position_bias.relative_position_bias_table
        layer.attention.relative_position_bias.relative_position_bias_table = bias
        out = layer.attention(window_partition(image, w).flatten(1, 2), mask)[0]
        image = window_reverse(out.unflatten(1, (w, w)), w, height, width)
        return split(layer.cyclic_shift(image, reverse=True).flatten(1, 2), H)

    return Trial(
        leaves={**heads(n=height * width), "bias": noise((2 * w - 1) ** 2, H)},
        params={"w": w, "shift": shift, "width": width}, theirs=theirs, dtype=torch.float32,
    )  # fmt: skip

"""What specs take as inputs and their users would have to compute first: slopes, features, buckets, selections, and
what is done with results: a merge of parts, an eviction. Plain PyTorch; of these ``merge`` alone carries gradients."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


def alibi_slopes(heads: int, *, device: torch.device | str | None = None) -> Tensor:
    """ALiBi's slopes of the penalty on distance, float32 [H]: 2^(-8 / H) and its powers; where H is no power of two,
    those of the power below, then every other one of the power above (Press et al., 2021, section 3 and its code).
    Raises ValueError for less than one head."""
    _positive(heads=heads)
    whole = 1 << (heads.bit_length() - 1)
    powers = [8 * (head + 1) / whole for head in range(whole)]
    powers += [8 * (head + 0.5) / whole for head in range(heads - whole)]
    return torch.exp2(-torch.tensor(powers, device=device))


def orthogonal_features(
    count: int, dim: int, *, generator: torch.Generator | None = None, device: torch.device | str | None = None
) -> Tensor:
    """Random directions for performer.attn and random_features.attn, float32 [R, D] with R = ``count``: each row is
    distributed as N(0, I), and every D rows are orthogonal, which lowers the estimate's variance (Performers,
    Choromanski et al., 2021, section 2.4). Raises ValueError for sizes below one."""
    _positive(count=count, dim=dim)
    blocks = -(-count // dim)
    gaussian = torch.randn(blocks, dim, dim, generator=generator, device=device)
    signs = gaussian.diagonal(dim1=-2, dim2=-1).sign()
    directions = torch.linalg.qr(gaussian).Q.mT * signs[..., None]
    norms = torch.randn(blocks, dim, dim, generator=generator, device=device).norm(dim=-1, keepdim=True)
    rows: Tensor = (directions * norms).flatten(0, 1)[:count]
    return rows


def lsh_order(x: Tensor, rotations: Tensor) -> Tensor:
    """The order in which reformer.attn takes tokens. ``x`` [B, H, N, D], the vectors that are query and key in one;
    ``rotations`` [H, D, rounds, buckets / 2], random normal. A token's bucket is the largest of (x R, -x R) (Reformer,
    Kitaev et al., 2020, section 2); its tokens are sorted by bucket, then by position, for each round.

    int64 [B, H, rounds, N], positions. Raises ValueError where x and rotations have other heads or dims."""
    if x.dim() != 4 or rotations.dim() != 4 or rotations.shape[:2] != (x.shape[1], x.shape[3]):
        shapes = f"{list(x.shape)} and {list(rotations.shape)}"
        raise ValueError(f"x [B, H, N, D] and rotations [H, D, rounds, buckets / 2] have shapes {shapes}")
    rotated = torch.einsum("bhnd,hdrk->bhrnk", x.detach(), rotations.to(x))
    return torch.cat([rotated, -rotated], dim=-1).argmax(-1).argsort(dim=-1, stable=True)


def merge(out: Tensor, lse: Tensor, dim: int) -> Tensor:
    """One result of several over parts of the keys: ``out`` [..., E] and ``lse`` [...] of an op that emits it, stacked
    along ``dim`` (counted in ``lse``). Each part weighs exp(lse) of the sum (Reformer, equations 7 and 8; Flash-
    Decoding, Dao et al., 2023): exact where no key is in two parts, and one that is counts twice.

    [..., E] without ``dim``; 0 where no part has a key. Raises ValueError for shapes that do not belong together."""
    if out.shape[:-1] != lse.shape:
        raise ValueError(f"out {list(out.shape)} and lse {list(lse.shape)}: expected out [..., E] and lse [...]")
    weight = lse.clamp(min=torch.finfo(lse.dtype).min).softmax(dim).to(out.dtype)
    return (weight[..., None] * out).sum(dim % lse.dim())


class Selected(NamedTuple):
    """Blocks of keys for native_sparse.attn and moba.attn: bool [B, H, N, blocks] for each query, and
    [B, H, ceil(N / n), blocks], those that any query of a block of n has."""

    chosen: Tensor
    table: Tensor


def _selected(chosen: Tensor, block: int) -> Selected:
    batch, heads, n, blocks = chosen.shape
    rows = torch.nn.functional.pad(chosen, (0, 0, 0, -n % block)).reshape(batch, heads, -1, block, blocks)
    return Selected(chosen=chosen, table=rows.any(3))


def moba_blocks(q: Tensor, k: Tensor, *, block: int, count: int) -> Selected:
    """The blocks that each query's gate chooses in MoBA (Lu et al., 2025, equations 5 and 6): its own, and of those
    before it the ``count`` with the largest product of the query and the mean of their keys. ``q`` [B, H, N, D], ``k``
    [B, G, N, D]. Memory: the products, [B, H, N, N / block]. Raises ValueError for a block below one and a negative
    count."""
    _positive(block=block)
    if count < 0:
        raise ValueError(f"count = {count}: at least 0")
    batch, heads, n, dim = q.shape
    groups = k.shape[1]
    own = torch.arange(n, device=q.device)[:, None] // block - torch.arange(-(-n // block), device=q.device)
    padded = torch.nn.functional.pad(k.detach(), (0, 0, 0, -n % block)).float()
    means = padded.reshape(batch, groups, -1, block, dim).mean(3)  # of a last block cut short, which no query chooses
    grouped = q.detach().float().reshape(batch, groups, -1, n, dim)
    worth = torch.einsum("bgand,bgmd->bganm", grouped, means).reshape(batch, heads, n, -1)
    best = worth.masked_fill(own <= 0, -torch.inf).topk(min(count, own.shape[1]), dim=-1)
    chosen = (own == 0).expand(worth.shape).scatter(-1, best.indices, best.values > -torch.inf) | (own == 0)
    return _selected(chosen, block)


def tree_ancestors(parents: Tensor) -> Tensor:
    """What tree.attn takes as ``above``: bool [B, T, T], whether y is x or an ancestor of x. ``parents`` int [B, T],
    the number of each token's parent, -1 for those that follow the text itself. Raises ValueError where a parent does
    not come before its child."""
    order = torch.arange(parents.shape[-1], device=parents.device)
    if ((parents >= order) | (parents < -1)).any():
        raise ValueError("a parent comes before its child: -1 <= parents[b, x] < x")
    above = torch.eye(len(order), dtype=torch.bool, device=parents.device).repeat(len(parents), 1, 1)
    for x in range(len(order)):
        parent = parents[:, x].long()
        above[:, x] |= above[torch.arange(len(parents)), parent.clamp(min=0)] & (parent >= 0)[:, None]
    return above


def nsa_blocks(
    q: Tensor, k: Tensor, *, length: int, stride: int, block: int, count: int, first: int = 1, local: int = 2
) -> Selected:
    """The blocks that each query selects in Native Sparse Attention (Yuan et al., 2025, equations 8 to 12). ``q``
    [B, H, N, D]; ``k`` [B, G, C, D], compressed keys: the c-th stands for ``length`` tokens from ``stride * c`` on.
    A block of ``block`` tokens is worth the weights of the compressed keys that share tokens with it, by how many
    strides they share, summed over the heads of a group; ``count`` blocks are selected, the ``first`` ones and the
    query's own with ``local - 1`` before it always among them.

    Memory: the compressed weights, [B, H, N, C]. Raises ValueError for a length or block that is no multiple of
    stride, and for sizes below one."""
    _positive(length=length, stride=stride, block=block, count=count)
    if length % stride or block % stride:
        raise ValueError(f"length = {length} and block = {block}: multiples of stride = {stride}")
    batch, heads, n, dim = q.shape
    groups, compressed = k.shape[1:3]
    tokens, starts = torch.arange(n, device=q.device), stride * torch.arange(compressed, device=q.device)
    borders = block * torch.arange(-(-n // block), device=q.device)
    grouped = q.detach().reshape(batch, groups, -1, n, dim)
    scores = torch.einsum("bghnd,bgcd->bghnc", grouped, k.detach()) / math.sqrt(dim)
    seen = starts + length <= tokens[:, None] + 1
    weights = scores.float().masked_fill(~seen, -torch.inf).softmax(-1).nan_to_num(0.0)  # NaN: no key is whole yet
    shared = torch.minimum(starts[:, None] + length, borders + block) - torch.maximum(starts[:, None], borders)
    worth = weights.sum(2) @ (shared.clamp(min=0) // stride).float()  # [B, G, N, blocks]
    own = tokens[:, None] // block - borders // block
    worth = worth.masked_fill((borders < first * block) | (own < local), torch.inf).masked_fill(own < 0, -1.0)
    best = worth.topk(min(count, len(borders)), dim=-1)
    chosen = torch.zeros_like(worth, dtype=torch.bool).scatter(-1, best.indices, best.values >= 0)
    chosen = chosen.repeat_interleave(heads // groups, dim=1)
    return _selected(chosen, block)


def heavy_hitters(colsum: Tensor, keep: int, recent: int, *, kv_heads: int | None = None) -> Tensor:
    """The rows of a cache that H2O keeps (Zhang et al., 2023, section 4): the last ``recent``, and of those before them
    the ``keep`` with the most weight so far. ``colsum`` [B, H, M]: what heavy_hitters.attn emits, added up over calls;
    query heads that read one of ``kv_heads`` are summed (by default each has its own).

    int64 [B, G, keep + recent], ascending, or all rows of a shorter cache; ``k.take_along_dim(rows[..., None], 2)``
    evicts the others. Raises ValueError for negative sizes and for heads that are no multiple of ``kv_heads``."""
    if keep < 0 or recent < 0:
        raise ValueError(f"keep = {keep}, recent = {recent}: at least 0")
    batch, heads, keys = colsum.shape
    groups = heads if kv_heads is None else kv_heads
    if groups < 1 or heads % groups:
        raise ValueError(f"colsum has {heads} heads: no multiple of kv_heads = {groups}")
    old = max(keys - recent, 0)
    weight = colsum.detach().reshape(batch, groups, -1, keys).sum(2)
    heavy = weight[..., :old].topk(min(keep, old), dim=-1).indices.sort(-1).values
    last = torch.arange(old, keys, device=colsum.device).expand(batch, groups, -1)
    return torch.cat([heavy, last], dim=-1)


def _positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} = {size}: at least 1")

"""Helpers beside specs: each against what its paper says, and what it refuses."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

import attnc
from attnc.helpers import (
    alibi_slopes,
    heavy_hitters,
    lsh_order,
    merge,
    moba_blocks,
    nsa_blocks,
    orthogonal_features,
    tree_ancestors,
)
from attnc.testing.tolerance import assert_close

ZOO = Path(__file__).resolve().parents[2] / "examples" / "zoo"


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_features_are_orthogonal_within_each_block_and_as_long_as_normal_ones() -> None:
    omega = orthogonal_features(20, 8, generator=torch.Generator().manual_seed(0)).double()
    assert omega.shape == (20, 8)
    for block in (omega[:8], omega[8:16], omega[16:]):
        products = block @ block.mT
        assert (products - products.diag().diag()).abs().max() < 1e-5
    many = orthogonal_features(8000, 8, generator=torch.Generator().manual_seed(1))
    assert many.square().sum(-1).mean().item() == pytest.approx(8, rel=0.05)  # chi-squared: 16 / 8000 of variance
    assert many.mean(0).abs().max() < 0.1


def test_many_features_are_softmax() -> None:
    """Performer's estimate with orthogonal features nears softmax; its error falls as they grow."""
    q, k, v = (noise(1, 2, 16, 8, seed=seed) / 2 for seed in range(3))
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    op = attnc.load(ZOO / "performer.attn")
    errors = []
    for count in (32, 2048):
        omega = orthogonal_features(count, 8, generator=torch.Generator().manual_seed(0))
        errors.append(float((op(q, k, v, omega=omega, backend="eager") - expected).norm() / expected.norm()))
    assert errors[1] < errors[0] / 3 and errors[1] < 0.05


def test_parts_merge_into_the_whole() -> None:
    """Keys in three parts, one of them without any; gradients as well."""
    q, k, v = (noise(2, 2, 7, 8, seed=seed).double().requires_grad_() for seed in range(3))
    scores = q @ k.mT
    outs, lses = [], []
    for start, stop in ((0, 3), (3, 3), (3, 7)):
        part = scores[..., start:stop]
        outs.append(part.softmax(-1) @ v[..., start:stop, :])
        lses.append(part.logsumexp(-1))
    whole = scores.softmax(-1) @ v
    merged = merge(torch.stack(outs, dim=2), torch.stack(lses, dim=2), dim=2)
    assert_close(merged, whole, dtype=torch.float64, length=7)
    for mine, theirs in zip(
        *(torch.autograd.grad(x.sum(), (q, k, v), retain_graph=True) for x in (merged, whole)), strict=True
    ):
        assert_close(mine, theirs, dtype=torch.float64, length=28, terms=1.0)
    nothing = merge(torch.zeros(2, 3, 4), torch.full((2, 3), -torch.inf), dim=-1)
    assert nothing.shape == (2, 4) and not nothing.any()


def test_order_is_by_bucket_then_position() -> None:
    x, rotations = noise(1, 2, 11, 4), noise(2, 4, 3, 2, seed=1)
    order = lsh_order(x, rotations)
    for h in range(2):
        for r in range(3):
            turned = x[0, h] @ rotations[h, :, r]
            bucket = torch.cat([turned, -turned], dim=-1).argmax(-1).tolist()
            assert order[0, h, r].tolist() == sorted(range(11), key=lambda at, bucket=bucket: (bucket[at], at))


def test_a_cache_that_evicts_one_key_a_step() -> None:
    """Algorithm 1 of H2O, key by key in Python: at each step the lightest of the old ones goes."""
    heads, groups, n, dim, keep, recent = 4, 2, 24, 8, 3, 2
    q, k, v = (3 * noise(1, h, n, dim, seed=seed) for h, seed in ((heads, 0), (groups, 1), (groups, 2)))
    op = attnc.load(ZOO / "heavy_hitters.attn")
    kept = [[0] for _ in range(groups)]
    weight: list[dict[int, float]] = [{0: 0.0} for _ in range(groups)]
    rows = torch.zeros(1, groups, 0, dtype=torch.long)
    total = torch.zeros(1, heads, 0)
    for step in range(n):
        rows = torch.cat([rows, torch.full((1, groups, 1), step)], dim=-1)
        cache = (x.take_along_dim(rows[..., None], 2) for x in (k, v))
        result = op(q[:, :, step : step + 1], *cache, backend="eager")
        total = torch.cat([total, torch.zeros(1, heads, 1)], dim=-1) + result.colsum
        left = heavy_hitters(total, keep, recent, kv_heads=groups)
        rows = rows.take_along_dim(left, -1)
        total = total.take_along_dim(left.repeat_interleave(heads // groups, dim=1), -1)
        for g in range(groups):
            if step:
                kept[g].append(step)
                weight[g][step] = 0.0
            for h in range(g * heads // groups, (g + 1) * heads // groups):
                scores = torch.stack([q[0, h, step] @ k[0, g, j] for j in kept[g]]) / dim**0.5
                shares = scores.softmax(0)
                expected = sum(share * v[0, g, j] for share, j in zip(shares, kept[g], strict=True))
                assert_close(result.out[0, h, 0], expected, dtype=torch.float32, length=n)
                for share, j in zip(shares.tolist(), kept[g], strict=True):
                    weight[g][j] += share
            if len(kept[g]) > keep + recent:
                kept[g].remove(min(kept[g][:-recent], key=lambda j, g=g: weight[g][j]))
            assert rows[0, g].tolist() == kept[g]


def test_selected_blocks_are_the_papers() -> None:
    """NSA, equations 9 and 10 as they are printed, over overlapping compressed keys and heads that share theirs."""
    length, stride, block, count, n = 8, 4, 8, 3, 37
    q, k = noise(2, 4, n, 16), noise(2, 2, (n - length) // stride + 1, 16, seed=1)
    chosen, table = nsa_blocks(q, k, length=length, stride=stride, block=block, count=count, local=1)
    seen = torch.arange(n)[:, None] + 1 >= stride * torch.arange(k.shape[2]) + length
    scores = (q @ k.repeat_interleave(2, dim=1).mT / 4).masked_fill(~seen, -torch.inf)
    weights = scores.softmax(-1).nan_to_num(0.0)
    weights = weights[:, ::2] + weights[:, 1::2]  # equation 10
    blocks = -(-n // block)
    worth = torch.zeros(2, 2, n, blocks)
    for at in range(1, blocks + 1):  # equation 9, from 1
        for m in range(block // stride):
            for part in range(length // stride):
                key = block // stride * at - m - part
                if 1 <= key <= weights.shape[-1]:
                    worth[..., at - 1] += weights[..., key - 1]
    expected = torch.zeros(2, 4, n, blocks, dtype=torch.bool)
    for b, h, i in product(range(2), range(4), range(n)):
        forced = {0, i // block}
        others = sorted((-worth[b, h // 2, i, at], at) for at in set(range(i // block)) - forced)
        expected[b, h, i, [*forced, *(at for _, at in others[: count - len(forced)])]] = True
    assert torch.equal(chosen, expected)
    assert torch.equal(table[:, :, 1], expected[:, :, block : 2 * block].any(2))


def test_ancestors_and_gates_of_shared_keys() -> None:
    above = tree_ancestors(torch.tensor([[-1, 0, 0, 2], [-1, -1, 1, 2]]))
    assert above.int().tolist() == [
        [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]],
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 1]],
    ]
    q, k = noise(1, 4, 21, 8), noise(1, 2, 21, 8, seed=1)
    one, other = (moba_blocks(q, x, block=4, count=2) for x in (k, k.repeat_interleave(2, dim=1)))
    assert torch.equal(one.chosen, other.chosen) and torch.equal(one.table, other.table)
    assert one.chosen.sum(-1).eq((torch.arange(21) // 4).clamp(max=2) + 1).all()


def test_selected_blocks_at_the_ends() -> None:
    """Fewer blocks than asked for: all that are past, none that is not; a table of a shorter last block."""
    q, k = noise(1, 2, 13, 8), noise(1, 1, 5, 8, seed=1)
    chosen, table = nsa_blocks(q, k, length=4, stride=2, block=4, count=9)
    assert chosen.shape == (1, 2, 13, 4) and table.shape == (1, 2, 4, 4)
    assert torch.equal(chosen[0, 0], torch.arange(13)[:, None] // 4 >= torch.arange(4))
    assert torch.equal(table[0, 1], torch.ones(4, 4).tril().bool())


def test_what_is_refused() -> None:
    q, k = torch.zeros(1, 2, 8, 4), torch.zeros(1, 1, 3, 4)
    with pytest.raises(ValueError, match="multiples of stride = 3"):
        nsa_blocks(q, k, length=6, stride=3, block=4, count=2)
    with pytest.raises(ValueError, match="count = 0: at least 1"):
        nsa_blocks(q, k, length=4, stride=2, block=4, count=0)
    with pytest.raises(ValueError, match="count = -1: at least 0"):
        moba_blocks(q, k, block=2, count=-1)
    with pytest.raises(ValueError, match="a parent comes before its child"):
        tree_ancestors(torch.tensor([[-1, 1]]))
    with pytest.raises(ValueError, match="heads = 0"):
        alibi_slopes(0)
    with pytest.raises(ValueError, match=r"expected out \[..., E\]"):
        merge(torch.zeros(2, 3, 4), torch.zeros(2, 4), dim=0)
    with pytest.raises(ValueError, match=r"rotations \[H, D, rounds"):
        lsh_order(q, torch.zeros(3, 4, 1, 2))
    with pytest.raises(ValueError, match="keep = -1"):
        heavy_hitters(torch.zeros(1, 2, 5), -1, 2)
    with pytest.raises(ValueError, match="no multiple of kv_heads = 3"):
        heavy_hitters(torch.zeros(1, 2, 5), 1, 2, kv_heads=3)

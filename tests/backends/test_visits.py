"""Tiles that passes visit beyond closed-form intervals: no more than are live, both directions, on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import attnc
from attnc.runtime.op import Op
from tests.backends.calls import check, make

S = "score dot(q, k) / sqrt(D)  "
SIZES = {"B": 2, "H": 2, "G": 1, "N": 41, "M": 53, "D": 16, "E": 16}


def small(op: Op, block_m: int, block_n: int) -> dict[str, Any]:
    """The op's module with small tiles, so that short sequences have many."""
    module: dict[str, Any] = op._function.__globals__
    module["_TILES"] = dict.fromkeys(module["_TILES"], (block_m, block_n, 4, 1))
    module["ROWS"], module["COLUMNS"] = block_m, block_n
    return module


def live_tiles(mask: Tensor, block_m: int, block_n: int) -> Tensor:
    """Which tiles of a mask hold a live pair: [..., query tiles, key tiles]."""
    N, M = mask.shape[-2:]
    mask = torch.nn.functional.pad(mask, (0, -M % block_n, 0, -N % block_m))
    return mask.unflatten(-2, (-1, block_m)).unflatten(-1, (-1, block_n)).any(-1).any(-2)


def documents(length: int, tokens: int, batches: int = 1) -> Tensor:
    return (torch.arange(tokens) // length).int().expand(batches, -1).contiguous()


MASKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "random": ("", "random(2, block = 8, seed = 3)", {}),
    "random of blocks that no tile meets": ("", "random(3, block = 7, seed = 3)", {}),
    "random and causal": ("", "random(2, block = 8, seed = 3) and causal", {}),
    "random or window": ("", "random(1, block = 8, seed = 3) or window(5)", {}),
    "two tables": ("", "random(1, block = 8, seed = 3) or random(2, block = 12, seed = 1) and window(30)", {}),
    "two tables at once": ("", "random(4, block = 8, seed = 3) and random(3, block = 12, seed = 1)", {}),
    "no random": ("", "not random(2, block = 8, seed = 3) and window(20)", {}),
    "bigbird": ("", "block_window(8, 1) or global(8) or random(2, block = 8, seed = 0)", {}),
    "a table": (
        "input t: bool[B, H, R, C]", "blocks(t, 8) or window(3)",
        {"t": torch.arange(2 * 42).reshape(2, 1, 6, 7) % 5 == 1},
    ),
    "a table by head": (
        "input t: bool[B, H, R, C]", "blocks(t, 16) and causal",
        {"t": torch.arange(2 * 12).reshape(1, 2, 3, 4) % 3 == 1},
    ),
    "a table too small": ("input t: bool[B, H, R, C]", "blocks(t, 8)", {"t": torch.tensor([[[[True, False]]]])}),
    "a list": (
        "input t: i32[B, H, R, C]", "blocks(t, 8) and causal or sink(2)",
        {"t": (torch.arange(2 * 12).reshape(2, 1, 6, 2) * 5 % 8 - 1).int()},
    ),
    "documents": ("input ids: i32[B, M]", "document(ids)", {"ids": documents(12, 53, 2)}),
    "documents, causal": ("input ids: i32[B, M]", "document(ids) and causal", {"ids": documents(12, 53, 2)}),
    "documents in a window": (
        "input ids: i64[B, M]", "causal and document(ids) and window(15) or sink(3)",
        {"ids": torch.stack([documents(12, 53)[0], documents(20, 53)[0].flip(0)]).long()},
    ),
    "documents in no order": (
        "input ids: i32[B, M]", "document(ids) and causal", {"ids": (torch.arange(106).reshape(2, 53) * 5 % 7).int()}
    ),
    "other documents": ("input ids: i32[B, M]", "not document(ids)", {"ids": documents(20, 53, 2)}),
    "later documents": ("input ids: i32[B, M]", "ids[b, j] > ids[b, i] + 1", {"ids": documents(10, 53, 2)}),
    "ends by query": ("input s: i32[B, H, N]", "s[b, h, i] <= j and causal", {
        "s": (torch.arange(2 * 2 * 41).reshape(2, 2, 41) * 7 % 40).int()
    }),
    "marked tokens": (
        "input t: bool[B, M]", "window(3) or global(t)", {"t": torch.arange(106).reshape(2, 53) % 30 == 4}
    ),
    "padding and documents": (
        "input ids: i32[B, M]  input t: bool[B, M]", "document(ids) and t[b, j] and t[b, i]",
        {"ids": documents(16, 53, 2), "t": torch.arange(106).reshape(2, 53) % 53 < 40},
    ),
    "a table of documents": (
        "input ids: i32[B, M]", "document(ids) or random(1, block = 8, seed = 3) and causal",
        {"ids": documents(16, 53, 2)},
    ),
}  # fmt: skip
OFFSETS: tuple[dict[str, Any], ...] = ({}, {"q_offset": 9, "kv_offset": -3}, {"q_offset": torch.tensor([11, 3])})


@pytest.mark.parametrize("backend", ["eager", "interpret"])
@pytest.mark.parametrize("name", list(MASKS))
def test_equals_the_reference_over_many_tiles(name: str, backend: str) -> None:
    declared, mask, inputs = MASKS[name]
    op = attnc.loads(f"attention spec {{ {declared}  {S}mask {mask}  normalize softmax  emit lse, colsum }}")
    place = list(MASKS).index(name) + (backend == "eager")
    small(op, *((16, 16) if place % 2 else (16, 32)))
    check(make(op, SIZES, inputs=inputs, **OFFSETS[place % 3]), backend, torch.float64)

"""Tiles that passes visit beyond closed-form intervals: no more than are live, both directions, on every backend."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import attnc
from attnc.runtime.op import Op
from attnc.testing.call import check, make, outcome

S = "score dot(q, k) / sqrt(D)  "
SIZES = {"B": 2, "H": 2, "G": 1, "N": 41, "M": 53, "D": 16, "E": 16}


def small(op: Op, block_m: int, block_n: int) -> dict[str, Any]:
    """The op's module with small tiles, so that short sequences have many."""
    module: dict[str, Any] = op._function.__globals__
    module["_TILES"] = dict.fromkeys(module["_TILES"], (block_m, block_n, 4, 1, 0, False))
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
    "marked tokens at the front": (
        "input t: bool[B, M]", "causal and (window(3) or global(t))", {"t": torch.arange(106).reshape(2, 53) % 53 < 4}
    ),
    "a document, a window or a sink": (
        "input ids: i32[B, M]", "causal and (document(ids) or window(5) or sink(2))", {"ids": documents(10, 53, 2)}
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


@pytest.mark.parametrize("backend", ["eager", "native", "interpret"])
@pytest.mark.parametrize("name", list(MASKS))
def test_equals_the_reference_over_many_tiles(name: str, backend: str) -> None:
    declared, mask, inputs = MASKS[name]
    op = attnc.loads(f"attention spec {{ {declared}  {S}mask {mask}  normalize softmax  emit lse, colsum }}")
    place = list(MASKS).index(name) + (backend == "eager")
    small(op, *((16, 16) if place % 2 else (16, 32)))
    check(make(op, SIZES, inputs=inputs, **OFFSETS[place % 3]), backend, torch.float64)


@pytest.mark.parametrize("backend", ["eager", "native", "interpret"])
def test_same_bits_twice(backend: str) -> None:
    op = attnc.loads(f"attention spec {{ {S}mask random(2, block = 8, seed = 3) or window(3)  normalize softmax }}")
    small(op, 16, 16)
    call = make(op, SIZES).prepared(torch.float32)
    first, again = outcome(call, backend), outcome(call, backend)
    for name, x in first.items():
        assert torch.equal(x.view(torch.int32), again[name].view(torch.int32)), name


class Counted:
    """How many tiles the blocked PyTorch code visits, and how many of them as full ones."""

    def __init__(self, op: Op, block_m: int, block_n: int) -> None:
        self.module = small(op, block_m, block_n)
        self.inner, self.tiles, self.full = self.module["_live_tiles"], 0, 0
        self.module["_live_tiles"] = self

    def __call__(self, *args: Any) -> Iterator[tuple[int, int, bool]]:
        for tile in self.inner(*args):
            self.tiles += 1
            self.full += tile[2]
            yield tile


def cuts(count: int, tokens: int) -> Tensor:
    """Documents of random lengths."""
    places = torch.randperm(tokens - 1, generator=torch.Generator().manual_seed(0))[: count - 1] + 1
    return torch.searchsorted(places.sort().values, torch.arange(tokens), right=True).int()[None]


DOCUMENTS = cuts(32, 4096)
TABLE = torch.arange(4096).reshape(1, 1, 64, 64) % 19 == 3


@pytest.mark.parametrize(
    ("declared", "mask", "inputs", "block"),
    [
        ("", "block_window(64, 1) or global(128) or random(3, block = 64, seed = 0)", {}, (128, 64)),
        ("", "random(2, block = 48, seed = 0) or window(100)", {}, (64, 64)),
        ("input ids: i32[B, M]", "document(ids)", {"ids": DOCUMENTS}, (128, 64)),
        ("input ids: i32[B, M]", "document(ids) and causal", {"ids": DOCUMENTS.flip(1)}, (64, 64)),
        ("input ids: i32[B, M]", "causal and (document(ids) or window(64) or sink(4))", {"ids": DOCUMENTS}, (64, 128)),
        ("input t: bool[B, M]", "window(64) or global(t)", {"t": torch.arange(4096)[None] < 5}, (128, 64)),
        ("input t: bool[1, 1, R, C]", "blocks(t, 64)", {"t": TABLE}, (64, 64)),
    ],
)  # fmt: skip
def test_only_live_tiles_are_visited(declared: str, mask: str, inputs: dict[str, Any], block: tuple[int, int]) -> None:
    visited, live = counts(declared, mask, inputs, block)
    assert visited == live


def test_a_list_is_cut_by_what_else_must_hold() -> None:
    """By tile, not by block: the last block of queries reaches further than the others of its tile."""
    visited, live = counts("", "random(3, block = 64, seed = 0) and causal", {}, (128, 64))
    assert live <= visited <= live + 4096 // 128


@pytest.mark.parametrize(
    ("declared", "mask", "inputs"),
    [
        ("", "block_window(64, 1) or global(128) or random(3, block = 64, seed = 0)", {}),
        ("", "random(3, block = 64, seed = 0) and causal", {}),
        ("input t: bool[1, 1, R, C]", "blocks(t, 64)", {"t": TABLE[:, :, :16, :16]}),
        ("input t: bool[1, 1, R, C]", "blocks(t, 64) and i + j > 300", {"t": TABLE[:, :, :16, :16]}),
    ],
)
def test_listed_tiles_are_full_where_all_of_their_pairs_are_live(
    declared: str, mask: str, inputs: dict[str, Any]
) -> None:
    op = attnc.loads(f"attention spec {{ {declared}  {S}mask {mask}  normalize softmax }}")
    counted = Counted(op, 64, 64)
    q = torch.zeros(1, 1, 1024, 1)
    op(q, q, q, **inputs, backend="eager")
    pairs = op.mask(1024, **inputs)
    assert counted.full == int((~live_tiles(~pairs, 64, 64)).sum()) > 0


def counts(declared: str, mask: str, inputs: dict[str, Any], block: tuple[int, int]) -> tuple[int, int]:
    """Tiles that a call over 4096 tokens visits, and those that hold a live pair."""
    op = attnc.loads(f"attention spec {{ {declared}  {S}mask {mask}  normalize softmax }}")
    counted = Counted(op, *block)
    q = torch.zeros(1, 1, 4096, 1)
    op(q, q, q, **inputs, backend="eager")
    return counted.tiles, int(live_tiles(op.mask(4096, **inputs), *block).sum())


@pytest.mark.parametrize("tile", [(128, 64), (16, 16)])
@pytest.mark.parametrize("mask", ["random(3, block = 64, seed = 0)", "random(2, block = 48, seed = 5) and i >= 0"])
def test_lists_are_exact_in_both_directions(mask: str, tile: tuple[int, int]) -> None:
    """The lists of the kernels, which no interval helps here: every live tile once, and no other; first, in order,
    those that are full because their queries have one row of the table."""
    op = attnc.loads(f"attention spec {{ {S}mask {mask}  normalize softmax }}")
    module: dict[str, Any] = op._function.__globals__
    (block_m, block_n), N, M, H = tile, 900, 1000, 3
    q, k = torch.zeros(1, H, N, 1), torch.zeros(1, H, M, 1)
    block, count, seed = (64, 3, 0) if "64" in mask else (48, 2, 5)
    rows = torch.arange(-(-N // block) + 1).view(1, 1, -1) + (M - N) // block
    table = module["draw"](seed, torch.arange(H).view(1, H, 1), rows, count, -(-M // block))
    pairs = op.mask(N, M, H=H)
    live, dead = live_tiles(pairs, block_m, block_n), live_tiles(~pairs, block_m, block_n)
    start = torch.arange(0, N, block_m)[:, None]
    row = start + M - N, torch.clamp(start + block_m, max=N) - 1 + M - N
    inside = torch.arange(block_n, M + block_n, block_n) <= M
    whole = live & ~dead & inside & (row[0] // block == row[1] // block)
    tiles = {"key": (live, whole), "query": (live.mT, (whole & (start + block_m <= N)).mT)}
    for side, (wanted, filled) in tiles.items():
        codes = module[f"_out_{side}_pairs"](q, k, k, table, None, 1, H, N, M - N, 0, block_m, block_n)
        first, listed = module["_listed"](codes, *wanted.shape[2:])
        for h in range(H):
            for row in range(wanted.shape[2]):
                at, partial, end = first[0, h, 2 * row : 2 * row + 3].tolist()
                full = listed[0, h, at:partial].tolist()
                assert full == filled[0, h, row].nonzero().flatten().tolist()
                assert (
                    sorted(full + listed[0, h, partial:end].tolist()) == wanted[0, h, row].nonzero().flatten().tolist()
                )


@pytest.mark.parametrize(("block", "n"), [(16, 64), (48, 64), (128, 64), (64, 48), (64, 1), (1, 64), (7, 5)])
def test_a_tile_has_as_many_slots_as_it_can_touch_blocks(block: int, n: int) -> None:
    """Neither fewer, which would lose pairs, nor more, which the host would sort on every call."""
    op = attnc.loads(f"attention spec {{ {S}mask random(3, block = 64, seed = 0)  normalize softmax }}")
    most = op._function.__globals__["_most_cells"]

    def touched(first: int) -> int:
        return (first + block - 1) // n - first // n + 1

    for shift in (0, 1, 16, 100, -64, -3):
        assert most(block, n, shift) == max(touched(tile * block + shift) for tile in range(n))
    assert most(block, n, None) == max(touched(first) for first in range(n))


def test_compiled_and_exported() -> None:
    op = attnc.loads(
        f"attention spec {{ input ids: i32[B, M]  {S}mask document(ids) or random(1, block = 64, seed = 0)  "
        "normalize softmax }"
    )
    q = torch.randn(1, 2, 200, 16)
    ids = documents(50, 200)
    compiled = torch.compile(lambda q, ids: op(q, q, q, ids=ids), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(q, ids), op(q, q, q, ids=ids))

    class Layer(torch.nn.Module):
        def forward(self, q: Tensor, ids: Tensor) -> Tensor:
            made: Tensor = op(q, q, q, ids=ids)
            return made

    exported = torch.export.export(Layer(), (q, ids))
    torch.testing.assert_close(exported.module()(q, ids), op(q, q, q, ids=ids))


TENSORS = ("document(ids)", "ids[b, j] <= ids[b, i]", "t[b, j]", "t[b, i]", "s[b, h, i] <= j", "global(t)")
TABLES = (
    "random(1, block = 8, seed = 3)", "random(2, block = 5, seed = 1)", "blocks(n, 8)", "blocks(m, 16)",
    "u[b, h, i, j // 8]", "w[b, h, i, j]",
)  # fmt: skip
INDICES = ("causal", "window(5)", "window(20)", "sink(3)", "i >= 9", "j % 3 == 0", "block(7)", "true")


@st.composite
def masks(draw: Callable[[st.SearchStrategy[Any]], Any], depth: int = 2) -> str:
    """A mask over tensors and tables, under and, or, not."""
    if depth == 0:
        return str(draw(st.sampled_from(draw(st.sampled_from((TENSORS, TABLES, INDICES))))))
    x, y = draw(masks(depth=depth - 1)), draw(masks(depth=depth - 1))
    return str(draw(st.sampled_from((f"({x} and {y})", f"({x} or {y})", f"(not {x} and {y})", x))))


@given(mask=masks(), order=st.sampled_from(["ascending", "descending", "none"]), options=st.sampled_from(OFFSETS))
def test_any_mask_over_small_tiles(mask: str, order: str, options: dict[str, Any]) -> None:
    declared = {
        "ids": "i32[B, M]", "t": "bool[B, M]", "s": "i32[B, H, N]", "n": "i32[B, H, R, C]", "m": "bool[B, H, U, V]",
        "u": "bool[B, H, N, W]", "w": "bool[B, H, N, M]",
    }  # fmt: skip
    ids = {"ascending": documents(11, 53, 2), "descending": documents(11, 53, 2).flip(1)}
    given = {
        "ids": ids.get(order, (torch.arange(106).reshape(2, 53) * 5 % 7).int()),
        "t": torch.arange(106).reshape(2, 53) % 19 < 3,
        "s": (torch.arange(2 * 2 * 41).reshape(2, 2, 41) * 7 % 40).int(),
        "n": (torch.arange(2 * 12).reshape(2, 1, 6, 2) * 5 % 8 - 1).int(),
        "m": torch.arange(2 * 12).reshape(1, 2, 3, 4) % 5 == 1,
        "u": torch.arange(41 * 7).reshape(1, 1, 41, 7) % 23 == 1,
        "w": torch.arange(41 * 53).reshape(1, 1, 41, 53) // 8 % 7 == 1,
    }
    inputs = {name: x for name, x in given.items() if re.search(rf"\b{name}\b", mask)}
    lines = " ".join(f"input {name}: {declared[name]}" for name in inputs)
    op = attnc.loads(f"attention spec {{ {lines} {S}mask {mask}  normalize softmax  emit colsum }}")
    small(op, 16, 16)
    check(make(op, SIZES, inputs=inputs, **options), "eager", torch.float64)

"""The tile map: sound for any predicate, exact for the mask library, in both directions, against the reference."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import event, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from attnc.codegen.tilemap import EMPTY, FULL, PARTIAL, TileMap, analyse, tile_map
from attnc.dsl.construct import Attention
from attnc.dsl.frontend import compile_text
from attnc.dsl.ir import Expr
from attnc.dsl.source import Source
from attnc.runtime.draw import draw
from attnc.runtime.reference import mask
from tests.codegen.soundness import Shape, compare, predicates, shapes

Array = NDArray[Any]

INPUTS = (
    "input ids: i32[B, M]  input seen: bool[B, M]  input lens: i64[B]  input width: i32[H]  "
    "input cells: bool[B, H, P, Q]  input list: i32[B, H, R, S]"
)
LIBRARY = [
    "true", "false", "causal", "window(3)", "window(5, 2)", "prefix(7)", "sink(1)", "global(4)", "dilated(3, 4)",
    "strided(5)", "strided(40)", "fixed(8, 2)", "fixed(8, 0)", "block(8)", "block_window(6, 1)",
    "random(2, block = 7, seed = 3)", "document(ids)", "global(seen)", "blocks(cells, 6)", "blocks(list, 6)",
    "j < lens[b]", "abs(i - j) <= width[h]",
]  # fmt: skip


@cache
def spec(text: str) -> Attention:
    declared = f"attention spec {{ {INPUTS}  score dot(q, k) / sqrt(D)  mask {text}  normalize softmax }}"
    construct = compile_text(Source(name="<text>", text=declared), {})
    assert isinstance(construct, Attention)
    return construct


def drawn(seed: int, head: Array, row: Array, count: int, blocks: int) -> Array:
    found: Array = draw(seed, torch.tensor(head), torch.tensor(row), count, blocks).numpy()
    return found


def inputs(construct: Attention, *, B: int, H: int, N: int, M: int, seed: int) -> dict[str, Array]:
    """The inputs that the mask reads; ids are sorted."""
    rng = np.random.default_rng(seed)
    made = {
        "ids": np.sort(rng.integers(0, 1 + M // 5, (B, M)), axis=1).astype(np.int32),
        "seen": rng.random((B, M)) < 0.2,
        "lens": rng.integers(0, M + 1, B),
        "width": rng.integers(0, 9, H).astype(np.int32),
        "cells": rng.random((B, 1, -(-N // 6), -(-M // 6))) < 0.4,
        "list": rng.integers(-1, -(-M // 6), (1, H, -(-N // 6), 3)).astype(np.int32),
    }
    return {item.name: made[item.name] for item in construct.inputs}


def brute_force(construct: Attention, N: int, M: int, B: int, H: int, block: tuple[int, int],
                given: Mapping[str, Array], q_offset: Any, kv_offset: int) -> Array:  # fmt: skip
    tensors = {name: torch.tensor(value.copy()) for name, value in given.items()}
    live = mask(construct, N, M, B, H, tensors, q_offset, kv_offset).numpy()
    rows, columns = (range(0, length, step) for length, step in zip((N, M), block, strict=True))
    tiles = [[live[:, :, r : r + block[0], c : c + block[1]] for c in columns] for r in rows]
    kinds = [[np.where(t.all((2, 3)), FULL, np.where(t.any((2, 3)), PARTIAL, EMPTY)) for t in line] for line in tiles]
    return np.moveaxis(np.array(kinds), (2, 3), (0, 1))


def check(text: str, N: int, M: int, block: tuple[int, int], q_offset: int | None, kv_offset: int, seed: int,
          B: int = 2, H: int = 2, unsorted: bool = False) -> list[TileMap]:  # fmt: skip
    """Both maps, found sound; exact where they say so."""
    construct = spec(text)
    given = inputs(construct, B=B, H=H, N=N, M=M, seed=seed)
    if unsorted:
        given["ids"] = given["ids"][:, ::-1] % 3
    offset = None if q_offset is None else torch.tensor([q_offset, q_offset + 3][:B])
    wanted = brute_force(construct, N, M, B, H, block, given, offset, kv_offset)
    found = []
    for transposed in (False, True):
        made = tile_map(
            construct.branches[0].mask, N, M, block, B=B, H=H, kv_offset=kv_offset, inputs=given, draw=drawn,
            q_offset=None if offset is None else offset.numpy(), transposed=transposed,
        )  # fmt: skip
        kinds = made.dense().swapaxes(2, 3) if transposed else made.dense()
        assert kinds.shape == wanted.shape
        assert ((kinds == wanted) | (kinds == PARTIAL)).all(), "sound"
        if made.exact:
            assert (kinds == wanted).all(), "exact where it says so"
            assert made.why == ()
        counts = [int((made.dense() == kind).sum()) for kind in (EMPTY, PARTIAL, FULL)]
        assert list(made.counts()) == counts
        found.append(made)
    return found


lengths = st.integers(1, 60)
blocks = st.tuples(st.integers(1, 20), st.integers(1, 20))
q_offsets = st.one_of(st.none(), st.integers(-20, 40))
kv_offsets = st.integers(-20, 40)


@pytest.mark.parametrize("text", LIBRARY)
@given(N=lengths, M=lengths, block=blocks, q_offset=q_offsets, kv_offset=kv_offsets, seed=st.integers(0, 99))
def test_the_library_is_exact(
    text: str, N: int, M: int, block: tuple[int, int], q_offset: int | None, kv_offset: int, seed: int
) -> None:
    for made in check(text, N, M, block, q_offset, kv_offset, seed):
        assert made.exact


def joined() -> st.SearchStrategy[str]:
    """Unions, intersections and complements of library masks."""
    return st.recursive(
        st.sampled_from([f"({text})" for text in LIBRARY]),
        lambda inner: st.one_of(
            st.builds(lambda x, op, y: f"({x} {op} {y})", inner, st.sampled_from(["and", "or"]), inner),
            inner.map(lambda x: f"(not {x})"),
        ),
        max_leaves=3,
    )


@given(text=joined(), N=lengths, M=lengths, block=blocks, q_offset=q_offsets, kv_offset=kv_offsets,
       seed=st.integers(0, 99))  # fmt: skip
def test_unions_and_intersections_of_the_library_are_exact(
    text: str, N: int, M: int, block: tuple[int, int], q_offset: int | None, kv_offset: int, seed: int
) -> None:
    for made in check(text, N, M, block, q_offset, kv_offset, seed):
        assert made.exact


@given(mask=predicates(), shape=shapes())
def test_random_predicates_are_sound(mask: Expr, shape: Shape) -> None:
    event(compare(mask, shape))


def test_aligned_tiles_of_a_block_mask_are_full_or_empty() -> None:
    made, _ = check("block(8)", 64, 64, (16, 8), 0, 0, 0, B=1)
    assert made.counts() == (4 * 6, 0 + 8, 0)  # two blocks of keys, each live for half of the queries
    made, _ = check("block(16)", 64, 64, (16, 8), 0, 0, 0, B=1)
    assert made.counts() == (4 * 6, 0, 8)


def test_what_algebra_and_bisection_leave_open_is_named() -> None:
    """No pair of a sine is told: functions that libraries round differently are not evaluated."""
    construct = spec("causal and sin(i / 3.0) * j < 0.5")
    made = tile_map(construct.branches[0].mask, 32, 32, (8, 8))
    assert not made.exact
    assert made.why == ("no interval follows from sin(i / 3.0) * j < 0.5",)
    assert made.counts() == (6, 10, 0)
    assert analyse(construct.branches[0].mask, "i").opaque


@pytest.mark.parametrize("text", ["not document(ids)", "(i + 2 * j) % 5 == 1 and blocks(list, 6)", "i * j < 90"])
@given(N=lengths, M=lengths, block=blocks, q_offset=q_offsets, kv_offset=kv_offsets, seed=st.integers(0, 99))
def test_bisection_decides_small_maps(
    text: str, N: int, M: int, block: tuple[int, int], q_offset: int | None, kv_offset: int, seed: int
) -> None:
    for made in check(text, N, M, block, q_offset, kv_offset, seed, unsorted=True):
        assert made.exact


def test_unsorted_documents_are_sound() -> None:
    construct = spec("document(ids)")
    ids = np.random.default_rng(0).integers(0, 40, (1, 4096)).astype(np.int32)
    made = tile_map(construct.branches[0].mask, 4096, 4096, (64, 64), inputs={"ids": ids})
    assert not made.exact
    assert made.why == ("ids neither only rises nor only falls with the position",)
    assert made.counts().full == 0


def test_nothing_is_made_for_a_pair() -> None:
    """A million positions: the map of a union is O(rows of tiles)."""
    construct = spec("causal and (window(512) or global(64))")
    made = tile_map(construct.branches[0].mask, 2**20, 2**20)
    assert made.exact
    assert made.shape == (1, 1, 8192, 16384)
    assert len(made.kinds) < 5 * 8192
    assert sum(made.counts()) == 8192 * 16384

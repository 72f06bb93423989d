"""``op.tiles`` says of every tile what ``op.mask`` says of its pairs, and refuses the same calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import attnc
from attnc.runtime.op import Op

B, H = 2, 3


def brute_force(live: Tensor, block: tuple[int, int]) -> Tensor:
    """Kinds of the tiles of a mask [B, H, N, M]."""
    rows = [line.split(block[1], dim=3) for line in live.split(block[0], dim=2)]
    kinds = [[tile.any((2, 3)).to(torch.int8) + tile.all(3).all(2) for tile in line] for line in rows]
    return torch.stack([torch.stack(line, dim=-1) for line in kinds], dim=-2).to(torch.int8)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A spec and the inputs of its mask for N queries and M keys."""

    spec: str
    heads: int = 1
    batches: int = 1
    inputs: Mapping[str, Any] = field(default_factory=dict)


def spec(mask: str, declared: str = "") -> str:
    return f"attention a {{ {declared} score dot(q, k) mask {mask} normalize softmax }}"


N, M = 23, 31
IDS = torch.tensor([[0] * 9 + [1] * 14 + [2] * 8, [3] * 30 + [4]], dtype=torch.int32)

CASES = {
    "causal": Case(spec=spec("causal")),
    "longformer": Case(spec=spec("window(3) or global(2)")),
    "random": Case(spec=spec("random(2, block = 4, seed = 5) or block(3)"), heads=H),
    "heads": Case(spec=spec("causal and window(w[h])", "param w: int[H] = [1, 4, 9]"), heads=H),
    "documents": Case(spec=spec("causal and document(ids)", "input ids: i32[B, M]"), batches=B, inputs={"ids": IDS}),
    "one row of documents for all": Case(
        spec=spec("document(ids)", "input ids: i32[B, M]"), batches=B, inputs={"ids": IDS[:1]}
    ),
    "lengths": Case(spec=spec("j < n[b]", "input n: i64[B]"), batches=B, inputs={"n": torch.tensor([4, 31])}),
    "a number": Case(spec=spec("j < n", "input n: i32"), inputs={"n": 12}),
    "global tokens": Case(
        spec=spec("global(t) or window(1)", "input t: bool[B, M]"), batches=B,
        inputs={"t": torch.arange(2 * M).reshape(2, M) % 17 == 0},
    ),
    "listed blocks": Case(
        spec=spec("blocks(t, 8)", "input t: i32[B, H, R, S]"), batches=B, heads=H,
        inputs={"t": torch.tensor([[0, 2], [1, -1], [3, 0]])[None, None].expand(B, H, 3, 2)},
    ),
    "a float input": Case(
        spec=spec("bias[h, j] > 0.5", "input bias: f32[H, M]"), heads=H,
        inputs={"bias": torch.linspace(0, 1, H * M, dtype=torch.bfloat16).reshape(H, M)},
    ),
    "branches": Case(
        spec="attention a { branch x { score dot(q, k) mask window(2) normalize softmax }"
        " branch y { score dot(q, k) mask strided(4) normalize softmax } output x + y }"
    ),
    "no mask": Case(spec="attention a { score dot(q, k) normalize softmax }"),
}  # fmt: skip


@pytest.fixture(scope="module")
def ops() -> Mapping[str, Op]:
    return {name: attnc.loads(case.spec) for name, case in CASES.items()}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("block", [(8, 8), (5, 7), (1, 1), (64, 64)])
@pytest.mark.parametrize("offsets", [{}, {"q_offset": 3, "kv_offset": -2}])
def test_tiles_say_what_the_mask_says(
    name: str, block: tuple[int, int], offsets: Mapping[str, int], ops: Mapping[str, Op]
) -> None:
    case = CASES[name]
    sizes = {"B": B, "H": H}
    tiles = ops[name].tiles(N, M, block, **sizes, **offsets, **case.inputs)
    assert tiles.dtype is torch.int8
    assert tiles.shape == (case.batches, case.heads, -(-N // block[0]), -(-M // block[1]))
    torch.testing.assert_close(tiles, brute_force(ops[name].mask(N, M, **sizes, **offsets, **case.inputs), block))


@given(N=st.integers(1, 40), M=st.integers(1, 40), first=st.integers(-9, 40), second=st.integers(-9, 40))
def test_every_batch_has_its_offset(N: int, M: int, first: int, second: int) -> None:
    op = attnc.loads(spec("causal and window(9)"))
    offset = torch.tensor([first, second])
    tiles = op.tiles(N, M, block=(4, 8), B=2, q_offset=offset)
    torch.testing.assert_close(tiles, brute_force(op.mask(N, M, B=2, q_offset=offset), (4, 8)))


def test_as_many_keys_as_queries_and_tiles_of_128_by_64_unless_said() -> None:
    op = attnc.loads(spec("causal"))
    assert op.tiles(256).tolist() == [[[[1, 1, 0, 0], [2, 2, 1, 1]]]]


def test_a_short_last_tile_is_full_if_every_pair_that_exists_is_live() -> None:
    assert attnc.loads(spec("prefix(9)")).tiles(7, 9, block=(4, 4)).tolist() == [[[[2, 2, 2], [2, 2, 2]]]]


def test_keys_that_are_fewer_than_m() -> None:
    op = attnc.loads(
        "attention a { input e: f32[R, M] key kp = e @ k value vp = e @ v"
        " score dot(q, kp) mask causal normalize softmax }"
    )
    e = torch.zeros(6, 12)
    torch.testing.assert_close(op.tiles(12, block=(4, 4), e=e), brute_force(op.mask(12, e=e), (4, 4)))


def test_a_map_of_a_million_positions() -> None:
    made = attnc.loads(spec("causal")).tile_map(2**20, block=(128, 128))
    assert made.exact
    assert made.counts() == (8192 * 8191 // 2, 8192, 8192 * 8191 // 2)


def test_the_transposed_map_is_the_map_transposed() -> None:
    op = attnc.loads(spec("causal and window(9)"))
    forward, backward = (op.tile_map(30, 40, (8, 4), transposed=turned) for turned in (False, True))
    assert (backward.dense() == forward.dense().swapaxes(2, 3)).all()


REFUSED = {
    "a missing input": (TypeError, "the mask of a reads the input ids", {}),
    "an unknown input": (TypeError, "a has no input idz; its inputs: ids", {"ids": IDS, "idz": IDS}),
    "a short axis": (ValueError, r"a: ids: axis 1 is M = 31, but the tensor has 30 there", {"ids": IDS[:, :30]}),
    "another batch": (ValueError, r"a: ids: axis 0 is B = 2, but the tensor has 3 there", {"ids": IDS[[0, 0, 1]]}),
    "an axis too few": (ValueError, r"a: ids: expected \[B, M\], got 1 axes", {"ids": IDS[0]}),
    "offsets": (ValueError, "a: q_offset has 3 numbers for B = 2", {"ids": IDS, "q_offset": torch.tensor([1, 2, 3])}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_what_the_mask_refuses(name: str) -> None:
    kind, says, call = REFUSED[name]
    op = attnc.loads(spec("document(ids)", "input ids: i32[B, M]"))
    for ask in (op.mask, op.tiles, op.tile_map):
        with pytest.raises(kind, match=says):
            ask(N, M, B=B, **call)


@pytest.mark.parametrize("size", [-1, 4.0, True, 2**29 + 1])
@pytest.mark.parametrize("name", ["N", "M", "B", "H"])
def test_refuses_a_size_that_is_none(name: str, size: Any) -> None:
    op = attnc.loads(spec("causal"))
    for ask in (op.mask, op.tiles):
        with pytest.raises(ValueError, match=rf"a: {name}: expected an int from 0 to 2\*\*29, got {size}"):
            ask(**{"N": 8, name: size})


@pytest.mark.parametrize("block", [(0, 4), (4,), (4.0, 4), (4, 4, 4), 4])
def test_refuses_a_block_that_is_none(block: Any) -> None:
    with pytest.raises(ValueError, match=r"a: block: expected two positive ints \(queries, keys\), got"):
        attnc.loads(spec("causal")).tiles(8, block=block)


def test_refuses_branches_of_different_keys() -> None:
    op = attnc.loads(
        "attention a { input e: f32[R, M] key kp = e @ k value vp = e @ v"
        " branch x { score dot(q, kp) normalize softmax value vp }"
        " branch y { score dot(q, k) mask causal normalize softmax value v } output x + y }"
    )
    with pytest.raises(ValueError, match=r"its branches see \[3, 9\] keys"):
        op.tiles(9, e=torch.zeros(3, 9))

"""Peers compute what the spec says, or say why they cannot; times are taken in turns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import attnc
from attnc.runtime import bench
from attnc.runtime.bench import contend, interleave, make_inputs, make_vectors, ratio
from attnc.runtime.op import Op
from attnc.runtime.peers import PEERS, NoPeer

EXAMPLES = Path(__file__).parents[2] / "examples" / "zoo"
SIZES = {"B": 2, "H": 4, "G": 2, "N": 150, "M": 200, "D": 16, "E": 16}
SCORE = "score dot(q, k) / sqrt(D)"
BOTH = {
    "dense": f"{SCORE} normalize softmax",
    "causal": f"{SCORE} mask causal normalize softmax",
    "window": f"{SCORE} mask causal and window(20) normalize softmax",
    "residues": "score 0.3 * dot(q, k) mask (i - j) % 3 == 0 or i // 7 == j // 7 normalize softmax",
    "alibi": "input slope: f32[H] score dot(q, k) - slope[h] * abs(i - j) mask causal normalize softmax",
    "relative": "input bias: f32[H, R] score dot(q, k) + bias[h, i - j + 200] mask not causal normalize softmax",
    "document": f"input ids: i32[B, M] {SCORE} mask ids[b, j] == ids[b, i] normalize softmax",
    "per head": f"param w: int[H] = [3, 9, 27, 81] {SCORE} mask window(w[h]) normalize softmax",
    "near zero": f"{SCORE} + where(i - j == 37, 2.0, 0.0) normalize softmax",
    "pair": "input x: f32[1, H, N, M] score dot(q, k) + x[b, h, i - 50, j] normalize softmax",
}
GIVEN = {
    "document": {"ids": torch.arange(200, dtype=torch.int32).repeat(2, 1) // 40},
    "relative": {"bias": torch.randn(4, 401)},
}


def load(text: str) -> Op:
    return attnc.loads(f"attention a {{ {text} }}")


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention's own mathematics: compiled it takes half a minute a case."""

    def same(function: Callable[..., Any], **options: object) -> Callable[..., Any]:
        return function

    monkeypatch.setattr(torch, "compile", same)


@pytest.mark.parametrize("peer", ["sdpa", "flex"])
@pytest.mark.parametrize("name", BOTH)
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_a_peer_is_the_same_function(name: str, peer: str, uncompiled: None) -> None:
    op = load(BOTH[name])
    vectors = make_vectors(op, SIZES, torch.float32)
    inputs = make_inputs(op.construct, SIZES, GIVEN.get(name, {}))
    found = PEERS[peer](op.construct, vectors, inputs)()
    torch.testing.assert_close(found, op.reference(*vectors.values(), **inputs), rtol=1e-4, atol=1e-5)


def test_causal_of_equal_lengths_takes_sdpas_own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", lambda *x, **options: seen.append(options))
    square = SIZES | {"N": 200}
    for name in ("causal", "dense", "window"):
        op = load(BOTH[name])
        PEERS["sdpa"](op.construct, make_vectors(op, square, torch.float32), {})()
    assert [set(options) - {"scale", "enable_gqa"} for options in seen] == [{"is_causal"}, set(), {"attn_mask"}]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("score 9 * tanh(dot(q, k)) normalize softmax", "no multiple of the dot product plus a bias"),
        (f"{SCORE} * (i - j) normalize softmax", "no multiple of the dot product plus a bias"),
        (f"{SCORE} normalize softmax1", "its normalization is not the plain softmax"),
        (f"{SCORE} normalize sum", "its normalization is not the plain softmax"),
        ("score dot(rope(q, i), rope(k, j)) normalize softmax", "it derives vectors or values by token"),
        ("score dot(q, k) + dot(q[:4], k[:4]) normalize softmax", "it derives vectors|2 dot products"),
    ],
)
def test_what_sdpa_does_not_have(text: str, why: str) -> None:
    op = load(text)
    with pytest.raises(NoPeer, match=why):
        PEERS["sdpa"](op.construct, make_vectors(op, SIZES, torch.float32), {})


def test_two_maps_have_no_peer() -> None:
    op = attnc.load(EXAMPLES / "differential.attn")
    for peer in PEERS.values():
        with pytest.raises(NoPeer, match="combines several maps"):
            peer(op.construct, make_vectors(op, SIZES, torch.float32), {})


def test_flex_has_no_drawn_tables() -> None:
    op = load(f"{SCORE} mask random(2, block = 8, seed = 1) normalize softmax")
    with pytest.raises(NoPeer, match="FlexAttention has no words for it"):
        PEERS["flex"](op.construct, make_vectors(op, SIZES, torch.float32), {})


def test_contenders(monkeypatch: pytest.MonkeyPatch) -> None:
    op = load(BOTH["causal"])
    found = contend(op, SIZES, torch.float32, ("eager", "sdpa", "nothing"), inputs={}, backward=True, seconds=0)
    assert len(found["eager"].times) == len(found["sdpa"].times) == 5 and found["sdpa"].off < 64
    assert "expected one of auto" in found["nothing"].why and not found["nothing"].times
    wrong: Callable[..., Any] = lambda *given: lambda: torch.zeros(2, 4, 150, 16)  # noqa: E731
    monkeypatch.setitem(bench.PEERS, "sdpa", wrong)  # type: ignore[index]  # a dict, for the test
    assert contend(op, SIZES, torch.float32, ("eager", "sdpa"), inputs={}, seconds=0)["sdpa"].off > 1e6
    found = contend(op, SIZES, torch.float32, ("nothing", "sdpa"), inputs={}, seconds=0)
    assert found["sdpa"].why == "not timed without nothing"


def test_in_turns() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: (order.append(name), sum(range(30000)))) for name in "abc"}
    times = interleave(calls, seconds=0, least=3)
    assert {name: len(found) for name, found in times.items()} == {"a": 3, "b": 3, "c": 3}
    first = [key for key, before in zip(order, ["", *order], strict=False) if key != before]
    assert "".join(first).endswith("abcbcacab")


def test_ratios_are_of_one_round() -> None:
    """A machine that is three times as slow in one round changes nothing."""
    assert ratio([2.0, 6.0, 2.0, 2.0], [1.0, 3.0, 1.0, 1.0]) == (2.0, 2.0, 2.0)
    assert ratio([2.0], [1.0]) == (2.0, 2.0, 2.0)


def test_inputs_that_cannot_be_drawn() -> None:
    for text, why in (
        ("input ids: i32[B, M] score dot(q, k) mask document(ids) normalize softmax", r"ids \(i32\) cannot be drawn"),
        (
            "input bias: f32[H, R] score dot(q, k) + bias[h, 0] normalize softmax",
            "bias has a size 'R' that is not known",
        ),
    ):
        with pytest.raises(ValueError, match=why):
            make_inputs(load(text).construct, SIZES, {})

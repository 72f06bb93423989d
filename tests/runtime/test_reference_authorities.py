"""The reference against outside authorities, float64, values and gradients: PyTorch's scaled_dot_product_attention
and FlexAttention's eager mathematics (its public call refuses gradients on a CPU; values are compared with that call,
gradients with the function behind it)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from math import log

import pytest
import torch
from torch import Tensor
from torch._higher_order_ops.flex_attention import math_attention
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention as sdpa

from tests.runtime.specs import assert_same, attention, call, vectors

PLAIN = "score dot(q, k) / sqrt(D) normalize softmax"


# --- scaled_dot_product_attention -------------------------------------------------------------


@pytest.mark.parametrize("lengths", [(7, 7), (5, 9), (9, 5), (1, 6), (6, 1)])
def test_dense(lengths: tuple[int, int]) -> None:
    x = vectors(N=lengths[0], M=lengths[1], E=5)
    assert_same(call(attention(PLAIN), x), sdpa(*x.values()), [*x.values()])


def test_causal() -> None:
    x = vectors(N=9)
    assert_same(call(attention(PLAIN + " mask causal"), x), sdpa(*x.values(), is_causal=True), [*x.values()])


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_grouped_heads(groups: int) -> None:
    x = vectors(H=6, G=groups, E=3)
    expected = sdpa(*x.values(), is_causal=True, enable_gqa=True)
    assert_same(call(attention(PLAIN + " mask causal"), x), expected, [*x.values()])


def test_boolean_mask_with_empty_rows() -> None:
    x = vectors(N=6, M=11)
    allowed = torch.rand(2, 4, 6, 11) < 0.4
    allowed[0, 1, 2] = allowed[1, :, 3] = False
    construct = attention("input allowed: bool[B, H, N, M]" + " mask allowed[b, h, i, j] " + PLAIN)
    actual = call(construct, x, {"allowed": allowed})
    assert_same(actual, sdpa(*x.values(), attn_mask=allowed), [*x.values()])
    assert (actual[0, 1, 2] == 0).all()


def test_float_mask() -> None:
    x = vectors(N=6, M=11)
    bias = torch.randn(1, 4, 6, 11, dtype=torch.float64, requires_grad=True)
    construct = attention("input bias: f64[B, H, N, M] score dot(q, k) / sqrt(D) + bias[b, h, i, j] normalize softmax")
    actual = call(construct, x, {"bias": bias})
    assert_same(actual, sdpa(*x.values(), attn_mask=bias), [*x.values(), bias])


def test_float_mask_of_minus_infinity() -> None:
    """Values only: PyTorch sends NaN to the bias of a row that is -inf throughout; the language says 0."""
    x = vectors(N=6, M=11)
    bias = torch.zeros(2, 4, 6, 11, dtype=torch.float64)
    bias[:, :, :, 7:] = bias[0, 0, 2] = -torch.inf
    bias.requires_grad_()
    construct = attention("input bias: f64[B, H, N, M] score dot(q, k) / sqrt(D) + bias[b, h, i, j] normalize softmax")
    actual = call(construct, x, {"bias": bias})
    expected = sdpa(*x.values(), attn_mask=bias)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    for gradient in torch.autograd.grad(actual.sum(), [*x.values(), bias]):
        assert gradient.isfinite().all()


# --- FlexAttention ----------------------------------------------------------------------------


Score = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
Mask = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def _keep_score(s: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
    return s


def _keep_pair(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
    return j >= 0


@dataclass(frozen=True, kw_only=True)
class Case:
    text: str
    score: Callable[[dict[str, Tensor]], Score] = lambda inputs: _keep_score
    mask: Callable[[dict[str, Tensor]], Mask] = lambda inputs: _keep_pair
    inputs: Callable[[], dict[str, Tensor]] = dict
    lengths: tuple[int, int] = (13, 13)
    params: dict[str, object] = field(default_factory=dict)


def _float(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


CASES = {
    "alibi": Case(
        text="input slope: f64[H] score dot(q, k) / sqrt(D) - slope[h] * abs(i - j) mask causal normalize softmax",
        inputs=lambda: {"slope": _float(4)},
        score=lambda x: lambda s, b, h, i, j: s - x["slope"][h] * (i - j).abs(),
        mask=lambda x: lambda b, h, i, j: j <= i,
    ),
    "softcap": Case(
        text="param cap: float = 50.0 let s0 = dot(q, k) / sqrt(D) "
        "score cap * tanh(s0 / cap) mask causal and window(4, 0) normalize softmax",
        params={"cap": 2},
        score=lambda x: lambda s, b, h, i, j: 2 * torch.tanh(s / 2),
        mask=lambda x: lambda b, h, i, j: (j <= i) & (i - j <= 4),
    ),
    "relative bias": Case(
        text="input bias: f64[H, N + M] score dot(q, k) / sqrt(D) + bias[h, i - j + M] normalize softmax",
        inputs=lambda: {"bias": _float(4, 30)},
        score=lambda x: lambda s, b, h, i, j: s + x["bias"][h, i - j + 17],
        lengths=(13, 17),
    ),
    "bias over batch and pair": Case(
        text="input pair: f64[B, H, N, M] score dot(q, k) / sqrt(D) * 2 + sigmoid(pair[b, h, i, j]) normalize softmax",
        inputs=lambda: {"pair": _float(2, 4, 13, 13)},
        score=lambda x: lambda s, b, h, i, j: s * 2 + torch.sigmoid(x["pair"][b, h, i, j]),
    ),
    "window": Case(
        text="param w: int = 3 score dot(q, k) / sqrt(D) mask window(w) normalize softmax",
        mask=lambda x: lambda b, h, i, j: (i - j).abs() <= 3,
    ),
    "prefix-LM": Case(
        text="param n: int = 5 score dot(q, k) / sqrt(D) mask causal or prefix(n) normalize softmax",
        mask=lambda x: lambda b, h, i, j: (j <= i) | (j < 5),
    ),
    "document": Case(
        text="input ids: i64[B, M] score dot(q, k) / sqrt(D) mask document(ids) and causal normalize softmax",
        inputs=lambda: {"ids": torch.tensor([[0] * 4 + [1] * 9, [0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3]])},
        mask=lambda x: lambda b, h, i, j: (x["ids"][b, i] == x["ids"][b, j]) & (j <= i),
    ),
    "dilated": Case(
        text="score dot(q, k) / sqrt(D) mask dilated(2, 3) normalize softmax",
        mask=lambda x: lambda b, h, i, j: ((i - j).abs() <= 6) & ((i - j) % 3 == 0),
    ),
    "sink and window": Case(
        text="score dot(q, k) / sqrt(D) mask causal and (sink(2) or window(3, 0)) normalize softmax",
        mask=lambda x: lambda b, h, i, j: (j <= i) & ((j < 2) | (i - j <= 3)),
    ),
    "longformer": Case(
        text="score dot(q, k) / sqrt(D) mask window(2) or global(1) normalize softmax",
        mask=lambda x: lambda b, h, i, j: ((i - j).abs() <= 2) | (i < 1) | (j < 1),
    ),
    "fixed": Case(
        text="score dot(q, k) / sqrt(D) mask causal and fixed(4, 1) normalize softmax",
        mask=lambda x: lambda b, h, i, j: (j <= i) & ((i // 4 == j // 4) | (j % 4 >= 3)),
    ),
    "rows with no key": Case(
        text="score dot(q, k) / sqrt(D) mask i >= 4 and causal or j == 100 normalize softmax",
        mask=lambda x: lambda b, h, i, j: (i >= 4) & (j <= i),
    ),
    "tanh of a head's scale": Case(
        text="input scale: f64[H] input low: f64 score max(tanh(scale[h] * dot(q, k)), low) / D normalize softmax",
        inputs=lambda: {"scale": _float(4), "low": torch.tensor(-0.2, dtype=torch.float64, requires_grad=True)},
        score=lambda x: lambda s, b, h, i, j: torch.maximum(torch.tanh(x["scale"][h] * s * 8**0.5), x["low"]) / 8,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_flex_attention(name: str) -> None:
    case = CASES[name]
    N, M = case.lengths
    x = vectors(G=2, N=N, M=M)
    inputs = case.inputs()
    score, mask = case.score(inputs), case.mask(inputs)
    blocks = create_block_mask(mask, 2, 4, N, M, device="cpu")
    # FlexAttention counts queries from 0, a spec by default from M - N.
    actual = call(attention(case.text, **case.params), x, inputs, q_offset=0)

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # that it is not compiled is the point
        plain = {key: value.detach() for key, value in x.items()}
        kept = {key: value.detach() for key, value in inputs.items()}
        public = flex_attention(*plain.values(), score_mod=case.score(kept), block_mask=blocks, enable_gqa=True)
    torch.testing.assert_close(actual.detach(), public, rtol=1e-11, atol=1e-11)

    expected = math_attention(*x.values(), score, blocks.as_tuple(), 8**-0.5, {})[0]
    assert_same(actual, expected, [*x.values(), *(value for value in inputs.values() if value.requires_grad)])


def test_flex_attention_log_sum_exp() -> None:
    x = vectors(N=13)
    blocks = create_block_mask(lambda b, h, i, j: (j <= i) & (i >= 2), 2, 4, 13, 13, device="cpu")
    expected = math_attention(*x.values(), _keep_score, blocks.as_tuple(), 8**-0.5, {})
    out, lse, rowmax = call(attention(PLAIN + " mask causal and i >= 2 emit lse, rowmax"), x)
    assert_same(out, expected[0], [*x.values()])
    torch.testing.assert_close(lse, expected[1] * log(2))  # FlexAttention counts in powers of 2
    torch.testing.assert_close(rowmax, expected[2] * log(2))
    assert_same(lse[:, :, 2:], expected[1][:, :, 2:] * log(2), [x["q"], x["k"]])

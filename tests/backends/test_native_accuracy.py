"""How exact the C++ code is: errors beside scaled_dot_product_attention's, and what may not grow with length."""

from __future__ import annotations

from collections.abc import Callable
from math import log, sqrt

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import attnc
from attnc.testing.call import check, cotangents, make, outcome
from attnc.testing.tolerance import unit_roundoff

ALIBI = """
attention a {
  input slope: f32[H]  score dot(q, k) / sqrt(D) - slope[h] * abs(i - j)  mask causal  normalize softmax
}"""


@pytest.mark.parametrize(
    ("mask", "dtype"), [("", torch.float32), ("causal", torch.bfloat16), ("causal", torch.float16)], ids=str
)
def test_no_further_from_float64_than_sdpa(mask: str, dtype: torch.dtype) -> None:
    """Root mean square errors of the output and of every gradient. A row's errors share its lse, so that they count
    once: the mean square of so many rows has a relative deviation of sqrt(2 / rows), its root of half that; five of
    them are left to chance."""
    op = attnc.loads(f"attention a {{ score dot(q, k) / sqrt(D) {'mask ' + mask if mask else ''} normalize softmax }}")
    generator = torch.Generator().manual_seed(0)
    shape = (2, 4, 512, 64)
    *given, sent = (torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(4))

    def results(run: Callable[..., Tensor], into: torch.dtype) -> list[Tensor]:
        leaves = [x.to(into).requires_grad_() for x in given]
        out = run(*leaves)
        return [out.detach(), *torch.autograd.grad(out, leaves, sent.to(into))]

    def theirs(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return scaled_dot_product_attention(q, k, v, is_causal=bool(mask))

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        made = op(q, k, v, backend="native")
        assert isinstance(made, Tensor)
        return made

    rows = shape[0] * shape[1] * shape[2]
    exact = results(theirs, torch.float64)
    for name, x, y, z in zip(
        ("out", "dq", "dk", "dv"), exact, results(ours, dtype), results(theirs, dtype), strict=True
    ):
        own, other = (float((found.double() - x).square().mean().sqrt()) for found in (y, z))
        assert own <= other * (1 + 5 / sqrt(2 * rows)), f"{name}: {own:.3g}, theirs {other:.3g}"


def test_sums_of_many_blocks_are_not_rescaled() -> None:
    """Keys that are all alike, dots that are exact: every block has the maximum of the block before. A factor that is
    only nearly 1, once a block, would show: 1e-5 here."""
    op = attnc.loads("attention a { score dot(q, k) / sqrt(D)  normalize softmax  emit lse }")
    generator = torch.Generator().manual_seed(0)
    M, D = 16384, 64
    q, k = (torch.randint(-12, 13, (1, 1, n, D), generator=generator) / 8 for n in (48, 1))
    scores = (q.double() @ k.double().mT)[..., 0] / sqrt(D)
    made = op(q, k.expand(1, 1, M, D), torch.ones(1, 1, M, D), backend="native")
    assert isinstance(made, tuple)
    # rounded: the exponent and its shift, the weight (1.6e-7 relative is 3), the logarithm, the sum of both
    steps = 3 * scores.abs() + log(M) + (scores + log(M)).abs() + 3
    assert ((made.lse - (scores + log(M))).abs() <= steps * torch.finfo(torch.float32).eps / 2).all()


def test_slopes_of_half_precision_lose_what_rounding_the_output_does() -> None:
    """Three queries, 900 keys, slopes that are nearly 0: a slope's gradient is off by a tenth in float16. With delta =
    <d out, out> of the rounded output a row's cotangents p (dp - delta) no longer sum to 0, and what is left, up to
    u sum |d out out| a row, is multiplied by the mean distance of its keys. Nothing else may be lost: beside that bound
    float32's alone is left, for sums of so many terms."""
    op = attnc.loads(ALIBI)
    sizes = {"B": 1, "H": 2, "G": 1, "N": 3, "M": 900, "D": 64, "E": 64}
    call = make(op, sizes, inputs={"slope": torch.tensor([2.0**-9, 2.0**-12], dtype=torch.float64)}, seed=1)
    rounded = call.prepared(torch.float16)
    exact = rounded.exact()
    expected, actual = outcome(exact, "reference"), outcome(rounded, "native")
    q, k, v = exact.vectors.values()
    distance = torch.arange(897, 900)[:, None] - torch.arange(900)
    score = q @ k.mT / 8 - exact.inputs["slope"][:, None, None] * distance
    p = torch.where(distance >= 0, score, -torch.inf).softmax(-1)
    sent = cotangents({"out": expected["out"]})["out"]
    mean = (p * distance.clamp(min=0)).sum(-1)
    of_delta = unit_roundoff(torch.float16) * ((sent * expected["out"]).abs().sum(-1) * mean).sum(-1)[0]
    terms = (p * (sent @ v.mT - (sent * expected["out"]).sum(-1, keepdim=True)) * distance).abs().sum((-1, -2))[0]
    bound = of_delta + 16 * unit_roundoff(torch.float32) * (900**0.5 + 8) * terms
    assert ((actual["d_slope"] - expected["d_slope"]).abs() <= bound).all(), (
        actual["d_slope"],
        expected["d_slope"],
        bound,
    )


@pytest.mark.parametrize("N", [1, 48], ids=["decode", "forward"])
def test_weights_that_cannot_matter_are_zero(N: int) -> None:
    """2 ** -80 of a row's largest weight is the least there is; below 2 ** -126 one number takes as long as a hundred.
    The gradient of v is the weights' sum."""
    op = attnc.loads("attention a { score dot(q, k)  normalize softmax }")
    exponent = torch.tensor([1.0, 40, 79, 81, 100, 125, 127, 140, 148, 200])
    q = (-exponent * log(2))[:, None, None, None].expand(-1, 1, N, 1)
    k, v = (torch.tensor([0.0, 1.0])[:, None].repeat(len(exponent), 1, 1, 1) for _ in range(2))
    out = op(q, k, v.requires_grad_(), backend="native")
    assert isinstance(out, Tensor)
    (dv,) = torch.autograd.grad(out.sum(), v)
    weight = torch.where(exponent < 80, torch.exp2(-exponent.double()) / (1 + torch.exp2(-exponent.double())), 0)
    allowed = (exponent + 8) * torch.finfo(torch.float32).eps * weight  # rounded: the score, its share, the weight
    assert ((out - weight[:, None, None, None]).abs() <= allowed[:, None, None, None]).all(), out[:, 0, 0, 0]
    assert ((dv[:, 0, 1, 0] / N - weight).abs() <= allowed).all(), dv[:, 0, 1, 0]


def test_small_weights_over_a_smaller_divisor() -> None:
    """Weights of 2 ** -90 each, divided by about as much: all that a row has."""
    op = attnc.loads("attention a { score dot(q, k) - 62  normalize weight(s) = exp(s) divisor(t) = t + 1e-30 }")
    sizes = {"B": 1, "H": 1, "G": 1, "N": 40, "M": 70, "D": 8, "E": 8}
    check(make(op, sizes, seed=1), "native", torch.float32)


def test_tanh_is_exact_to_its_roundings() -> None:
    """Scores of one key, seen through lse, on both sides of where the polynomial ends: eight roundings of tanh and of
    the exponent. Every vector has one lane beyond it, or none."""
    op = attnc.loads("attention a { score tanh(dot(q, k))  normalize softmax  emit lse }")
    x = torch.cat([torch.linspace(-0.7499, 0.7499, 4800), torch.logspace(-6, 1, 4800)])
    for q in (x, torch.where(torch.arange(len(x)) % 16 == 3, 5.0, x)):
        made = op(q[None, None, :, None], torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1), backend="native")
        assert isinstance(made, tuple)
        exact = torch.tanh(q.double())
        assert ((made.lse[0, 0] - exact).abs() <= 8 * torch.finfo(torch.float32).eps / 2 * exact.abs()).all()

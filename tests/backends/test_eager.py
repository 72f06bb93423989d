"""The blocked PyTorch code equals the reference on drawn specs and calls: every dtype, forward and all gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, note
from hypothesis import strategies as st

import attnc
from attnc.testing.call import Call, check, make, outcome, terms
from attnc.testing.family import calls

EXAMPLES = Path(__file__).parents[2] / "examples" / "zoo"


@given(call=calls(), dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]))
def test_equals_the_reference(call: Call, dtype: torch.dtype) -> None:
    note(str(call.op))
    check(call, "eager", dtype)


def test_a_total_beyond_float32() -> None:
    """Weights are scaled by a running maximum, so ``out`` is right; the total is infinite, its gradients 0 * inf."""
    text = """attention a { input x: f32[M] score dot(q, k) + x[j]
        normalize weight(s) = exp(s) divisor(t) = t + 0.5 emit total }"""
    sizes = {"B": 1, "H": 1, "G": 1, "N": 3, "M": 5, "D": 4, "E": 4}
    call = make(attnc.loads(text), sizes, inputs={"x": torch.full((5,), 125.0, dtype=torch.float64)})
    check(call, "eager", torch.float32)
    check(call, "eager", torch.float64)
    assert outcome(call.prepared(torch.float32), "eager")["total"].isinf().all()


def test_a_bias_that_grows_with_distance() -> None:
    """Where slopes are negative the farthest keys take all the weight: the gradients of a row cancel, and what the
    rounding of ``out`` leaves is multiplied by the distance. Where they are ALiBi's own it is far smaller."""
    op = attnc.load(EXAMPLES / "alibi.attn")
    sizes = {"B": 1, "H": 4, "G": 2, "N": 300, "M": 300, "D": 64, "E": 64}
    for seed in range(3):
        check(make(op, sizes, seed=seed), "eager", torch.bfloat16)
    published = {"slope": 2.0 ** torch.tensor([-2, -4, -6, -8], dtype=torch.float64)}
    call = make(op, sizes, inputs=published)
    check(call, "eager", torch.bfloat16)
    exact = call.prepared(torch.bfloat16).exact()
    size = terms(exact, outcome(exact, "reference"))["d_slope"]
    assert size < 1500, f"the tolerance is of the order of {size * 2**-6:.0f}"


def test_gradients_that_cancel_in_one_key() -> None:
    """Found by a deep run: with one key the cotangents of weights cancel but for the rounding of ``out``."""
    op = attnc.loads(
        "attention spec { input scalar: f32  score dot(q, k) / sqrt(D) - scalar  "
        "normalize weight(s) = exp(s) divisor(t) = sqrt(t * t + 0.25) }"
    )
    for seed in range(8):
        call = make(op, {"B": 1, "H": 1, "G": 1, "N": 1, "M": 1, "D": 16, "E": 16}, seed=seed)
        for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
            check(call, "eager", dtype)


def test_gradients_that_cancel_over_queries() -> None:
    """Found by a deep run: two queries send one value opposite cotangents of nearly one size."""
    op = attnc.loads(
        "attention spec { input scalar: f32  score (abs(i - j) * 0.0625 + dot(q, k) / sqrt(D)) "
        "* tanh(dot(q, k) * 0.25 * tanh(scalar))  normalize softmax(sink = 1) }"
    )
    vectors = {"q": [[[[0.875], [0.25]]]], "k": [[[[-0.5]]]], "v": [[[[-0.25]]]]}
    call = Call(
        op=op,
        vectors={name: torch.tensor(x, dtype=torch.float64) for name, x in vectors.items()},
        inputs={"scalar": torch.tensor(0.1875, dtype=torch.float64)},
    )
    check(call, "eager", torch.float64)


def test_a_gradient_beyond_float16_is_infinite() -> None:
    """Found by a deep run: the derivative of l2norm at 0 is 1 / eps = 1e12."""
    op = attnc.loads("attention spec { score dot(l2norm(q), l2norm(k)) * 2  mask causal  normalize softmax }")
    call = make(op, {"B": 1, "H": 1, "G": 1, "N": 1, "M": 33, "D": 1, "E": 1})
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        check(call, "eager", dtype)


def test_a_gradient_below_float32_is_zero() -> None:
    """Found by the fuzzer: a sink far below every score takes a weight of exp(-200)."""
    op = attnc.loads("attention spec { input sinks: f32[H]  score i - j  normalize softmax(sink = sinks[h]) }")
    call = make(op, {"B": 1, "H": 1, "G": 1, "N": 1, "M": 1, "D": 1, "E": 1}, q_offset=200)
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        check(call, "eager", dtype)


@pytest.mark.parametrize(
    "divisor",
    [
        "sqrt(t * t + 0.25)",
        "t ** 0.75 + t ** 0.5",
        "t / sqrt(t + 1)",
        "max(t * t, 0.5) ** 0.5",
        "where(t > 1, t, sqrt(t) + exp(2))",
        "sqrt(t ** 2 + exp(3) * t + exp(5))",
        "1 / (1 / (t + 1) + rsqrt(t * t + 2))",
    ],
)
def test_no_finite_score_overflows_a_divisor(divisor: str) -> None:
    """Found by the fuzzer: the square of a sum of exponentials was taken of the sum itself."""
    for shift in (0, -60, 60):
        text = f"score dot(q, k) + {shift}  normalize weight(s) = exp(s) divisor(t) = {divisor}  emit lse"
        op = attnc.loads(f"attention spec {{ {text} }}")
        call = make(op, {"B": 1, "H": 2, "G": 1, "N": 17, "M": 9, "D": 8, "E": 8})
        check(call, "eager", torch.float32)
        call.vectors["q"].mul_(0.25 if "t / sqrt" in divisor or "0.75" in divisor else 8)
        check(call, "eager", torch.float32)


def test_a_minimum_with_a_constant_does_not_underflow() -> None:
    """Found by the fuzzer: the constant held the maximum at 0, where weights of exp(-110) are 0 in float32."""
    op = attnc.loads(
        "attention spec { score dot(q, k) + 110  normalize weight(s) = exp(-s) divisor(t) = min(t, 3) + t / 2 }"
    )
    check(make(op, {"B": 1, "H": 2, "G": 1, "N": 5, "M": 9, "D": 8, "E": 8}), "eager", torch.float32)

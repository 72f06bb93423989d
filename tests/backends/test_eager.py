"""The blocked PyTorch code equals the reference on drawn specs and calls: every dtype, forward and all gradients."""

from __future__ import annotations

import torch
from hypothesis import given, note
from hypothesis import strategies as st

import attnc
from tests.backends.calls import Call, check, make
from tests.backends.specs import calls


@given(call=calls(), dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]))
def test_equals_the_reference(call: Call, dtype: torch.dtype) -> None:
    note(str(call.op))
    check(call, "eager", dtype)


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

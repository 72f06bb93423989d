"""Whole ops through the native executor: the kernels that GPUs get, at sizes that the interpreter does not reach."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, note

import attnc
from attnc.testing.call import check, cotangents, make, outcome, poisoned_outcome
from attnc.testing.process import Process
from tests.backends.fuzz import Batch, batches

EXAMPLES = Path(__file__).parents[2] / "examples" / "zoo"


@given(batch=batches(calls=3))
def test_equals_the_reference(native: Process, batch: Batch) -> None:
    """A sample of what ``tests.backends.fuzz`` runs."""
    note(batch.family.spec)
    for shape in batch.shapes:
        note(str(shape))
        check(batch.family.call(shape), "ttir", batch.dtype, run=partial(native.call, poisoned_outcome))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("name", "params"), [("causal", {}), ("longformer", {"w": 200, "g": 3})])
def test_equals_the_reference_at_real_lengths(
    native: Process, name: str, params: dict[str, int], dtype: torch.dtype
) -> None:
    op = attnc.load(EXAMPLES / f"{name}.attn", **params)
    call = make(op, {"B": 1, "H": 2, "G": 1, "N": 1500, "M": 2047, "D": 64, "E": 64})
    check(call, "ttir", dtype, run=partial(native.call, outcome))


def test_slopes_of_16_bit_vectors(native: Process) -> None:
    """A vector along the tile for each, which wider vectors do not take."""
    call = make(attnc.load(EXAMPLES / "alibi.attn"), {"B": 1, "H": 2, "G": 2, "N": 700, "M": 700, "D": 32, "E": 32})
    check(call, "ttir", torch.bfloat16, run=partial(native.call, outcome))


def test_four_thousand_tokens(native: Process) -> None:
    """Forward and backward against PyTorch's own attention."""
    op = attnc.load(EXAMPLES / "causal.attn")
    call = make(op, {"B": 1, "H": 2, "G": 2, "N": 4096, "M": 4096, "D": 64, "E": 64}).prepared(torch.float32)
    q, k, v = (x.detach().requires_grad_() for x in call.vectors.values())
    found = native.call(outcome, call, "ttir")
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(found["out"], expected)
    grads = torch.autograd.grad(expected, (q, k, v), cotangents({"out": expected})["out"].float())
    for name, grad in zip(("d_q", "d_k", "d_v"), grads, strict=True):
        torch.testing.assert_close(found[name], grad, rtol=1e-4, atol=1e-4)


def test_masked_halves_in_float64(native: Process) -> None:
    """Rows of two vectors of double, masked apart: a selection from memory was compiled wrongly (prelude.hpp)."""
    op = attnc.load(EXAMPLES / "causal.attn")
    call = make(op, {"B": 1, "H": 2, "G": 2, "N": 20, "M": 20, "D": 24, "E": 24})
    check(call, "ttir", torch.float64, run=partial(native.call, outcome))


def test_the_same_bits_every_time(native: Process) -> None:
    """Whatever thread a program runs on."""
    call = make(attnc.load(EXAMPLES / "alibi.attn"), {"B": 2, "H": 4, "G": 2, "N": 130, "M": 130, "D": 16, "E": 16})
    call = call.prepared(torch.float32)
    first, second = (native.call(outcome, call, "ttir") for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


# ---- where it cannot run


def test_not_where_kernels_are_interpreted() -> None:
    q = torch.randn(1, 1, 4, 8)
    with pytest.raises(RuntimeError, match="backend 'ttir' cannot run: TRITON_INTERPRET=1 was set"):
        attnc.load(EXAMPLES / "causal.attn")(q, q, q, backend="ttir")


def test_not_from_a_module_alone() -> None:
    space: dict[str, object] = {"__name__": "alone"}
    exec(attnc.load(EXAMPLES / "causal.attn").source(), space)
    q = torch.randn(1, 1, 4, 8)
    function = space["causal"]
    assert callable(function)
    with pytest.raises(RuntimeError, match=r"is not in this module: attnc\.load gives an op that has it"):
        function(q, q, q, backend="ttir")

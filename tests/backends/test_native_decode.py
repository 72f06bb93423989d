"""The C++ code for few queries: runs of keys of several threads, merged in their order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st
from torch import Tensor

import attnc
from attnc.runtime.op import Op
from attnc.testing.call import Call, check, make, outcome, terms
from attnc.testing.family import families, shapes
from attnc.testing.tolerance import assert_close

CACHE = attnc.loads("""
attention spec {
  input length: i32[B]  input slope: f32[H]  input row: f32[B, N]  input column: f32[M]
  score dot(q, k) / sqrt(D) - slope[h] * (i - j) / 100 + row[b, i] * column[j]
  mask causal and (window(700, 0) or sink(4)) and j < length[b]
  normalize softmax  emit lse
}""")
BRANCHES = attnc.loads("""
attention spec {
  query q1, q2  key k1, k2  value v  input lam: f32[H]
  branch x { score (dot(q1, k1) + dot(q2, k2)) / sqrt(D)  normalize softmax }
  branch y { score tanh(dot(q2, k2))  mask j % 3 == 0  normalize softmax }
  output x - lam[h] * y
}""")
# What is shared in other ways: lists of blocks, classes of rows, weights that their own sum does not divide.
OTHERS = {
    "lists": "mask block_window(16, 1) or global(20) or random(3, block = 16, seed = 0)  normalize softmax  emit lse",
    "classes": "mask causal and (window(20) or strided(3))  normalize softmax  emit lse, rowmax, entropy",
    "classes of a head": "mask (i - j + h) % 5 == 1  normalize softmax  emit lse",
    "sinks": "input bias: f32[H]  mask causal  normalize softmax(sink = bias[h])  emit lse, rowmax, entropy",
    "weights": "mask causal  normalize weight(s) = relu(s) ** 2 divisor(t) = t + 1  emit rowmax",
    "exponent": "mask dilated(50, 5)  normalize weight(s) = exp(0.5 * s) divisor(t) = t + 1  emit total, entropy",
}
SIZES = {"B": 2, "H": 6, "G": 2, "N": 3, "M": 1300, "D": 20, "E": 37}


def _inputs(op: Op) -> dict[str, torch.Tensor]:
    return {"length": torch.tensor([1300, 900], dtype=torch.int32)} if op is CACHE else {}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("op", [CACHE, BRANCHES], ids=["cache", "branches"])
def test_equals_the_reference(op: Op, dtype: torch.dtype) -> None:
    check(make(op, SIZES, inputs=_inputs(op), seed=5), "native", dtype)


def test_bits_do_not_depend_on_threads() -> None:
    call, threads = make(CACHE, SIZES, inputs=_inputs(CACHE), seed=5), torch.get_num_threads()
    found = []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            found.append(CACHE(*call.vectors.values(), **call.inputs, backend="native"))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(x, y) for other in found[1:] for x, y in zip(found[0], other, strict=True))


def test_garbage_beyond_the_cache_never_enters() -> None:
    call = make(CACHE, SIZES, inputs=_inputs(CACHE), seed=5)
    q, k, v = (x.float() for x in call.vectors.values())
    expected = CACHE(q, k, v, **call.inputs, backend="native")
    k[1, :, 900:], v[1, :, 900:] = torch.nan, torch.inf
    for x, y in zip(expected, CACHE(q, k, v, **call.inputs, backend="native"), strict=True):
        assert torch.equal(x, y)
    empty = CACHE(q, k, v, **{**call.inputs, "length": torch.zeros(2, dtype=torch.int32)}, backend="native")
    assert (empty.out == 0).all() and (empty.lse == -torch.inf).all()


def _check_forward(call: Call, dtype: torch.dtype) -> None:
    """As ``check``, without gradients, which the backward's own code gives."""
    rounded = call.prepared(dtype)
    expected = {name: x for name, x in outcome(rounded.exact(), "reference").items() if not name.startswith("d_")}
    sizes = terms(rounded.exact(), expected)
    made: Any = call.op(*rounded.vectors.values(), **rounded.inputs, **rounded.options, backend="native")
    for name, x in ({"out": made} if isinstance(made, Tensor) else made._asdict()).items():
        assert_close(x, expected[name], dtype=dtype, length=call.length, terms=sizes[name], what=name)


@pytest.mark.parametrize("kind", OTHERS)
def test_other_kinds_equal_the_reference(kind: str) -> None:
    op = attnc.loads(f"attention spec {{ score dot(q, k) / sqrt(D)  {OTHERS[kind]} }}")
    for N, M in ((7, 600), (15, 90), (4, 3), (3, 0)):
        _check_forward(make(op, {**SIZES, "N": N, "M": M}, seed=N), torch.float32)


@given(data=st.data(), dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]))
@settings(max_examples=settings().max_examples // 6)  # kernels of a spec take a second to build
def test_drawn_specs_equal_the_reference(data: st.DataObject, dtype: torch.dtype) -> None:
    family = data.draw(families())
    note(family.spec)
    for N in (1, 3, 15):
        shape = data.draw(shapes(family, (1, 17, 129, 600)))
        _check_forward(family.call(replace(shape, N=N)), dtype)

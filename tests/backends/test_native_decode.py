"""The C++ code for few queries: runs of keys of several threads, merged in their order."""

from __future__ import annotations

import pytest
import torch

import attnc
from attnc.runtime.op import Op
from attnc.testing.call import check, make

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

"""A wrong call is refused in words that name the argument, what was expected in the spec's own names, and what came;
an empty one gives the mathematically right empty result."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import attnc

SPEC = """
attention biased {
  input bias: f32[H, 2 * M]  input len: i32[B] nograd  input gate: f32[H] nograd  input tau: f32  input on: bool
  input flags: bool[B, M]
  score dot(q, k) * tau + bias[h, i - j + M] * gate[h]
  mask causal and j < len[b] and on and flags[b, j]
  normalize softmax
}
"""
B, H, G, N, M, D, E = 2, 4, 2, 5, 7, 8, 6


def _arguments() -> tuple[list[Tensor], dict[str, Any]]:
    torch.manual_seed(0)
    vectors = [torch.randn(B, H, N, D), torch.randn(B, G, M, D), torch.randn(B, G, M, E)]
    inputs = {
        "bias": torch.randn(H, 2 * M), "len": torch.tensor([3, 7], dtype=torch.int32), "gate": torch.randn(H),
        "tau": 0.5, "on": True, "flags": torch.ones(B, M, dtype=torch.bool),
    }  # fmt: skip
    return vectors, inputs


@pytest.fixture(scope="module")
def op() -> Any:
    return attnc.loads(SPEC)


def test_the_call_that_the_others_spoil_is_good(op: Any) -> None:
    vectors, inputs = _arguments()
    assert op(*vectors, **inputs).shape == (B, H, N, E)


VECTORS: dict[str, tuple[Callable[[list[Tensor]], list[Any]], type[Exception], str]] = {
    "too few": (lambda v: v[:2], TypeError, "biased: expected 3 tensors (q, k, v), got 2"),
    "too many": (lambda v: [*v, v[0]], TypeError, "biased: expected 3 tensors (q, k, v), got 4"),
    "no tensor": (lambda v: [v[0], [1.0], v[2]], TypeError, "biased: k: expected a tensor [B, G, M, D], got list"),
    "sparse": (
        lambda v: [v[0], v[1].to_sparse(), v[2]],
        TypeError,
        "biased: k: expected a dense tensor, got one of torch.sparse_coo",
    ),
    "nested": (
        lambda v: [torch.nested.as_nested_tensor(list(v[0]), layout=torch.jagged), v[1], v[2]],
        TypeError,
        "biased: q: expected a dense tensor, got a nested one",
    ),
    "rank": (lambda v: [v[0][0], v[1], v[2]], ValueError, "biased: q: expected [B, H, N, D], got [4, 5, 8]"),
    "heads": (
        lambda v: [v[0][:, :3], v[1], v[2]],
        ValueError,
        "biased: H = 3 query heads are no multiple of G = 2 key-value heads",
    ),
    "heads of keys and values": (
        lambda v: [v[0], v[1], v[2][:, :1]],
        ValueError,
        "biased: v: axis 1 is G = 2, but the tensor has 1 there",
    ),
    "batch": (lambda v: [v[0][:1], v[1], v[2]], ValueError, "biased: k: axis 0 is B = 1, but the tensor has 2 there"),
    "length": (lambda v: [v[0], v[1], v[2][:, :, :3]], ValueError, "biased: v: axis 2 is M = 7, but the tensor has 3"),
    "dims": (lambda v: [v[0], v[1][..., :4], v[2]], ValueError, "biased: k: axis 3 is D = 8, but the tensor has 4"),
    "dtypes": (
        lambda v: [v[0], v[1].half(), v[2]],
        TypeError,
        "biased: k is torch.float16, but q is torch.float32: they must agree",
    ),
    "integers": (
        lambda v: [x.int() for x in v],
        TypeError,
        "biased: q: expected float32, bfloat16, float16 or float64, got torch.int32",
    ),
    "devices": (lambda v: [v[0], v[1].to("meta"), v[2]], ValueError, "biased: k is on meta, but q is on cpu"),
    "last dim": (
        lambda v: [v[0].mT.contiguous().mT, v[1], v[2]],
        ValueError,
        "biased: q: the last dim must be contiguous (stride 1), its stride is 5; call q.contiguous()",
    ),
    "no dims": (lambda v: [v[0], v[1], v[2][..., :0]], ValueError, "biased: v: vectors of 0 are not supported"),
    "many dims": (
        lambda v: [v[0], v[1], torch.randn(B, G, M, 577)],
        ValueError,
        "biased: v: vectors of 577 are not supported: 1 to 576 are",
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_wrong_vectors(op: Any, name: str) -> None:
    spoil, error, text = VECTORS[name]
    vectors, inputs = _arguments()
    with pytest.raises(error, match=re.escape(text)):
        op(*spoil(vectors), **inputs)


INPUTS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "missing": ({"bias": None}, TypeError, "biased: missing input bias: f32[H, 2 * M], given by keyword"),
    "extra": ({"bais": torch.ones(4)}, TypeError, "biased: unexpected input bais"),
    "rank": ({"bias": torch.ones(4)}, ValueError, "biased: bias: expected f32[H, 2 * M], got [4]"),
    "named axis": ({"gate": torch.ones(3)}, ValueError, "biased: gate: axis 0 is H = 4, but the tensor has 3 there"),
    "computed axis": (
        {"bias": torch.ones(4, 13)},
        ValueError,
        "biased: bias: axis 1 is 2 * M = 14, but the tensor has 13 there",
    ),
    "float for int": (
        {"len": torch.ones(2)},
        TypeError,
        "biased: len: expected i32[B], got a tensor of torch.float32",
    ),
    "int for bool": (
        {"flags": torch.ones(2, 7, dtype=torch.int64)},
        TypeError,
        "biased: flags: expected bool[B, M], got a tensor of torch.int64",
    ),
    "number for tensor": ({"gate": 0.5}, TypeError, "biased: gate: expected f32[H], got float"),
    "text for number": ({"tau": "0.5"}, TypeError, "biased: tau: expected f32, got str"),
    "bool for float": ({"tau": True}, TypeError, "biased: tau: expected f32, got bool"),
    "int for a bool": ({"on": 1}, TypeError, "biased: on: expected bool, got int"),
    "device": ({"gate": torch.ones(4, device="meta")}, ValueError, "biased: gate is on meta, but q is on cpu"),
    "nograd": (
        {"gate": torch.ones(4, requires_grad=True)},
        ValueError,
        "biased: gate is declared `nograd`, but the tensor requires a gradient; detach it",
    ),
    "q_offset": ({"q_offset": 1.5}, TypeError, "biased: q_offset: expected an int or an int tensor [B], got float"),
    "q_offset, bool": (
        {"q_offset": True},
        TypeError,
        "biased: q_offset: expected an int or an int tensor [B], got bool",
    ),
    "q_offset, shape": (
        {"q_offset": torch.tensor([1, 2, 3])},
        ValueError,
        "biased: q_offset: expected an int or an int tensor [B] = [2], got torch.int64 [3]",
    ),
    "q_offset, floats": (
        {"q_offset": torch.tensor([1.0, 2.0])},
        ValueError,
        "biased: q_offset: expected an int or an int tensor [B] = [2], got torch.float32 [2]",
    ),
    "kv_offset": ({"kv_offset": torch.tensor(3)}, TypeError, "biased: kv_offset: expected an int, got Tensor"),
    "far away": ({"kv_offset": 2**30}, ValueError, "biased: kv_offset = 1073741824 puts positions beyond 2**29"),
    "backend": ({"backend": "cuda"}, ValueError, "backend: expected"),
    "triton on the CPU": ({"backend": "triton"}, RuntimeError, "backend 'triton' needs GPU tensors"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_wrong_inputs(op: Any, name: str) -> None:
    change, error, text = INPUTS[name]
    vectors, inputs = _arguments()
    given = {key: value for key, value in {**inputs, **change}.items() if value is not None}
    with pytest.raises(error, match=re.escape(text)):
        op(*vectors, **given)


def test_a_block_beyond_the_last_is_refused() -> None:
    op = attnc.loads("attention t { input t: i32[B, H, R, C]  score dot(q, k)  mask blocks(t, 4)  normalize softmax }")
    q = torch.randn(1, 1, 8, 4)
    op(q, q, q, t=torch.tensor([[[[0, 1], [1, -1]]]]))
    with pytest.raises(ValueError, match="block 2 is beyond the last, 1"):
        op(q, q, q, t=torch.tensor([[[[0, 2], [1, -1]]]]))


def test_an_error_leaves_the_op_usable(op: Any) -> None:
    vectors, inputs = _arguments()
    expected = op(*vectors, **inputs)
    with pytest.raises(ValueError):
        op(*vectors, **{**inputs, "gate": torch.ones(9)})
    assert torch.equal(op(*vectors, **inputs), expected)


@pytest.mark.parametrize("backend", ["eager", "native", "interpret", "reference"])
@pytest.mark.parametrize("empty", ["B", "N", "M"])
def test_empty(backend: str, empty: str) -> None:
    """Rows of queries read inputs that have no element when there is no key."""
    op = attnc.loads(
        "attention t { input ids: i32[B, M]  input x: f32[B, M]  score dot(q, k) + x[b, i]  "
        "mask causal and document(ids)  normalize softmax  emit lse, total, colsum }"
    )
    z = {"B": 2, "N": 3, "M": 4, empty: 0}
    q = torch.randn(z["B"], 2, z["N"], 8, requires_grad=True)
    k = torch.randn(z["B"], 1, z["M"], 8, requires_grad=True)
    v = torch.randn(z["B"], 1, z["M"], 5, requires_grad=True)
    x = torch.randn(z["B"], z["M"], requires_grad=True)
    out, lse, total, colsum = op(q, k, v, x=x, ids=torch.zeros(z["B"], z["M"], dtype=torch.int32), backend=backend)
    assert out.shape == (z["B"], 2, z["N"], 5) and colsum.shape == (z["B"], 2, z["M"])
    assert lse.shape == total.shape == (z["B"], 2, z["N"])
    if empty == "M":
        assert not out.any() and (lse == -torch.inf).all() and not total.any()
    if empty == "N":
        assert not colsum.any()
    given = q, k, v, x
    for leaf, grad in zip(given, torch.autograd.grad(out.sum(), given, materialize_grads=True), strict=True):
        assert grad.shape == leaf.shape and not grad.any()


@pytest.mark.parametrize("backend", ["eager", "native", "interpret"])
def test_one_offset_for_all_batches(backend: str) -> None:
    """However an offset lies in memory, kernels read one number a batch."""
    op = attnc.loads("attention t { score dot(q, k)  mask causal  normalize softmax }")
    q, k = torch.randn(3, 2, 2, 8), torch.randn(3, 1, 9, 8)
    expected = op.reference(q, k, k, q_offset=4)
    for offset in (torch.tensor(4), torch.tensor([4]), torch.tensor([4, 90, 4, 90, 4, 90])[::2]):
        torch.testing.assert_close(op(q, k, k, q_offset=offset, backend=backend), expected)


@pytest.mark.parametrize("backend", ["eager", "native", "reference"])
@pytest.mark.parametrize("dim", [1, 3])
def test_a_part_beyond_the_vector(backend: str, dim: int) -> None:
    op = attnc.loads("attention latent { query q key row value c = row[:7] score dot(q, row) normalize softmax }")
    q, row = torch.randn(1, 2, 3, dim), torch.randn(1, 1, 4, dim)
    with pytest.raises(ValueError, match=re.escape(f"row[0:7]: the vector's dim is {dim}")):
        op(q, row, backend=backend)
    assert op(torch.randn(1, 2, 3, 9), torch.randn(1, 1, 4, 9), backend=backend).shape == (1, 2, 3, 7)

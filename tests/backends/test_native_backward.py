"""The C++ backward where one call has many chunks of keys, tiles of queries and threads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import attnc
from attnc.runtime.op import Op
from attnc.testing.call import Call, check, make

SPECS = {
    "heads, rows, columns and pairs are read": """
        attention spec {
          input slope: f32[H]  input row: f32[B, N]  input column: f32[M]  input pair: f32[H, N, M]
          score dot(q, k) / sqrt(D) - slope[h] * abs(i - j) / 100 + row[b, i] * column[j] + pair[h, i, j]
          mask causal  normalize softmax  emit colsum
        }""",
    "weights are no exponential": """
        attention spec {
          input shift: f32[H]
          score dot(q, k) / sqrt(D) + shift[h]  mask window(100, 40)
          normalize weight(s) = relu(s) ** 2 divisor(t) = t + 1
        }""",
    "classes of rows": """
        attention spec {
          input slope: f32[H]
          score dot(q, k) / sqrt(D) - slope[h] * (i - j) / 100
          mask causal and strided(5)  normalize softmax(sink = slope[h])  emit colsum
        }""",
    "two products, branches": """
        attention spec {
          query q1, q2  key k1, k2  value v  input lam: f32[H]
          branch x { score (dot(q1, k1) + dot(q2, k2)) / sqrt(D)  mask causal  normalize softmax }
          branch y { score dot(q2, k2) / sqrt(D)  mask causal  normalize softmax }
          output x - lam[h] * y
        }""",
    "listed blocks": """
        attention spec {
          input slope: f32[H]
          score dot(q, k) / sqrt(D) - slope[h]
          mask random(2, block = 24, seed = 1) or window(20) or global(3)  normalize softmax  emit colsum
        }""",
    "documents": """
        attention spec {
          input ids: i32[B, M]  input bias: f32[M]
          score dot(q, k) / sqrt(D) + bias[j]
          mask causal and document(ids)  normalize softmax
        }""",
}
SIZES = {"B": 1, "H": 4, "G": 2, "N": 421, "M": 523, "D": 20, "E": 9}


def _call(spec: str, sizes: dict[str, int] = SIZES, seed: int = 3) -> Call:
    ids = torch.arange(sizes["M"]).expand(sizes["B"], -1) * 4 // sizes["M"]
    return make(attnc.loads(SPECS[spec]), sizes, inputs={"ids": ids.int()} if spec == "documents" else None, seed=seed)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("spec", SPECS)
def test_many_chunks_equal_the_reference(spec: str, dtype: torch.dtype) -> None:
    check(_call(spec), "native", dtype)


@pytest.mark.parametrize("D", [64, 128])
def test_rows_of_scratch_lie_apart(D: int) -> None:
    """Rows of 512 bytes and of 1024 of float64, between which scratch leaves room."""
    check(_call("documents", {**SIZES, "D": D, "E": 64}), "native", torch.float64)


def _gradients(op: Op, call: Call) -> list[Tensor]:
    given = {**call.vectors, **call.inputs}
    leaves = {name: x.float().requires_grad_() if x.is_floating_point() else x for name, x in given.items()}
    vectors = [leaves[name] for name in call.vectors]
    out = op(*vectors, **{name: leaves[name] for name in call.inputs}, backend="native")
    results = out if isinstance(out, tuple) else (out,)
    (results[0].sin().sum()).backward()
    return [x.detach() for x in results] + [x.grad for x in leaves.values() if x.grad is not None]


@pytest.mark.parametrize("spec", SPECS)
def test_bits_do_not_depend_on_threads(spec: str) -> None:
    call, threads = _call(spec), torch.get_num_threads()
    found = []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            found.append(_gradients(call.op, call))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(found[0], other, strict=True))


def test_strips_of_pairs_sum_up(monkeypatch: pytest.MonkeyPatch) -> None:
    call = _call("heads, rows, columns and pairs are read")
    whole = _gradients(call.op, call)
    monkeypatch.setattr(call.op._module, "STRIP", 4 * 523 * 100)  # 100 queries at a time
    for x, y in zip(whole, _gradients(call.op, call), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spec", SPECS)
def test_gradcheck(spec: str) -> None:
    call = _call(spec, {"B": 1, "H": 2, "G": 1, "N": 3, "M": 6, "D": 2, "E": 2}, seed=4)
    given = [*call.vectors.values(), *call.inputs.values()]
    leaves = [x.double().requires_grad_() if x.is_floating_point() else x for x in given]

    def run(*given: Tensor) -> Tensor:
        vectors, inputs = given[: len(call.vectors)], dict(zip(call.inputs, given[len(call.vectors) :], strict=True))
        out = call.op(*vectors, **inputs, backend="native")
        return out[0] if isinstance(out, tuple) else out

    assert torch.autograd.gradcheck(run, leaves)

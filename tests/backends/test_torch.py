"""Ops are PyTorch operators: opcheck, torch.compile without graph breaks, export, autocast, checkpoint, copies."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import attnc
from attnc.codegen import pipeline
from attnc.testing.tolerance import assert_close

CAUSAL = "attention causal { score dot(q, k) / sqrt(D)  mask causal  normalize softmax  emit lse }"
PLAIN = "attention plain { score dot(q, k) / sqrt(D)  mask window(9)  normalize softmax }"
BIASED = """
attention biased {
  input bias: f32[H, 2 * M]  input on: bool[B, M]
  score dot(q, k) / sqrt(D) + bias[h, i - j + M]  mask on[b, j]  normalize softmax1  emit lse, total
}
"""
SIGMOID = "attention t { score dot(l2norm(q), l2norm(k)) * 4  mask block(8)  normalize sigmoid  emit total }"
DIFFERENTIAL = """
attention differential {
  query q1, q2  key k1, k2  value v  input lam: f32[H]
  branch pos { score dot(q1, k1) / sqrt(D)  mask causal  normalize softmax }
  branch neg { score dot(q2, k2) / sqrt(D)  mask causal  normalize softmax }
  output pos - lam[h] * neg
}
"""
RANDOM = "attention bird { score dot(q, k)  mask random(1, block = 8, seed = 1) or window(3)  normalize softmax }"


def _vectors(N: int = 24, M: int | None = None, *, dtype: torch.dtype = torch.float32, count: int = 3) -> list[Tensor]:
    torch.manual_seed(N)
    heads = {0: 4, 1: 2, 2: 2} if count == 3 else {0: 4, 1: 4, 2: 2, 3: 2, 4: 2}
    queries = 1 if count == 3 else 2
    M = N if M is None else M
    return [torch.randn(2, heads[n], N if n < queries else M, 8, dtype=dtype).requires_grad_() for n in range(count)]


def _inputs(spec: str, N: int) -> dict[str, Any]:
    if spec is BIASED:
        return {"bias": torch.randn(4, 2 * N).requires_grad_(), "on": torch.arange(2 * N).reshape(2, N) % 5 != 0}
    return {"lam": torch.randn(4).requires_grad_()} if spec is DIFFERENTIAL else {}


SPECS = {
    "causal": CAUSAL, "plain": PLAIN, "biased": BIASED, "sigmoid": SIGMOID, "differential": DIFFERENTIAL,
    "random": RANDOM,
}  # fmt: skip


def _leaves(vectors: list[Tensor], inputs: dict[str, Any]) -> list[Tensor]:
    return [*vectors, *(x for x in inputs.values() if isinstance(x, Tensor) and x.requires_grad)]


def _first(result: Any) -> Tensor:
    out = result if isinstance(result, Tensor) else result.out
    assert isinstance(out, Tensor)
    return out


@pytest.mark.parametrize("name", SPECS)
def test_opcheck(name: str) -> None:
    """Schema, fake kernel, autograd registration and AOT dispatch of every operator that a call of the spec runs."""
    spec = SPECS[name]
    op = attnc.loads(spec)
    vectors, inputs = _vectors(count=5 if spec is DIFFERENTIAL else 3), _inputs(spec, 24)
    captured: list[tuple[Any, tuple[Any, ...]]] = []

    class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch's own
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func.namespace == "attnc":
                captured.append((func, args))
            return func(*args, **(kwargs or {}))

    with Recorder():  # type: ignore[no-untyped-call]
        op(*vectors, **inputs)
    assert len(captured) >= 1
    for func, args in captured:
        own = tuple(
            x.detach().clone().requires_grad_(x.is_floating_point()) if isinstance(x, Tensor) else x for x in args
        )
        torch.library.opcheck(func, own)


@pytest.mark.parametrize("name", SPECS)
def test_compiles_without_graph_breaks(name: str) -> None:
    """fullgraph, forward and backward: the same values, gradients too."""
    spec = SPECS[name]
    op = attnc.loads(spec)
    vectors, inputs = _vectors(count=5 if spec is DIFFERENTIAL else 3), _inputs(spec, 24)

    def step(*vectors: Tensor) -> Tensor:
        return _first(op(*(x * 1.5 for x in vectors), **inputs)).tanh()

    leaves = _leaves(vectors, inputs)
    expected = step(*vectors)
    wanted = torch.autograd.grad(expected.square().sum(), leaves)
    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    actual = compiled(*vectors)
    found = torch.autograd.grad(actual.square().sum(), leaves)
    assert_close(actual, expected, dtype=torch.float32, length=24)
    for x, y in zip(found, wanted, strict=True):
        assert_close(x, y, dtype=torch.float32, length=24)


def test_dynamic_shapes_compile_once() -> None:
    """After one other shape the graph is symbolic: no further compile, whatever the lengths."""
    op = attnc.loads(CAUSAL)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    compiled = torch.compile(lambda q, k, v: op(q, k, v).out, fullgraph=True, backend=counter, dynamic=True)
    for N, M in ((24, 24), (17, 31), (40, 40), (9, 50), (33, 64)):
        q, k, v = _vectors(N, M)
        actual = compiled(q, k, v)
        assert_close(actual, op(q, k, v).out, dtype=torch.float32, length=M)
        actual.sum().backward()
        assert q.grad is not None and q.grad.shape == q.shape
    assert counter.frame_count <= 2  # N = M and N != M


def test_inductor() -> None:
    op = attnc.loads(BIASED)
    vectors, inputs = _vectors(), _inputs(BIASED, 24)
    torch._dynamo.reset()
    compiled = torch.compile(lambda *x: op(*x, **inputs).out * 2, fullgraph=True)
    assert_close(compiled(*vectors), op(*vectors, **inputs).out * 2, dtype=torch.float32, length=24)


class _Layer(torch.nn.Module):
    def __init__(self, spec: str) -> None:
        super().__init__()
        self.op = attnc.loads(spec)
        self.scale = torch.nn.Parameter(torch.ones(8))

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return _first(self.op(q * self.scale, k, v))


@pytest.mark.parametrize("spec", [CAUSAL, PLAIN, SIGMOID], ids=["causal", "plain", "sigmoid"])
def test_export(spec: str) -> None:
    layer = _Layer(spec)
    vectors = tuple(x.detach() for x in _vectors())
    program = torch.export.export(layer, vectors)
    torch.testing.assert_close(program.module()(*vectors), layer(*vectors), rtol=0, atol=0)


@pytest.mark.parametrize(
    "spec",
    [
        CAUSAL,
        "attention t { input e: f32[R, M]  key kp = e @ k  value vp = e @ v  score dot(q, kp)  normalize softmax }",
    ],
)
def test_autocast(spec: str) -> None:
    """Vectors are cast, nothing else: sums and token-wise values stay in float32, backward too."""
    op = attnc.loads(spec)
    inputs: dict[str, Any] = {} if spec is CAUSAL else {"e": torch.randn(5, 24)}
    vectors = _vectors()
    with torch.autocast("cpu", torch.bfloat16):
        out = _first(op(*vectors, **inputs))
        grads = torch.autograd.grad(out.float().square().sum(), vectors)
    assert out.dtype is torch.bfloat16
    expected = _first(op(*(x.bfloat16() for x in vectors), **inputs))
    assert torch.equal(out, expected)
    for grad, wanted in zip(grads, torch.autograd.grad(expected.float().square().sum(), vectors), strict=True):
        assert grad.dtype is torch.float32
        assert_close(grad, wanted, dtype=torch.bfloat16 if inputs else torch.float32, length=24)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoint(reentrant: bool) -> None:
    layer = _Layer(PLAIN)
    vectors = _vectors()
    expected = torch.autograd.grad(layer(*vectors).sum(), vectors)
    out = checkpoint(layer, *vectors, use_reentrant=reentrant)
    out.sum().backward()
    for x, grad in zip(vectors, expected, strict=True):
        assert x.grad is not None and torch.equal(x.grad, grad)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies(copied: Callable[[Any], Any]) -> None:
    vectors = _vectors()
    op, layer = attnc.loads(PLAIN), _Layer(PLAIN)
    assert torch.equal(copied(op)(*vectors), op(*vectors))
    assert torch.equal(copied(layer)(*vectors), layer(*vectors))


def test_saved_and_loaded(tmp_path: Any) -> None:
    layer = _Layer(CAUSAL)
    torch.save(layer, tmp_path / "layer.pt")
    again = torch.load(tmp_path / "layer.pt", weights_only=False)
    vectors = _vectors()
    assert torch.equal(again(*vectors), layer(*vectors))


def test_threads() -> None:
    """Eight threads that load and call at once, forward and backward: each gets what one thread alone gets."""
    texts = [CAUSAL, BIASED, PLAIN, SIGMOID] * 4
    vectors = _vectors()
    inputs = _inputs(BIASED, 24)

    def run(spec: str) -> list[Tensor]:
        given = inputs if spec is BIASED else {}
        out = _first(attnc.loads(spec)(*vectors, **given))
        return [out, *torch.autograd.grad(out.square().sum(), vectors)]

    expected = {spec: run(spec) for spec in dict.fromkeys(texts)}
    with ThreadPoolExecutor(8) as pool:
        for spec, found in zip(texts, pool.map(run, texts), strict=True):
            for x, y in zip(found, expected[spec], strict=True):
                assert torch.equal(x, y)


class _Attended(torch.utils.data.Dataset[tuple[Tensor, ...]]):
    """Items that a worker computes: an op's result, and its gradients where PyTorch differentiates after a fork."""

    def __init__(self, op: attnc.Op, vectors: list[Tensor]) -> None:
        self.op, self.vectors = op, vectors

    def __len__(self) -> int:
        return 6

    def __getitem__(self, item: int) -> tuple[Tensor, ...]:
        vectors = [(x.detach() * (item + 1)).requires_grad_() for x in self.vectors]
        out = _first(self.op(*vectors, backend="native"))
        if torch.cuda.is_available():  # the parent's autograd has threads then
            return (out.detach(),)
        return (out.detach(), *torch.autograd.grad(out.square().sum(), vectors))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_workers_of_a_data_loader() -> None:
    """Forked after the parent's calls have started OpenMP's threads, which no worker has: same bits, and no hang."""
    data = _Attended(attnc.loads(PLAIN), _vectors(N=200))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        expected = [data[item] for item in range(len(data))]
        torch.ones(2**20).sum()  # torch's own pool, which ours is
        loader = torch.utils.data.DataLoader(
            data, batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=200, worker_init_fn=_two
        )
        found = list(loader)
    finally:
        torch.set_num_threads(before)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(ours, theirs, strict=True))


def _two(worker: int) -> None:
    """More threads than a worker has by itself."""
    torch.set_num_threads(2)


@pytest.mark.parametrize("spec", [PLAIN, SIGMOID], ids=["plain", "sigmoid"])
def test_double_backward_is_refused(spec: str) -> None:
    op = attnc.loads(spec)
    vectors = _vectors()
    grads = torch.autograd.grad(_first(op(*vectors)).square().sum(), vectors, create_graph=True)
    with pytest.raises(RuntimeError, match="a gradient has no derivative of its own"):
        torch.autograd.grad(grads[0].sum(), vectors)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # a batch of calls is a loop of calls
def test_transforms_of_torch_func() -> None:
    """Gradients by torch.func, also of each sample of a batch, are autograd's; a second derivative is refused."""
    op = attnc.loads("attention a { input w: f32[H]  score dot(q, k) * w[h]  normalize softmax  emit lse }")
    q, k, v = (torch.stack([x.detach(), -x.detach()]) for x in _vectors())
    w = torch.linspace(-1.0, 1.0, 4)

    def loss(*x: Tensor) -> Tensor:
        result = op(*x[:3], w=x[3])
        total: Tensor = result.out.square().sum() + result.lse.sin().sum()
        return total

    each = torch.func.grad(loss, argnums=(0, 1, 2, 3))
    batched = torch.func.vmap(each, in_dims=(0, 0, 0, None))(q, k, v, w)
    for sample in range(2):
        leaves = [x[sample].clone().requires_grad_() for x in (q, k, v)] + [w.clone().requires_grad_()]
        wanted = torch.autograd.grad(loss(*leaves), leaves)
        assert all(torch.equal(a, b) for a, b in zip(each(q[sample], k[sample], v[sample], w), wanted, strict=True))
        assert all(torch.equal(a[sample], b) for a, b in zip(batched, wanted, strict=True))
    with pytest.raises(RuntimeError, match="a gradient has no derivative of its own"):
        torch.func.grad(lambda x: torch.func.grad(loss)(x, k[0], v[0], w).sum())(q[0])


def test_meta_tensors_have_shapes_alone() -> None:
    op = attnc.load("examples/zoo/longformer.attn", w=4, g=2)
    q, k = torch.empty(2, 4, 9, 16, device="meta"), torch.empty(2, 2, 11, 16, device="meta")
    out = op(q, k, k[..., :8])
    assert out.shape == (2, 4, 9, 8)
    assert out.is_meta
    table = torch.zeros(2, 4, 3, 2, dtype=torch.int32, device="meta")
    op = attnc.loads("attention a { input t: i32[B, H, R, S]  score dot(q, k)  mask blocks(t, 4)  normalize softmax }")
    assert op(q, k, k, t=table).shape == q.shape, "what a table holds is not looked at"


def test_forward_mode_derivatives_are_refused() -> None:
    """PyTorch would take a missing formula for a tangent of zero."""
    op = attnc.loads("attention a { input w: f32[H]  score dot(q, k) * w[h]  normalize softmax }")
    q, k, v = _vectors()
    w = torch.ones(q.shape[1])
    for x in (q, w):
        with pytest.raises(NotImplementedError, match=r"a: forward-mode derivatives \(jvp\) are not supported"):
            torch.func.jvp(
                lambda y: op(*((y, k, v) if y.dim() == 4 else (q, k, v)), w=y if y.dim() == 1 else w), (x,), (x,)
            )
    with torch.autograd.forward_ad.dual_level():
        op(q, k, v, w=w)


def test_many_shapes_compile_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another batch, head count, length or dtype never compiles again."""
    compiled: list[str] = []
    original = pipeline.compile

    def counting(*args: Any, **options: Any) -> str:
        compiled.append("once")
        return original(*args, **options)

    monkeypatch.setattr(pipeline, "compile", counting)
    op = attnc.loads("attention counted { score dot(q, k) * 0.3  mask causal and window(7)  normalize softmax }")
    for B, H, G, N, M, D, dtype in (
        (1, 1, 1, 1, 1, 1, torch.float32),
        (2, 4, 2, 17, 40, 16, torch.float64),
        (3, 8, 1, 129, 129, 24, torch.bfloat16),
        (1, 3, 3, 5, 300, 257, torch.float16),
        (0, 2, 1, 5, 5, 8, torch.float32),
    ):
        q = torch.randn(B, H, N, D).to(dtype).requires_grad_()
        k, v = (torch.randn(B, G, M, D).to(dtype) for _ in range(2))
        op(q, k, v).sum().backward()
    again = attnc.loads("attention counted { score dot(q, k) * 0.3  mask causal and window(7)  normalize softmax }")
    assert again == op
    assert compiled == ["once"]


def test_inference_mode_and_no_grad() -> None:
    op = attnc.loads(CAUSAL)
    vectors = _vectors()
    expected = op(*vectors).out
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            out = op(*vectors).out
        assert not out.requires_grad and torch.equal(out, expected)


def test_gradients_of_some() -> None:
    """Only what asks for gradients gets them; the others stay None."""
    op = attnc.loads(BIASED)
    vectors, inputs = _vectors(), _inputs(BIASED, 24)
    full = torch.autograd.grad(op(*vectors, **inputs).out.sum(), [*vectors, inputs["bias"]])
    for asked in range(4):
        own = [x.detach().requires_grad_(n == asked) for n, x in enumerate([*vectors, inputs["bias"]])]
        op(*own[:3], bias=own[3], on=inputs["on"]).out.sum().backward()
        for n, x in enumerate(own):
            if n == asked:
                assert x.grad is not None and torch.equal(x.grad, full[n])
            else:
                assert x.grad is None

"""One call of an op: its tensors, what it gives and sends back, and how far a backend may lie from the reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from attnc.runtime.evaluate import size
from attnc.runtime.op import Op
from attnc.testing.memory import poisoned
from attnc.testing.tolerance import assert_close, unit_roundoff

COMPUTED = {torch.float64: torch.float64}  # the others accumulate in float32


@dataclass(frozen=True, kw_only=True, repr=False)
class Call:
    """Arguments of an op, all float tensors given in float64; ``prepared`` rounds them to a dtype."""

    op: Op
    vectors: Mapping[str, Tensor]
    inputs: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        shapes = {name: tuple(x.shape) for name, x in self.vectors.items()}
        return f"Call({str(self.op)!r}, {shapes}, {dict(self.inputs)}, {dict(self.options)})"

    @property
    def args(self) -> tuple[Tensor, ...]:
        """The vectors in the order of a call."""
        return tuple(self.vectors.values())

    @property
    def kwargs(self) -> dict[str, Any]:
        """Inputs and offsets."""
        return {**self.inputs, **self.options}

    @property
    def dtype(self) -> torch.dtype:
        """Of the vectors."""
        return self.args[0].dtype

    @property
    def length(self) -> int:
        """Terms of the longest sum: keys, queries of all heads (a bias of one entry), or dims."""
        first, last = (list(self.vectors.values())[n] for n in (0, -1))
        return max(last.shape[2], first.shape[1] * first.shape[2] * first.shape[0], first.shape[3], 1)

    def prepared(self, dtype: torch.dtype) -> Call:
        """The call with vectors in ``dtype`` and float inputs in the dtype that it is computed in."""
        computed = COMPUTED.get(dtype, torch.float32)
        vectors = {name: _cast(x, dtype) for name, x in self.vectors.items()}
        inputs = {name: _cast(x, computed) if _is_float(x) else x for name, x in self.inputs.items()}
        return Call(op=self.op, vectors=vectors, inputs=inputs, options=self.options)

    def exact(self) -> Call:
        """The same numbers in float64."""
        vectors = {name: _cast(x, torch.float64) for name, x in self.vectors.items()}
        inputs = {name: _cast(x, torch.float64) if _is_float(x) else x for name, x in self.inputs.items()}
        return Call(op=self.op, vectors=vectors, inputs=inputs, options=self.options)

    def disturbed(self, step: float, generator: torch.Generator) -> Call:
        """Every float moved by a relative step, up or down."""

        def moved(x: Any) -> Any:
            if not _is_float(x):
                return x
            signs = torch.randint(0, 2, x.shape, generator=generator, dtype=x.dtype) * 2 - 1
            return x * (1 + step * signs)

        vectors = {name: moved(x) for name, x in self.vectors.items()}
        return Call(
            op=self.op, vectors=vectors, inputs={n: moved(x) for n, x in self.inputs.items()}, options=self.options
        )


def _is_float(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Another dtype, the same strides: a transposed layout stays one, a spread axis too."""
    if x.dim() and x.stride(0) == 0:
        return x[:1].to(dtype).expand(x.shape)
    return strided(x.to(dtype), x.stride())


def strided(x: Tensor, strides: tuple[int, ...]) -> Tensor:
    """The same numbers at other strides, NaN in the gaps between them."""
    made = torch.empty_strided(x.shape, strides, dtype=x.dtype, device=x.device)
    if x.is_floating_point():
        gaps = made.as_strided((made.untyped_storage().nbytes() // made.element_size(),), (1,), 0)
        gaps.fill_(torch.nan)
    return made.copy_(x)


def like(x: Tensor, other: Tensor) -> Tensor:
    """The same numbers at the strides of ``other``; where that is spread over the batch, its first entry's."""
    if other.dim() and other.stride(0) == 0:
        return x[:1].contiguous().expand(x.shape)
    return strided(x, other.stride())


def cotangents(results: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One for each result, small multiples of 1/8, by its name alone: the same in every dtype and backend."""
    made = {}
    for name, x in results.items():
        generator = torch.Generator().manual_seed(crc32(name.encode()))
        made[name] = torch.randint(-8, 9, x.shape, generator=generator).double() / 8
    return made


def _alternating(x: Tensor) -> Tensor:
    """1 and -1 by turns along the rows of a result [B, H, rows] or [B, H, rows, E]: terms of neighbours that cancel
    in a sum over rows add up."""
    signs = torch.arange(x.shape[2]) % 2 * 2.0 - 1
    return signs.reshape(-1, *[1] * (x.dim() - 3)).expand(x.shape).to(x.device)


def _leaves(call: Call) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Tensor]]:
    """Vectors, inputs, and those of both that take gradients, detached."""
    declared = {item.name: item.differentiable for item in call.op.construct.inputs}
    vectors = {name: x.detach().requires_grad_() for name, x in call.vectors.items()}
    inputs = {
        name: x.detach().requires_grad_() if _is_float(x) and declared[name] else x for name, x in call.inputs.items()
    }
    wanted = {name: x for name, x in (*vectors.items(), *inputs.items()) if isinstance(x, Tensor) and x.requires_grad}
    return vectors, inputs, wanted


def outcome(call: Call, backend: str, *, step: float = 0.0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Every result, and the gradient of every float tensor under fixed cotangents (moved by a relative ``step``, up
    and down by turns), as ``d_name``. ``dtype``: that the reference computes in."""
    vectors, inputs, leaves = _leaves(call)
    if backend == "reference":
        made = call.op._reference(tuple(vectors.values()), inputs, **call.options, dtype=dtype)
    else:
        made = call.op(*vectors.values(), **inputs, **call.options, backend=backend)
    results: dict[str, Tensor] = {"out": made} if isinstance(made, Tensor) else made._asdict()
    sends = {name: x for name, x in results.items() if x.requires_grad}
    given = cotangents(sends)
    cotangent = {name: given[name].to(x) * (1 + step * _alternating(x)) for name, x in sends.items()}
    grads: tuple[Tensor, ...] = tuple(torch.zeros_like(x) for x in leaves.values())
    if sends:
        grads = torch.autograd.grad(
            list(sends.values()),
            list(leaves.values()),
            [torch.where(x.isfinite(), cotangent[name], 0) for name, x in sends.items()],  # an lse of -inf is constant
            materialize_grads=True,
        )
    found = {name: x.detach() for name, x in results.items()}
    return found | {f"d_{name}": grad for name, grad in zip(leaves, grads, strict=True)}


def terms(call: Call, expected: Mapping[str, Tensor], *, computed: float = 1.0) -> dict[str, float]:
    """The size of the terms whose sum each result is, where they cancel: what it moves by, a relative step of the
    arguments, measured on the reference in float64; for gradients also by the rounding of what the forward keeps
    (``rounded``). ``computed``: a rounding of the dtype computed in, in roundings of the vectors' dtype.
    In a row of few keys the cotangents of the weights cancel for any arguments, g = p (dp - <d out, out>),
    dp = <d out, v>: gradients have terms of the size of sqrt(sum (d out v) ** 2) a row at least."""
    step = 2.0**-24
    found = dict.fromkeys(expected, 0.0)
    for seed in (0, 1, 2):  # the cotangents too: up and down by turns, down and up, not at all
        moved = outcome(
            call.disturbed(step, torch.Generator().manual_seed(seed)), "reference", step=(step, -step, 0.0)[seed]
        )
        for name, x in expected.items():
            found[name] = max(found[name], _largest(moved[name] - x) / step)
    for name in expected:
        if name.endswith("entropy"):  # p ln p of a weight near 1 is the rounding of that weight
            found[name] = max(found[name], 1.0)
    if expected["out"].numel() and any(name.startswith("d_") for name in expected):
        for name, size in rounded(call, computed).items():
            found[name] = max(found[name], size)
        for name, size in _mixed(call, expected).items():
            found[name] = max(found[name], size)
    return found


def _mixed(call: Call, expected: Mapping[str, Tensor]) -> dict[str, float]:
    """sqrt(sum (d out v) ** 2) of the largest row, over the rows that a gradient sums."""
    query, value = (list(call.vectors.values())[n] for n in (0, -1))
    B, H, N, _ = query.shape
    G = value.shape[1]
    given = cotangents({"out": expected["out"]})["out"]
    value = value.detach()[..., : given.shape[3]]  # it may be the first dims of a longer vector
    keyed = value.nan_to_num(0, 0, 0).repeat_interleave(H // G, 1)
    mixed = float((given.square() @ keyed.square().mT).max().sqrt()) if value.numel() else 0.0
    roles = {item.name: item.role for item in call.op.construct.vectors}
    rows = {"query": 1, "key": N * H // G, "value": 0}
    gradients = [name for name in expected if name.startswith("d_")]
    return {name: mixed * rows.get(roles.get(name[2:], ""), B * H * N) ** 0.5 for name in gradients}


def rounded(call: Call, computed: float) -> dict[str, float]:
    """How far gradients move by a rounding of what the forward keeps, ``out`` and lse, each element on its own by a
    relative step, over the step; lse's is ``computed`` of it.

    Backward passes take what the divisor sends back, delta = sum(d out * out) a row, from the stored output (as
    FlashAttention does). An error e of delta is a cotangent e of the divisor's logarithm: gradients move by e times its
    gradient, where sum(g) = 0 over a row's keys no longer holds. Here e = sqrt(sum((d out * out)^2)), the standard
    deviation for independent roundings, with random signs a row; the root mean square of four draws.
    Weights are exp(score - lse) again: an error e of lse, |lse| a step, is one of e in every weight of the row, and so
    in all that the row's cotangent gives (scores of -2e5, of equal tokens in Reformer: a weight of 0.5 is 0.497)."""
    from attnc.runtime.reference import branches

    vectors, inputs, leaves = _leaves(call)
    maps, out = branches(call.op.construct, vectors, inputs, **call.options, dtype=torch.float64)
    if not out.requires_grad:
        return {}
    given = torch.where(out.isfinite(), cotangents({"out": out})["out"], 0)
    outs = [item.out for item in maps.values()]
    sent = torch.autograd.grad(out, outs, given, retain_graph=True, materialize_grads=True)
    pairs = []  # what a row's error acts on, and the error
    for d, item in zip(sent, maps.values(), strict=True):
        if item.lse.requires_grad:
            pairs.append((item.lse, (d * item.out).square().sum(-1).sqrt().detach()))
        if item.out.requires_grad:
            pairs.append((item.out, d * item.lse.detach().nan_to_num(0, 0, 0).unsqueeze(-1) * computed))
    if not pairs:
        return {}
    squares = {name: torch.zeros_like(x) for name, x in leaves.items()}
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        signs = [torch.randint(0, 2, error.shape[:3], generator=generator) * 2.0 - 1 for _, error in pairs]
        moved = torch.autograd.grad(
            [x for x, _ in pairs],
            list(leaves.values()),
            [
                torch.where(x.isfinite(), error * sign.view(*sign.shape, *(1,) * (x.dim() - 3)), 0)
                for (x, error), sign in zip(pairs, signs, strict=True)
            ],
            retain_graph=True,
            materialize_grads=True,
        )
        for name, x in zip(leaves, moved, strict=True):
            squares[name] += x.square() / 4
    return {f"d_{name}": _largest(x.sqrt()) for name, x in squares.items()}


def _largest(x: Tensor) -> float:
    """The largest finite magnitude."""
    finite = x[x.isfinite()].abs()
    return float(finite.max()) if finite.numel() else 0.0


def check(
    call: Call, backend: str, dtype: torch.dtype, *, run: Callable[[Call, str], dict[str, Tensor]] = outcome
) -> None:
    """The backend equals the reference, results and gradients, within the tolerance of ``dtype``. ``run`` gives the
    backend's outcome, here or in another process."""
    rounded = call.prepared(dtype)
    compare(rounded, run(rounded, backend), what=f"{backend} ")


def assert_matches_reference(
    op: Op,
    /,
    *vectors: Tensor,
    backend: str = "auto",
    q_offset: int | Tensor | None = None,
    kv_offset: int = 0,
    **inputs: Tensor | int | float | bool,
) -> None:
    """A call of ``op`` on a backend equals the dense reference in float64: every result, and the gradient of every
    float tensor under cotangents of order 1. Arguments as in the call, [B, H, N, D] and so on, on any device.

    How far a result may lie off follows from the dtype of the vectors and the lengths of the sums, nothing is given
    (``attnc.testing.tolerance``). Memory that the op allocates holds NaN at first. Raises AssertionError, which names
    the result, the worst place, what was expected and what was found; and what the op raises."""
    names = [item.name for item in op.construct.vectors]
    options: dict[str, Any] = {} if q_offset is None else {"q_offset": q_offset}
    if kv_offset:
        options["kv_offset"] = kv_offset
    if len(names) != len(vectors):
        op(*vectors, **options, backend=backend)  # says what is missing
    call = Call(op=op, vectors=dict(zip(names, vectors, strict=True)), inputs=inputs, options=options)
    compare(call, poisoned_outcome(call, backend), what=f"{backend} ")


def poisoned_outcome(call: Call, backend: str) -> dict[str, Tensor]:
    """The outcome, where memory that is allocated empty holds NaN."""
    with poisoned():
        return outcome(call, backend)


def compare(call: Call, actual: Mapping[str, Tensor], *, what: str = "") -> None:
    """AssertionError, unless what was found of a call (``outcome``) equals the reference within the tolerance.

    Where a result is finite in float64 and overflows in its own dtype (the ``total`` of exp(125)), it has to be
    infinite, and gradients are not compared: those of an infinite value are 0 or NaN, by IEEE."""
    exact = call.exact()
    expected = outcome(exact, "reference")
    assert list(actual) == list(expected), f"{what}gives {list(actual)}, expected {list(expected)}"
    sizes: Mapping[str, float] | None = None
    overflowed = False
    for name, exact_value in expected.items():
        found = actual[name]
        dtype = _expected_dtype(call, name)
        assert found.dtype is dtype, f"{what}{name}: {found.dtype}, expected {dtype}"
        coarser = max(call.dtype, found.dtype, key=unit_roundoff)  # an input may have fewer digits than the vectors
        settings: dict[str, Any] = {"dtype": coarser, "length": call.length, "what": f"{what}{name}"}
        x = _stored(exact_value, found)
        if not name.startswith("d_"):
            overflowed |= bool((exact_value.isfinite() & found.isinf()).any())
        elif overflowed:
            continue
        try:
            assert_close(found, x, **settings)
        except AssertionError:  # terms that cancel are measured where it matters: that is ten references
            kept = torch.finfo(COMPUTED.get(call.dtype, torch.float32)).eps / torch.finfo(call.dtype).eps
            sizes = sizes or terms(exact, expected, computed=kept)
            assert_close(found, x, **settings, terms=sizes[name])


def computable(call: Call) -> bool:
    """Whether the dense reference gives the same in the precision that the call is computed in as in float64."""
    computed = COMPUTED.get(call.dtype, torch.float32)
    found = outcome(call.prepared(computed), "reference", dtype=computed)
    try:
        compare(call, {name: x.to(_expected_dtype(call, name)) for name, x in found.items()})
    except AssertionError:
        return False
    return True


def _stored(x: Tensor, found: Tensor) -> Tensor:
    """What lies beyond the largest number of the dtype that was found is infinite there; where a number was found, and
    it lies little beyond, the tolerance decides."""
    most = torch.finfo(found.dtype).max
    little = found.isfinite() & (x.abs() / 2 <= most)
    return torch.where((x.abs() > most) & ~little, x.sign() * torch.inf, x)


def _expected_dtype(call: Call, name: str) -> torch.dtype:
    first = next(iter(call.vectors.values())).dtype
    leaf = {**call.vectors, **call.inputs}.get(name.removeprefix("d_")) if name.startswith("d_") else None
    if leaf is not None:
        assert isinstance(leaf, Tensor)
        return leaf.dtype
    return first if name == "out" else COMPUTED.get(first, torch.float32)


def vector_shapes(op: Op, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The shapes of an op's vectors in a call of these sizes."""
    lead = {"query": ("B", "H", "N"), "key": ("B", "G", "M"), "value": ("B", "G", "M")}
    return {
        item.name: (*(sizes[axis] for axis in lead[item.role]), size(item.dim, sizes)) for item in op.construct.vectors
    }


def make(
    op: Op,
    sizes: Mapping[str, int],
    *,
    inputs: Mapping[str, Any] | None = None,
    layout: str = "BHND",
    seed: int = 0,
    **options: Any,
) -> Call:
    """A call with vectors of small multiples of 1/8 (their products are exact in every dtype, so kinks of a score do
    not depend on it), float inputs of multiples of 1/16; other inputs are given. ``layout`` BNHD: transposed
    strides; gaps: rows and heads with room between them, as slices of a packed tensor have; spread: keys and values
    shared by the batch through a stride of 0."""
    generator = torch.Generator().manual_seed(seed)
    vectors: dict[str, Tensor] = {}
    for name, shape in vector_shapes(op, sizes).items():
        x = torch.randint(-12, 13, shape, generator=generator).double() / 8
        if layout == "BNHD":
            x = x.transpose(1, 2).contiguous().transpose(1, 2)
        if layout == "gaps":
            x = strided(x, _with_gaps(shape))
        if layout == "spread" and name != next(iter(vectors), name):
            x = x[:1].expand(shape)
        vectors[name] = x
    given: dict[str, Any] = {}
    for item in op.construct.inputs:
        if inputs is not None and item.name in inputs:
            given[item.name] = inputs[item.name]
        else:
            assert item.kind == "float", f"{item.name} must be given"
            shape = tuple(size(axis, sizes) for axis in item.axes)
            given[item.name] = torch.randint(-16, 17, shape, generator=generator).double() / 16
    return Call(op=op, vectors=vectors, inputs=given, options=options)


def _with_gaps(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a slice of [batch, rows, heads, 3 parts, dims]."""
    _, heads, rows, dim = shape
    head = 3 * dim + 1
    return rows * heads * head, head, heads * head, 1

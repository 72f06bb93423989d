"""Evaluate IR expressions with PyTorch operations over a domain of indices. Differentiable; not fast.

A ``Domain`` gives the indices b, h, i, j as int64 tensors of one rank that broadcast together: a list of pairs
[P], all pairs [B, H, N, M], all tokens [B, heads, length], all rows [B, H, N]. The value of a node is a tensor
of the domain's rank, any of its leading axes possibly 1, followed by the node's own dims. Integers are int64,
floats the scope's dtype. Non-goals: speed, memory, and fitting any device's limits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from attnc.dsl.ir import (
    Apply,
    Axis,
    Concat,
    Const,
    Dot,
    Drawn,
    Expr,
    Fn,
    Index,
    Kind,
    Listed,
    Load,
    MatMul,
    Normed,
    Offset,
    Outer,
    ParamElement,
    ParamRef,
    Rope,
    Side,
    Size,
    Sliced,
    Symbol,
    Table,
    Vector,
    children,
)
from attnc.runtime.draw import draw


@dataclass(frozen=True, kw_only=True)
class Domain:
    """The index tensors, each of ``rank`` axes, mutually broadcasting; an index that the domain lacks is absent."""

    rank: int
    indices: Mapping[Axis, Tensor]

    def __getitem__(self, axis: Axis) -> Tensor:
        if axis not in self.indices:
            raise ValueError(f"the index {axis} has no value here")
        return self.indices[axis]


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What expressions may name, whatever the domain. ``q_offset`` is int64 [B] or [1]. ``inputs`` hold the call's
    tensors and the token-wise scalars, in ``dtype``, int64 or bool. ``spread`` names the (input, axis number)
    pairs that may have size 1 and broadcast. ``check``: an index outside its axis raises IndexError."""

    dtype: torch.dtype
    device: torch.device
    sizes: Mapping[str, int]
    inputs: Mapping[str, Tensor]
    q_offset: Tensor
    kv_offset: int
    spread: frozenset[tuple[str, int]] = frozenset()
    check: bool = False

    def torch_dtype(self, kind: Kind) -> torch.dtype:
        match kind:
            case Kind.BOOL:
                return torch.bool
            case Kind.INT:
                return torch.int64
            case Kind.FLOAT:
                return self.dtype
            case _:
                assert_never(kind)


def evaluate(root: Expr, scope: Scope, domain: Domain, known: dict[Expr, Tensor]) -> Tensor:
    """The value of ``root``. ``known`` gives the values of some nodes (vectors, dots, symbols) and receives the
    values of all others below the root: expressions over one domain share one ``known``."""
    stack: list[tuple[Expr, bool]] = [(root, False)]
    while stack:
        node, ready = stack.pop()
        if node in known:
            continue
        if not ready:
            stack.append((node, True))
            below: tuple[Expr, ...] = children(node)
            if isinstance(node, MatMul) and node.over == "positions":
                below = (node.matrix,)  # its operand runs over another length: bound by the caller
            stack += [(child, False) for child in reversed(below)]
            continue
        known[node] = _value(node, scope, domain, known)
    return known[root]


def size(expr: Expr, sizes: Mapping[str, int]) -> int:
    """The value of a size expression: arithmetic of named sizes and constants."""
    scope = Scope(
        dtype=torch.float64,
        device=torch.device("cpu"),
        sizes=sizes,
        inputs={},
        q_offset=torch.zeros(1, dtype=torch.int64),
        kv_offset=0,
    )
    return int(evaluate(expr, scope, Domain(rank=0, indices={}), {}))


def _value(node: Expr, scope: Scope, domain: Domain, known: Mapping[Expr, Tensor]) -> Tensor:
    ones = (1,) * domain.rank
    match node:
        case Const(value=value, kind=kind):
            return torch.tensor(value, dtype=scope.torch_dtype(kind), device=scope.device).reshape(ones)
        case Table(values=values, index=index, kind=kind):
            table = torch.tensor(values, dtype=scope.torch_dtype(kind), device=scope.device)
            return table[known[index].clamp(0, len(values) - 1)]
        case Index(axis=axis):
            return domain[axis]
        case Size(name=name):
            return torch.tensor(scope.sizes[name], device=scope.device).reshape(ones)
        case Offset(side=side):
            if side is Side.KEY:
                return torch.tensor(scope.kv_offset, device=scope.device).reshape(ones)
            return scope.q_offset.reshape(ones) if scope.q_offset.numel() == 1 else scope.q_offset[domain["b"]]
        case Load(tensor=tensor, index=index):
            return _load(tensor, tuple(known[at] for at in index), scope, domain)
        case Dot(left=left, right=right):
            return (known[left] * known[right]).sum(-1)
        case Apply(fn=fn, args=args, dims=dims, kind=kind):
            aligned = [_align(known[arg], domain.rank, len(dims)) for arg in args]
            return apply(fn, aligned, scope.torch_dtype(kind))
        case Drawn():
            return _drawn(node, known)
        case Listed(tensor=tensor, row=row, column=column):
            return _among(_load(tensor, (domain["b"], domain["h"], known[row]), scope, domain), known[column])
        case MatMul(matrix=matrix, operand=operand, over=over):
            if over == "positions":  # [1, heads or 1, 1, R, M] by [B, heads, M, dim]
                return torch.einsum("...rm,...md->...rd", known[matrix].squeeze(2), known[operand])
            return torch.einsum("...rd,...d->...r", known[matrix], known[operand])
        case Rope():
            return _rope(node, scope, known)
        case Normed(fn=fn_name, operand=operand, weight=weight, eps=eps):
            x, least = known[operand], known[eps].unsqueeze(-1)
            if fn_name == "l2norm":
                return x / torch.maximum(torch.linalg.vector_norm(x, dim=-1, keepdim=True), least)
            scaled = x * torch.rsqrt((x * x).mean(-1, keepdim=True) + least)
            return scaled if weight is None else scaled * known[weight]
        case Concat(parts=parts):
            found = [known[part] for part in parts]
            lead = broadcast_shape(*(part.shape[:-1] for part in found))
            return torch.cat([part.expand(*lead, part.shape[-1]) for part in found], dim=-1)
        case Sliced(operand=operand, start=start, stop=stop):
            x, low, high = known[operand], int(known[start]), int(known[stop])
            if not 0 <= low < high <= x.shape[-1]:
                name = operand.name if isinstance(operand, Vector) else "a vector"
                raise ValueError(f"{name}[{low}:{high}]: the vector's dim is {x.shape[-1]}")
            return x[..., low:high]
        case ParamRef() | ParamElement():
            raise ValueError(f"the param {node.name} was not specialized")
        case Symbol() | Vector():
            raise ValueError(f"{node.name} has no value here")
        case Outer():
            raise ValueError("outer(...) stands in recurrences only")
        case _:
            assert_never(node)


def broadcast_shape(*shapes: torch.Size) -> torch.Size:
    return torch.broadcast_shapes(*shapes)  # type: ignore[no-any-return, no-untyped-call]  # torch leaves it untyped


def _align(value: Tensor, rank: int, dims: int) -> Tensor:
    """Put axes of size 1 between the domain's axes and the node's, so that dims align from the right."""
    missing = rank + dims - value.dim()
    return value.reshape(value.shape[:rank] + (1,) * missing + value.shape[rank:])


def _load(name: str, index: tuple[Tensor, ...], scope: Scope, domain: Domain) -> Tensor:
    """``inputs[name][index]``, each index brought to the nearest inside its axis; axes beyond remain."""
    tensor = scope.inputs[name]
    if not index:
        return tensor.reshape((1,) * domain.rank + tensor.shape)
    lead, rest = tensor.shape[: len(index)], tensor.shape[len(index) :]
    flat = torch.zeros((1,) * domain.rank, dtype=torch.int64, device=scope.device)
    for axis, (at, length) in enumerate(zip(index, lead, strict=True)):
        if scope.check and not (length == 1 and (name, axis) in scope.spread):
            _check_index(name, axis, at, length, domain)
        flat = flat * length + at.clamp(0, max(length - 1, 0))
    rows = tensor.reshape(-1, *rest) if tensor.numel() else tensor.new_zeros(1, *rest)
    flat = flat if tensor.numel() else torch.zeros_like(flat)  # an empty axis has no nearest element: zero
    return rows.index_select(0, flat.reshape(-1)).reshape(flat.shape + rest)


def _check_index(name: str, axis: int, at: Tensor, length: int, domain: Domain) -> None:
    bad = (at < 0) | (at >= length)
    if not bool(bad.any()):
        return
    shape = broadcast_shape(bad.shape, *(index.shape for index in domain.indices.values()))
    where = bad.expand(shape).nonzero()[0].tolist()
    place = ", ".join(f"{key} = {int(index.expand(shape)[tuple(where)])}" for key, index in domain.indices.items())
    value = int(at.expand(shape)[tuple(where)])
    raise IndexError(f"{name}: index {value} is outside axis {axis} of size {length}, at {place}")


def _drawn(node: Drawn, known: Mapping[Expr, Tensor]) -> Tensor:
    fixed: list[int] = []
    for what, expr in (("count", node.count), ("seed", node.seed), ("blocks", node.blocks)):
        if known[expr].numel() != 1:
            raise ValueError(f"random: the {what} varies from pair to pair")
        fixed.append(int(known[expr]))
    count, seed, blocks = fixed
    slots = draw(seed, known[node.head], known[node.row], count, blocks)
    return _among(slots, known[node.column])


def _among(slots: Tensor, column: Tensor) -> Tensor:
    """Whether ``column`` is among the last axis of ``slots``, where -1 is an unused slot."""
    shape = broadcast_shape(slots.shape[:-1], column.shape)
    found = torch.zeros(shape, dtype=torch.bool, device=column.device)
    for slot in range(slots.shape[-1]):
        found |= (slots[..., slot] == column) & (column >= 0)
    return found


def _rope(node: Rope, scope: Scope, known: Mapping[Expr, Tensor]) -> Tensor:
    """Rotary embedding: pair k turns by position * base ** (-2k / dim) / scaling[k]."""
    x = known[node.operand]
    half = x.shape[-1] // 2
    position, base = (known[part].to(scope.dtype).unsqueeze(-1) for part in (node.position, node.base))
    scaling = known[node.scaling].to(scope.dtype)
    scaling = scaling if node.scaling.dims else scaling.unsqueeze(-1)
    power = torch.arange(half, dtype=scope.dtype, device=scope.device) * (-2.0 / x.shape[-1])
    angle = position * base**power / scaling
    cos, sin = angle.cos(), angle.sin()
    if node.interleaved:
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)
    low, high = x[..., :half], x[..., half:]
    return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1)


def apply(fn: Fn, args: list[Tensor], dtype: torch.dtype) -> Tensor:
    """An elementwise function with PyTorch's gradients. ``dtype``: the result's, to which numbers are brought
    first, so that nothing is computed in a default dtype. Integers: ``x // 0 = 0`` and ``x % 0 = x``."""
    if dtype.is_floating_point:
        args = [arg if arg.dtype is torch.bool and fn is Fn.WHERE else arg.to(dtype) for arg in args]
    if fn in (Fn.FLOORDIV, Fn.MOD) and dtype is torch.int64:
        x, y = args
        zero = y == 0
        safe = torch.where(zero, 1, y)
        if fn is Fn.FLOORDIV:
            return torch.where(zero, 0, torch.div(x, safe, rounding_mode="floor"))
        return torch.where(zero, x, torch.remainder(x, safe))
    if fn in (Fn.INT, Fn.FLOAT):
        return args[0].to(dtype)
    return _FUNCTIONS[fn](*args)


def _floor_divide(x: Tensor, y: Tensor) -> Tensor:
    return torch.div(x, y, rounding_mode="floor")


def _clamp(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.clamp(x, low, high)


_FUNCTIONS: Mapping[Fn, Callable[..., Tensor]] = {
    Fn.ADD: torch.add,
    Fn.SUB: torch.sub,
    Fn.MUL: torch.mul,
    Fn.DIV: torch.div,
    Fn.FLOORDIV: _floor_divide,
    Fn.MOD: torch.remainder,
    Fn.POW: torch.pow,
    Fn.NEG: torch.neg,
    Fn.MIN: torch.minimum,
    Fn.MAX: torch.maximum,
    Fn.CLAMP: _clamp,
    Fn.ABS: torch.abs,
    Fn.SIGN: torch.sign,
    Fn.EXP: torch.exp,
    Fn.EXP2: torch.exp2,
    Fn.EXPM1: torch.expm1,
    Fn.LOG: torch.log,
    Fn.LOG1P: torch.log1p,
    Fn.SQRT: torch.sqrt,
    Fn.RSQRT: torch.rsqrt,
    Fn.TANH: torch.tanh,
    Fn.SIGMOID: torch.sigmoid,
    Fn.RELU: torch.relu,
    Fn.ELU: torch.nn.functional.elu,
    Fn.SOFTPLUS: torch.nn.functional.softplus,
    Fn.ERF: torch.erf,
    Fn.SIN: torch.sin,
    Fn.COS: torch.cos,
    Fn.FLOOR: torch.floor,
    Fn.WHERE: torch.where,
    Fn.EQ: torch.eq,
    Fn.NE: torch.ne,
    Fn.LT: torch.lt,
    Fn.LE: torch.le,
    Fn.GT: torch.gt,
    Fn.GE: torch.ge,
    Fn.AND: torch.logical_and,
    Fn.OR: torch.logical_or,
    Fn.NOT: torch.logical_not,
}

"""Expressions over arrays of indices, in NumPy: INTs in int64, FLOATs in float32, as the reference does.

For conditions and ends of intervals, over rows of tiles or over positions of one axis; never over pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnc.codegen.build import index
from attnc.dsl.ir import Apply, Const, Drawn, Expr, Fn, Kind, Listed, Load, Table, postorder

Array = NDArray[Any]
Draw = Callable[[int, Array, Array, int, int], Array]  # (seed, head, row, count, blocks): int64 [..., count]

_TYPES = {Kind.BOOL: np.bool_, Kind.INT: np.int64, Kind.FLOAT: np.float32}


@dataclass(frozen=True, kw_only=True)
class Reads:
    """What expressions read: input tensors by name, and the draws of random patterns."""

    tensors: Mapping[str, Array]
    draw: Draw | None = None


def evaluate(roots: Sequence[Expr], leaves: Mapping[Expr, Array | int], reads: Reads) -> list[Array]:
    """The values of expressions, broadcast as their leaves are. Raises KeyError for a leaf or input without a value."""
    known: dict[Expr, Array] = {node: np.asarray(value) for node, value in leaves.items()}
    complete(roots, known, reads)
    return [known[root] for root in roots]


def complete(roots: Sequence[Expr], known: dict[Expr, Array], reads: Reads) -> None:
    """The values of expressions and of all below them, added to what is known."""
    with np.errstate(all="ignore"):
        for node in postorder(*roots):
            if node not in known:
                known[node] = value_of(node, known, reads)


def value_of(node: Expr, known: Mapping[Expr, Array], reads: Reads) -> Array:
    """The value of one node, those of its operands (of an index list, also b and h) being known."""
    match node:
        case Const(value=value, kind=kind):
            return np.asarray(value, dtype=_TYPES[kind])
        case Table(values=values, index=at, kind=kind):
            return np.take(np.asarray(values, dtype=_TYPES[kind]), np.clip(known[at], 0, len(values) - 1))
        case Load(tensor=tensor, index=place, kind=kind):
            return _read(reads.tensors[tensor], [known[at] for at in place]).astype(_TYPES[kind], copy=False)
        case Drawn():
            fixed = [int(known[part].reshape(-1)[0]) for part in (node.seed, node.count, node.blocks)]
            return _among(drawn(fixed, known[node.head], known[node.row], reads), known[node.column])
        case Listed(tensor=tensor, row=row, column=column):
            slots = _read(reads.tensors[tensor], [known[at] for at in (index("b"), index("h"), row)])
            return _among(slots, known[column])
        case Apply(fn=fn, args=args, kind=kind):
            return apply(fn, [known[arg] for arg in args], kind)
        case _:
            raise KeyError(node)


def drawn(fixed: Sequence[int], head: Array, row: Array, reads: Reads) -> Array:
    """The blocks that each (head, row) draws by (seed, count, blocks): [..., count], -1 for none."""
    if reads.draw is None:
        raise ValueError("a mask with random blocks needs draw=")
    seed, count, blocks = fixed
    return reads.draw(seed, head, row, count, blocks)


def _among(slots: Array, column: Array) -> Array:
    return np.asarray(((slots == column[..., None]) & (column >= 0)[..., None]).any(-1))


def _read(tensor: Array, places: Sequence[Array]) -> Array:
    """An index outside its axis reads the nearest element; an empty axis reads as zero."""
    if not tensor.size:
        return np.zeros(tensor.shape[len(places) :], dtype=tensor.dtype)
    return np.asarray(tensor[tuple(np.clip(at, 0, size - 1) for at, size in zip(places, tensor.shape, strict=False))])


def apply(fn: Fn, args: list[Array], kind: Kind) -> Array:
    """One function of arrays, its result of ``kind``."""
    if kind is Kind.FLOAT and fn is not Fn.WHERE:
        args = [arg.astype(np.float32, copy=False) for arg in args]
    if kind is Kind.INT and fn in (Fn.FLOORDIV, Fn.MOD):  # x // 0 = 0, x % 0 = x
        x, y = args
        safe = np.where(y == 0, 1, y)
        return np.where(y == 0, 0, x // safe) if fn is Fn.FLOORDIV else np.where(y == 0, x, x % safe)
    if fn is Fn.INT:
        return np.trunc(args[0]).astype(np.int64)
    result: Array = np.asarray(_FUNCTIONS[fn](*args))
    return result


def _power(x: Array, y: Array) -> Array:
    if x.dtype.kind == "f":
        return np.asarray(x**y)
    return np.asarray(np.where(y < 0, 0, x ** np.maximum(y, 0)))


_FUNCTIONS: Mapping[Fn, Callable[..., Any]] = {
    Fn.ADD: np.add,
    Fn.SUB: np.subtract,
    Fn.MUL: np.multiply,
    Fn.DIV: np.divide,
    Fn.FLOORDIV: np.floor_divide,
    Fn.MOD: np.remainder,
    Fn.POW: _power,
    Fn.NEG: np.negative,
    Fn.MIN: np.minimum,
    Fn.MAX: np.maximum,
    Fn.CLAMP: lambda x, low, high: np.minimum(np.maximum(x, low), high),
    Fn.ABS: np.abs,
    Fn.SIGN: np.sign,
    Fn.RELU: lambda x: np.maximum(x, 0),
    Fn.FLOOR: np.floor,
    Fn.FLOAT: lambda x: x,
    Fn.WHERE: np.where,
    Fn.EQ: np.equal,
    Fn.NE: np.not_equal,
    Fn.LT: np.less,
    Fn.LE: np.less_equal,
    Fn.GT: np.greater,
    Fn.GE: np.greater_equal,
    Fn.AND: np.logical_and,
    Fn.OR: np.logical_or,
    Fn.NOT: np.logical_not,
}

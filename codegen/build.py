"""Short names for making IR nodes: ``add(x, 1)`` instead of ``Apply(kind=..., fn=Fn.ADD, args=(...))``.

The constructors take nodes or Python numbers, derive the kind and the dims of the result, and convert an INT
that meets a FLOAT with an explicit ``Fn.FLOAT``, as the checker does. They fold nothing: that is simplify's work.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

from attnc.dsl.ir import Apply, Axis, Const, Expr, Fn, Index, Kind, Offset, Side, Size, Symbol

Operand = Expr | bool | int | float

_BOOLEAN = frozenset((Fn.EQ, Fn.NE, Fn.LT, Fn.LE, Fn.GT, Fn.GE, Fn.AND, Fn.OR, Fn.NOT))
_ALWAYS_FLOAT = frozenset((
    Fn.DIV, Fn.EXP, Fn.EXP2, Fn.EXPM1, Fn.LOG, Fn.LOG1P, Fn.SQRT, Fn.RSQRT, Fn.TANH, Fn.SIGMOID, Fn.ELU,
    Fn.SOFTPLUS, Fn.ERF, Fn.SIN, Fn.COS, Fn.FLOOR,
))  # fmt: skip


def const(value: bool | int | float) -> Const:
    """A constant of the kind that its Python type has."""
    if isinstance(value, bool):
        return Const(kind=Kind.BOOL, value=value)
    return Const(kind=Kind.INT if isinstance(value, int) else Kind.FLOAT, value=value)


TRUE = const(True)
FALSE = const(False)
ZERO = const(0)


def index(axis: Axis) -> Index:
    """``b``, ``h``, ``i`` or ``j``."""
    return Index(kind=Kind.INT, axis=axis)


def size(name: str) -> Size:
    return Size(kind=Kind.INT, name=name)


def offset(side: Side) -> Offset:
    return Offset(kind=Kind.INT, side=side)


def symbol(name: str, kind: Kind) -> Symbol:
    return Symbol(kind=kind, name=name)


def expr(value: Operand) -> Expr:
    """The node itself, or a constant."""
    return const(value) if isinstance(value, bool | int | float) else value


def to_float(x: Operand) -> Expr:
    """The value as FLOAT; a no-op for a FLOAT."""
    node = expr(x)
    return node if node.kind is Kind.FLOAT else Apply(kind=Kind.FLOAT, dims=node.dims, fn=Fn.FLOAT, args=(node,))


def to_int(x: Operand) -> Expr:
    """The value truncated towards zero; a no-op for an INT."""
    node = expr(x)
    return node if node.kind is Kind.INT else Apply(kind=Kind.INT, dims=node.dims, fn=Fn.INT, args=(node,))


def apply(fn: Fn, *operands: Operand) -> Expr:
    """``fn`` of the operands, INTs made FLOAT where the function or another operand is FLOAT."""
    args = tuple(expr(operand) for operand in operands)
    if fn is Fn.FLOAT:
        return to_float(args[0])
    if fn is Fn.INT:
        return to_int(args[0])
    head, values = (args[:1], args[1:]) if fn is Fn.WHERE else ((), args)
    if fn in _ALWAYS_FLOAT or any(value.kind is Kind.FLOAT for value in values):
        values = tuple(to_float(value) for value in values)
    kind = Kind.BOOL if fn in _BOOLEAN else values[0].kind
    args = head + values
    dims = next((arg.dims for arg in args if arg.dims), ())
    return Apply(kind=kind, dims=dims, fn=fn, args=args)


def add(x: Operand, y: Operand) -> Expr:
    return apply(Fn.ADD, x, y)


def sub(x: Operand, y: Operand) -> Expr:
    return apply(Fn.SUB, x, y)


def mul(x: Operand, y: Operand) -> Expr:
    return apply(Fn.MUL, x, y)


def div(x: Operand, y: Operand) -> Expr:
    """True division: always FLOAT."""
    return apply(Fn.DIV, x, y)


def floordiv(x: Operand, y: Operand) -> Expr:
    return apply(Fn.FLOORDIV, x, y)


def mod(x: Operand, y: Operand) -> Expr:
    return apply(Fn.MOD, x, y)


def power(x: Operand, y: Operand) -> Expr:
    return apply(Fn.POW, x, y)


def neg(x: Operand) -> Expr:
    return apply(Fn.NEG, x)


def absolute(x: Operand) -> Expr:
    return apply(Fn.ABS, x)


def minimum(x: Operand, y: Operand) -> Expr:
    return apply(Fn.MIN, x, y)


def maximum(x: Operand, y: Operand) -> Expr:
    return apply(Fn.MAX, x, y)


def clamp(x: Operand, lo: Operand, hi: Operand) -> Expr:
    return apply(Fn.CLAMP, x, lo, hi)


def where(condition: Operand, x: Operand, y: Operand) -> Expr:
    return apply(Fn.WHERE, condition, x, y)


def eq(x: Operand, y: Operand) -> Expr:
    return apply(Fn.EQ, x, y)


def ne(x: Operand, y: Operand) -> Expr:
    return apply(Fn.NE, x, y)


def lt(x: Operand, y: Operand) -> Expr:
    return apply(Fn.LT, x, y)


def le(x: Operand, y: Operand) -> Expr:
    return apply(Fn.LE, x, y)


def gt(x: Operand, y: Operand) -> Expr:
    return apply(Fn.GT, x, y)


def ge(x: Operand, y: Operand) -> Expr:
    return apply(Fn.GE, x, y)


def not_(x: Operand) -> Expr:
    return apply(Fn.NOT, x)


def all_of(terms: Iterable[Expr]) -> Expr:
    """The conjunction, left to right; True for none."""
    items = list(terms)
    return reduce(lambda x, y: apply(Fn.AND, x, y), items) if items else TRUE


def any_of(terms: Iterable[Expr]) -> Expr:
    """The disjunction, left to right; False for none."""
    items = list(terms)
    return reduce(lambda x, y: apply(Fn.OR, x, y), items) if items else FALSE

"""What an expression without run-time parts is worth. Used for defaults, conditions and literal sizes, not for
optimization: codegen simplifies."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable

from attnc.dsl.ir import Apply, Const, Expr, Fn, Kind, postorder

Scalar = bool | int | float
INT64 = range(-(2**63), 2**63)


def _power(base: Scalar, exponent: Scalar) -> Scalar:
    if isinstance(base, int) and isinstance(exponent, int) and abs(base) > 1 and exponent > 64:
        raise OverflowError("beyond 64 bits")
    value = base**exponent
    if isinstance(value, complex):
        raise ValueError("no real power")
    return value


def _sigmoid(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x)) if x >= 0 else math.exp(x) / (1.0 + math.exp(x))


_VALUES: dict[Fn, Callable[..., Scalar]] = {
    Fn.ADD: operator.add,
    Fn.SUB: operator.sub,
    Fn.MUL: operator.mul,
    Fn.DIV: operator.truediv,
    Fn.FLOORDIV: operator.floordiv,
    Fn.MOD: operator.mod,
    Fn.POW: _power,
    Fn.NEG: operator.neg,
    Fn.MIN: min,
    Fn.MAX: max,
    Fn.CLAMP: lambda x, lo, hi: min(max(x, lo), hi),
    Fn.ABS: abs,
    Fn.SIGN: lambda x: (x > 0) - (x < 0),
    Fn.EXP: math.exp,
    Fn.EXP2: lambda x: 2.0**x,
    Fn.EXPM1: math.expm1,
    Fn.LOG: math.log,
    Fn.LOG1P: math.log1p,
    Fn.SQRT: math.sqrt,
    Fn.RSQRT: lambda x: 1.0 / math.sqrt(x),
    Fn.TANH: math.tanh,
    Fn.SIGMOID: _sigmoid,
    Fn.RELU: lambda x: max(x, 0.0),
    Fn.ELU: lambda x: x if x > 0 else math.expm1(x),
    Fn.SOFTPLUS: lambda x: max(x, 0.0) + math.log1p(math.exp(-abs(x))),
    Fn.ERF: math.erf,
    Fn.SIN: math.sin,
    Fn.COS: math.cos,
    Fn.FLOOR: lambda x: float(math.floor(x)),
    Fn.WHERE: lambda condition, x, y: x if condition else y,
    Fn.EQ: operator.eq,
    Fn.NE: operator.ne,
    Fn.LT: operator.lt,
    Fn.LE: operator.le,
    Fn.GT: operator.gt,
    Fn.GE: operator.ge,
    Fn.AND: lambda x, y: x and y,
    Fn.OR: lambda x, y: x or y,
    Fn.NOT: operator.not_,
    Fn.INT: int,
    Fn.FLOAT: float,
}


def constant(expr: Expr) -> Scalar | None:
    """The value of an expression of constants; None if it has other parts, no value or leaves 64 bits."""
    values: dict[Expr, Scalar | None] = {}
    for node in postorder(expr):
        value: Scalar | None = None
        match node:
            case Const():
                value = node.value
            case Apply(fn=fn, args=args):
                known = [values[arg] for arg in args]
                if None not in known:
                    try:
                        value = _VALUES[fn](*known)
                    except (ArithmeticError, ValueError):
                        value = None
        if value is not None and node.kind is Kind.FLOAT:
            value = float(value)
        elif isinstance(value, int) and value not in INT64:
            value = None
        values[node] = value
    return values[expr]

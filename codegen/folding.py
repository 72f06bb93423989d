"""Elementwise functions of constants: integers exactly, floats in double precision, as IEEE and Python define.

What has no finite meaning here (a float divided by zero, the logarithm of a negative number, an overflow) is not
folded: the generated code then computes it, and the answer is the hardware's. Of integers x // 0 is 0 and x % 0 is x.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from attnc.dsl.ir import Fn

Value = bool | int | float

_FOLDED_BITS = 4096  # an integer power larger than this stays a power


def _power(x: Value, y: Value) -> Value | None:
    if isinstance(x, int) and isinstance(y, int):
        return x**y if y >= 0 and y * x.bit_length() <= _FOLDED_BITS else None
    return math.pow(x, y)


def _sign(x: Value) -> Value:
    return type(x)((x > 0) - (x < 0))


def _softplus(x: Value) -> Value:
    return x if x > 20 else math.log1p(math.exp(x))  # PyTorch's threshold


def _sigmoid(x: Value) -> Value:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


_UNARY: dict[Fn, Callable[[Value], Value]] = {
    Fn.NEG: lambda x: -x,
    Fn.ABS: abs,
    Fn.SIGN: _sign,
    Fn.EXP: math.exp,
    Fn.EXP2: math.exp2,
    Fn.EXPM1: math.expm1,
    Fn.LOG: math.log,
    Fn.LOG1P: math.log1p,
    Fn.SQRT: math.sqrt,
    Fn.RSQRT: lambda x: 1 / math.sqrt(x),
    Fn.TANH: math.tanh,
    Fn.SIGMOID: _sigmoid,
    Fn.RELU: lambda x: x if x > 0 else type(x)(0),
    Fn.ELU: lambda x: x if x > 0 else math.expm1(x),
    Fn.SOFTPLUS: _softplus,
    Fn.ERF: math.erf,
    Fn.SIN: math.sin,
    Fn.COS: math.cos,
    Fn.FLOOR: lambda x: math.copysign(math.floor(x), x),
    Fn.INT: int,
    Fn.FLOAT: float,
    Fn.NOT: lambda x: not x,
}

_BINARY: dict[Fn, Callable[[Value, Value], Value | None]] = {
    Fn.ADD: lambda x, y: x + y,
    Fn.SUB: lambda x, y: x - y,
    Fn.MUL: lambda x, y: x * y,
    Fn.DIV: lambda x, y: x / y,
    Fn.FLOORDIV: lambda x, y: 0 if y == 0 and isinstance(y, int) else x // y,
    Fn.MOD: lambda x, y: x if y == 0 and isinstance(y, int) else x % y,
    Fn.POW: _power,
    Fn.MIN: min,
    Fn.MAX: max,
    Fn.EQ: lambda x, y: x == y,
    Fn.NE: lambda x, y: x != y,
    Fn.LT: lambda x, y: x < y,
    Fn.LE: lambda x, y: x <= y,
    Fn.GT: lambda x, y: x > y,
    Fn.GE: lambda x, y: x >= y,
    Fn.AND: lambda x, y: x and y,
    Fn.OR: lambda x, y: x or y,
}


def fold(fn: Fn, values: tuple[Value, ...]) -> Value | None:
    """The value of ``fn``; None where it has none here. Operands are of one kind, as the checker leaves them."""
    try:
        match fn, values:
            case Fn.WHERE, (condition, x, y):
                result: Value | None = x if condition else y
            case Fn.CLAMP, (x, low, high):
                result = min(max(x, low), high)
            case _, (x,):
                result = _UNARY[fn](x)
            case _, (x, y):
                result = _BINARY[fn](x, y)
            case _:
                raise AssertionError(f"{fn} of {len(values)} operands")
    except (ValueError, OverflowError, ZeroDivisionError):
        return None
    return None if isinstance(result, float) and math.isnan(result) else result

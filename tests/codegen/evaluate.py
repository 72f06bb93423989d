"""The meaning of pairwise scalar expressions, in Python: INTs exact, FLOATs in IEEE double precision. Tests only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from attnc.dsl.ir import Apply, Const, Expr, Fn, Kind, Load, Table, postorder

Value = bool | int | float


def evaluate(expr: Expr, leaves: Mapping[Expr, Value], read: Callable[..., Value] | None = None) -> Value:
    """The value of ``expr``; ``leaves`` gives indices, sizes, offsets, symbols, ``read(tensor, *index)`` the loads."""
    known: dict[Expr, Value] = {}
    for node in postorder(expr):
        if node in leaves:
            known[node] = leaves[node]
            continue
        match node:
            case Const(value=value):
                known[node] = value
            case Table(values=values, index=index):
                known[node] = values[min(max(int(known[index]), 0), len(values) - 1)]
            case Load(tensor=tensor, index=positions):
                assert read is not None
                known[node] = read(tensor, *(known[position] for position in positions))
            case Apply(fn=fn, args=args):
                known[node] = _apply(fn, node.kind, [known[arg] for arg in args])
            case _:
                raise KeyError(node)
    return known[expr]


def same(x: Value, y: Value) -> bool:
    """Equal, the sign of zero included; NaN equals NaN."""
    if isinstance(x, float) and isinstance(y, float):
        return (math.isnan(x) and math.isnan(y)) or (x == y and math.copysign(1, x) == math.copysign(1, y))
    return type(x) is type(y) and x == y


def _apply(fn: Fn, kind: Kind, args: list[Value]) -> Value:
    match fn, args:
        case Fn.WHERE, (condition, x, y):
            return x if condition else y
        case Fn.CLAMP, (x, low, high):
            return _least(_greatest(x, low), high)
        case Fn.NOT, (x,):
            return not x
        case Fn.INT, (x,):
            return int(x) if math.isfinite(x) else 0
        case Fn.FLOAT, (x,):
            return float(x)
        case _, (x,):
            return _unary(fn, kind, x)
        case _, (x, y):
            return _binary(fn, x, y)
        case _:
            raise AssertionError(fn)


def _unary(fn: Fn, kind: Kind, x: Value) -> Value:
    if fn is Fn.NEG:
        return -x
    if fn is Fn.ABS:
        return abs(x)
    if fn is Fn.SIGN:
        return type(x)((x > 0) - (x < 0))  # 0 for NaN, as torch.sign
    if fn is Fn.RELU:
        return _greatest(x, type(x)(0))
    if fn is Fn.FLOOR:
        return math.copysign(math.floor(x), x) if math.isfinite(x) else x
    assert kind is Kind.FLOAT
    return _FLOATS[fn](float(x))


def _ieee(function: Callable[[float], float], overflow: float = math.inf) -> Callable[[float], float]:
    def guarded(x: float) -> float:
        if math.isnan(x):
            return x
        try:
            return function(x)
        except OverflowError:
            return overflow
        except ValueError:
            return math.nan

    return guarded


def _log(x: float) -> float:
    return -math.inf if x == 0 else math.log(x)


def _log1p(x: float) -> float:
    return -math.inf if x == -1 else math.log1p(x)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


_FLOATS: dict[Fn, Callable[[float], float]] = {
    Fn.EXP: _ieee(math.exp),
    Fn.EXP2: _ieee(math.exp2),
    Fn.EXPM1: _ieee(math.expm1),
    Fn.LOG: _ieee(_log),
    Fn.LOG1P: _ieee(_log1p),
    Fn.SQRT: _ieee(math.sqrt),
    Fn.RSQRT: _ieee(lambda x: divide(1.0, math.sqrt(x))),
    Fn.TANH: _ieee(math.tanh),
    Fn.SIGMOID: _ieee(_sigmoid),
    Fn.ELU: _ieee(lambda x: x if x > 0 else math.expm1(x)),
    Fn.SOFTPLUS: _ieee(lambda x: x if x > 20 else math.log1p(math.exp(x))),
    Fn.ERF: _ieee(math.erf),
    Fn.SIN: _ieee(math.sin),
    Fn.COS: _ieee(math.cos),
}


def divide(x: float, y: float) -> float:
    """IEEE division."""
    if y:
        return x / y
    if x == 0 or math.isnan(x) or math.isnan(y):
        return math.nan
    return math.copysign(math.inf, math.copysign(1, x) * math.copysign(1, y))


def _least(x: Value, y: Value) -> Value:
    return y if x == x and not x < y else x


def _greatest(x: Value, y: Value) -> Value:
    return y if x == x and not x > y else x


def _power(x: Value, y: Value) -> Value:
    if isinstance(x, int) and isinstance(y, int):
        return x**y
    if x != x or y != y:
        return 1.0 if x == 1 or y == 0 else math.nan
    try:
        return math.pow(x, y)
    except OverflowError:
        return -math.inf if x < 0 and y % 2 == 1 else math.inf
    except ValueError:  # 0 ** negative, or negative ** fraction
        if x == 0:
            return math.copysign(math.inf, x) if y % 2 == 1 else math.inf
        return math.nan


def _binary(fn: Fn, x: Value, y: Value) -> Value:
    match fn:
        case Fn.ADD:
            return x + y
        case Fn.SUB:
            return x - y
        case Fn.MUL:
            return x * y
        case Fn.DIV:
            return divide(float(x), float(y))
        case Fn.FLOORDIV:
            return x // y if y else math.nan
        case Fn.MOD:
            return x % y if y and not (isinstance(x, float) and math.isinf(x)) else math.nan
        case Fn.POW:
            return _power(x, y)
        case Fn.MIN:
            return _least(x, y)
        case Fn.MAX:
            return _greatest(x, y)
        case Fn.EQ:
            return x == y
        case Fn.NE:
            return x != y
        case Fn.LT:
            return x < y
        case Fn.LE:
            return x <= y
        case Fn.GT:
            return x > y
        case Fn.GE:
            return x >= y
        case Fn.AND:
            return bool(x and y)
        case Fn.OR:
            return bool(x or y)
        case _:
            raise AssertionError(fn)

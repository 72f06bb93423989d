"""A normalization's divisor, rewritten over scaled sums: no finite score overflows it."""

from __future__ import annotations

from fractions import Fraction
from math import isfinite

from attnc.codegen import build
from attnc.dsl.ir import Apply, Const, Expr, Fn, Kind, postorder, substitute

L = build.symbol("l", Kind.FLOAT)
M = build.symbol("m", Kind.FLOAT)
T = build.symbol("t", Kind.FLOAT)

_TERMS = (Fn.ADD, Fn.SUB, Fn.MIN, Fn.MAX)  # of one power
_ROOTS = {Fn.SQRT: Fraction(1, 2), Fn.RSQRT: Fraction(-1, 2)}


def scale_divisor(divisor: Expr) -> tuple[Expr, tuple[Expr, ...]]:
    """divisor(t) * exp(-m) over l = t * exp(-m), and the exponents that m must not fall below for it to stay in
    range: 0 for a constant term, e for a term exp(e).

    What is made of t is kept as x * exp(p m), p a number: products and powers add and multiply p; terms of a sum, min,
    max or where are taken at the largest p. Any other function is applied to t itself, and overflows where t does."""
    scaled: dict[Expr, tuple[Expr, Fraction]] = {T: (L, Fraction(1))}
    floors: dict[Expr, None] = {}
    free = {node: T not in postorder(node) for node in postorder(divisor)}

    def power(node: Expr) -> Fraction:
        return Fraction(0) if free[node] else scaled[node][1]

    def mantissa(node: Expr) -> Expr:
        return node if free[node] else scaled[node][0]

    def term(node: Expr, at: Fraction, fn: Fn) -> Expr:
        """A term of ``fn`` over exp(at m); m is kept where what it is multiplied by does not overflow. Beyond float a
        number is infinite, which the minimum with t is not: m may fall with t there."""
        if free[node]:
            return _constant(node, at, {} if fn is Fn.MIN and isinstance(node, Const) else floors)
        if power(node) < at and fn is not Fn.MIN:
            floors[build.const(0.0)] = None
        return _times(mantissa(node), power(node) - at)

    for node in postorder(divisor):
        if free[node] or node in scaled or not isinstance(node, Apply) or node.kind is not Kind.FLOAT:
            continue
        match node:
            case Apply(fn=fn, args=args) if fn in _TERMS:
                most = max(power(arg) for arg in args)
                scaled[node] = build.apply(fn, *(term(arg, most, fn) for arg in args)), most
            case Apply(fn=Fn.WHERE, args=(condition, x, y)):
                most = max(power(x), power(y))
                actual = substitute((condition,), {T: build.mul(L, build.apply(Fn.EXP, M))})[0]
                scaled[node] = build.where(actual, *(term(arg, most, Fn.WHERE) for arg in (x, y))), most
            case Apply(fn=Fn.NEG | Fn.ABS as fn, args=(x,)):
                scaled[node] = build.apply(fn, mantissa(x)), power(x)
            case Apply(fn=Fn.MUL, args=(x, y)):
                scaled[node] = build.mul(mantissa(x), mantissa(y)), power(x) + power(y)
            case Apply(fn=Fn.DIV, args=(x, y)):
                scaled[node] = build.div(mantissa(x), mantissa(y)), power(x) - power(y)
            case Apply(fn=Fn.SQRT | Fn.RSQRT as fn, args=(x,)):
                scaled[node] = build.apply(fn, mantissa(x)), power(x) * _ROOTS[fn]
            case Apply(fn=Fn.POW, args=(x, Const(value=n) as exponent)) if isfinite(n):
                scaled[node] = build.apply(Fn.POW, mantissa(x), exponent), power(x) * Fraction(n)
            case _:
                total = build.mul(L, build.apply(Fn.EXP, M))
                scaled[node] = substitute((node,), {T: total})[0], Fraction(0)
    if free[divisor]:
        return _constant(divisor, Fraction(1), floors), tuple(floors)
    return _times(mantissa(divisor), power(divisor) - 1), tuple(floors)


def _times(x: Expr, power: Fraction) -> Expr:
    """x * exp(power m)."""
    match power:
        case 0:
            return x
        case 1:
            exponent: Expr = M
        case -1:
            exponent = build.neg(M)
        case _:
            exponent = build.mul(build.const(float(power)), M)
    return build.mul(x, build.apply(Fn.EXP, exponent))


def _constant(root: Expr, at: Fraction, floors: dict[Expr, None]) -> Expr:
    """Terms without t over exp(at m), and what m must not fall below for them."""
    made: dict[Expr, Expr] = {}
    stack = [(root, False)]
    while stack:
        node, ready = stack.pop()
        if node in made:
            continue
        match node:
            case Apply(fn=fn, args=args) if fn in (*_TERMS, Fn.NEG, Fn.ABS):
                parts: tuple[Expr, ...] = args
            case Apply(fn=Fn.WHERE, args=(_, x, y)):
                parts = (x, y)
            case _:
                parts = ()
        if parts and not ready:
            stack += [(node, True), *((part, False) for part in parts)]
            continue
        match node:
            case Const(value=value) if value == 0:
                made[node] = node
            case Apply(fn=Fn.WHERE, args=(condition, x, y)):
                made[node] = build.where(condition, made[x], made[y])
            case Apply() if parts:
                made[node] = build.apply(node.fn, *(made[part] for part in parts))
            case Apply(fn=Fn.EXP, args=(inner,)) if at > 0:
                floor = inner if at == 1 else build.div(inner, build.const(float(at)))
                floors[floor] = None
                made[node] = build.apply(
                    Fn.EXP, build.sub(inner, M if at == 1 else build.mul(build.const(float(at)), M))
                )
            case _:
                if at > 0:
                    floors[build.const(0.0)] = None
                made[node] = _times(node, -at)
    return made[root]

"""Scores and cotangents with what is uniform over a tile taken out of what is computed for every pair.

An exponential weight is exp(score - m). Where score = scale * rest, the kernel keeps the maximum m of ``rest`` and
computes exp2(rest * c - m * c), c = scale * log2 e: one fused multiply-add a pair. Cotangents of matrix products that
are g * u, u uniform, are summed without u, and the sum is multiplied once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

from attnc.codegen import build
from attnc.codegen.simplify import simplify
from attnc.dsl.ir import Apply, Axis, Const, Dot, Expr, Fn, Kind, Load, Size, Symbol, dependencies, postorder, rebuild

LOG2E = math.log2(math.e)
_BOUNDED = frozenset((Fn.TANH, Fn.SIGMOID, Fn.SIN, Fn.COS, Fn.ERF))
_DECISIONS = frozenset((Fn.INT, Fn.FLOOR, Fn.FLOORDIV, Fn.MOD, Fn.SIGN, Fn.EQ, Fn.NE, Fn.LT, Fn.LE, Fn.GT, Fn.GE))
_HEADS: frozenset[Axis] = frozenset(("b", "h"))


@dataclass(frozen=True, kw_only=True)
class Exponent:
    """score = scale * rest, ``scale`` positive and made of constants and sizes. ``fused``: no finite score overflows
    when it is multiplied by log2 e (vectors of one or two elements aside), so the maximum may be subtracted after."""

    scale: Expr
    rest: Expr
    fused: bool


@lru_cache(maxsize=64)
def exponent(score: Expr) -> Exponent:
    """The score split; ``scale`` is 1 where nothing is known to be positive and uniform."""
    factors = factors_of(regrouped(score))
    taken = [factor for factor in factors if _positive(factor)]
    rest = product_of(factor for factor in factors if not _positive(factor))
    if not taken and isinstance(rest, Apply) and rest.fn in (Fn.ADD, Fn.SUB):
        found = _scaled_sum(rest)
        if found is not None:
            taken, rest = found
    scale = product_of(taken)
    most = _most(scale)
    bounded = isinstance(rest, Apply) and rest.fn in _BOUNDED
    return Exponent(scale=scale, rest=rest, fused=bounded or (most is not None and most * LOG2E <= 1))


def pulled(value: Expr, axes: frozenset[Axis]) -> tuple[Expr, Expr]:
    """``value`` as a product of what varies over a tile and what at most varies with ``axes``."""
    factors = factors_of(value)
    free = [factor for factor in factors if uniform(factor) and dependencies(factor) <= axes]
    return product_of(factor for factor in factors if factor not in free), product_of(free)


@lru_cache(maxsize=64)
def regrouped(value: Expr) -> Expr:
    """Uniform factors of every product multiplied first: ``dot * x * 0.02`` is ``dot * (x * 0.02)``."""
    kept = deciding(value)

    def step(node: Expr) -> Expr:
        if node in kept:
            return node
        if isinstance(node, Apply) and node.kind is Kind.FLOAT and node.fn is Fn.MUL and not uniform(node):
            return product_of(factors_of(node))
        return node

    return rewritten(value, step)


def deciding(value: Expr) -> frozenset[Expr]:
    """What an integer or a truth of the score is made of: there the last bit may decide, so floats are rounded as the
    spec writes them (``int(8 * log(d / 8) / log(16))`` is 2 at d = 16, with a reciprocal 1). Not where a dot takes
    part, which is rounded in every order."""
    found = (node for node in postorder(value) if isinstance(node, Apply) and node.fn in _DECISIONS)
    parts = (postorder(*node.args) for node in found)
    return frozenset(part for below in parts if not any(map(_rounded, below)) for part in below)


def _rounded(node: Expr) -> bool:
    return isinstance(node, Dot) or (isinstance(node, Symbol) and node.kind is Kind.FLOAT)


def rewritten(value: Expr, step: Callable[[Expr], Expr]) -> Expr:
    """The expression with ``step`` taken at every node, operands first; where a tensor is read stays as it is."""
    made: dict[Expr, Expr] = {}
    for node in postorder(value):
        made[node] = node if isinstance(node, Load) else step(rebuild(node, lambda child: made.get(child, child)))
    return made[value]


def uniform(node: Expr) -> bool:
    """Whether a node has one value in a whole tile."""
    return not any(isinstance(part, Symbol) for part in postorder(node)) and dependencies(node) <= _HEADS


def factors_of(node: Expr) -> list[Expr]:
    """The factors of a product of floats, left to right; a negation is a factor -1, a uniform divisor its inverse."""
    found: list[Expr] = []
    stack = [node]
    while stack:
        item = stack.pop()
        match item:
            case Apply(kind=Kind.FLOAT, fn=Fn.MUL, args=(x, y)):
                stack += (y, x)
            case Apply(kind=Kind.FLOAT, fn=Fn.NEG, args=(x,)):
                stack += (x, build.const(-1.0))
            case Apply(fn=Fn.DIV, args=(x, y)) if uniform(y) and not uniform(x):
                stack += (build.div(1.0, y), x)
            case _:
                found.append(item)
    return found


def product_of(factors: Iterable[Expr]) -> Expr:
    """What varies, times the product of what does not: constants multiplied at compile time."""
    kept = list(factors)
    number = math.prod(float(item.value) for item in kept if isinstance(item, Const))
    once: list[Expr] = [item for item in kept if uniform(item) and not isinstance(item, Const)]
    if abs(number) != 1:
        once.append(build.const(number))
    parts: list[Expr] = [item for item in kept if not uniform(item)]
    parts += [_chain(once)] if once else []
    made = _chain(parts) if parts else build.const(1.0)
    return simplify((build.neg(made) if number == -1 else made,))[0]


def _chain(factors: list[Expr]) -> Expr:
    made = factors[0]
    for factor in factors[1:]:
        made = build.mul(made, factor)
    return made


def _positive(node: Expr) -> bool:
    """Whether a factor is made of constants and sizes and known to be above zero and finite."""
    match node:
        case Const(value=value):
            return 0 < value < math.inf
        case Apply(fn=Fn.FLOAT, args=(Size(),)):
            return True
        case Apply(fn=Fn.SQRT | Fn.RSQRT, args=(x,)):
            return _positive(x)
        case Apply(fn=Fn.MUL | Fn.DIV, args=(x, y)):
            return _positive(x) and _positive(y)
        case _:
            return False


def _most(scale: Expr) -> float | None:
    """A number that a positive scale does not exceed, for sizes of three and more."""
    match scale:
        case Const(value=value):
            return float(value)
        case Apply(fn=Fn.DIV, args=(Const(value=value), Apply(fn=Fn.SQRT, args=(Apply(fn=Fn.FLOAT, args=(Size(),)),)))):
            return float(value) / math.sqrt(3)
        case Apply(fn=Fn.DIV, args=(Const(value=value), Apply(fn=Fn.FLOAT, args=(Size(),)))):
            return float(value) / 3
        case Apply(fn=Fn.RSQRT, args=(Apply(fn=Fn.FLOAT, args=(Size(),)),)):
            return 1 / math.sqrt(3)
        case Apply(fn=Fn.MUL, args=(x, y)):
            a, b = _most(x), _most(y)
            return None if a is None or b is None else a * b
        case _:
            return None


def _scaled_sum(score: Expr) -> tuple[list[Expr], Expr] | None:
    """A sum c * dot + u * y + ..., as c and dot + (u / c) * y + ..., where every y is small: then nothing that was
    finite overflows by the division."""
    terms = [(sign, factors_of(term)) for sign, term in terms_of(score)]
    for sign, factors in terms:
        scale = [factor for factor in factors if _positive(factor)]
        rest = [factor for factor in factors if not _positive(factor)]
        if sign > 0 and scale and len(rest) == 1 and isinstance(rest[0], Symbol):
            break
    else:
        return None
    common = product_of(scale)
    total: Expr | None = None
    for sign, factors in terms:
        kept = [factor for factor in factors if not _positive(factor)]
        if product_of(factor for factor in factors if _positive(factor)) != common:
            if not all(uniform(factor) or _small(factor) for factor in factors):
                return None
            kept = [*factors, *map(_inverse, scale)]
        term = product_of(kept)
        if total is None:
            total = term if sign > 0 else build.neg(term)
        else:
            total = build.add(total, term) if sign > 0 else build.sub(total, term)
    assert total is not None
    return scale, total


def terms_of(score: Expr) -> list[tuple[int, Expr]]:
    """The terms of a sum of floats, left to right, with their signs."""
    signs: dict[Fn, Callable[[int], tuple[int, ...]]] = {
        Fn.ADD: lambda sign: (sign, sign),
        Fn.SUB: lambda sign: (sign, -sign),
        Fn.NEG: lambda sign: (-sign,),
    }
    found: list[tuple[int, Expr]] = []
    stack = [(1, score)]
    while stack:
        sign, item = stack.pop()
        if isinstance(item, Apply) and item.kind is Kind.FLOAT and item.fn in signs:
            stack += reversed(list(zip(signs[item.fn](sign), item.args, strict=True)))
        else:
            found.append((sign, item))
    return found


def _small(node: Expr) -> bool:
    """A function of positions alone, or one whose values are bounded."""
    return isinstance(node, Apply) and (node.fn in _BOUNDED or (node.fn is Fn.FLOAT and node.args[0].kind is Kind.INT))


def _inverse(factor: Expr) -> Expr:
    match factor:
        case Const(value=value):
            return build.const(1 / float(value))
        case Apply(fn=Fn.DIV, args=(Const(value=value), y)) if value == 1:
            return y
        case _:
            return build.div(1.0, factor)

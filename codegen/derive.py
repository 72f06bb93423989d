"""Reverse-mode symbolic differentiation over the shared graph.

Every node is visited once, users before operands; what flows into a node from its users is summed before it flows
on, so a shared node costs once and counts fully (``u = 2x; u * u`` has derivative ``8x``). At kinks PyTorch's
conventions hold (its autograd is the authority, tools/autograd/derivatives.yaml), and values of the forward pass are
reused where the derivative can be written in them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from attnc.codegen.build import add, all_of, apply, const, div, eq, ge, gt, le, lt, mul, neg, power, sub, where
from attnc.dsl.ir import Apply, Const, Expr, Fn, Kind, postorder

_ZERO = const(0.0)
_ONE = const(1.0)


def derive(root: Expr, wrt: Sequence[Expr], seed: Expr) -> dict[Expr, Expr]:
    """``seed * d root / d node`` for each node of ``wrt`` (Symbols, Loads, Dots), Const 0.0 where root is constant
    in it. Only FLOATs carry derivatives: indices, sizes, comparisons, casts from and to INT stop them."""
    targets = set(wrt)
    order = postorder(root)
    active: set[Expr] = set()
    for node in order:
        reached = node in targets or (isinstance(node, Apply) and any(arg in active for arg in node.args))
        if reached and node.kind is Kind.FLOAT:
            active.add(node)
    flows: dict[Expr, list[Expr]] = {root: [seed]}
    totals: dict[Expr, Expr] = {}
    for node in reversed(order):
        if node not in active or node not in flows:
            continue
        total = totals[node] = _sum(flows.pop(node))
        if not isinstance(node, Apply) or node in targets:
            continue
        wanted = tuple(arg in active for arg in node.args)
        for arg, flow in zip(node.args, _flows(node, total, wanted), strict=True):
            if flow is not None and arg in active and flow != _ZERO:
                flows.setdefault(arg, []).append(flow)
    return {node: totals.get(node, _ZERO) for node in wrt}


def _sum(flows: list[Expr]) -> Expr:
    """The sum in order of arrival; equal contributions are multiplied: ``x * x`` sends ``2 * (g * x)``."""
    counts: dict[Expr, int] = {}
    for flow in flows:
        counts[flow] = counts.get(flow, 0) + 1
    terms = [flow if count == 1 else _times(const(float(count)), flow) for flow, count in counts.items()]
    total = terms[0]
    for term in terms[1:]:
        total = add(total, term)
    return total


def _times(x: Expr, y: Expr) -> Expr:
    if x == _ONE:
        return y
    return x if y == _ONE else mul(x, y)


def _flows(node: Apply, g: Expr, wanted: tuple[bool, ...]) -> tuple[Expr | None, ...]:
    """What the cotangent ``g`` of ``node`` sends to each of its arguments; None for nothing."""
    match node.args:
        case (x,):
            return (_unary(node, g, x),)
        case (a, b):
            return _binary(node, g, a, b, wanted)
        case (x, y, z):
            return _ternary(node, g, x, y, z, wanted)
        case _:
            raise AssertionError(f"{node.fn} of {len(node.args)} operands")


def _unary(node: Apply, g: Expr, x: Expr) -> Expr | None:
    match node.fn:
        case Fn.NEG:
            return neg(g)
        case Fn.ABS:
            return _times(g, apply(Fn.SIGN, x))
        case Fn.EXP:
            return _times(g, node)
        case Fn.EXP2:
            return _times(g, mul(node, math.log(2)))
        case Fn.EXPM1:
            return _times(g, add(node, 1.0))
        case Fn.LOG:
            return div(g, x)
        case Fn.LOG1P:
            return div(g, add(x, 1.0))
        case Fn.SQRT:
            return div(g, mul(2.0, node))
        case Fn.RSQRT:
            return _times(g, mul(-0.5, mul(node, mul(node, node))))
        case Fn.TANH:
            return _times(g, sub(1.0, mul(node, node)))
        case Fn.SIGMOID:
            return _times(g, mul(sub(1.0, node), node))
        case Fn.RELU:
            return where(le(x, 0.0), 0.0, g)  # NaN passes, as in torch.relu
        case Fn.ELU:
            # exp(x), not elu(x) + 1: the latter has no digits left where x is very negative
            return where(le(x, 0.0), _times(g, apply(Fn.EXP, x)), g)
        case Fn.SOFTPLUS:
            return where(gt(x, 20.0), g, _times(g, apply(Fn.SIGMOID, x)))  # PyTorch's threshold
        case Fn.ERF:
            return _times(g, mul(2 / math.sqrt(math.pi), apply(Fn.EXP, neg(mul(x, x)))))
        case Fn.SIN:
            return _times(g, apply(Fn.COS, x))
        case Fn.COS:
            return neg(_times(g, apply(Fn.SIN, x)))
        case Fn.SIGN | Fn.FLOOR | Fn.INT | Fn.FLOAT | Fn.NOT:
            return None
        case _:
            raise AssertionError(f"{node.fn} is not a function of one operand")


def _binary(node: Apply, g: Expr, a: Expr, b: Expr, wanted: tuple[bool, ...]) -> tuple[Expr | None, Expr | None]:
    to_a, to_b = wanted
    match node.fn:
        case Fn.ADD:
            return g, g
        case Fn.SUB:
            return g, neg(g) if to_b else None
        case Fn.MUL:
            return _times(g, b) if to_a else None, _times(g, a) if to_b else None
        case Fn.DIV:
            return div(g, b) if to_a else None, neg(_times(g, div(node, b))) if to_b else None
        case Fn.MOD:
            return g, neg(_times(g, apply(Fn.FLOOR, div(a, b)))) if to_b else None
        case Fn.POW:
            return _power_base(g, a, b) if to_a else None, _power_exponent(node, g, a, b) if to_b else None
        case Fn.MIN | Fn.MAX:
            beaten = lt if node.fn is Fn.MAX else gt
            half = _times(g, const(0.5))
            return (
                where(eq(a, b), half, where(beaten(a, b), 0.0, g)) if to_a else None,
                where(eq(a, b), half, where(beaten(b, a), 0.0, g)) if to_b else None,
            )
        case Fn.FLOORDIV | Fn.EQ | Fn.NE | Fn.LT | Fn.LE | Fn.GT | Fn.GE | Fn.AND | Fn.OR:
            return None, None
        case _:
            raise AssertionError(f"{node.fn} is not a function of two operands")


def _power_base(g: Expr, a: Expr, b: Expr) -> Expr:
    """``b a**(b - 1)``, and 0 where b is 0, even at a = 0."""
    if isinstance(b, Const):
        value = float(b.value)
        return _ZERO if value == 0 else _times(g, _times(b, power(a, value - 1)))
    return where(eq(b, 0.0), 0.0, _times(g, mul(b, power(a, sub(b, 1.0)))))


def _power_exponent(node: Apply, g: Expr, a: Expr, b: Expr) -> Expr:
    """``a**b log(a)``, and 0 where a is 0 and b is not negative."""
    return where(all_of((eq(a, 0.0), ge(b, 0.0))), 0.0, _times(g, mul(node, apply(Fn.LOG, a))))


def _ternary(
    node: Apply, g: Expr, x: Expr, y: Expr, z: Expr, wanted: tuple[bool, ...]
) -> tuple[Expr | None, Expr | None, Expr | None]:
    match node.fn:
        case Fn.WHERE:
            return None, where(x, g, 0.0) if wanted[1] else None, where(x, 0.0, g) if wanted[2] else None
        case Fn.CLAMP:
            low, high = y, z
            return (
                where(all_of((ge(x, low), le(x, high))), g, 0.0) if wanted[0] else None,
                where(all_of((lt(x, low), lt(low, high))), g, 0.0) if wanted[1] else None,
                where(apply(Fn.OR, gt(x, high), gt(low, high)), g, 0.0) if wanted[2] else None,
            )
        case _:
            raise AssertionError(f"{node.fn} is not a function of three operands")

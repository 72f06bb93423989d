"""A normalization's divisor, rewritten over scaled sums: no finite score overflows it."""

from __future__ import annotations

from attnc.codegen import build
from attnc.dsl.ir import Apply, Const, Expr, Fn, Kind, postorder, substitute

L = build.symbol("l", Kind.FLOAT)
M = build.symbol("m", Kind.FLOAT)
T = build.symbol("t", Kind.FLOAT)


def scale_divisor(divisor: Expr) -> tuple[Expr, tuple[Expr, ...]]:
    """divisor(t) * exp(-m) over l = t * exp(-m), and the exponents that m must not fall below for it to stay in
    range: 0 for a constant term, e for a term exp(e). Sums, min, max, abs, where and constant factors distribute;
    any other function of t is applied to t itself."""
    scaled: dict[Expr, Expr] = {}
    floors: dict[Expr, None] = {}
    free = {node: T not in postorder(node) for node in postorder(divisor)}

    def leaf(node: Expr) -> Expr:
        """A term without t."""
        match node:
            case Const(value=value) if value == 0:
                return node
            case Apply(fn=Fn.EXP, args=(inner,)):
                floors[inner] = None
                return build.apply(Fn.EXP, build.sub(inner, M))
        floors[build.const(0.0)] = None
        return build.mul(node, build.apply(Fn.EXP, build.neg(M)))

    stack = [(divisor, False)]
    while stack:
        node, ready = stack.pop()
        if node in scaled:
            continue
        if node == T:
            scaled[node] = L
            continue
        match node:
            case Apply(fn=Fn.ADD | Fn.SUB | Fn.MIN | Fn.MAX | Fn.NEG | Fn.ABS, args=args):
                parts: tuple[Expr, ...] = args
            case Apply(fn=Fn.WHERE, args=(_, x, y)):
                parts = (x, y)
            case Apply(fn=Fn.MUL, args=(x, y)) if free[x] != free[y]:
                parts = (y if free[x] else x,)
            case Apply(fn=Fn.DIV, args=(x, y)) if free[y] and not free[x]:
                parts = (x,)
            case _:
                parts = ()
        if free[node] and not isinstance(node, Apply):
            parts = ()
        if not parts or (free[node] and isinstance(node, Apply) and node.fn is Fn.EXP):
            total = build.mul(L, build.apply(Fn.EXP, M))
            outer = build.apply(Fn.EXP, build.neg(M))
            scaled[node] = leaf(node) if free[node] else build.mul(substitute((node,), {T: total})[0], outer)
            continue
        if not ready:
            stack.append((node, True))
            stack += [(part, False) for part in parts]
            continue
        assert isinstance(node, Apply)
        match node:
            case Apply(fn=Fn.WHERE, args=(condition, x, y)):
                actual = substitute((condition,), {T: build.mul(L, build.apply(Fn.EXP, M))})[0]
                scaled[node] = build.where(actual, scaled[x], scaled[y])
            case Apply(fn=Fn.MUL, args=(x, y)):
                scaled[node] = build.mul(x, scaled[y]) if free[x] else build.mul(scaled[x], y)
            case Apply(fn=Fn.DIV, args=(x, y)):
                scaled[node] = build.div(scaled[x], y)
            case _:
                scaled[node] = build.apply(node.fn, *(scaled[part] for part in parts))
    return scaled[divisor], tuple(floors)

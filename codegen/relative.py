"""Masks and distances told from the start of a tile, so that a pair costs one 32-bit comparison or subtraction.

Along the axis that a kernel loops over, a position is ``offs + start + offset``: its place in the tile, the tile's
first row and the offset of the tensor. A comparison that is affine in the position becomes one of ``offs`` with what
is computed once a row of the tile. Bounds of a conjunction are merged first, with the end of the tensor among them.
What a score adds in proportion to the position becomes a vector along the tile, one addition a pair, and a number of
the row.
"""

from __future__ import annotations

from dataclasses import dataclass

from attnc.codegen import build
from attnc.codegen.exponent import factors_of, product_of, rewritten, terms_of, uniform
from attnc.codegen.integers import Affine, affine, collect, comparison, to_expr
from attnc.codegen.refute import impossible
from attnc.codegen.simplify import simplify
from attnc.dsl.ir import Apply, Axis, Expr, Fn, Index, Kind, Side, dependencies, transform

OFFS = build.symbol("offs", Kind.INT)
START = build.symbol("start", Kind.INT)


@dataclass(frozen=True, kw_only=True)
class Live:
    """A mask in a tile, over OFFS and START: the rows ``first`` to ``last`` of the tensor, inclusive, that its
    conjunction leaves (``first`` None for 0), computed once a row of the tile, and the whole, made of them."""

    first: Expr | None
    last: Expr
    mask: Expr


def live(mask: Expr, axis: Axis, length: Expr) -> Live:
    """The mask, and that the row along ``axis`` exists."""
    least: list[Expr] = []
    most: list[Expr] = [build.sub(length, 1)]
    others: list[Expr] = []
    for clause in _clauses(mask):
        match _solved(clause, axis):
            case Fn.LE, 1, rest:
                most.append(to_expr(rest.scaled(-1)))
            case Fn.LE, -1, rest:
                least.append(to_expr(rest))
            case _ if clause != build.TRUE:
                others.append(transform((clause,), lambda node: _compared(node, axis))[0])
    last = _merged(Fn.MIN, most)
    first = _merged(Fn.MAX, least) if least else None
    parts = [build.le(OFFS, build.sub(last, START))]
    if first is not None:
        parts.append(build.ge(OFFS, build.sub(first, START)))
    return Live(first=first, last=last, mask=build.all_of((*parts, *others)))


def distances(value: Expr, axis: Axis) -> Expr:
    """``float(i - j)`` and ``float(abs(i - j))`` as differences of floats, exact to 2**24 and rounded beyond, with
    one of the two converted once a row."""

    def step(node: Expr) -> Expr:
        match node:
            case Apply(fn=Fn.FLOAT, args=(Apply(kind=Kind.INT, fn=Fn.ABS, args=(inner,)),)):
                found = _difference(inner, axis)
                return node if found is None else build.absolute(found)
            case Apply(fn=Fn.FLOAT, args=(inner,)):
                return _difference(inner, axis) or node
        return node

    return rewritten(value, step)


@dataclass(frozen=True, kw_only=True)
class Sloped:
    """A score as ``rest + along - across``: ``along``, over OFFS, is the same in every row of a tile, ``across``, over
    START and the other side's row, all along a row. The first is as large as distances within a tile make it, so that
    pairs near the diagonal lose digits; the second meets the row's maximum, which has its size."""

    rest: Expr
    along: Expr
    across: Expr


def sloped(score: Expr, mask: Expr, axis: Axis, scale: Expr) -> Sloped | None:
    """``along`` and ``across`` multiplied by ``scale``; None where the score has no term that is a uniform factor times
    a position or a difference of positions, or nothing else that varies over the tile. ``abs`` opens where the mask
    has its argument's sign for every live pair, which are all that a score is used for."""
    kept: list[tuple[int, Expr]] = []
    along: list[Expr] = []
    across: list[Expr] = []
    for sign, term in terms_of(score):
        factors = factors_of(term)
        slopes = [factor for factor in factors if not uniform(factor)]
        found = _slope(slopes[0], mask, axis) if len(slopes) == 1 else None
        if found is None:
            kept.append((sign, term))
            continue
        times, rest = found
        if times < 0:
            sign, times, rest = -sign, -times, rest.scaled(-1)
        factor = product_of([*(item for item in factors if uniform(item)), build.const(float(sign)), scale])
        along.append(build.mul(build.to_float(_times(OFFS, times)), factor))
        # A difference is taken as masks take it, from the row, so that kernels hold one of the two.
        back = build.sub(to_expr(rest.scaled(-1)), _times(START, times))
        across.append(build.mul(build.to_float(back), factor))
    if not along or all(uniform(term) for _, term in kept):
        return None
    first, *more = (term if sign > 0 else build.neg(term) for sign, term in kept)
    return Sloped(rest=_sum([first, *more]), along=_sum(along), across=_sum(across))


def _slope(node: Expr, mask: Expr, axis: Axis) -> tuple[int, Affine] | None:
    """A float of an integer that is linear in the row along ``axis``: its coefficient and the rest."""
    match node:
        case Apply(fn=Fn.FLOAT, args=(Apply(kind=Kind.INT, fn=Fn.ABS, args=(inner,)),)):
            if impossible(mask, build.lt(inner, 0)):
                return _split(affine(inner), axis)
            if impossible(mask, build.gt(inner, 0)):
                return _split(affine(inner).scaled(-1), axis)
        case Apply(fn=Fn.FLOAT, args=(inner,)) if inner.kind is Kind.INT:
            return _split(affine(inner), axis)
    return None


def _times(node: Expr, factor: int) -> Expr:
    return node if factor == 1 else build.mul(node, factor)


def _sum(terms: list[Expr]) -> Expr:
    total, *others = terms
    for term in others:
        total = build.add(total, term)
    return total


def _clauses(mask: Expr) -> list[Expr]:
    """The terms of a conjunction; ``abs(x) <= y`` is two of them."""
    found: list[Expr] = []
    stack = [mask]
    while stack:
        clause = stack.pop()
        match clause:
            case Apply(fn=Fn.AND, args=(x, y)):
                stack += (y, x)
            case Apply(fn=Fn.LE, args=(Apply(kind=Kind.INT, fn=Fn.ABS, args=(x,)), y)):
                stack += (build.ge(x, build.neg(y)), build.le(x, y))
            case _:
                found.append(clause)
    return found


def _split(form: Affine, axis: Axis) -> tuple[int, Affine] | None:
    """The coefficient of the row along ``axis``, and the rest of the form; None unless the rest is free of it."""
    position = build.index(axis)
    factor = dict(form.terms).get(position, 0)
    kept = tuple((atom, times) for atom, times in form.terms if atom != position)
    if not factor or any(axis in dependencies(atom) for atom, _ in kept):
        return None
    offset = affine(build.offset(Side.KEY if axis == "j" else Side.QUERY))
    return factor, collect(((Affine(terms=kept, const=form.const), 1), (offset, factor)))


def _solved(node: Expr, axis: Axis) -> tuple[Fn, int, Affine] | None:
    """A comparison as factor * row + rest fn 0."""
    found = comparison(node)
    parts = None if found is None else _split(found[1], axis)
    return None if found is None or parts is None else (found[0], *parts)


def _compared(node: Expr, axis: Axis) -> Expr:
    found = _solved(node, axis)
    if found is None:
        return node
    fn, factor, rest = found
    if factor < 0:
        fn, factor, rest = (Fn.GE if fn is Fn.LE else fn), -factor, rest.scaled(-1)
    bound = build.sub(to_expr(rest.scaled(-1)), build.mul(START, factor) if factor != 1 else START)
    return build.apply(fn, build.mul(OFFS, factor) if factor != 1 else OFFS, bound)


def _merged(fn: Fn, bounds: list[Expr]) -> Expr:
    first, *others = bounds
    for other in others:
        first = build.apply(fn, first, other)
    return simplify((first,))[0]


def _difference(value: Expr, axis: Axis) -> Expr | None:
    parts = _split(affine(value), axis)
    if parts is None or abs(parts[0]) != 1 or not isinstance(value, Apply | Index):
        return None
    factor, rest = parts
    once = build.to_float(build.add(to_expr(rest), START) if factor == 1 else build.sub(to_expr(rest), START))
    return build.add(once, build.to_float(OFFS)) if factor == 1 else build.sub(once, build.to_float(OFFS))

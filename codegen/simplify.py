"""Algebraic simplification of pairwise expressions.

Integers: sums, quotients and comparisons get one normal form each (integers.py). Booleans: flattened, repeated and
implied terms dropped. Floats: only what IEEE arithmetic permits, NaN, inf and the sign of zero included (a small
integer power alone is multiplied out, which rounds as well as ``pow`` does). No rule changes a derivative under
derive's conventions at kinks, so simplification may come before or after derivation. Simplified expressions are
fixed points.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from attnc.codegen.build import FALSE, TRUE, apply, const
from attnc.codegen.folding import fold
from attnc.codegen.integers import (
    Affine,
    affine,
    collect,
    compare,
    comparison,
    floor_quotient,
    floor_remainder,
    product,
    to_expr,
)
from attnc.dsl.ir import Apply, Const, Expr, Fn, Kind, Table, children, placed, postorder, rebuild

_NEGATED = {Fn.EQ: Fn.NE, Fn.NE: Fn.EQ}
_SMALL_POWERS = (2, 3, 4)
_EXACT_EXPONENT = 126  # a reciprocal 2**e with |e| <= 126 is a normal number in float32 as in float64


def simplify(exprs: Sequence[Expr]) -> tuple[Expr, ...]:
    """Equivalent, smaller expressions, in the same order; shared parts stay shared."""
    order = postorder(*exprs)
    inner = _inner(order, exprs)
    made: dict[Expr, Expr] = {}
    for node in order:
        if node in inner:
            continue
        match node:
            case Apply() if (family := _family(node)) is not None:
                leaves = ((made[leaf], sign) for leaf, sign in _leaves(node, inner))
                if family is Fn.ADD:
                    result = to_expr(collect((affine(leaf), sign) for leaf, sign in leaves))
                else:
                    result = _junction(family, (leaf for leaf, _ in leaves))
            case Apply():
                result = _apply(node, tuple(made[arg] for arg in node.args))
            case Table(values=values, index=index):
                result = _table(node, values, made[index])
            case _:
                result = rebuild(node, lambda child: made.get(child, child))
        if result.dims != node.dims:  # a rule for scalars met a vector: keep its shape
            result = rebuild(node, lambda child: made.get(child, child))
        if result.span is None and node.span is not None:
            result = placed(result, node.span)
        made[node] = result
    return tuple(made[root] for root in exprs)


# --- sums, conjunctions, disjunctions: rebuilt once, at their top ------------------------------


def _family(node: Expr) -> Fn | None:
    """The n-ary operation that a node is part of: ADD (sums of INTs), AND, OR."""
    match node:
        case Apply(fn=Fn.AND | Fn.OR as fn):
            return fn
        case Apply(kind=Kind.INT, fn=Fn.ADD | Fn.SUB | Fn.NEG):
            return Fn.ADD
        case _:
            return None


def _inner(order: Iterable[Expr], roots: Iterable[Expr]) -> set[Expr]:
    """Nodes with a single use, by a node of their own family; a chain of n terms is then rebuilt once, not n times."""
    uses: dict[Expr, int] = {}
    user: dict[Expr, Expr] = {}
    for root in roots:
        uses[root] = 2
    for node in order:
        for part in children(node):
            uses[part] = uses.get(part, 0) + 1
            user[part] = node
    return {
        node
        for node, count in uses.items()
        if count == 1 and node in user and _family(node) is not None and _family(node) is _family(user[node])
    }


def _leaves(node: Apply, inner: set[Expr]) -> list[tuple[Expr, int]]:
    """The operands of a whole n-ary operation, left to right, with the sign they have in a sum."""
    found: list[tuple[Expr, int]] = []
    stack: list[tuple[Expr, int]] = [(node, 1)]
    while stack:
        item, sign = stack.pop()
        if isinstance(item, Apply) and (item is node or item in inner):
            signs = {Fn.SUB: (sign, -sign), Fn.NEG: (-sign,)}.get(item.fn, (sign, sign))
            stack += reversed(list(zip(item.args, signs, strict=True)))
        else:
            found.append((item, sign))
    return found


def _junction(fn: Fn, terms: Iterable[Expr]) -> Expr:
    """``and`` or ``or`` of terms: constants, repetitions, complements and implied comparisons are gone."""
    neutral, absorbing = (TRUE, FALSE) if fn is Fn.AND else (FALSE, TRUE)
    kept: dict[Expr, None] = {}
    stack = list(terms)[::-1]
    while stack:
        term = stack.pop()
        match term:
            case Apply(fn=inner, args=(x, y)) if inner is fn:
                stack += (y, x)
            case _ if term == absorbing or _negation(term) in kept:
                return absorbing
            case _ if term != neutral:
                kept[term] = None
    tight = _tighten(fn, list(kept))
    if absorbing in tight:
        return absorbing
    result: Expr | None = None
    for term in tight:
        result = term if result is None else apply(fn, result, term)
    return neutral if result is None else result


def _tighten(fn: Fn, terms: list[Expr]) -> list[Expr]:
    """Bounds of one and the same sum become its tightest bounds (loosest under ``or``)."""
    groups: dict[tuple[tuple[Expr, int], ...], list[int]] = {}
    ranges: dict[int, tuple[Affine, int | None, int | None]] = {}
    for place, term in enumerate(terms):
        found = _range_of(term)
        if found is not None:
            ranges[place] = found
            groups.setdefault(found[0].terms, []).append(place)
    replaced: dict[int, list[Expr]] = {}
    for places in groups.values():
        if len(places) == 1:
            continue
        members = [ranges[place] for place in places]
        lows = [low for _, low, _ in members if low is not None]
        highs = [high for _, _, high in members if high is not None]
        if fn is Fn.AND:
            low, high = max(lows, default=None), min(highs, default=None)
            if low is not None and high is not None and low > high:
                return [FALSE]
        elif any(low is not None and high is not None for _, low, high in members):
            continue
        else:
            low, high = min(lows, default=None), max(highs, default=None)
            if low is not None and high is not None and low <= high + 1:
                return [TRUE]
        same = next((terms[place] for place in places if ranges[place][1:] == (low, high)), None)
        bounds = [same] if same is not None else _between(members[0][0], low, high)
        if len(bounds) < len(places) or any(low is not None and high is not None for _, low, high in members):
            replaced |= {place: [] for place in places}
            replaced[places[0]] = bounds
    return [part for place, term in enumerate(terms) for part in replaced.get(place, [term])]


def _range_of(term: Expr) -> tuple[Affine, int | None, int | None] | None:
    """A comparison as low <= sum <= high, the sum's first term positive and without constant."""
    found = comparison(term)
    if found is None:
        return None
    fn, form = found
    match fn, form.terms:
        case Fn.LE, ((Apply(fn=Fn.ABS, args=(x,)), 1),) if form.const <= 0:
            inner = affine(x)
            bare = Affine(terms=inner.terms, const=0)
            if math.gcd(*(coefficient for _, coefficient in bare.terms)) != 1:
                return None
            return bare, form.const - inner.const, -form.const - inner.const
        case Fn.LE, ((_, first), *_):
            bare = Affine(terms=form.terms, const=0)
            return (bare, None, -form.const) if first > 0 else (bare.scaled(-1), form.const, None)
        case Fn.EQ, ((_, first), *_):
            bare = Affine(terms=form.terms, const=0)
            return (bare, -form.const, -form.const) if first > 0 else (bare.scaled(-1), form.const, form.const)
        case _:
            return None


def _between(form: Affine, low: int | None, high: int | None) -> list[Expr]:
    if low is not None and low == high:
        return [compare(Fn.EQ, form.shifted(-low))]
    bounds = [] if low is None else [compare(Fn.GE, form.shifted(-low))]
    return bounds if high is None else [*bounds, compare(Fn.LE, form.shifted(-high))]


def _negation(term: Expr) -> Expr:
    """``not term``. The order of floats is not negated: both ``a < b`` and ``a >= b`` fail for NaN."""
    found = comparison(term)
    if found is not None:
        fn, form = found
        return compare(Fn.GT if fn is Fn.LE else _NEGATED[fn], form)
    match term:
        case Const(value=value):
            return const(not value)
        case Apply(fn=Fn.NOT, args=(x,)):
            return x
        case Apply(fn=Fn.EQ | Fn.NE as fn, args=(x, y)):
            return apply(_NEGATED[fn], x, y)
        case _:
            return apply(Fn.NOT, term)


# --- one node ------------------------------------------------------------------------------------


def _table(node: Table, values: tuple[bool | int | float, ...], index: Expr) -> Expr:
    if len({repr(value) for value in values}) == 1:  # 0.0 and -0.0 differ
        return const(values[0])
    if isinstance(index, Const):
        return const(values[min(max(int(index.value), 0), len(values) - 1)])
    return replace(node, index=index)


def _apply(node: Apply, args: tuple[Expr, ...]) -> Expr:
    """The simplest form of ``fn(args)``, the arguments being simple already."""
    fn = node.fn
    values = tuple(arg.value for arg in args if isinstance(arg, Const))
    if len(values) == len(args):
        folded = fold(fn, values)
        if folded is not None:
            return const(folded)
    plain = apply(fn, *args)
    match fn:
        case Fn.NOT:
            return _negation(args[0])
        case Fn.EQ | Fn.NE | Fn.LT | Fn.LE | Fn.GT | Fn.GE:
            return _comparison(fn, plain, args)
        case Fn.WHERE:
            return _where(plain, *args)
    return _integer(fn, plain, args) if plain.kind is Kind.INT else _float(fn, plain, args)


def _comparison(fn: Fn, plain: Expr, args: tuple[Expr, ...]) -> Expr:
    x, y = args
    match x.kind:
        case Kind.INT:
            return compare(fn, affine(x).minus(affine(y)))
        case Kind.BOOL if x == y:
            return const(fn is Fn.EQ)
        case Kind.BOOL if isinstance(x, Const) or isinstance(y, Const):
            truth, other = (x, y) if isinstance(x, Const) else (y, x)
            assert isinstance(truth, Const)
            return other if bool(truth.value) is (fn is Fn.EQ) else _negation(other)
        case _:
            return plain


def _where(plain: Expr, condition: Expr, x: Expr, y: Expr) -> Expr:
    if isinstance(condition, Const):
        return x if condition.value else y
    if x == y:
        return x
    match condition, x, y:
        case _, Const(value=bool(truth)), _:
            return _junction(Fn.OR, (condition, y)) if truth else _junction(Fn.AND, (_negation(condition), y))
        case _, _, Const(value=bool(truth)):
            return _junction(Fn.OR, (_negation(condition), x)) if truth else _junction(Fn.AND, (condition, x))
        case Apply(fn=Fn.NOT, args=(inner,)), _, _:
            return apply(Fn.WHERE, inner, y, x)
        case _:
            return plain


def _integer(fn: Fn, plain: Expr, args: tuple[Expr, ...]) -> Expr:
    match fn, args:
        case Fn.MUL, (x, y):
            return product(x, y)
        case Fn.FLOORDIV, (x, Const(value=value)) if value:
            return floor_quotient(affine(x), int(value))
        case Fn.MOD, (x, Const(value=value)) if value:
            return floor_remainder(affine(x), int(value))
        case Fn.POW, (_, Const(value=0)):
            return const(1)
        case Fn.POW, (x, Const(value=1)):
            return x
        case Fn.POW, (x, Const(value=value)) if value in _SMALL_POWERS:
            square = product(x, x)
            return square if value == 2 else product(square, x if value == 3 else square)
        case Fn.ABS, (x,):
            return _absolute(x)
        case ((Fn.MIN | Fn.MAX), (x, y)):
            return _extreme(fn, x, y)
        case Fn.CLAMP, (x, low, high):
            return _extreme(Fn.MIN, _extreme(Fn.MAX, x, low), high)
        case Fn.RELU, (x,):
            return _extreme(Fn.MAX, x, const(0))
        case Fn.INT, (Apply(fn=Fn.FLOAT, args=(x,)),) if x.kind is Kind.INT:
            return x
        case _:
            return plain


def _absolute(x: Expr) -> Expr:
    form = affine(x)
    if form.terms[0][1] < 0:
        form = form.scaled(-1)
    match to_expr(form):
        case Apply(fn=Fn.ABS) as inner:
            return inner
        case inner:
            return apply(Fn.ABS, inner)


def _extreme(fn: Fn, x: Expr, y: Expr) -> Expr:
    """``min`` or ``max`` of two simple INTs; where they differ by a constant the answer is one of them."""
    difference = affine(x).minus(affine(y))
    if not difference.terms:
        return x if (difference.const <= 0) is (fn is Fn.MIN) else y
    for outer, other in ((x, y), (y, x)):
        if isinstance(outer, Apply) and outer.fn is fn and other in outer.args:
            return outer
    match x, y:
        case Apply(fn=inner, args=(z, Const(value=old))), Const(value=new) if inner is fn:
            return apply(fn, z, min(old, new) if fn is Fn.MIN else max(old, new))
        case Const(), _:
            return _extreme(fn, y, x)
        case _:
            first, second = (x, y) if difference.terms[0][1] > 0 or isinstance(y, Const) else (y, x)
            return apply(fn, first, second)


def _float(fn: Fn, plain: Expr, args: tuple[Expr, ...]) -> Expr:
    match fn, args:
        case Fn.NEG, (Apply(fn=Fn.NEG, args=(x,)),):
            return x
        case Fn.ADD, (x, Apply(fn=Fn.NEG, args=(y,))):
            return _float(Fn.SUB, apply(Fn.SUB, x, y), (x, y))
        case Fn.ADD, (x, Const() as zero) | (Const() as zero, x) if _is_zero(zero, negative=True):
            return x
        case Fn.ADD, (x, Const() as zero) | (Const() as zero, x) if _is_zero(zero) and not _may_be_negative_zero(x):
            return x
        case Fn.SUB, (x, Const() as zero) if _is_zero(zero):
            return x
        case Fn.SUB, (x, Apply(fn=Fn.NEG, args=(y,))):
            return _float(Fn.ADD, apply(Fn.ADD, x, y), (x, y))
        case Fn.MUL, (x, Const(value=1.0)) | (Const(value=1.0), x):
            return x
        case Fn.MUL, (x, Const(value=-1.0)) | (Const(value=-1.0), x):
            return _float(Fn.NEG, apply(Fn.NEG, x), (x,))
        case Fn.MUL, (Apply(fn=Fn.NEG, args=(x,)), Apply(fn=Fn.NEG, args=(y,))):
            return _float(Fn.MUL, apply(Fn.MUL, x, y), (x, y))
        case Fn.MUL, (Apply(fn=Fn.NEG, args=(x,)), Const(value=value)):
            return apply(Fn.MUL, x, -value)
        case Fn.DIV, (x, Const(value=value)) if _exact_reciprocal(float(value)):
            inverse = const(1 / float(value))
            return _float(Fn.MUL, apply(Fn.MUL, x, inverse), (x, inverse))
        case Fn.POW, (_, Const(value=0.0)):
            return const(1.0)
        case Fn.POW, (x, Const(value=1.0)):
            return x
        case Fn.POW, (x, Const(value=-1.0)):
            return apply(Fn.DIV, 1.0, x)
        case Fn.POW, (x, Const(value=value)) if value in _SMALL_POWERS:
            square = apply(Fn.MUL, x, x)
            return square if value == 2 else apply(Fn.MUL, square, x if value == 3 else square)
        case Fn.ABS, (Apply(fn=Fn.ABS) as x,):
            return x
        case Fn.ABS, (Apply(fn=Fn.NEG, args=(x,)),):
            return _float(Fn.ABS, apply(Fn.ABS, x), (x,))
        case ((Fn.MIN | Fn.MAX), (x, y)) if x == y:
            return x
        case Fn.FLOOR, (Apply(fn=Fn.FLOOR) as x,):
            return x
        case Fn.FLOOR, (Apply(fn=Fn.FLOAT) as x,):
            return x
        case _:
            return plain


def _is_zero(node: Const, *, negative: bool = False) -> bool:
    return node.value == 0 and (math.copysign(1, node.value) < 0) is negative


def _may_be_negative_zero(node: Expr) -> bool:
    match node:
        case Const(value=value):
            return value == 0 and math.copysign(1, value) < 0
        case Apply(fn=Fn.FLOAT | Fn.ABS | Fn.EXP | Fn.EXP2 | Fn.SIGMOID | Fn.COS | Fn.SOFTPLUS):
            return False
        case _:
            return True


def _exact_reciprocal(value: float) -> bool:
    mantissa, exponent = math.frexp(value)
    return abs(mantissa) == 0.5 and abs(exponent - 1) <= _EXACT_EXPONENT

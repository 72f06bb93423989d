"""Normal forms of integer expressions: affine sums, and comparisons of them.

Integer arithmetic of specs is exact, so sums may be reordered and like terms collected. Every INT expression is
a sum of coefficient * atom plus a constant, where an atom is whatever is not itself a sum: an index, a size,
``i // 64``, ``abs(i - j)``, a load. One mathematical sum has one ``Affine`` and one expression.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from math import gcd

from attnc.codegen.build import FALSE, TRUE, add, apply, const, mul, neg, sub
from attnc.dsl.ir import Apply, Const, Expr, Fn, Index, Kind, Load, Offset, Size, Symbol, Table

_LEADING_STEPS = 8  # how far the order of terms looks into an atom for its first index


@dataclass(frozen=True, kw_only=True)
class Affine:
    """sum(coefficient * atom) + const; atoms distinct, in the order of ``_order``, coefficients not 0."""

    terms: tuple[tuple[Expr, int], ...]
    const: int

    def scaled(self, factor: int) -> Affine:
        return collect([(self, factor)])

    def plus(self, other: Affine) -> Affine:
        return collect([(self, 1), (other, 1)])

    def minus(self, other: Affine) -> Affine:
        return collect([(self, 1), (other, -1)])

    def shifted(self, by: int) -> Affine:
        return Affine(terms=self.terms, const=self.const + by)


def number(value: int) -> Affine:
    return Affine(terms=(), const=value)


def collect(parts: Iterable[tuple[Affine, int]]) -> Affine:
    """The sum of factor * part."""
    weights: dict[Expr, int] = {}
    total = 0
    for part, factor in parts:
        total += factor * part.const
        for atom, coefficient in part.terms:
            weights[atom] = weights.get(atom, 0) + factor * coefficient
    return _sorted(weights, total)


def _sorted(weights: Mapping[Expr, int], total: int) -> Affine:
    terms = [(atom, coefficient) for atom, coefficient in weights.items() if coefficient]
    if len(terms) > 1:
        terms.sort(key=lambda term: _order(term[0]))
    return Affine(terms=tuple(terms), const=total)


def _order(atom: Expr) -> tuple[int, int, str, bytes]:
    """i, j, h, b first, then what holds them, then names; the digest decides between equals."""
    leading: Expr = atom
    for _ in range(_LEADING_STEPS):
        match leading:
            case Apply():
                leading = leading.args[0]
            case Load(index=[_, *_]):
                leading = leading.index[-1]
            case Table():
                leading = leading.index
            case _:
                break
    kinds = (Index, Symbol, Apply, Load, Table, Size, Offset)
    rank = next((position for position, kind in enumerate(kinds) if isinstance(atom, kind)), len(kinds))
    match leading:
        case Index(axis=axis):
            return rank, "ijhb".index(axis), "", atom.digest
        case Symbol(name=name) | Size(name=name) | Load(tensor=name):
            return rank, 4, name, atom.digest
        case Offset(side=side):
            return rank, 4, side.value, atom.digest
        case _:
            return rank, 5, "", atom.digest


def _linear(node: Expr) -> bool:
    match node:
        case Apply(kind=Kind.INT, fn=Fn.ADD | Fn.SUB | Fn.NEG):
            return True
        case Apply(kind=Kind.INT, fn=Fn.MUL, args=(x, y)):
            return isinstance(x, Const) or isinstance(y, Const)
        case _:
            return False


def affine(node: Expr) -> Affine:
    """The affine form of an INT expression. Walks its sums only, each shared node once."""
    order: dict[Expr, None] = {}
    stack = [(node, False)]
    while stack:
        item, ready = stack.pop()
        if item in order:
            continue
        if ready or not _linear(item):
            order[item] = None
        else:
            assert isinstance(item, Apply)
            stack += [(item, True), *((arg, False) for arg in item.args)]
    factors = {node: 1}
    weights: dict[Expr, int] = {}
    total = 0
    for item in reversed(order):
        factor = factors.get(item, 0)  # 0: the constant of a product, already in its factor
        parts: tuple[tuple[Expr, int], ...]
        match item:
            case Const(value=value):
                total += factor * int(value)
                continue
            case Apply(fn=Fn.ADD, args=(x, y)) if _linear(item):
                parts = ((x, factor), (y, factor))
            case Apply(fn=Fn.SUB, args=(x, y)) if _linear(item):
                parts = ((x, factor), (y, -factor))
            case Apply(fn=Fn.NEG, args=(x,)) if _linear(item):
                parts = ((x, -factor),)
            case Apply(fn=Fn.MUL, args=(x, Const(value=value)) | (Const(value=value), x)) if _linear(item):
                parts = ((x, factor * int(value)),)
            case _:
                weights[item] = factor
                continue
        for part, share in parts:
            factors[part] = factors.get(part, 0) + share
    return _sorted(weights, total)


def to_expr(form: Affine) -> Expr:
    """The expression of an affine form: the first positive term leads, a common factor is multiplied once.
    ``4*i - 4*j + 1`` becomes ``4 * (i - j) + 1``."""
    if not form.terms:
        return const(form.const)
    factor = gcd(*(coefficient for _, coefficient in form.terms))
    if len(form.terms) == 1 or factor == 1:
        return _chain(form.terms, form.const)
    inner = _chain(tuple((atom, coefficient // factor) for atom, coefficient in form.terms), 0)
    return _plus(mul(factor, inner), form.const)


def _chain(terms: tuple[tuple[Expr, int], ...], shift: int) -> Expr:
    def magnitude(atom: Expr, coefficient: int) -> Expr:
        return atom if abs(coefficient) == 1 else mul(abs(coefficient), atom)

    first = next((place for place, (_, coefficient) in enumerate(terms) if coefficient > 0), None)
    if first is not None:
        total, rest, end = magnitude(*terms[first]), terms[:first] + terms[first + 1 :], shift
    elif shift:
        total, rest, end = const(shift), terms, 0
    else:
        total, rest, end = neg(magnitude(*terms[0])), terms[1:], 0
    for atom, coefficient in rest:
        total = (add if coefficient > 0 else sub)(total, magnitude(atom, coefficient))
    return _plus(total, end)


def _plus(total: Expr, shift: int) -> Expr:
    if not shift:
        return total
    return add(total, shift) if shift > 0 else sub(total, -shift)


def compare(fn: Fn, form: Affine) -> Expr:
    """``form fn 0`` as one canonical comparison. Sums face each other where no constant is left (``j <= i``),
    otherwise the terms stand left and the constant right (``i - j <= 256``, ``j < 4``)."""
    match fn:
        case Fn.LT:
            return compare(Fn.LE, form.shifted(1))
        case Fn.GT:
            return compare(Fn.LE, form.scaled(-1).shifted(1))
        case Fn.GE:
            return compare(Fn.LE, form.scaled(-1))
        case _:
            assert fn in (Fn.LE, Fn.EQ, Fn.NE), fn
    if not form.terms:
        return const({Fn.LE: form.const <= 0, Fn.EQ: form.const == 0, Fn.NE: form.const != 0}[fn])
    factor = gcd(*(coefficient for _, coefficient in form.terms))
    if fn is not Fn.LE and form.const % factor:
        return TRUE if fn is Fn.NE else FALSE
    bound = -form.const // factor
    left = Affine(terms=tuple((atom, coefficient // factor) for atom, coefficient in form.terms), const=0)
    if fn is not Fn.LE and left.terms[0][1] < 0:
        left, bound = left.scaled(-1), -bound
    gains = Affine(terms=tuple(term for term in left.terms if term[1] > 0), const=0)
    losses = Affine(terms=tuple((atom, -coefficient) for atom, coefficient in left.terms if coefficient < 0), const=0)
    if gains.terms and losses.terms and (bound == 0 or (fn is Fn.LE and bound == -1)):
        return apply(fn if bound == 0 else Fn.LT, to_expr(gains), to_expr(losses))
    if fn is not Fn.LE:
        return apply(fn, to_expr(left), bound)
    if left.terms[0][1] < 0:
        return apply(Fn.GE, to_expr(left.scaled(-1)), -bound)
    if len(left.terms) == 1 and not isinstance(left.terms[0][0], Apply):
        return apply(Fn.LT, to_expr(left), bound + 1)
    return apply(Fn.LE, to_expr(left), bound)


def comparison(node: Expr) -> tuple[Fn, Affine] | None:
    """A comparison of INTs as ``form fn 0`` with fn among LE, EQ, NE; None for other nodes."""
    match node:
        case Apply(fn=Fn.LE | Fn.LT | Fn.GE | Fn.GT | Fn.EQ | Fn.NE as fn, args=(x, y)) if x.kind is Kind.INT:
            form = affine(x).minus(affine(y))
            match fn:
                case Fn.LT:
                    return Fn.LE, form.shifted(1)
                case Fn.GE:
                    return Fn.LE, form.scaled(-1)
                case Fn.GT:
                    return Fn.LE, form.scaled(-1).shifted(1)
                case _:
                    return fn, form
        case _:
            return None


def floor_quotient(form: Affine, divisor: int) -> Expr:
    """``form // divisor``: what the divisor divides leaves the floor, ``(64 * i + j + 70) // 64`` is
    ``i + (j + 6) // 64 + 1``; quotients of quotients merge."""
    total = number(0)
    while True:
        whole, rest = _split(form, divisor)
        total = total.plus(whole)
        if not rest.terms:
            return to_expr(total.shifted(rest.const // divisor))
        factor = gcd(divisor, *(coefficient for _, coefficient in rest.terms))
        if divisor > 0 or rest.const % factor == 0:
            # floor((f * x + c) / (f * d)) = floor((x + floor(c / f)) / d), for d > 0 or f dividing c
            terms = tuple((atom, coefficient // factor) for atom, coefficient in rest.terms)
            rest, divisor = Affine(terms=terms, const=rest.const // factor), divisor // factor
        match to_expr(rest):
            case Apply(fn=Fn.FLOORDIV, args=(x, Const(value=inner))) if divisor > 0 and inner:
                form, divisor = affine(x), int(inner) * divisor
            case dividend:
                quotient = apply(Fn.FLOORDIV, dividend, divisor)
                return to_expr(total.plus(Affine(terms=((quotient, 1),), const=0)))


def floor_remainder(form: Affine, divisor: int) -> Expr:
    """``form % divisor``: what the divisor divides is left out."""
    _, rest = _split(form, divisor)
    if not rest.terms:
        return const(rest.const % divisor)
    inner = to_expr(rest)
    match inner:
        case Apply(fn=Fn.MOD, args=(_, Const(value=value))) if value == divisor:
            return inner
        case _:
            return apply(Fn.MOD, inner, divisor)


def _split(form: Affine, divisor: int) -> tuple[Affine, Affine]:
    """(whole, rest) with form = divisor * whole + rest, the rest's constant in range(divisor)."""
    whole = tuple((atom, coefficient // divisor) for atom, coefficient in form.terms if coefficient % divisor == 0)
    rest = tuple(term for term in form.terms if term[1] % divisor)
    return Affine(terms=whole, const=form.const // divisor), Affine(terms=rest, const=form.const % divisor)


def product(x: Expr, y: Expr) -> Expr:
    """``x * y`` of INTs: constants distribute over sums, constant factors come out, operands are ordered."""
    left, right = affine(x), affine(y)
    if not left.terms:
        return to_expr(right.scaled(left.const))
    if not right.terms:
        return to_expr(left.scaled(right.const))
    factor = 1
    atoms: list[Expr] = []
    for node, form in ((x, left), (y, right)):
        if len(form.terms) == 1 and not form.const:
            (atom, coefficient), *_ = form.terms
            factor *= coefficient
            atoms.append(atom)
        else:
            atoms.append(node)
    atoms.sort(key=_order)
    return to_expr(affine(reduce(mul, atoms)).scaled(factor))

"""A mask as a union of cases, each a conjunction of literals: the form that projections are read from.

A literal is a comparison of an integer sum with 0, a residue class of one, or a truth that is not looked into (a
tensor, a random block, a comparison of floats). Choices (``min``, ``max``, ``abs``, ``where``) are split into cases.
What would need too many cases becomes one truth that is not looked into.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import gcd

from attnc.codegen.build import neg
from attnc.codegen.integers import Affine, affine, collect, comparison
from attnc.dsl.ir import Apply, Const, Expr, Fn, Kind, dependencies, postorder

Terms = tuple[tuple[Expr, int], ...]

CASES = 64  # at most, of one condition
_CHOICES = 4  # how many min, max, abs and where of one comparison are split into cases
_ANALYSED = 1000  # conditions of a mask


@dataclass(frozen=True, kw_only=True)
class Residue:
    """``(sum of terms - start) mod modulus <= width``: an arc of the residues, neither empty nor all of them."""

    terms: Terms
    modulus: int
    start: int
    width: int


@dataclass(frozen=True, kw_only=True)
class Case:
    """A conjunction. ``bounds``: sum of terms + const <= 0, one for each sum. ``truths``: BOOL nodes that hold, or do
    not. No literal: always true."""

    bounds: Mapping[Terms, int] = field(default_factory=dict)
    residues: tuple[Residue, ...] = ()
    truths: Mapping[Expr, bool] = field(default_factory=dict)


Cases = tuple[Case, ...]
ALWAYS: Cases = (Case(),)
NEVER: Cases = ()


@lru_cache(maxsize=64)
def cases(mask: Expr) -> tuple[Cases, Cases]:
    """Where a simplified mask holds, and where it does not."""
    conditions = [node for node in postorder(mask) if node.kind is Kind.BOOL]
    if len(conditions) > _ANALYSED:
        return _truth(mask, True), _truth(mask, False)
    known: dict[Expr, tuple[Cases, Cases]] = {}
    for node in conditions:
        known[node] = _condition(node, known)
    return known[mask]


def _truth(node: Expr, value: bool) -> Cases:
    return (Case(truths={node: value}),)


def _condition(node: Expr, known: Mapping[Expr, tuple[Cases, Cases]]) -> tuple[Cases, Cases]:
    """The cases in which a condition holds and in which it does not, those of its operands being known."""
    found = comparison(node)
    if found is not None:
        fn, form = found
        parts = _equal(form, known) if fn is not Fn.LE else (_at_most(form, known), _at_most(_above(form), known))
        holds, fails = parts[::-1] if fn is Fn.NE else parts
    else:
        match node:
            case Const(value=value):
                return (ALWAYS, NEVER) if value else (NEVER, ALWAYS)
            case Apply(fn=Fn.NOT, args=(x,)):
                return known[x][::-1]
            case Apply(fn=Fn.AND, args=(x, y)):
                holds, fails = _both(known[x][0], known[y][0]), _either(known[x][1], known[y][1])
            case Apply(fn=Fn.OR, args=(x, y)):
                holds, fails = _either(known[x][0], known[y][0]), _both(known[x][1], known[y][1])
            case Apply(fn=Fn.WHERE, args=(condition, x, y)):
                holds, fails = (_chosen(known[condition], known[x][side], known[y][side]) for side in (0, 1))
            case Apply(fn=Fn.EQ | Fn.NE as fn, args=(x, y)) if x.kind is Kind.BOOL:
                parts = _chosen(known[x], *known[y]), _chosen(known[x], *known[y][::-1])
                holds, fails = parts if fn is Fn.EQ else parts[::-1]
            case _:
                holds = fails = None
    return (
        _truth(node, True) if holds is None else holds,
        _truth(node, False) if fails is None else fails,
    )


# --- conjunctions and unions; None: too many cases, or too many choices in a comparison ----------


def _both(x: Cases | None, y: Cases | None) -> Cases | None:
    if x is None or y is None or len(x) * len(y) > CASES:
        return None
    return reduced(met for a in x for b in y if (met := meet(a, b)) is not None)


def _either(x: Cases | None, y: Cases | None) -> Cases | None:
    if x is None or y is None or len(x) + len(y) > CASES:
        return None
    return reduced((*x, *y))


def _chosen(condition: tuple[Cases, Cases], x: Cases | None, y: Cases | None) -> Cases | None:
    return _either(_both(condition[0], x), _both(condition[1], y))


def meet(x: Case, y: Case) -> Case | None:
    """Both cases at once; None if they exclude each other."""
    bounds = dict(x.bounds)
    for terms, const in y.bounds.items():
        const = max(const, bounds.get(terms, const))
        opposite = bounds.get(tuple((atom, -factor) for atom, factor in terms))
        if opposite is not None and const + opposite > 0:  # sum <= -const and sum >= opposite
            return None
        bounds[terms] = const
    truths = dict(x.truths)
    for node, value in y.truths.items():
        if truths.setdefault(node, value) is not value:
            return None
    residues = x.residues
    for residue in y.residues:
        added = _met(residues, residue)
        if added is None:
            return None
        residues = added
    return Case(bounds=bounds, residues=residues, truths=truths)


def _met(residues: tuple[Residue, ...], new: Residue) -> tuple[Residue, ...] | None:
    """One more residue class; two arcs of one modulus become one where they meet in one."""
    for place, old in enumerate(residues):
        if (old.terms, old.modulus) != (new.terms, new.modulus):
            continue
        shift = (new.start - old.start) % new.modulus
        wrapped = shift + new.width - new.modulus
        parts = [(shift, min(old.width, shift + new.width))] if shift <= old.width else []
        parts += [(0, min(old.width, wrapped))] if wrapped >= 0 else []
        if not parts:
            return None
        if len(parts) == 1:
            ((low, high),) = parts
            start = (old.start + low) % old.modulus
            arc = Residue(terms=old.terms, modulus=old.modulus, start=start, width=high - low)
            return (*residues[:place], arc, *residues[place + 1 :])
    return residues if new in residues else (*residues, new)


def reduced(found: Iterable[Case]) -> Cases:
    """Without cases that another one covers."""
    kept: list[Case] = []
    for case in found:
        if not any(_covers(other, case) for other in kept):
            kept = [other for other in kept if not _covers(case, other)]
            kept.append(case)
    return tuple(kept)


def _covers(x: Case, y: Case) -> bool:
    """Whether every literal of x is one of y's, or weaker."""
    return (
        all(terms in y.bounds and y.bounds[terms] >= const for terms, const in x.bounds.items())
        and all(residue in y.residues for residue in x.residues)
        and all(y.truths.get(node) is value for node, value in x.truths.items())
    )


# --- comparisons ---------------------------------------------------------------------------------


def _above(form: Affine) -> Affine:
    """``form > 0`` as another form <= 0."""
    return form.scaled(-1).shifted(1)


def _at_most(form: Affine, known: Mapping[Expr, tuple[Cases, Cases]], choices: int = _CHOICES) -> Cases | None:
    """The cases of ``form <= 0``. None where it holds too many choices."""
    for atom, factor in form.terms:
        if dependencies(atom).isdisjoint("ij"):
            continue
        rest = form.minus(Affine(terms=((atom, factor),), const=0))

        def case(choice: Expr, rest: Affine = rest, factor: int = factor) -> Cases | None:
            return _at_most(collect(((rest, 1), (affine(choice), factor))), known, choices - 1)

        match atom:
            case Apply(fn=Fn.MIN | Fn.MAX | Fn.ABS | Fn.WHERE) if choices == 0:
                return None
            case Apply(fn=Fn.MIN | Fn.MAX as fn, args=(x, y)):
                return (_both if (fn is Fn.MAX) is (factor > 0) else _either)(case(x), case(y))
            case Apply(fn=Fn.ABS, args=(x,)):
                return (_both if factor > 0 else _either)(case(x), case(neg(x)))
            case Apply(fn=Fn.WHERE, args=(condition, x, y)):
                return _chosen(known[condition], case(x), case(y))
            case Apply(fn=Fn.MOD, args=(x, Const(value=value))) if value > 0 and not rest.terms:
                # x mod n <= limit, or >= -limit
                limit = -form.const // abs(factor)
                low, high = (0, limit) if factor > 0 else (max(-limit, 0), int(value) - 1)
                return _arc(x, int(value), low, high - low)
    if not form.terms:
        return ALWAYS if form.const <= 0 else NEVER
    shared = gcd(*(factor for _, factor in form.terms))
    terms = tuple((atom, factor // shared) for atom, factor in form.terms)
    return (Case(bounds={terms: -(-form.const // shared)}),)


def _equal(form: Affine, known: Mapping[Expr, tuple[Cases, Cases]]) -> tuple[Cases | None, Cases | None]:
    """The cases of ``form == 0`` and of ``form != 0``."""
    match form.terms:
        case ((Apply(fn=Fn.MOD, args=(x, Const(value=value))), factor),) if value > 0:
            if form.const % factor:
                return NEVER, ALWAYS
            value, residue = int(value), -form.const // factor
            if not 0 <= residue < value:
                return NEVER, ALWAYS
            return _arc(x, value, residue, 0), _arc(x, value, residue + 1, value - 2)
    below, above = form.shifted(1), _above(form)
    return (
        _both(_at_most(form, known), _at_most(form.scaled(-1), known)),
        _either(_at_most(below, known), _at_most(above, known)),
    )


def _arc(x: Expr, modulus: int, start: int, width: int) -> Cases:
    """Where ``(x - start) mod modulus <= width``."""
    if width < 0:
        return NEVER
    if width >= modulus - 1:
        return ALWAYS
    form = affine(x)
    start -= form.const
    terms = tuple((atom, factor % modulus) for atom, factor in form.terms if factor % modulus)
    terms = tuple((atom, factor - modulus if 2 * factor > modulus else factor) for atom, factor in terms)
    if not terms:
        return ALWAYS if -start % modulus <= width else NEVER
    if terms[0][1] < 0:  # -u in [low, high] is u in [-high, -low]
        terms, start = tuple((atom, -factor) for atom, factor in terms), -start - width
    return (Case(residues=(Residue(terms=terms, modulus=modulus, start=start % modulus, width=width),)),)

"""Proofs that conditions cannot hold together, whatever the integers, tensors and sizes in them are.

Three steps, each complete for its part or giving up. Conditions are split as in an analytic tableau (Smullyan, 1968),
``min``, ``max``, ``abs`` and ``where`` into cases with them. What then remains of a case is a system of linear
inequalities over integers: ``x // n`` and ``x % n`` are unknowns with their defining inequalities, and what is not
linear is an unknown without any. A system is refuted by Fourier-Motzkin elimination, every inequality tightened to the
integers on the way (Pugh's Omega test, 1991, without its search for a solution). So True is a proof and False says
nothing. Nothing is evaluated, no length is assumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import gcd

from attnc.codegen.build import apply, neg, size
from attnc.codegen.integers import Affine, affine, collect, comparison, floor_quotient, number
from attnc.dsl.ir import Apply, Const, Expr, Fn, Index, Kind, Size, Table, postorder

_NODES = 1000  # of conditions larger than this nothing is proved
_EFFORT = 20_000  # cases and inequalities that the proofs of one construct may make

Literal = tuple[Expr, bool]
Goal = Literal | Affine
"""A condition with the truth value it shall have, or a sum that shall be at most 0."""


@dataclass(kw_only=True)
class Effort:
    """What proofs may still spend; nothing is proved from 0 on."""

    left: int = _EFFORT


def impossible(*conditions: Expr, effort: Effort | None = None) -> bool:
    """Whether no values make all conditions true. True is proved; False means nothing. More is proved of simplified
    conditions: then what is opaque is one term wherever it stands."""
    if len(postorder(*conditions)) > _NODES:
        return False
    effort = effort or Effort()
    stack = [_Case(goals=[(condition, True) for condition in conditions])]
    while stack:
        effort.left -= 1
        cases = stack.pop().split(effort)
        if cases is None or effort.left < 0:
            return False
        stack += cases
    return True


@dataclass(kw_only=True)
class _Case:
    """What is assumed: ``goals`` and ``choices`` (one of several lists of goals each) still to be taken apart,
    ``truths`` of what is opaque, ``sums`` that are at most 0."""

    goals: list[Goal]
    choices: list[tuple[list[Goal], ...]] = field(default_factory=list)
    truths: dict[Expr, bool] = field(default_factory=dict)
    sums: list[Affine] = field(default_factory=list)
    atoms: set[Expr] = field(default_factory=set)

    def split(self, effort: Effort) -> list[_Case] | None:
        """No case where the assumptions contradict each other; None where they do not and no choice is left."""
        while self.goals:
            goal = self.goals.pop()
            if isinstance(goal, Affine):
                self._bounded(goal)
            elif not self._assumed(*goal):
                return []
        if contradictory(self.sums, effort):
            return []
        if not self.choices:
            return None
        *rest, choice = self.choices
        return [
            _Case(goals=[*goals], choices=rest[:], truths={**self.truths}, sums=self.sums[:], atoms={*self.atoms})
            for goals in choice
        ]

    def _assumed(self, node: Expr, truth: bool) -> bool:
        """Whether ``node`` may be ``truth``, with what that means noted."""
        found = comparison(node)
        if found is not None:
            self._compared(*found, truth)
            return True
        match node:
            case Const(value=value):
                return bool(value) is truth
            case Apply(fn=Fn.NOT, args=(x,)):
                self.goals.append((x, not truth))
            case Apply(fn=Fn.AND | Fn.OR as fn, args=(x, y)) if (fn is Fn.AND) is truth:
                self.goals += [(x, truth), (y, truth)]
            case Apply(fn=Fn.AND | Fn.OR, args=(x, y)):
                self.choices.append(([(x, truth)], [(y, truth)]))
            case Apply(fn=Fn.WHERE, args=(condition, x, y)):
                self.choices.append(([(condition, True), (x, truth)], [(condition, False), (y, truth)]))
            case Apply(fn=Fn.EQ | Fn.NE as fn, args=(x, y)) if x.kind is Kind.BOOL:
                same = (fn is Fn.EQ) is truth
                self.choices.append(([(x, True), (y, same)], [(x, False), (y, not same)]))
            case Apply(fn=Fn.NE, args=(x, y)):
                return self._assumed(apply(Fn.EQ, x, y), not truth)
            case _:
                return self.truths.setdefault(node, truth) is truth
        return True

    def _compared(self, fn: Fn, form: Affine, truth: bool) -> None:
        above, below = form.scaled(-1).shifted(1), form.shifted(1)  # form >= 1, form <= -1
        match fn:
            case Fn.LE:
                self.goals.append(form if truth else above)
            case _ if (fn is Fn.EQ) is truth:
                self.goals += [form, form.scaled(-1)]
            case _:
                self.choices.append(([above], [below]))

    def _bounded(self, form: Affine) -> None:
        """Assume ``form <= 0``."""
        for atom, factor in form.terms:
            options = _options(atom)
            if options is not None:
                rest = form.minus(Affine(terms=((atom, factor),), const=0))
                cases = [[*given, collect(((rest, 1), (affine(value), factor)))] for given, value in options.values]
                if options.all_if is None or options.all_if is not (factor > 0):
                    self.choices.append(tuple(cases))
                else:
                    self.goals += [goal for case in cases for goal in case]
                return
        self.sums.append(form)
        for atom, _ in form.terms:
            if atom not in self.atoms:
                self.atoms.add(atom)
                self.goals += _known(atom)


@dataclass(frozen=True, kw_only=True)
class _Options:
    """An INT that is one of several. ``all_if``: all of them are bounded where the INT is bounded from above (True)
    or from below (False), so that no choice is needed; None: which one it is depends on what is given with it."""

    values: tuple[tuple[list[Goal], Expr], ...]
    all_if: bool | None


def _options(atom: Expr) -> _Options | None:
    match atom:
        case Apply(fn=Fn.MIN | Fn.MAX as fn, args=(x, y)):
            return _Options(values=(([], x), ([], y)), all_if=fn is Fn.MAX)
        case Apply(fn=Fn.ABS, args=(x,)):
            return _Options(values=(([], x), ([], neg(x))), all_if=True)
        case Apply(fn=Fn.WHERE, args=(condition, x, y)):
            return _Options(values=(([(condition, True)], x), ([(condition, False)], y)), all_if=None)
        case _:
            return None


def _known(atom: Expr) -> list[Goal]:
    """What holds for an INT by what it is."""
    this = Affine(terms=((atom, 1),), const=0)
    match atom:
        case Size():
            return [number(1).minus(this)]
        case Index(axis="b" | "h" as axis):
            return [this.scaled(-1), this.minus(affine(size(axis.upper()))).shifted(1)]
        case Table(values=values):
            return [number(int(min(values))).minus(this), this.shifted(-int(max(values)))]
        case Apply(fn=Fn.FLOORDIV, args=(x, Const(value=value))) if value:
            return _remainder(affine(x).minus(this.scaled(int(value))), int(value))
        case Apply(fn=Fn.MOD, args=(x, Const(value=value))) if value:
            quotient = affine(floor_quotient(affine(x), int(value)))
            defined = collect(((affine(x), 1), (quotient, -int(value)), (this, -1)))
            return [defined, defined.scaled(-1), *_remainder(this, int(value))]
        case _:
            return []


def _remainder(form: Affine, divisor: int) -> list[Goal]:
    """``0 <= form < divisor``, or ``divisor < form <= 0``."""
    if divisor > 0:
        return [form.scaled(-1), form.shifted(1 - divisor)]
    return [form, form.scaled(-1).shifted(1 + divisor)]


# --- linear systems --------------------------------------------------------------------------------

_Row = tuple[tuple[int, int], ...]
"""Unknowns by number, each with its factor."""


def contradictory(sums: Sequence[Affine], effort: Effort) -> bool:
    """Whether no integers make every sum at most 0, by Fourier-Motzkin elimination with tightening. True is proved."""
    names: dict[Expr, int] = {}
    rows: dict[_Row, int] = {}
    effort.left -= len(sums)
    for form in sums:
        weights = {names.setdefault(atom, len(names)): factor for atom, factor in form.terms}
        if _add(rows, weights, form.const):
            return True
    while rows:
        unknown = _cheapest(rows)
        lower = [(dict(row), const) for row, const in rows.items() if dict(row).get(unknown, 0) < 0]
        upper = [(dict(row), const) for row, const in rows.items() if dict(row).get(unknown, 0) > 0]
        rows = {row: const for row, const in rows.items() if unknown not in dict(row)}
        effort.left -= len(lower) * len(upper)
        if effort.left < 0:
            return False
        for (low, low_const), (high, high_const) in product(lower, upper):
            times, by = high[unknown], -low[unknown]
            joined = {key: times * low.get(key, 0) + by * high.get(key, 0) for key in {*low, *high}}
            if _add(rows, joined, times * low_const + by * high_const):
                return True
    return False


def _cheapest(rows: Iterable[_Row]) -> int:
    """The unknown to eliminate: first those that lose nothing (one side's factors are all 1), then by new rows."""
    factors: dict[int, list[int]] = {}
    for row in rows:
        for unknown, factor in row:
            factors.setdefault(unknown, []).append(factor)

    def cost(unknown: int) -> tuple[bool, int, int]:
        below = [-factor for factor in factors[unknown] if factor < 0]
        above = [factor for factor in factors[unknown] if factor > 0]
        loses = max(below, default=1) > 1 and max(above, default=1) > 1
        return loses, len(below) * len(above) - len(below) - len(above), unknown

    return min(factors, key=cost)


def _add(rows: dict[_Row, int], weights: dict[int, int], const: int) -> bool:
    """Note ``weights + const <= 0``, tightened to the integers; True if it is false by itself."""
    factor = gcd(*weights.values())
    if factor == 0:
        return const > 0
    row = tuple(sorted((key, value // factor) for key, value in weights.items() if value))
    tight = -(-const // factor)  # weights / factor <= floor(-const / factor)
    rows[row] = max(rows.get(row, tight), tight)
    return False

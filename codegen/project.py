"""Cases of a mask, projected: which inner positions are live for some outer position of a tile.

Within one case every comparison is a bound on the outer position: ``outer <= U(inner)`` or ``outer >= L(inner)``.
An integer lies between all of them exactly if each lower bound lies below each upper bound (Fourier and Motzkin's
elimination; with a unit coefficient it is exact over the integers), so a tile first..last asks ``first <= U``,
``L <= last`` and ``L <= U`` of the inner position alone. Where the outer position must also be in a residue class of
``outer - inner``, bounds at a fixed distance tighten to the class, and first..last becomes an arc of residues.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce

from attnc.codegen.build import ZERO, add, floordiv, index, le, maximum, minimum, mod, not_, sub, where
from attnc.codegen.cases import Case, Residue, Terms
from attnc.codegen.integers import Affine, affine, comparison, number, to_expr
from attnc.codegen.ranges import Facts, enclose, provably_le
from attnc.codegen.simplify import simplify
from attnc.dsl.ir import (
    Apply,
    Axis,
    Const,
    Drawn,
    Expr,
    Fn,
    Kind,
    Listed,
    Load,
    dependencies,
    postorder,
    substitute,
)

_ROUNDED = frozenset((
    Fn.POW, Fn.EXP, Fn.EXP2, Fn.EXPM1, Fn.LOG, Fn.LOG1P, Fn.SQRT, Fn.RSQRT, Fn.TANH, Fn.SIGMOID, Fn.ELU, Fn.SOFTPLUS,
    Fn.ERF, Fn.SIN, Fn.COS,
))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Arc:
    """Inner positions p with ``(p - start) mod modulus <= width``; all of them where width >= modulus - 1."""

    modulus: int
    start: Expr
    width: Expr


@dataclass(frozen=True, kw_only=True)
class Step:
    """``outer + inner <= 0``, an expression of either index alone, neither solved. ``own``: it holds of every pair of
    equal positions."""

    outer: Expr
    inner: Expr
    own: bool


@dataclass(frozen=True, kw_only=True)
class Limit:
    """``tile + inner <= 0``, an expression of first and last and one of the inner position, not solved."""

    tile: Expr
    inner: Expr


@dataclass(frozen=True, kw_only=True)
class Piece:
    """The inner positions that some outer position of first..last sees, as far as algebra tells: all of

    ``when``     conditions of the tile, else no position
    ``lows``     INT expressions over first, last, b, h, sizes, offsets, reads at (b, h): the position is at least
    ``highs``    these, and at most those
    ``arcs``     residue classes that the position is in
    ``rows``     conditions of an outer position alone: first..last are rows that all satisfy them
    ``columns``  conditions of the inner position alone
    ``tables``   truths that are constant over blocks of either position, and the value they have
    ``steps``    comparisons of a function of one position with a function of the other
    ``limits``   comparisons of a function of the tile with a function of the inner position
    ``opaque``   conditions that are left out: the set is too large

    Without ``opaque`` the set is exact: for any consecutive rows, or, if ``single``, for one row at a time. ``lower``,
    ``upper``: whether the inner position bounds the outer one from below, from above. ``own``: those bounds hold of
    every pair of equal positions."""

    when: tuple[Expr, ...]
    lows: tuple[Expr, ...]
    highs: tuple[Expr, ...]
    arcs: tuple[Arc, ...]
    rows: tuple[Expr, ...]
    columns: tuple[Expr, ...]
    tables: tuple[tuple[Expr, bool], ...]
    steps: tuple[Step, ...]
    limits: tuple[Limit, ...]
    opaque: tuple[Expr, ...]
    lower: bool
    upper: bool
    single: bool
    own: bool


def project(case: Case, outer: Axis, inner: Axis, first: Expr, last: Expr) -> Piece | None:
    """The inner positions of a case that are live for some outer position from first to last. None: no position."""
    elimination = _Elimination(outer, inner, first, last)
    for terms, const in case.bounds.items():
        elimination.bound(Affine(terms=terms, const=const))
    for residue in case.residues:
        elimination.residue(residue)
    for node, value in case.truths.items():
        elimination.truth(node, value)
    return elimination.piece()


class _Elimination:
    """The outer position's bounds as they are collected, and what is known of the inner position."""

    def __init__(self, outer: Axis, inner: Axis, first: Expr, last: Expr) -> None:
        self.outer, self.inner = outer, inner
        self.first, self.last = first, last
        self.facts = Facts(order=((first, last),))
        self.starts: dict[Expr, None] = {first: None}  # outer is at least these, the same for all inner positions
        self.stops: dict[Expr, None] = {last: None}
        self.below: dict[Expr, None] = {}  # and these, of the inner position
        self.above: dict[Expr, None] = {}
        self.when: dict[Expr, None] = {}
        self.lows: dict[Expr, None] = {}
        self.highs: dict[Expr, None] = {}
        self.rows: dict[Expr, None] = {}
        self.columns: dict[Expr, None] = {}
        self.opaque: dict[Expr, None] = {}
        self.tables: dict[tuple[Expr, bool], None] = {}
        self.steps: dict[Step, None] = {}
        self.limits: dict[Limit, None] = {}
        self.residues: list[tuple[Affine, Residue]] = []
        self.possible = True
        self.single = False

    # --- literals ------------------------------------------------------------------------------

    def bound(self, form: Affine) -> None:
        """``form <= 0``."""
        found = _varies(*(atom for atom, _ in form.terms))
        if self.outer not in found:
            self.inner_bound(form)
            return
        isolated = isolate(form, self.outer)
        if isolated is not None:
            upper, limit = isolated
            if self.inner in found:
                (self.above if upper else self.below)[limit] = None
            else:
                (self.stops if upper else self.starts)[limit] = None
        elif self.inner not in found:
            self.rows[le(to_expr(form), 0)] = None
        else:
            self.step(form)
            self.enclosed(form)

    def step(self, form: Affine) -> None:
        """``form <= 0`` of both positions, not to be solved for the outer one."""
        if any(len(_varies(atom)) == 2 for atom, _ in form.terms):
            self.opaque[le(to_expr(form), 0)] = None
            return
        outer, inner = _split(form, self.inner)
        (here,) = simplify(substitute((to_expr(form),), {index(self.outer): index(self.inner)}))
        self.steps[Step(outer=outer, inner=inner, own=provably_le(here, ZERO, self.facts))] = None

    def residue(self, item: Residue) -> None:
        found = _varies(*(atom for atom, _ in item.terms))
        condition = le(mod(to_expr(Affine(terms=item.terms, const=-item.start)), item.modulus), item.width)
        turned = _turned(item, self.outer, self.inner) if len(found) == 2 else None
        if turned is not None:
            self.residues.append(turned)
        else:
            self.alone(condition, found)

    def truth(self, node: Expr, value: bool) -> None:
        condition = node if value else not_(node)
        if any(isinstance(part, Apply) and rounded(part) for part in postorder(node)):
            self.opaque[condition] = None
        elif len(_varies(node)) == 2 and _by_blocks(node):
            self.tables[node, value] = None
        else:
            self.alone(condition, _varies(node))

    def alone(self, condition: Expr, found: frozenset[str]) -> None:
        """A condition of one position, of the tile, or of both without a form."""
        if not found:
            self.condition(condition)
        elif len(found) == 2:
            self.opaque[condition] = None
        else:
            (self.rows if self.outer in found else self.columns)[condition] = None

    # --- what is known of the inner position ------------------------------------------------------

    def condition(self, condition: Expr) -> None:
        """A condition that the whole tile shares."""
        (condition,) = simplify((condition,))
        if isinstance(condition, Const):
            self.possible = self.possible and bool(condition.value)
        else:
            self.when[condition] = None

    def hold(self, x: Expr, y: Expr) -> None:
        """``x <= y``."""
        if provably_le(x, y, self.facts):
            return
        self.inner_bound(affine(x).minus(affine(y)))

    def inner_bound(self, form: Affine) -> None:
        """``form <= 0`` of the inner position."""
        condition = le(to_expr(form), 0)
        if self.inner not in _varies(condition):
            self.condition(condition)
            return
        isolated = isolate(form, self.inner)
        if isolated is not None:
            upper, limit = isolated
            (self.highs if upper else self.lows)[limit] = None
        elif self._contains(form):
            pass
        elif {self.first, self.last}.isdisjoint(postorder(condition)):
            self.columns[condition] = None
            self.enclosed(form)
        else:
            mixed = [atom for atom, _ in form.terms if self.inner in _varies(atom)]
            if {self.first, self.last}.isdisjoint(postorder(*mixed)):
                tile, inner = _split(form, self.inner)
                self.limits[Limit(tile=tile, inner=inner)] = None
            else:
                self.opaque[condition] = None

    def _contains(self, form: Affine) -> bool:
        """Whether ``form <= 0`` holds of every inner position: its two sides hold the position between them."""
        gains = Affine(terms=tuple(term for term in form.terms if term[1] > 0), const=form.const)
        losses = Affine(terms=tuple((atom, -factor) for atom, factor in form.terms if factor < 0), const=0)
        low, high, here = to_expr(gains), to_expr(losses), index(self.inner)
        return provably_le(low, here, self.facts) and provably_le(here, high, self.facts)

    def enclosed(self, form: Affine) -> None:
        """What follows for the inner position from ``form <= 0`` with all but one of its terms at their least."""
        everywhere: Mapping[Expr, tuple[None, None]] = {index("i"): (None, None), index("j"): (None, None)}
        main: tuple[Expr, int] | None = None
        rest = number(form.const)
        for atom, factor in form.terms:
            if self.inner in _varies(atom):
                alone = Affine(terms=((atom, factor),), const=0)
                if main is None and self.outer not in _varies(atom) and isolate(alone, self.inner) is not None:
                    main = atom, factor
                    continue
                ends = enclose(atom, everywhere, self.facts)
            else:
                ends = enclose(atom, {index(self.outer): (self.first, self.last)}, self.facts)
            end = ends[0] if factor > 0 else ends[1]
            if end is None:
                return
            rest = rest.plus(affine(end).scaled(factor))
        self.inner_bound(rest if main is None else Affine(terms=(main,), const=0).plus(rest))

    # --- elimination -----------------------------------------------------------------------------

    def piece(self) -> Piece | None:
        here = index(self.inner)
        own = all(provably_le(low, here, self.facts) for low in self.below) and all(
            provably_le(here, high, self.facts) for high in self.above
        )
        below, above = list(self.below), list(self.above)
        arcs: list[Arc] = []
        for form, item in self.residues:
            below = [self._raised(bound, form, item) for bound in below]
            above = [self._lowered(bound, form, item) for bound in above]
            arcs.append(self._arc(form, item))
        for low in (*self.starts, *below):
            for high in (*self.stops, *above):
                self.hold(low, high)
        if not self.possible:
            return None
        lows, highs = self._largest(self.lows), self._least(self.highs)
        return Piece(
            when=tuple(condition for condition in self.when if not self._implied(condition, lows, highs)),
            lows=lows,
            highs=highs,
            arcs=tuple(arcs),
            rows=tuple(self.rows),
            columns=tuple(self.columns),
            tables=tuple(self.tables),
            steps=tuple(self.steps),
            limits=tuple(self.limits),
            opaque=tuple(self.opaque),
            lower=bool(below),
            upper=bool(above),
            single=self.single or len(arcs) > 1,
            own=own,
        )

    def _largest(self, ends: Iterable[Expr]) -> tuple[Expr, ...]:
        kept: list[Expr] = []
        for end in ends:
            if not any(provably_le(end, other, self.facts) for other in kept):
                kept = [other for other in kept if not provably_le(other, end, self.facts)]
                kept.append(end)
        return tuple(kept)

    def _least(self, ends: Iterable[Expr]) -> tuple[Expr, ...]:
        kept: list[Expr] = []
        for end in ends:
            if not any(provably_le(other, end, self.facts) for other in kept):
                kept = [other for other in kept if not provably_le(end, other, self.facts)]
                kept.append(end)
        return tuple(kept)

    def _implied(self, condition: Expr, lows: Iterable[Expr], highs: Iterable[Expr]) -> bool:
        """Whether a condition holds wherever some position lies between the ends."""
        found = comparison(condition)
        if found is None or found[0] is not Fn.LE:
            return False
        form = to_expr(found[1])
        return any(provably_le(add(form, high), low, self.facts) for low in lows for high in highs)

    def _distance(self, bound: Expr, form: Affine) -> Affine | None:
        """``bound + form``, if it is the same for all inner positions; else one row at a time is exact."""
        found = form.plus(affine(bound))
        if _varies(*(atom for atom, _ in found.terms)):
            self.single = True
            return None
        return found

    def _raised(self, bound: Expr, form: Affine, item: Residue) -> Expr:
        """The least position of the class from a lower bound on."""
        distance = self._distance(bound, form)
        if distance is None:
            return bound
        past = mod(to_expr(distance.shifted(-item.start)), item.modulus)
        return simplify((add(bound, where(le(past, item.width), 0, sub(item.modulus, past))),))[0]

    def _lowered(self, bound: Expr, form: Affine, item: Residue) -> Expr:
        """The greatest position of the class up to an upper bound."""
        distance = self._distance(bound, form)
        if distance is None:
            return bound
        past = mod(to_expr(distance.shifted(-item.start)), item.modulus)
        return simplify((sub(bound, maximum(sub(past, item.width), 0)),))[0]

    def _arc(self, form: Affine, item: Residue) -> Arc:
        """Inner positions p with (outer + form(p) - start) mod modulus <= width for some outer of the tile."""
        first, last = affine(reduce(maximum, self.starts)), affine(reduce(minimum, self.stops))
        rest = Affine(terms=tuple(term for term in form.terms if term[0] != index(self.inner)), const=0)
        if dict(form.terms)[index(self.inner)] > 0:  # p + last + rest - start
            start = number(item.start).minus(rest).minus(last)
        else:  # first - p + rest - start, turned around
            start = first.plus(rest).shifted(-item.start - item.width)
        begin, width = simplify((to_expr(start), to_expr(last.minus(first).shifted(item.width))))
        return Arc(modulus=item.modulus, start=begin, width=width)


def rounded(node: Apply) -> bool:
    """Whether libraries differ in a function's last digit, so that what depends on it is told by none."""
    return node.kind is Kind.FLOAT and node.fn in _ROUNDED


def _split(form: Affine, inner: Axis) -> tuple[Expr, Expr]:
    """A sum as two: what the inner position is not in, and what it is in, with the constant."""
    rest = tuple(term for term in form.terms if inner not in _varies(term[0]))
    own = tuple(term for term in form.terms if inner in _varies(term[0]))
    return to_expr(Affine(terms=rest, const=0)), to_expr(Affine(terms=own, const=form.const))


def _varies(*nodes: Expr) -> frozenset[str]:
    return dependencies(*nodes) & {"i", "j"}


def _by_blocks(node: Expr) -> bool:
    """Whether a truth of both positions is read from a table: each index of it depends on one position."""
    match node:
        case Load(index=positions):
            return all(len(_varies(position)) < 2 for position in positions)
        case Drawn(row=row, column=column) | Listed(row=row, column=column):
            fixed = () if isinstance(node, Listed) else (node.head, node.count, node.seed, node.blocks)
            return len(_varies(row)) == len(_varies(column)) == 1 and not _varies(*fixed)
        case _:
            return False


def _turned(item: Residue, outer: Axis, inner: Axis) -> tuple[Affine, Residue] | None:
    """A residue class as ``outer + form``, form being +-inner and what neither index is in; None if it has none."""
    factors = dict(item.terms)
    if factors.get(index(outer)) == -1:
        terms: Terms = tuple((atom, -factor) for atom, factor in item.terms)
        start = (-item.start - item.width) % item.modulus
        item = Residue(terms=terms, modulus=item.modulus, start=start, width=item.width)
        factors = dict(terms)
    if factors.pop(index(outer), 0) != 1 or factors.get(index(inner)) not in (1, -1):
        return None
    form = Affine(terms=tuple(factors.items()), const=0)
    return None if _varies(*(factors.keys() - {index(inner)})) else (form, item)


def isolate(form: Affine, axis: Axis) -> tuple[bool, Expr] | None:
    """``form <= 0`` as ``axis <= limit`` (True, limit) or ``axis >= limit`` (False, limit), exactly; None if the
    index stands in more than one place or under more than floors."""
    while True:
        mine = [term for term in form.terms if axis in dependencies(term[0])]
        if len(mine) != 1:
            return None
        ((atom, factor),) = mine
        rest = form.minus(Affine(terms=((atom, factor),), const=0))
        # atom <= floor(-rest / factor), or atom >= ceil(rest / -factor)
        over = rest.scaled(-1) if factor > 0 else rest.shifted(-factor - 1)
        limit = to_expr(over)
        if abs(factor) != 1:
            (limit,) = simplify((floordiv(limit, abs(factor)),))
        if atom == index(axis):
            return factor > 0, limit
        match atom:
            case Apply(fn=Fn.FLOORDIV, args=(x, Const(value=value))) if value > 0:
                # x // n <= limit is x <= n limit + n - 1; x // n >= limit is x >= n limit
                reach = affine(limit).scaled(int(value))
                form = affine(x).minus(reach) if factor > 0 else reach.minus(affine(x))
                form = form.shifted(1 - int(value)) if factor > 0 else form
            case _:
                return None

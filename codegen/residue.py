"""Residue classes: a mask that holds only where ``u i + v j + e`` is a multiple of s, with u and v units modulo s.

Then the keys of one class modulo s are live for the queries of one class alone, and for no others. A pass over such
pairs gathers the rows of both classes by a stride of s into dense tiles; ``dilated(w, s)`` becomes a window and
``strided(s)`` everything, at 1/s of the cost. What is left of the mask still speaks of positions, so that its bounds
and its text stay what they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from attnc.codegen.bounds import conjuncts
from attnc.codegen.build import all_of, index, mod, offset, sub
from attnc.codegen.integers import Affine, affine, collect, comparison, to_expr
from attnc.codegen.simplify import simplify
from attnc.dsl.ir import Apply, Const, Expr, Fn, Side, dependencies, substitute

_LARGEST = 2**20  # a class's tile spans this many rows times its own: row numbers stay within 32 bits

_I, _J = index("i"), index("j")


@dataclass(frozen=True, kw_only=True)
class Residue:
    """``condition`` says that the position of a key is congruent to ``key``, an expression over i, modulo ``step``;
    and so that the position of a query is congruent to ``query``, an expression over j."""

    step: int
    condition: Expr
    key: Expr
    query: Expr

    def rows(self, side: Side, at: Expr) -> Expr:
        """The class of the tensor rows of ``side``, in [0, step), that meet a position ``at`` of the other side."""
        root, other = (self.key, _I) if side is Side.KEY else (self.query, _J)
        (moved,) = substitute((sub(root, offset(side)),), {other: at})
        return simplify((mod(moved, self.step),))[0]


def separate(mask: Expr) -> tuple[Residue | None, Expr]:
    """The congruence of largest step that a mask implies, and the rest of the mask; (None, mask) if it has none."""
    terms = conjuncts(mask)
    found = max(filter(None, map(residue, terms)), key=lambda item: item.step, default=None)
    if found is None:
        return None, mask
    return found, simplify((all_of(term for term in terms if term != found.condition),))[0]


def residue(condition: Expr) -> Residue | None:
    """The residue class that a comparison states, if it states one."""
    match comparison(condition):
        case Fn.EQ, form:
            pass
        case _:
            return None
    step, inside = _modulus(form)
    if not 1 < step <= _LARGEST:
        return None
    factors = dict(inside.terms)
    u, v = factors.pop(_I, 0), factors.pop(_J, 0)
    rest = Affine(terms=tuple(factors.items()), const=inside.const)
    if gcd(u, step) != 1 or gcd(v, step) != 1 or any(dependencies(atom) & {"i", "j"} for atom in factors):
        return None
    return Residue(
        step=step,
        condition=condition,
        key=_solved(rest, _I, u, v, step),
        query=_solved(rest, _J, v, u, step),
    )


def _modulus(form: Affine) -> tuple[int, Affine]:
    """``form == 0`` as "(step) divides": ``x % s - c`` and ``x % s - y % s``; (0, form) for others."""
    parts: list[tuple[Affine, int]] = []
    steps: set[int] = set()
    for atom, factor in form.terms:
        match atom:
            case Apply(fn=Fn.MOD, args=(x, Const(value=int(value)))) if value > 0 and abs(factor) == 1:
                parts.append((affine(x), factor))
                steps.add(value)
            case _:
                return 0, form
    if len(steps) != 1:
        return 0, form
    (step,) = steps
    signs = [factor for _, factor in parts]
    # x % s == c holds nowhere for c outside [0, s)
    if (len(signs) == 1 and 0 <= -form.const * signs[0] < step) or (sum(signs) == 0 == form.const):
        return step, collect(parts).shifted(form.const)
    return 0, form


def _solved(rest: Affine, known: Expr, factor: int, unknown: int, step: int) -> Expr:
    """What the unknown is congruent to in ``factor known + unknown x + rest = 0 (mod step)``."""
    inverse = -pow(unknown, -1, step)
    terms = [(known, _small(factor * inverse, step))]
    terms += [(atom, _small(weight * inverse, step)) for atom, weight in rest.terms]
    return to_expr(
        collect([(affine(atom), weight) for atom, weight in terms]).shifted(_small(rest.const * inverse, step))
    )


def _small(value: int, step: int) -> int:
    """The number of least size in value's class."""
    value %= step
    return value - step if 2 * value > step else value

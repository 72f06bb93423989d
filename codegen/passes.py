"""Masks as passes: a union with residue classes is computed part by part, each pair in one part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from attnc.codegen.bounds import conjuncts
from attnc.codegen.build import FALSE, all_of, any_of, not_
from attnc.codegen.prepass import reach
from attnc.codegen.residue import Residue, separate
from attnc.codegen.simplify import simplify
from attnc.dsl.ir import Apply, Expr, Fn

LEAST_STEP = 4  # the least step that is worth a pass of its own beside another


@dataclass(frozen=True, kw_only=True)
class Pass:
    """Pairs that one pass computes: those that ``mask`` lets live, in classes if there is a residue."""

    residue: Residue | None
    mask: Expr


def passes(mask: Expr, keys: Expr, drawn: Mapping[str, int]) -> tuple[Pass, ...]:
    """A mask as the passes that share its live pairs among them, each pair in one; a single one in most cases.

    ``A and (B or (C and strided(s)))`` is ``A and B``, and in classes ``A and C and not B``: worth a second pass where
    the first reaches fewer keys than both and s is LEAST_STEP at least, so that a class costs little beside them.
    ``keys``: how many there are; ``drawn``: the blocks of drawn tables."""
    found, rest = separate(mask)
    terms = conjuncts(mask)
    if found is not None:
        return (Pass(residue=found, mask=rest),)
    for term in terms:
        dense: list[Expr] = []
        strided: dict[Residue, list[Expr]] = {}
        for choice in disjuncts(term):
            own, rest = separate(choice)
            if own is None or own.step < LEAST_STEP:
                dense.append(choice)
            else:
                strided.setdefault(own, []).append(rest)
        if not strided:
            continue
        common = [other for other in terms if other != term]
        parts = [Pass(residue=None, mask=all_of((*common, any_of(dense))))] if dense else []
        done = [any_of(dense)] if dense else []
        for own, rests in strided.items():
            parts.append(Pass(residue=own, mask=all_of((*common, any_of(rests), *map(not_, done)))))
            done.append(all_of((own.condition, any_of(rests))))
        parts = [replace(part, mask=simplify((part.mask,))[0]) for part in parts]
        visited = [reach(each, each, drawn, keys, None).keys for each in (parts[0].mask, mask)]
        if not dense or visited[0] != visited[1]:
            return tuple(part for part in parts if part.mask != FALSE) or tuple(parts[:1])
    return (Pass(residue=None, mask=mask),)


def disjuncts(mask: Expr) -> tuple[Expr, ...]:
    """The conditions of which one must hold."""
    match mask:
        case Apply(fn=Fn.OR, args=(x, y)):
            return (*disjuncts(x), *disjuncts(y))
        case _:
            return (mask,)

"""A mask as it is written: clauses joined by ``and``, ``or``, ``not``, each with its place in the text, and what each
of them means once params are bound."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from attnc.codegen.simplify import simplify
from attnc.dsl.ir import Apply, Const, Expr, Fn, Kind, ParamRef, children, postorder
from attnc.dsl.source import Span

MOST_CLAUSES = 100


@dataclass(frozen=True, kw_only=True, eq=False)
class Clause:
    """``meaning`` is simplified and holds the params' values. ``fn`` is AND, OR or NOT where the parts are clauses of
    their own, None for what a person reads as one (a comparison, a call of the library). ``apart``: the parts stand
    elsewhere in the text, in a let, and may be read from other places too. ``switch``: params alone
    decide it, or a part of it."""

    span: Span
    meaning: Expr
    fn: Fn | None = None
    parts: tuple[Clause, ...] = ()
    apart: bool = False
    switch: bool = False

    def leaves(self) -> Iterator[Clause]:
        """The clauses without parts, in the order of the text."""
        if not self.parts:
            yield self
        for part in self.parts:
            yield from part.leaves()


def clauses(written: Expr, bound: Expr) -> Clause | None:
    """The clauses of a mask as the checker gives it; ``bound`` is the same tree with its params bound. None for a
    mask of more than MOST_CLAUSES conditions."""
    if sum(node.kind is Kind.BOOL for node in postorder(written)) > MOST_CLAUSES:
        return None
    parts = [node for node in postorder(bound) if node.kind is Kind.BOOL]
    return _clause(written, bound, dict(zip(parts, simplify(parts), strict=True)))


def _clause(written: Expr, bound: Expr, meaning: Mapping[Expr, Expr]) -> Clause:
    assert written.span is not None, "the checker places every node"
    match written, bound:
        case Apply(fn=Fn.AND | Fn.OR | Fn.NOT as fn, args=args), Apply(args=bound_args) if _told_apart(written):
            parts = tuple(_clause(part, value, meaning) for part, value in zip(args, bound_args, strict=True))
            apart = not all(_within(part.span, written.span) for part in parts)
            if fn is not Fn.NOT:  # a and (b and c), a <= b <= c: one list
                parts = tuple(
                    piece for part in parts for piece in (part.parts if part.fn is fn and not part.apart else (part,))
                )
            switch = any(part.switch for part in parts)
            return Clause(span=written.span, meaning=meaning[bound], fn=fn, parts=parts, apart=apart, switch=switch)
        case _:
            return Clause(span=written.span, meaning=meaning[bound], switch=_of_params(written))


def _of_params(node: Expr) -> bool:
    leaves = [part for part in postorder(node) if not children(part)]
    return any(isinstance(leaf, ParamRef) for leaf in leaves) and all(isinstance(x, ParamRef | Const) for x in leaves)


def _told_apart(node: Apply) -> bool:
    """Whether the operands have places of their own. Those of a library's function all have its call's."""
    return len({part.span for part in node.args}) == len(node.args)


def _within(inner: Span, outer: Span) -> bool:
    return outer.start <= inner.start and inner.end <= outer.end

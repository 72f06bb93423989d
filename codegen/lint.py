"""Warnings that the algebra of masks and indices proves: what surely is not meant, or costs more than it seems.

A mask is read as written, clause by clause, each with its place in the text. Everything reported is proved (refute.py)
for every length, offset and tensor; what cannot be proved is passed over in silence. Before params are bound, only what
holds for all their values is reported; what holds at their values alone says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from attnc.codegen.build import all_of, any_of, eq, ge, index, lt, not_, offset, size, sub
from attnc.codegen.clauses import Clause, clauses
from attnc.codegen.opaque import crowded, opaque
from attnc.codegen.ranges import LIMIT, Range, int_range, needs_int64
from attnc.codegen.refute import Effort, impossible
from attnc.codegen.simplify import simplify
from attnc.codegen.tell import tell
from attnc.dsl.construct import Attention, Branch, Construct
from attnc.dsl.diagnostics import Diagnostic
from attnc.dsl.ir import Apply, Const, Expr, Fn, Load, ParamElement, ParamRef, Side, Table, children, postorder
from attnc.dsl.report import Report
from attnc.dsl.source import Span

_MOST_NODES = 1000  # a construct of more is not looked at
_QUOTED = 40  # characters of a clause
_LISTED = 4  # entries of a param with one a head
_FOLLOWED = 2**20  # rows that are looked at to say how many see no key

_I, _J = index("i"), index("j")
_Q_OFFSET, _KV_OFFSET = offset(Side.QUERY), offset(Side.KEY)
_N, _M = size("N"), size("M")
_SELF_ATTENTION = (eq(_N, _M), eq(_Q_OFFSET, 0), eq(_KV_OFFSET, 0))


def lint(
    construct: Construct, bound: Construct | None = None, lengths: tuple[int, int] | None = None
) -> tuple[Diagnostic, ...]:
    """The warnings of a checked construct, in the order of the text. ``bound`` is the same with its params bound:
    then what holds at these values is told too. ``lengths``: N and M of a call without offsets, likewise of masks."""
    if not isinstance(construct, Attention) or _nodes(construct) > _MOST_NODES:
        return ()
    special = bound if isinstance(bound, Attention) else construct
    values = _values(construct, special) if construct.params and bound is not None else ()
    stages: list[tuple[tuple[Diagnostic, ...], tuple[str, ...]]] = [(_linted(construct, construct), ())]
    if values:
        stages.append((_linted(construct, special), values))
    if lengths is not None and min(lengths) > 0:
        at = *values, *(f"{name} = {length}" for name, length in zip("NM", lengths, strict=True))
        stages.append((_linted(construct, special, lengths), at))
    found: dict[tuple[str, Span], Diagnostic] = {}
    for items, at in stages:
        for item in items:
            label = f"{item.label}, at {', '.join(at)}" if at else item.label
            found.setdefault((item.code, item.span), replace(item, label=label))
    return tuple(sorted(found.values(), key=lambda item: (item.span.start, item.span.end, item.code)))


def _nodes(construct: Attention) -> int:
    return len(postorder(*(root for branch in construct.branches for root in (branch.score, branch.mask))))


def _linted(written: Attention, bound: Attention, lengths: tuple[int, int] | None = None) -> tuple[Diagnostic, ...]:
    given = simplify([item.expr for item in bound.conditions])
    linter = _Linter(written=written, report=Report(source=written.source), given=given)
    if lengths is None:
        return linter.run(bound)
    N, M = lengths
    linter.given += eq(_N, N), eq(_M, M), eq(_Q_OFFSET, M - N), eq(_KV_OFFSET, 0)
    linter.masks(bound)
    return linter.report.sorted()


def _values(written: Attention, bound: Attention) -> tuple[str, ...]:
    """``w = 256``, ``g = 1``: the params that masks and scores read."""
    found: dict[str, str] = {}
    for branch, special in zip(written.branches, bound.branches, strict=True):
        stack = [(branch.mask, special.mask), (branch.score, special.score)]
        seen: set[Expr] = set()
        while stack:
            node, value = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            match node, value:
                case ParamRef(name=name), Const(value=number):
                    found[name] = str(number).lower() if isinstance(number, bool) else f"{number}"
                case ParamElement(name=name), Table(values=numbers):
                    more = ", ..." if len(numbers) > _LISTED else ""
                    found[name] = f"[{', '.join(map(str, numbers[:_LISTED]))}{more}]"
                case _:
                    stack += zip(children(node), children(value), strict=True)
    return tuple(f"{item.name} = {found[item.name]}" for item in written.params if item.name in found)


@dataclass(kw_only=True)
class _Linter:
    """One construct. ``given`` is known of its params. A place that a let shares is ``needless`` where it matters in
    none of its uses."""

    written: Attention
    report: Report
    given: tuple[Expr, ...]
    needless: dict[Span, str] = field(default_factory=dict)
    needed: set[Span] = field(default_factory=set)
    effort: Effort = field(default_factory=Effort)

    def run(self, bound: Attention) -> tuple[Diagnostic, ...]:
        if not self.masks(bound):
            self._rows(bound)
        for branch, special in zip(self.written.branches, bound.branches, strict=True):
            self._indices(special)
            self._reads(special)
            self._opaque(branch, special)
        return self.report.sorted()

    def masks(self, bound: Attention) -> bool:
        """What is always empty or full, and what never matters; whether some mask is one of the first two."""
        decided = [self._mask(*pair) for pair in zip(self.written.branches, bound.branches, strict=True)]
        for span, why in self.needless.items():
            if span not in self.needed:
                message = f"{self._text(span)} can never matter"
                self.report.warn("W004", message, span, label=why, help="leave it out")
        return any(decided)

    def _impossible(self, *conditions: Expr) -> bool:
        return impossible(*conditions, effort=self.effort)

    def _text(self, span: Span) -> str:
        text = " ".join(self.written.source.text[span.start : span.end].split())
        return f"`{text}`" if len(text) <= _QUOTED else f"`{text[:_QUOTED]}...`"

    def _mask(self, branch: Branch, special: Branch) -> bool:
        """Is the mask always empty or always full? That says all; if not, which clauses matter for no pair?"""
        root = clauses(branch.mask, special.mask)
        if root is None or branch.mask.span == branch.span:  # none is written
            return False
        facts = (*self.given, *_exists(special))
        whose = f"the mask of `{branch.name}`" if len(self.written.branches) > 1 else "the mask"
        if self._impossible(*facts, root.meaning):
            span = _narrowed(root, Fn.AND, lambda part: self._impossible(*facts, part.meaning))
            self.report.warn("W002", f"{whose} is always empty", span, label="holds for no pair")
        elif self._impossible(*facts, not_(root.meaning)):
            span = _narrowed(root, Fn.OR, lambda part: self._impossible(*facts, not_(part.meaning)))
            help = "without a mask, too, every key is seen"
            self.report.warn("W003", f"{whose} is always full", span, label="holds for every pair", help=help)
        else:
            self._clauses(root, facts, facts)
            return False
        return True

    def _clauses(self, node: Clause, facts: tuple[Expr, ...], around: tuple[Expr, ...]) -> None:
        """Tell the parts that the others make up for, the last first, then those of the parts that remain. ``around``
        holds wherever the node decides whether a pair is live. What params alone decide is meant so: nothing is said of
        it, nor of what it turns off."""
        around = facts if node.apart else around
        kept = [part for part in node.parts if not part.switch]
        for part in reversed(kept):
            others = [other for other in kept if other is not part]
            why = self._made_up_for(node.fn, part, others, around)
            if why:
                self.needless[part.span] = why
                kept = others
        for part in (*kept, *(part for part in node.parts if part.switch)):
            self.needed.add(part.span)
            others = [other for other in kept if other is not part]
            beside = (_settled(node.fn, other) for other in others)
            self._clauses(part, facts, (*around, *beside))

    def _made_up_for(self, fn: Fn | None, part: Clause, others: Sequence[Clause], around: tuple[Expr, ...]) -> str:
        """Why a part of an ``and`` or ``or`` matters for no pair, or nothing."""
        if fn not in (Fn.AND, Fn.OR):
            return ""
        matters = not_(part.meaning) if fn is Fn.AND else part.meaning
        if not self._impossible(*around, *(_settled(fn, other) for other in others), matters):
            return ""
        if self._impossible(*around, matters):
            return "holds for every pair" if fn is Fn.AND else "holds for no pair"
        says = "demands it" if fn is Fn.AND else "lets these pairs through"
        for other in others:
            if self._impossible(*around, _settled(fn, other), matters):
                return f"{self._text(other.span)} {says} already"
        return f"the rest of the mask {says} already"

    def _rows(self, bound: Attention) -> None:
        """Are there queries that see no key, the first or the last ones, in self-attention of any length?"""
        live = any_of(all_of((*_exists(branch), *simplify((branch.mask,)))) for branch in bound.branches)
        place = self.written.branches[0].mask.span
        assert place is not None, "the checker places every node"

        def dead(rows: Callable[[int], Expr], count: int) -> bool:
            return self._impossible(*self.given, *_SELF_ATTENTION, rows(count), live)

        for which, rows in (("first", _first), ("last", _last)):
            count = _largest(partial(dead, rows))
            if count == 0:
                continue
            everyone = count == _FOLLOWED
            some = f"the {which} query" if count == 1 else f"the {which} {count:,} queries"
            message = "no query ever sees a key" if everyone else f"{some} never see{'s' * (count == 1)} a key"
            label = "where queries and keys are equally many, without offsets"
            help = "with `... or i == j` every query sees itself"
            self.report.warn("W005", message, place, label=label, help=help)
            if everyone:
                return

    def _indices(self, branch: Branch) -> None:
        """Index arithmetic that 32 bits may not hold. What waits for a param's value is left for then."""
        roots = simplify((branch.score, branch.mask))
        nodes = postorder(*roots)
        waiting: dict[Expr, Range] = {}
        for node in nodes:
            if isinstance(node, ParamRef | ParamElement) or any(part in waiting for part in children(node)):
                waiting[node] = (0, 0)
        wide = needs_int64(roots, waiting)
        spans = _spans(nodes, branch.span)
        for node in nodes:
            if node not in wide or not isinstance(node, Apply) or node.fn is Fn.INT:
                continue
            if not any(arg in wide for arg in node.args):  # here it begins
                low, high = int_range(node, waiting)
                label = f"reaches {max(high, -low):,} where positions reach {LIMIT:,}: computed in 64 bits"
                self.report.warn("W006", f"{self._text(spans[node])} may leave 32 bits", spans[node], label=label)

    def _reads(self, branch: Branch) -> None:
        """Indices of inputs that are outside their axis, whatever the call."""
        axes = {item.name: item.axes for item in self.written.inputs}
        nodes = postorder(branch.score, branch.mask, branch.normalization.divisor)
        spans = _spans(nodes, branch.span)
        for node in nodes:
            if not isinstance(node, Load):
                continue
            for at, axis in zip(node.index, axes.get(node.tensor, ()), strict=False):
                low, high = (-1, 0) if _waits(at) else int_range(at)
                length = axis.value if isinstance(axis, Const) else None
                if high < 0 or (length is not None and low >= length):
                    message = f"{self._text(spans[at])} is always outside the axis [{tell(axis)}] of `{node.tensor}`"
                    nearest = f"reads the nearest element, {'the first' if high < 0 else 'the last'}"
                    help = f"nothing counts from the end: the last is `{tell(axis)} - 1`" if high < 0 else ""
                    self.report.warn("W008", message, spans[at], label=nearest, help=help)

    def _opaque(self, branch: Branch, special: Branch) -> None:
        """Clauses of which the tile map and the kernels' loops know too little to leave out every empty tile."""
        root = clauses(branch.mask, special.mask)
        if root is None:
            return
        leaves = [leaf for leaf in root.leaves() if not _waits(leaf.meaning)]
        found = [(leaf.span, why) for leaf in leaves if (why := opaque(leaf.meaning))]
        if not found and not _waits(root.meaning) and crowded(root.meaning):
            found = [(root.span, "has more cases than are told apart")]
        for span, why in found:
            message = f"{self._text(span)} is too opaque for exact tiles"
            self.report.warn("W007", message, span, label=f"{why}: tiles without a live pair may be computed")


def _waits(condition: Expr) -> bool:
    """For params that are not bound."""
    return any(isinstance(node, ParamRef | ParamElement) for node in postorder(condition))


def _spans(nodes: Sequence[Expr], whole: Span) -> dict[Expr, Span]:
    """The place of each node: its own, or that of what it is part of. ``nodes`` stand before their users."""
    found: dict[Expr, Span] = {}
    for node in reversed(nodes):
        span = node.span or found.get(node, whole)
        found[node] = span
        for part in children(node):
            found[part] = min(found.get(part, span), span, key=lambda place: place.end - place.start)
    return found


def _exists(branch: Branch) -> tuple[Expr, ...]:
    """What holds for the rows of the tensors."""
    row, column = sub(_I, _Q_OFFSET), sub(_J, _KV_OFFSET)
    return ge(row, 0), lt(row, _N), ge(column, 0), lt(column, branch.keys)


def _first(count: int) -> Expr:
    """The first queries, where offsets are 0."""
    return lt(_I, count)


def _last(count: int) -> Expr:
    return ge(_I, sub(_N, count))


def _settled(fn: Fn | None, part: Clause) -> Expr:
    """What a part of an ``and`` or ``or`` is where the other parts decide: true in an ``and``, false in an ``or``."""
    return part.meaning if fn is Fn.AND else not_(part.meaning)


def _narrowed(node: Clause, fn: Fn, decides: Callable[[Clause], bool]) -> Span:
    """The smallest clause that decides the whole by itself: one part of an ``and`` that is always empty will do."""
    while node.fn is fn:
        part = next(filter(decides, node.parts), None)
        if part is None:
            break
        node = part
    return node.span


def _largest(holds: Callable[[int], bool]) -> int:
    """The largest count up to _FOLLOWED for which something holds that holds for all smaller ones; 0 if none."""
    if not holds(1):
        return 0
    if holds(_FOLLOWED):
        return _FOLLOWED
    low, high = 1, _FOLLOWED
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low

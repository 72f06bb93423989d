"""What a pass reaches beyond closed-form intervals, as PyTorch text: spans and lists of tiles, made once a kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attnc.codegen import build
from attnc.codegen.bounds import Region
from attnc.codegen.kernel import ALL, Argument
from attnc.codegen.names import KERNEL_WORDS, Naming
from attnc.codegen.prepass import ENDS, Visits
from attnc.codegen.print_torch import TorchPrinter
from attnc.codegen.printer import Names, Text
from attnc.codegen.program import Group
from attnc.codegen.simplify import simplify
from attnc.dsl.ir import Expr, Side

LISTS = (("listed_first", "i32"), ("listed", "i32"))


@dataclass(frozen=True, kw_only=True)
class SpanText:
    """The names of a span's two sides, and whether they must be equal."""

    row: str
    column: str
    equal: bool


@dataclass(frozen=True, kw_only=True)
class ListingText:
    """A table of blocks that tiles are listed from."""

    tensor: str
    block: int
    drawn: bool


@dataclass(frozen=True, kw_only=True)
class VisitText:
    """One direction: statements for the ends of intervals, by tile, and their names; "" for open ends. ``sure``: those
    of each listing."""

    lines: tuple[str, ...]
    seen: tuple[tuple[str, str], ...]
    cut: tuple[tuple[str, str], ...]
    sure: tuple[tuple[tuple[str, str], ...], ...]


@dataclass(frozen=True, kw_only=True)
class PrepassText:
    """What templates/prepass.py.j2 needs of one group."""

    spans: tuple[SpanText, ...]
    span_lines: tuple[str, ...]
    listings: tuple[ListingText, ...]
    keys: VisitText
    queries: VisitText

    @property
    def ends(self) -> tuple[str, ...]:
        """What the ends of all spans are called where they are read, in order."""
        return tuple(span_end(number, end) for number in range(len(self.spans)) for end in ENDS)


def span_end(number: int, end: str) -> str:
    return f"span{number}_{end}"


def span_leaves(group: Group) -> dict[Expr, str]:
    """The ends of a group's spans as the kernels and the blocked PyTorch code call them."""
    return {
        symbol: span_end(number, end)
        for number, span in enumerate(group.reach.spans)
        for end, symbol in zip(ENDS, span.ends, strict=True)
    }


def arguments(group: Group) -> tuple[Argument, ...]:
    """What a kernel is given to visit spans and lists."""
    named = [("spans", "i32")] * bool(group.reach.spans) + list(LISTS) * bool(group.reach.listings)
    return tuple(
        Argument(
            name=name,
            host=name,
            element=element,
            arguments=(f"{name}_stride0", f"{name}_stride1"),
            values=(f"_stride({name}, 0)", f"_stride({name}, 1)"),
        )
        for name, element in named
    )


def prepass(group: Group, naming: Naming, leaves: Mapping[Expr, str], tensors: Mapping[str, str]) -> PrepassText:
    """The text of a group's prepass; ``leaves`` and ``tensors`` as in its blocked PyTorch code."""
    reach = group.reach
    names = Names([*KERNEL_WORDS, *naming.taken])
    roots: dict[str, Expr] = {}
    spans = []
    for number, span in enumerate(reach.spans):
        row, column = f"span{number}_row", f"span{number}_column"
        roots |= {row: span.row, column: span.column}
        spans.append(SpanText(row=row, column=column, equal=span.equal))
    printer = TorchPrinter(leaves, names, tensors)
    numbers = [name for name, root in roots.items() if printer.number(root)]
    finish = dict.fromkeys(numbers, _filled)
    lines = printer.block(roots, (ALL,), finish=finish).lines[0] if roots else ()
    listings = tuple(
        ListingText(tensor=tensors[item.tensor], block=item.block, drawn=item.drawn) for item in reach.listings
    )
    own = {**leaves, **span_leaves(group)}
    return PrepassText(
        spans=tuple(spans),
        span_lines=lines,
        listings=listings,
        keys=_visit(reach.keys, Side.KEY, own, tensors, names),
        queries=_visit(reach.queries, Side.QUERY, own, tensors, names),
    )


def _filled(text: Text) -> str:
    return f"torch.full((1, 1, 1, 1), {text.text}, device=device)"


def _visit(
    visits: Visits, side: Side, leaves: Mapping[Expr, str], tensors: Mapping[str, str], names: Names
) -> VisitText:
    roots: dict[str, Expr] = {}
    seen = _named(visits.bounds.may, "may", side, names, roots)
    cut = _named(visits.cut, "cut", side, names, roots)
    sure = tuple(_named(region, "sure", side, names, roots) for region in visits.sure)
    lines = TorchPrinter(leaves, names, tensors).block(roots, (ALL,)).lines[0] if roots else ()
    return VisitText(lines=lines, seen=seen, cut=cut, sure=sure)


def _named(region: Region, word: str, side: Side, names: Names, roots: dict[str, Expr]) -> tuple[tuple[str, str], ...]:
    """The ends of a region in tensor rows under fresh names, added to ``roots``."""
    found: list[tuple[str, ...]] = []
    for number, interval in enumerate(region):
        pair = []
        for word_end, end in zip(("lo", "hi"), interval, strict=True):
            pair.append(names.fresh(f"{word}{number}_{word_end}") if end is not None else "")
            if end is not None:
                (roots[pair[-1]],) = simplify((build.sub(end, build.offset(side)),))
        found.append(tuple(pair))
    return tuple((low, high) for low, high in found)

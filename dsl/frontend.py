"""Text -> checked and specialized IR."""

from __future__ import annotations

from collections.abc import Mapping

from attnc.dsl.check import check
from attnc.dsl.construct import Attention, Construct, Recurrence
from attnc.dsl.diagnostics import SpecError
from attnc.dsl.parse import parse
from attnc.dsl.report import Report, near
from attnc.dsl.source import Source
from attnc.dsl.specialize import specialize


def compile_text(source: Source, params: Mapping[str, object], name: str | None = None) -> Construct:
    """The construct called ``name`` (the only one if None) at these params. SpecError, and nothing else, if any
    stage finds a fault; ``compilable`` says whether code can be made of the result."""
    return specialize(choose(source, check(parse(source)).constructs, name), params)


def choose(source: Source, constructs: tuple[Construct, ...], name: str | None) -> Construct:
    """The construct of that name; without a name, the only one. A parsed file holds at least one."""
    if name is None and len(constructs) == 1:
        return constructs[0]
    for construct in constructs:
        if construct.name == name:
            return construct
    report = Report(source=source)
    known = [construct.name for construct in constructs]
    names = ", ".join(f"`{item}`" for item in known)
    if name is None:
        report.fault("A410", "the file holds several constructs", constructs[1].span, help=f"choose one of {names}")
    else:
        help = near(name, known) or f"it holds {names}"
        report.fault("A410", f"the file holds no `{name}`", constructs[0].span, help=help)
    raise SpecError(source, report.sorted())


def compilable(construct: Construct) -> Attention:
    """The construct if code can be made of it; SpecError says what comes later."""
    report = Report(source=construct.source)
    match construct:
        case Recurrence():
            report.fault("A501", "recurrences check, but do not compile yet", construct.span)
        case Attention(layout=layout):
            if layout.kind != "contiguous":
                span = layout.span or construct.span
                report.fault("A502", f"`kv {layout.kind}` checks, but does not compile yet", span)
            if layout.storage is not None:
                span = layout.span or construct.span
                report.fault("A503", f"`{layout.storage}` storage checks, but does not compile yet", span)
    report.finish()
    assert isinstance(construct, Attention)
    return construct

"""Faults found so far, so that a stage reports all of them at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches

from attnc.dsl.diagnostics import Diagnostic, Severity, SpecError
from attnc.dsl.source import Source, Span

MOST_FAULTS = 100  # told at once


@dataclass(kw_only=True)
class Report:
    """Collects diagnostics; what could not be made is None from then on, and silent."""

    source: Source
    found: dict[Diagnostic, None] = field(default_factory=dict)

    def fault(self, code: str, message: str, span: Span, label: str = "", help: str = "") -> None:
        self.found[Diagnostic(code=code, message=message, span=span, label=label, help=help)] = None

    def warn(self, code: str, message: str, span: Span, label: str = "", help: str = "") -> None:
        diagnostic = Diagnostic(
            code=code, message=message, span=span, label=label, help=help, severity=Severity.WARNING
        )
        self.found[diagnostic] = None

    def sorted(self) -> tuple[Diagnostic, ...]:
        """Faults, then warnings, each in the order of the text."""
        return tuple(
            sorted(
                self.found,
                key=lambda item: (item.severity is Severity.WARNING, item.span.start, item.span.end, item.code),
            )
        )

    def crowded(self) -> bool:
        """Whether there is more to tell already than will be told: no more help then."""
        return len(self.found) > MOST_FAULTS

    def failed(self) -> bool:
        return any(item.severity is Severity.ERROR for item in self.found)

    def finish(self) -> tuple[Diagnostic, ...]:
        """The warnings, or SpecError with everything if there is a fault."""
        if self.failed():
            raise SpecError(self.source, self.sorted()[:MOST_FAULTS])
        return self.sorted()


def near(name: str, known: Iterable[str]) -> str:
    """``did you mean `window`?`` or nothing. Among very many names only the case is forgiven."""
    known = sorted(set(known))
    close = [other for other in known if other.lower() == name.lower()]
    if not close and len(known) <= 1000:
        close = get_close_matches(name, known, n=1, cutoff=0.7)
    return f"did you mean `{close[0]}`?" if close else ""

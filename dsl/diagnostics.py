"""What a fault is. Codes and their explanations live in codes.py, rendering in render.py."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from attnc.dsl.source import Source, Span


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, kw_only=True)
class Diagnostic:
    """One fault: what is wrong (message), where (span), why here (label), how to mend it (help)."""

    code: str
    message: str
    span: Span
    label: str = ""
    help: str = ""
    severity: Severity = Severity.ERROR


class SpecError(ValueError):
    """A spec that does not parse, check or compile. Holds every diagnostic of the stage that failed."""

    def __init__(self, source: Source, diagnostics: tuple[Diagnostic, ...]) -> None:
        from attnc.dsl.render import render  # the text is made once, here

        self.source = source
        self.diagnostics = diagnostics
        super().__init__(render(source, diagnostics, style="full", color=False))

    def __reduce__(self) -> tuple[type[SpecError], tuple[Source, tuple[Diagnostic, ...]]]:
        return SpecError, (self.source, self.diagnostics)

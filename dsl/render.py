"""Diagnostics as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from attnc.dsl.diagnostics import Diagnostic
from attnc.dsl.source import Source

Style = Literal["full", "concise", "json", "github"]


def render(source: Source, diagnostics: Sequence[Diagnostic], *, style: Style = "full", color: bool = False) -> str:
    """The diagnostics of one source, a line each."""
    lines = []
    for item in diagnostics:
        line, column = source.position(item.span.start)
        lines.append(f"{source.name}:{line}:{column}: {item.severity}[{item.code}]: {item.message}")
    return "\n".join(lines)

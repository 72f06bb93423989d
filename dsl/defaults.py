"""Defaults must satisfy the conditions themselves."""

from __future__ import annotations

from collections.abc import Sequence

from attnc.dsl.construct import Condition, ParamDecl
from attnc.dsl.report import Report
from attnc.dsl.specialize import broken_by


def check_defaults(params: Sequence[ParamDecl], conditions: Sequence[Condition], report: Report) -> None:
    """A fault for each condition that the defaults alone break."""
    defaults = {param.name: param.default for param in params if param.default is not None}
    for condition in conditions:
        if all(name in defaults for name in condition.params):
            broken = broken_by(condition, defaults)
            if broken:
                report.fault("A302", f"by default {broken}", condition.span, label=f"needs `{condition.text}`")

"""Conditions on params and on functions' arguments: checked now where they are numbers, later where params decide."""

from __future__ import annotations

from dataclasses import dataclass, field

from attnc.dsl import ir
from attnc.dsl.constant import constant
from attnc.dsl.construct import Condition
from attnc.dsl.kinds import Typer
from attnc.dsl.report import Report
from attnc.dsl.sizes import size_text
from attnc.dsl.source import Span

MOST_NODES = 1_000


@dataclass(kw_only=True)
class Conditions:
    """``later`` are the conditions that specialization will check, each once."""

    report: Report
    later: dict[ir.Expr, Condition] = field(default_factory=dict)

    def require(self, condition: ir.Expr, whose: str, name: str, value: ir.Expr, span: Span) -> None:
        """The condition that ``whose`` states for its ``name`` must hold; ``value`` is what the name stands for."""
        if not self._well_formed(condition, span):
            return
        params = condition_params(condition)
        if params:
            self.keep(condition, params, span)
        elif params == () and constant(condition) is not True:
            label = f"`{size_text(condition)}` does not hold"
            self.report.fault("A302", f"{whose} cannot take {size_text(value)} for `{name}`", span, label=label)

    def declare(self, condition: ir.Expr, span: Span) -> None:
        """The condition of a param speaks of params alone."""
        if not self._well_formed(condition, span):
            return
        params = condition_params(condition)
        if params:
            self.keep(condition, params, span)
        else:
            self.report.fault("A303", "the condition of a param speaks of params alone", span)

    def keep(self, condition: ir.Expr, params: tuple[str, ...], span: Span) -> None:
        """Leave the condition to specialization."""
        text = size_text(condition)
        self.later.setdefault(condition, Condition(expr=condition, params=params, text=text, span=span))

    def _well_formed(self, condition: ir.Expr, span: Span) -> bool:
        if len(_parts(condition)) > MOST_NODES:
            self.report.fault("A107", f"a condition expands to more than {MOST_NODES} nodes", span)
            return False
        return Typer(report=self.report, matrices=False).truths((condition,))


def _parts(condition: ir.Expr) -> dict[ir.Expr, None]:
    """The nodes of a condition, without the indices of params; of a very long one, some more than allowed."""
    found: dict[ir.Expr, None] = {}
    stack = [condition]
    while stack and len(found) <= MOST_NODES:
        node = stack.pop()
        if node not in found:
            found[node] = None
            stack += reversed(node.args) if isinstance(node, ir.Apply) else ()
    return found


def condition_params(condition: ir.Expr) -> tuple[str, ...] | None:
    """The params that decide the condition; None if indices, sizes or inputs do too. Params with one entry a head
    are decided for every head, if all are read at the same index."""
    parts = _parts(condition)
    if not all(isinstance(part, ir.Const | ir.ParamRef | ir.ParamElement | ir.Apply) for part in parts):
        return None
    if len({part.index for part in parts if isinstance(part, ir.ParamElement)}) > 1:
        return None
    return tuple(dict.fromkeys(part.name for part in parts if isinstance(part, ir.ParamRef | ir.ParamElement)))

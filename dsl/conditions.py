"""Conditions on params and on functions' arguments: checked now where they are numbers, later where params decide."""

from __future__ import annotations

from dataclasses import dataclass, field

from attnc.dsl import ir
from attnc.dsl.constant import constant
from attnc.dsl.kinds import Typer
from attnc.dsl.report import Report
from attnc.dsl.sizes import size_text
from attnc.dsl.source import Span


@dataclass(kw_only=True)
class Conditions:
    """``later`` are the conditions that specialization will check, each once."""

    report: Report
    later: dict[ir.Expr, ir.Condition] = field(default_factory=dict)

    def require(self, condition: ir.Expr, whose: str, name: str, value: ir.Expr, span: Span) -> None:
        """The condition that ``whose`` states for its ``name`` must hold; ``value`` is what the name stands for."""
        if not self.state(condition, span) and condition_params(condition) == () and constant(condition) is not True:
            label = f"`{size_text(condition)}` does not hold"
            self.report.fault("A302", f"{whose} cannot take {size_text(value)} for `{name}`", span, label=label)

    def state(self, condition: ir.Expr, span: Span) -> bool:
        """Keep a condition for specialization; whether params decide it."""
        if not Typer(report=self.report, matrices=False).truths((condition,)):
            return False
        params = condition_params(condition)
        if not params:
            return False
        text = size_text(condition)
        self.later.setdefault(condition, ir.Condition(expr=condition, params=params, text=text, span=span))
        return True


def condition_params(condition: ir.Expr) -> tuple[str, ...] | None:
    """The params that decide the condition; None if indices, sizes or inputs do too. Params with one entry a head
    are decided for every head, if all are read at the same index."""
    names: dict[str, None] = {}
    indices: set[ir.Expr] = set()
    seen: set[ir.Expr] = set()
    stack = [condition]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        match node:
            case ir.ParamElement(name=name, index=index):
                names[name] = None
                indices.add(index)
            case ir.ParamRef(name=name):
                names[name] = None
            case ir.Const():
                pass
            case ir.Apply(args=args):
                stack += reversed(args)
            case _:
                return None
    return tuple(names) if len(indices) <= 1 else None

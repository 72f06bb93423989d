"""A ``recurrence``: a state carried along the sequence. Checked here, compiled by a later issue."""

from __future__ import annotations

from attnc.dsl import ir, syntax
from attnc.dsl.construct import Recurrence
from attnc.dsl.declare import Declarations
from attnc.dsl.names import Value
from attnc.dsl.sizes import shape_text
from attnc.dsl.source import Source


def recurrence(
    construct: syntax.Construct, clauses: tuple[syntax.Clause, ...], declared: Declarations, source: Source
) -> Recurrence | None:
    """The checked recurrence; None after a fault."""
    report, elaborator, scope = declared.report, declared.elaborator, declared.scope
    found: dict[type, syntax.Clause] = {type(clause): clause for clause in clauses}
    state, step, read = (found.get(kind) for kind in (syntax.StateClause, syntax.StepClause, syntax.ReadClause))
    for clause, word, help in (
        (state, "state", "add `state S[D, E]`"),
        (step, "step", "add `step S + outer(k, v)`"),
        (read, "read", "add `read q @ S`"),
    ):
        if clause is None:
            report.fault("A401", f"`{construct.name.text}` has no {word}", construct.name.span, help=help)
    for clause in clauses:
        if isinstance(clause, syntax.VectorClause):
            for item in clause.items:
                if item.value is not None:
                    report.fault("A403", "a recurrence derives vectors by `let`", item.span)
    stepped = elaborator.value(step.value, scope) if isinstance(step, syntax.StepClause) else None
    result = elaborator.value(read.value, scope) if isinstance(read, syntax.ReadClause) else None
    if not isinstance(state, syntax.StateClause) or stepped is None or result is None:
        return None
    for expr in (stepped, result):
        for node in ir.postorder(expr):
            if isinstance(node, ir.Index) and node.axis == "j":
                report.fault("A105", "a recurrence runs along `i` alone", node.span or construct.name.span)
                return None
    entity = scope.names.get(state.name.text)
    symbol = entity.expr if isinstance(entity, Value) else None
    if symbol is None:
        return None
    assert stepped.span is not None
    if stepped.dims != symbol.dims:
        label = f"{shape_text(stepped.dims)}, not {shape_text(symbol.dims)}"
        report.fault("A202", "a step gives the next state", stepped.span, label=label)
        return None
    read_vector = elaborator.vectors.vector(result, "what is read")
    if read_vector is None or not elaborator.typer.numbers((stepped,)) or report.failed():
        return None
    return Recurrence(
        name=construct.name.text, params=tuple(declared.params), conditions=tuple(elaborator.conditions.later.values()),
        inputs=tuple(declared.inputs), vectors=tuple(declared.vectors), sizes=tuple(declared.sizes),
        state=state.name.text, state_dims=symbol.dims, step=stepped, read=read_vector, source=source,
        span=construct.span,
    )  # fmt: skip

"""Params become constants: values are checked against their declarations, then against the conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from attnc.dsl import ir
from attnc.dsl.constant import Scalar, constant
from attnc.dsl.construct import (
    Attention,
    Condition,
    Construct,
    InputDecl,
    Normalization,
    ParamDecl,
    Recurrence,
    VectorDecl,
)
from attnc.dsl.params import param_value
from attnc.dsl.report import Report, near
from attnc.dsl.sizes import canonical, size_text
from attnc.dsl.source import Span
from attnc.dsl.vectors import slice_fault

Bound = Mapping[str, Scalar | tuple[Scalar, ...]]


def specialize(construct: Construct, params: Mapping[str, object]) -> Construct:
    """The construct at these params, defaults where none is given. SpecError names every one that does not fit."""
    report = Report(source=construct.source)
    known = [param.name for param in construct.params]
    for name in params:
        if name not in known:
            help = near(name, known) or f"it has {', '.join(f'`{item}`' for item in known) or 'none'}"
            report.fault("A101", f"`{construct.name}` has no param `{name}`", construct.span, help=help)
    bound = _bind(construct.params, params, report)
    report.finish()
    for condition in construct.conditions:
        broken = broken_by(condition, bound)
        if broken:
            report.fault("A302", broken, condition.span, label=f"needs `{condition.text}`")
    report.finish()
    substitution = _Substitution(bound=bound, report=report)
    made: Construct
    match construct:
        case Attention():
            made = substitution.attention(construct)
        case Recurrence():
            made = substitution.recurrence(construct)
        case _:
            assert_never(construct)
    report.finish()
    return made


def _bind(declared: Sequence[ParamDecl], given: Mapping[str, object], report: Report) -> Bound:
    bound: dict[str, Scalar | tuple[Scalar, ...]] = {}
    for param in declared:
        if param.name not in given:
            if param.default is None:
                label = f"{param.kind} needed"
                report.fault("A305", f"`{param.name}` has no default: give it", param.span, label=label)
            else:
                bound[param.name] = param.default
            continue
        value = given[param.name]
        try:
            if not param.per_head:
                bound[param.name] = param_value(value, param.kind)
            elif not isinstance(value, list | tuple) or not value:
                raise ValueError(f"is a {type(value).__name__}, not a list with one {param.kind} a head")
            else:
                bound[param.name] = tuple(param_value(item, param.kind) for item in value)
        except ValueError as error:
            report.fault("A301", f"the value of `{param.name}` {error}", param.span, label=f"declared {param.kind}")
    return bound


def broken_by(condition: Condition, bound: Bound) -> str:
    """How the params break the condition, or nothing. Params with one entry a head are tried head by head."""
    heads = max((len(value) for name in condition.params if isinstance(value := bound[name], tuple)), default=1)
    for head in range(heads):
        values: dict[str, Scalar] = {}
        for name in condition.params:
            value = bound[name]
            values[name] = value[min(head, len(value) - 1)] if isinstance(value, tuple) else value

        numbers: dict[ir.Expr, ir.Expr] = {
            node: ir.Const(kind=node.kind, value=values[node.name])
            for node in ir.postorder(condition.expr)
            if isinstance(node, ir.ParamRef | ir.ParamElement)
        }
        (expr,) = ir.substitute((condition.expr,), numbers)
        if constant(expr) is not True:
            given = ", ".join(f"`{name}` = {values[name]}" for name in condition.params)
            return f"{given} breaks `{condition.text}`"
    return ""


@dataclass(frozen=True, kw_only=True)
class _Substitution:
    """Constants for params, in expressions and, through the canonical form, in sizes."""

    bound: Bound
    report: Report

    def attention(self, construct: Attention) -> Attention:
        tokens = [
            replace(
                token,
                expr=self.expr(token.expr),
                dim=self.size(token.dim) if token.dim is not None else None,
                length=self.size(token.length),
            )
            for token in construct.tokens
        ]
        branches = [
            replace(
                branch,
                score=self.expr(branch.score),
                mask=self.expr(branch.mask),
                normalization=self.normalization(branch.normalization),
                keys=self.size(branch.keys),
            )
            for branch in construct.branches
        ]
        return replace(
            construct,
            conditions=(),
            inputs=self.inputs(construct),
            vectors=self.vectors(construct),
            tokens=tuple(tokens),
            branches=tuple(branches),
            output=self.expr(construct.output),
        )

    def recurrence(self, construct: Recurrence) -> Recurrence:
        return replace(
            construct,
            conditions=(),
            inputs=self.inputs(construct),
            vectors=self.vectors(construct),
            state_dims=tuple(self.size(dim, construct.span) for dim in construct.state_dims),
            step=self.expr(construct.step),
            read=self.expr(construct.read),
        )

    def inputs(self, construct: Construct) -> tuple[InputDecl, ...]:
        return tuple(
            replace(item, axes=tuple(self.size(axis, item.span) for axis in item.axes)) for item in construct.inputs
        )

    def vectors(self, construct: Construct) -> tuple[VectorDecl, ...]:
        return tuple(replace(item, dim=self.size(item.dim, item.span)) for item in construct.vectors)

    def normalization(self, pair: Normalization) -> Normalization:
        return replace(pair, weight=self.expr(pair.weight), divisor=self.expr(pair.divisor))

    def expr(self, root: ir.Expr) -> ir.Expr:
        (made,) = ir.transform((root,), self._step)
        return made

    def size(self, size: ir.Expr, span: Span | None = None) -> ir.Expr:
        """The size at these params. What is declared, at ``span``, must be a size; the rest follows from it."""
        (made,) = ir.transform((size,), self._constants)
        made = canonical(made)
        if isinstance(made, ir.Const) and made.value < 1 and span is not None:
            label = f"{size_text(size)} is {size_text(made)}"
            self.report.fault("A209", "a size is at least 1", span, label=label)
        return made

    def _step(self, node: ir.Expr) -> ir.Expr:
        if node.dims:
            node = replace(node, dims=tuple(self.size(dim) for dim in node.dims))
        if isinstance(node, ir.Sliced):
            start, stop = canonical(node.start), canonical(node.stop)
            why = slice_fault(start, stop, node.operand.dims[0])
            if why is not None and node.span is not None:
                self.report.fault("A202", "the slice does not lie in the vector", node.span, label=why)
            return replace(node, start=start, stop=stop)
        return self._constants(node)

    def _constants(self, node: ir.Expr) -> ir.Expr:
        match node:
            case ir.ParamRef(name=name, kind=kind, span=span):
                value = self.bound[name]
                assert not isinstance(value, tuple)
                return ir.Const(kind=kind, value=value, span=span)
            case ir.ParamElement(name=name, kind=kind, index=index, span=span):
                values = self.bound[name]
                assert isinstance(values, tuple)
                return ir.Table(kind=kind, values=values, index=index, span=span)
        return node

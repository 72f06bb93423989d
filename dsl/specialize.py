"""Params become constants: values are checked against their declarations, then against the conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import TypeVar, get_args

from attnc.dsl import ir
from attnc.dsl.constant import Scalar, constant
from attnc.dsl.declare import param_value
from attnc.dsl.report import Report, near
from attnc.dsl.sizes import canonical
from attnc.dsl.vectors import slice_fault

Bound = Mapping[str, Scalar | tuple[Scalar, ...]]
C = TypeVar("C", bound=ir.Construct)


def specialize(construct: C, params: Mapping[str, object]) -> C:
    """The construct at these params, defaults where none is given. SpecError names every one that does not fit."""
    report = Report(source=construct.source)
    bound = _bind(construct.params, params, report)
    for name in params:
        known = [param.name for param in construct.params]
        if name not in known:
            names = ", ".join(f"`{item}`" for item in known) or "none"
            help = near(name, known) or f"it has {names}"
            report.fault("A101", f"`{construct.name}` has no param `{name}`", construct.span, help=help)
    report.finish()
    for condition in construct.conditions:
        broken = broken_by(condition, bound)
        if broken:
            report.fault("A302", broken, condition.span, label=f"needs `{condition.text}`")
    report.finish()
    made = _substitute(construct, bound, report)
    report.finish()
    return made


def _bind(declared: Sequence[ir.ParamDecl], given: Mapping[str, object], report: Report) -> Bound:
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


def broken_by(condition: ir.Condition, bound: Bound) -> str:
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


def _substitute(construct: C, bound: Bound, report: Report) -> C:
    """Every expression of the construct with constants for params, shapes included."""

    def step(node: ir.Expr) -> ir.Expr:
        match node:
            case ir.ParamRef(name=name, kind=kind, span=span):
                value = bound[name]
                assert not isinstance(value, tuple)
                return ir.Const(kind=kind, value=value, span=span)
            case ir.ParamElement(name=name, kind=kind, index=index, span=span):
                values = bound[name]
                assert isinstance(values, tuple)
                return ir.Table(kind=kind, values=values, index=index, span=span)
            case ir.Sliced(start=start, stop=stop, operand=operand, span=span):
                start, stop = canonical(start), canonical(stop)
                why = slice_fault(start, stop, canonical(operand.dims[0]))
                if why is not None and span is not None:
                    report.fault("A202", "the slice does not lie in the vector", span, label=why)
                node = replace(node, start=start, stop=stop)
        return node

    def shaped(node: ir.Expr) -> ir.Expr:
        if node.dims:
            node = replace(node, dims=tuple(canonical(dim) for dim in ir.transform(node.dims, step)))
        return step(node)

    memo: dict[object, ir.Expr] = {}

    def new(value: object) -> object:
        if isinstance(value, get_args(ir.Expr)):
            if value not in memo:
                (memo[value],) = ir.transform((value,), shaped)
            return memo[value]
        if isinstance(value, tuple):
            return tuple(new(item) for item in value)
        if is_dataclass(value) and type(value).__module__ == ir.__name__ and not isinstance(value, type):
            parts = {item.name: getattr(value, item.name) for item in fields(value)}
            changed = {name: new(part) for name, part in parts.items() if isinstance(part, tuple) or is_dataclass(part)}
            return replace(value, **changed)
        return value

    changes: dict[str, object] = {}
    for item in fields(construct):
        if item.name in ("name", "params", "conditions", "sizes", "source", "span", "state", "layout"):
            continue
        changes[item.name] = new(getattr(construct, item.name))
    return replace(construct, conditions=(), **changes)  # type: ignore[arg-type]  # each field keeps its type

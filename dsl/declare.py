"""Declarations: params, inputs, vectors, sizes, lets. Makes the names of a construct and their types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from attnc.dsl import ir, syntax
from attnc.dsl.calls import KINDS, size_like
from attnc.dsl.constant import constant
from attnc.dsl.construct import InputDecl, ParamDecl, VectorDecl
from attnc.dsl.elaborate import Elaborator
from attnc.dsl.lets import check_parameters, declare_let, references
from attnc.dsl.names import Derived, Misplaced, PerHead, Scope, Value
from attnc.dsl.params import param_value
from attnc.dsl.report import Report, near
from attnc.dsl.sizes import DIM, VALUE_DIM, canonical
from attnc.dsl.source import Span

Role = Literal["query", "key", "value"]

INPUT_KINDS = {
    "f32": ir.Kind.FLOAT, "f16": ir.Kind.FLOAT, "bf16": ir.Kind.FLOAT, "f64": ir.Kind.FLOAT,
    "i32": ir.Kind.INT, "i64": ir.Kind.INT, "bool": ir.Kind.BOOL,
}  # fmt: skip
DEFAULT_VECTORS: dict[Role, tuple[str, ir.Expr]] = {"query": ("q", DIM), "key": ("k", DIM), "value": ("v", VALUE_DIM)}


@dataclass(kw_only=True)
class Declarations:
    """What a construct declares, names first, types once all names are known."""

    clauses: tuple[syntax.Clause, ...]
    scope: Scope
    report: Report
    elaborator: Elaborator
    params: list[ParamDecl] = field(default_factory=list)
    inputs: list[InputDecl] = field(default_factory=list)
    vectors: list[VectorDecl] = field(default_factory=list)
    sizes: dict[str, syntax.Ref] = field(default_factory=dict)

    def names(self) -> None:
        """Every name of the construct, so that a let may be used before it is written."""
        declared = {item.name.text for role in DEFAULT_VECTORS for item in self._plain(role)}
        for role, (usual, dim) in DEFAULT_VECTORS.items():
            if self._assumed(role) and usual not in declared:
                self.scope.names[usual] = Value(what=role, expr=_vector(usual, role, dim))
        for clause in self.clauses:
            match clause:
                case syntax.ParamClause():
                    self._param_name(clause)
                case syntax.InputClause(name=name):
                    self.scope.declare(name, _untyped("input", name), self.report)
                case syntax.VectorClause(role=role, items=items):
                    for item in items:
                        self._vector_name(role, item)
                case syntax.LetClause():
                    declare_let(clause, self.scope, self.report)
                case syntax.BranchClause(name=name):
                    entity = Misplaced(what="branch", place="in `output`", span=name.span)
                    self.scope.declare(name, entity, self.report)
                case syntax.StateClause(name=name):
                    self.scope.declare(name, _untyped("state", name), self.report)
        self._sizes()

    def types(self) -> None:
        """Shapes of inputs and vectors, conditions of params, parameters of functions."""
        for role, (usual, dim) in DEFAULT_VECTORS.items():
            plain = self._plain(role)
            for item in plain:
                self._vector(role, item, dim)
            if self._assumed(role):
                span = next(iter(self.clauses)).span if self.clauses else Span(start=0, end=0)
                self.vectors.append(VectorDecl(name=usual, role=role, dim=dim, span=span))
        for clause in self.clauses:
            match clause:
                case syntax.InputClause():
                    self._input(clause)
                case syntax.StateClause(name=name, axes=axes):
                    self._state(name, axes)
        for clause in self.clauses:
            match clause:
                case syntax.ParamClause():
                    self._param(clause)
                    self._condition(clause)
                case syntax.LetClause():
                    check_parameters(clause, self.scope, self.report)
        self._determined()

    def size(self, node: syntax.Expr) -> ir.Expr | None:
        """A size expression in canonical form; a fault if it is none."""
        expr = self.elaborator.value(node, self.scope)
        if expr is None:
            return None
        if expr.kind is not ir.Kind.INT or expr.dims:
            self.report.fault("A209", "a size is an int", node.span, label=f"this is {expr.kind}")
            return None
        if not size_like(expr, self.report):
            return None
        size = canonical(expr)
        if isinstance(size, ir.Const) and size.value < 1:
            self.report.fault("A209", "a size is at least 1", node.span)
            return None
        if not isinstance(size, ir.Const) and not any(
            isinstance(part, ir.Size | ir.ParamRef) for part in ir.postorder(size)
        ):
            self.report.fault("A209", "a size is a number of at most 62 bits", node.span)
            return None
        return size

    def _items(self, role: Role) -> list[syntax.VectorItem]:
        clauses = (x for x in self.clauses if isinstance(x, syntax.VectorClause) and x.role == role)
        return [item for clause in clauses for item in clause.items]

    def _plain(self, role: Role) -> list[syntax.VectorItem]:
        return [item for item in self._items(role) if item.value is None]

    def _assumed(self, role: Role) -> bool:
        """Whether a call brings the role's usual vector though no clause declares it: where the role has no clause, and
        where one derives its vectors and something reads the usual (``key kp = e @ k``). ``value c = row[:r]`` in a
        spec that reads no ``v`` takes none."""
        usual, _ = DEFAULT_VECTORS[role]
        return not self._items(role) or (
            not self._plain(role) and any(ref.name == usual for ref in _read(self.clauses))
        )

    def _param_name(self, clause: syntax.ParamClause) -> None:
        name, declared = clause.name, clause.type
        kind = KINDS.get(declared.element.text)
        if kind is None:
            self.report.fault(
                "A208", f"a param is no `{declared.element.text}`", declared.element.span,
                help=near(declared.element.text, KINDS) or "write `int`, `float` or `bool`",
            )  # fmt: skip
            self.scope.declare(name, Value(what="param", expr=None, span=name.span), self.report)
            return
        per_head = declared.axes is not None
        if declared.axes is not None and not (
            len(declared.axes) == 1 and isinstance(axis := declared.axes[0], syntax.Ref) and axis.name == "H"
        ):
            self.report.fault("A304", "a param is one value, or one a head", declared.span, help="write `int[H]`")
        if declared.nograd:
            self.report.fault("A403", "`nograd` follows an input's type", declared.span, help="a param has no gradient")
        if per_head:
            self.scope.declare(name, PerHead(name=name.text, kind=kind, span=name.span), self.report)
        else:
            param = ir.ParamRef(kind=kind, name=name.text, span=name.span)
            self.scope.declare(name, Value(what="param", expr=param, span=name.span), self.report)

    def _param(self, clause: syntax.ParamClause) -> None:
        kind = KINDS.get(clause.type.element.text)
        if kind is None:
            return
        per_head = clause.type.axes is not None
        default = self._default(clause, kind, per_head) if clause.default is not None else None
        name = clause.name
        self.params.append(ParamDecl(name=name.text, kind=kind, per_head=per_head, default=default, span=name.span))

    def _default(
        self, clause: syntax.ParamClause, kind: ir.Kind, per_head: bool
    ) -> bool | int | float | tuple[bool | int | float, ...] | None:
        node = clause.default
        assert node is not None
        if isinstance(node, syntax.ListLiteral) is not per_head:
            message = "a param with one entry a head takes a list" if per_head else "this param takes one value"
            self.report.fault("A304", message, node.span, help="write `param w: int[H] = [1, 2, 4]`")
            return None
        if isinstance(node, syntax.ListLiteral):
            values = [self._constant(item, kind) for item in node.items]
            return None if not values or None in values else tuple(value for value in values if value is not None)
        return self._constant(node, kind)

    def _constant(self, node: syntax.Expr, kind: ir.Kind) -> bool | int | float | None:
        expr = self.elaborator.value(node, self.scope)
        if expr is None:
            return None
        value = constant(expr)
        if value is None:
            self.report.fault("A207", "a default is a constant", node.span, label="has no value of its own")
            return None
        try:
            return param_value(value, kind)
        except ValueError as error:
            self.report.fault("A301", f"the default {error}", node.span)
            return None

    def _vector_name(self, role: Role, item: syntax.VectorItem) -> None:
        if item.value is not None:
            side = ir.Side.QUERY if role == "query" else ir.Side.KEY
            entity = Derived(what=role, item=item, side=side, scope=self.scope, span=item.name.span)
            self.scope.declare(item.name, entity, self.report)
        else:
            self.scope.declare(item.name, _untyped(role, item.name), self.report)

    def _sizes(self) -> None:
        """Names in shapes that mean nothing else are new sizes."""
        for clause in self.clauses:
            match clause:
                case syntax.InputClause(type=syntax.Type(axes=axes)):
                    shapes = axes or ()
                case syntax.VectorClause(items=items):
                    shapes = tuple(item.dim for item in items if item.dim is not None)
                case syntax.StateClause(axes=axes):
                    shapes = axes
                case _:
                    continue
            for axis in shapes:
                for ref in references(axis):
                    if self.scope.find(ref.name) is None:
                        size = ir.Size(kind=ir.Kind.INT, name=ref.name, span=ref.span)
                        self.scope.names[ref.name] = Value(what="size", expr=size, span=ref.span)
                        self.sizes[ref.name] = ref

    def _determined(self) -> None:
        """A new size, and D and E where something reads them, must be an axis by itself somewhere: a call could not
        tell it otherwise."""
        alone = {axis for decl in self.inputs for axis in decl.axes} | {decl.dim for decl in self.vectors}
        dims = {ref.name: ref for ref in _read(self.clauses) if ref.name in (DIM.name, VALUE_DIM.name)}
        for name, ref in (self.sizes | dims).items():
            if ir.Size(kind=ir.Kind.INT, name=name) not in alone and not self.report.failed():
                self.report.fault(
                    "A210", f"no shape tells what `{name}` is", ref.span, help=f"some axis must be `{name}` alone"
                )

    def _vector(self, role: Role, item: syntax.VectorItem, default: ir.Expr) -> None:
        dim = self.size(item.dim) if item.dim is not None else default
        name = item.name
        entity = self.scope.names.get(name.text)
        if entity is None or entity.span != name.span:
            return
        if dim is None:
            self.scope.names[name.text] = Value(what=role, expr=None, span=name.span)
            return
        self.vectors.append(VectorDecl(name=name.text, role=role, dim=dim, span=name.span))
        self.scope.names[name.text] = Value(what=role, expr=_vector(name.text, role, dim), span=name.span)

    def _input(self, clause: syntax.InputClause) -> None:
        name, declared = clause.name, clause.type
        kind = INPUT_KINDS.get(declared.element.text)
        if kind is None:
            help = near(declared.element.text, INPUT_KINDS) or f"write one of {', '.join(INPUT_KINDS)}"
            self.report.fault("A208", f"no tensor is `{declared.element.text}`", declared.element.span, help=help)
        axes = [self.size(axis) for axis in declared.axes or ()]
        entity = self.scope.names.get(name.text)
        if entity is None or entity.span != name.span:
            return
        if kind is None or None in axes:
            self.scope.names[name.text] = Value(what="input", expr=None, span=name.span)
            return
        shape = tuple(axis for axis in axes if axis is not None)
        self.inputs.append(
            InputDecl(
                name=name.text, dtype=declared.element.text, kind=kind, axes=shape,
                differentiable=kind is ir.Kind.FLOAT and not declared.nograd, span=name.span,
            )
        )  # fmt: skip
        load = ir.Load(kind=kind, tensor=name.text, index=(), dims=shape, span=name.span)
        self.scope.names[name.text] = Value(what="input", expr=load, span=name.span)

    def _state(self, name: syntax.Name, axes: tuple[syntax.Expr, ...]) -> None:
        dims = [self.size(axis) for axis in axes]
        entity = self.scope.names.get(name.text)
        if entity is None or entity.span != name.span:
            return
        if len(dims) != 2:
            self.report.fault("A202", "a state is a matrix", name.span, help="write `state S[D, E]`")
        if len(dims) != 2 or None in dims:
            self.scope.names[name.text] = Value(what="state", expr=None, span=name.span)
            return
        shape = tuple(dim for dim in dims if dim is not None)
        state = ir.Symbol(kind=ir.Kind.FLOAT, dims=shape, name=name.text, span=name.span)
        self.scope.names[name.text] = Value(what="state", expr=state, span=name.span)

    def _condition(self, clause: syntax.ParamClause) -> None:
        """``where w >= 0``: of every entry, for a param with one a head."""
        entity = self.scope.names.get(clause.name.text)
        if clause.where is None or entity is None or entity.span != clause.name.span:
            return
        value: ir.Expr | None = None
        if isinstance(entity, PerHead):
            head = ir.Index(kind=ir.Kind.INT, axis="h", span=clause.name.span)
            value = ir.ParamElement(kind=entity.kind, name=entity.name, index=head, span=clause.name.span)
        elif isinstance(entity, Value):
            value = entity.expr
        condition = self.elaborator.value(clause.where, self.scope, {clause.name.text: value})
        if condition is not None and value is not None:
            self.elaborator.conditions.declare(condition, clause.where.span)


def _untyped(what: str, name: syntax.Name) -> Misplaced:
    """What stands for a tensor while shapes are read: they cannot speak of it."""
    return Misplaced(what=what, place="outside of shapes and defaults", span=name.span)


def _vector(name: str, role: Role, dim: ir.Expr) -> ir.Vector:
    side = ir.Side.QUERY if role == "query" else ir.Side.KEY
    return ir.Vector(kind=ir.Kind.FLOAT, dims=(dim,), name=name, side=side)


def _read(clauses: Iterable[syntax.Clause]) -> Iterator[syntax.Ref]:
    """Every name that a value is made of, in branches too; a branch's ``value v`` reads v."""
    for clause in clauses:
        match clause:
            case syntax.VectorClause(items=items):
                for item in items:
                    plain = syntax.Ref(name=item.name.text, span=item.name.span)
                    yield from references(item.value) if item.value is not None else (plain,)
            case syntax.BranchClause(clauses=own):
                yield from _read(own)
            case (
                syntax.LetClause(value=value)
                | syntax.ScoreClause(value=value)
                | syntax.MaskClause(value=value)
                | syntax.NormalizeClause(value=value)
                | syntax.OutputClause(value=value)
                | syntax.StepClause(value=value)
                | syntax.ReadClause(value=value)
            ):
                parts = [value.weight, value.divisor] if isinstance(value, syntax.Pair) else [value]
                for part in parts:
                    yield from references(part)

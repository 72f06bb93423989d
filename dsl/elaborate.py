"""Expressions: AST -> typed IR, lets and functions inlined.

Every method that looks at sub-expressions is a generator that yields the tasks it waits for; ``run`` keeps the
stack. So a spec may nest as deep as it likes, in one expression or through lets. A function's instantiation is made
once for equal arguments. None stands for what is already at fault.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, assert_never

from attnc.dsl import calls, ir, syntax
from attnc.dsl.conditions import Conditions
from attnc.dsl.kinds import ARITHMETIC, COMPARISONS, Typer
from attnc.dsl.library import BUILTINS, INTRINSICS
from attnc.dsl.names import Builtin, Derived, Let, Misplaced, PerHead, Scope, Value, misplaced, undeclared
from attnc.dsl.report import Report
from attnc.dsl.sizes import BATCH, HEADS, KEYS, QUERIES, shape_text
from attnc.dsl.source import Span
from attnc.dsl.vectors import Vectors

T = TypeVar("T")
Task = Generator["Task[Any]", Any, T]

MOST_INSTANCES = 5_000


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where an expression is read: its scope, its function's arguments, and, inside the library, the call in the
    user's text, which every node and fault then points at."""

    scope: Scope
    arguments: Mapping[str, ir.Expr | None] = field(default_factory=dict)
    call: Span | None = None

    def at(self, span: Span) -> Span:
        return self.call or span


def run(task: Task[T]) -> T:
    """Run a task and the tasks it yields, depth first, without recursion."""
    stack: list[Task[Any]] = [task]
    value: Any = None
    while stack:
        try:
            child = stack[-1].send(value)
        except StopIteration as done:
            stack.pop()
            value = done.value
        else:
            stack.append(child)
            value = None
    return value  # type: ignore[no-any-return]  # the first task's own result


class Elaborator:
    """One construct's expressions. ``used`` are the names that were read, ``derived`` the derived vectors, each
    after those it uses."""

    def __init__(self, *, report: Report, conditions: Conditions, recurrence: bool) -> None:
        self.report = report
        self.conditions = conditions
        self.recurrence = recurrence
        self.typer = Typer(report=report, matrices=recurrence)
        self.vectors = Vectors(report=report, typer=self.typer, axes={}, recurrence=recurrence)
        self.used: set[str] = set()
        self.derived: dict[str, tuple[Derived, ir.Expr]] = {}
        self._made: dict[tuple[object, ...], ir.Expr | None] = {}
        self._active: dict[int, str] = {}
        self._instances = 0

    def value(
        self, node: syntax.Expr, scope: Scope, arguments: Mapping[str, ir.Expr | None] | None = None
    ) -> ir.Expr | None:
        """The typed expression; None after a fault."""
        return run(self.expression(node, Frame(scope=scope, arguments=arguments or {})))

    def expression(self, node: syntax.Expr, frame: Frame) -> Task[ir.Expr | None]:
        span = frame.at(node.span)
        result: ir.Expr | None
        match node:
            case syntax.Number(value=number):
                kind = ir.Kind.INT if isinstance(number, int) else ir.Kind.FLOAT
                return ir.Const(kind=kind, value=number, span=span)
            case syntax.Bool(value=truth):
                return ir.Const(kind=ir.Kind.BOOL, value=truth, span=span)
            case syntax.Ref():
                result = yield self._ref(node, frame)
                return result
            case syntax.Call():
                result = yield self._call(node, frame)
                return result
            case syntax.Subscript():
                result = yield self._subscript(node, frame)
                return result
            case syntax.Unary(op=op, operand=operand):
                x = yield self.expression(operand, frame)
                return self._unary(op, x, span) if x is not None else None
            case syntax.Binary(op=op, left=left, right=right):
                x = yield self.expression(left, frame)
                y = yield self.expression(right, frame)
                if x is None or y is None:
                    return None
                return self.vectors.matmul(x, y, span) if op == "@" else self.typer.apply(ARITHMETIC[op], (x, y), span)
            case syntax.Comparison():
                result = yield self._comparison(node, frame)
                return result
            case syntax.Attribute(name=name):
                self.report.fault("A105", "nothing here has parts named by a dot", frame.at(name.span))
                return None
            case syntax.ListLiteral():
                self.report.fault("A105", "a list is only the default of a param with one entry a head", span)
                return None
            case _:
                assert_never(node)

    def _unary(self, op: str, x: ir.Expr, span: Span) -> ir.Expr | None:
        if op == "not":
            return self.typer.apply(ir.Fn.NOT, (x,), span)
        if op == "-":
            return self.typer.apply(ir.Fn.NEG, (x,), span)
        return ir.placed(x, span) if self.typer.numbers((x,)) else None

    def _comparison(self, node: syntax.Comparison, frame: Frame) -> Task[ir.Expr | None]:
        operands = []
        for operand in node.operands:
            operands.append((yield self.expression(operand, frame)))
        result: ir.Expr | None = None
        for op, x, y in zip(node.ops, operands, operands[1:], strict=False):
            if x is None or y is None:
                return None
            part = self.typer.apply(COMPARISONS[op], (x, y), frame.at(x.span.to(y.span)))
            if part is not None and result is not None:
                part = self.typer.apply(ir.Fn.AND, (result, part), frame.at(node.span))
            result = part
            if result is None:
                return None
        return result

    # --- names --------------------------------------------------------------------------------

    def _ref(self, node: syntax.Ref, frame: Frame) -> Task[ir.Expr | None]:
        span = frame.at(node.span)
        result: ir.Expr | None
        if node.name in frame.arguments:
            value = frame.arguments[node.name]
            return ir.placed(value, span) if value is not None else None
        entity = frame.scope.find(node.name)
        self.used.add(node.name)
        match entity:
            case None:
                undeclared(node.name, span, frame.scope, frame.arguments, self.report)
                return None
            case Value(expr=expr):
                if expr is None:
                    return None
                expr = ir.placed(expr, span)
                return self._at_token(expr) if self.recurrence and isinstance(expr, ir.Load) else expr
            case PerHead(name=name):
                self.report.fault("A304", f"`{name}` has one entry a head", span, help=f"write `{name}[h]`")
                return None
            case Let(clauses=clauses):
                plain = [clause for clause in clauses if clause.parameters is None]
                if not plain:
                    self.report.fault("A104", f"`{node.name}` is a function", span, help=f"call it: `{node.name}(...)`")
                    return None
                result = yield self._let(entity, plain[0], {}, frame.at(node.span), frame)
                return result
            case Derived():
                result = yield self._derived(entity, span)
                return result
            case Misplaced() as entity:
                misplaced(node.name, entity, span, self.report)
                return None
            case Builtin():
                self.report.fault("A104", f"`{node.name}` is a function", span, help=f"call it: `{node.name}(...)`")
                return None
            case _:
                assert_never(entity)

    def _let(
        self, let: Let, clause: syntax.LetClause, arguments: Mapping[str, ir.Expr | None], span: Span, frame: Frame
    ) -> Task[ir.Expr | None]:
        """A let's value, or its function's at these arguments: made once, then shared."""
        key = (id(clause), *(value.digest for value in arguments.values() if value is not None))
        if key in self._made:
            made = self._made[key]
            return ir.placed(made, span) if made is not None else None
        if isinstance(clause.value, syntax.Pair):
            self.report.fault("A105", f"`{clause.name.text}` is a normalization: it stands after `normalize`", span)
            return None
        if arguments and not self._room(span):
            return None
        call = frame.call or (span if let.scope.library else None)
        inner = Frame(scope=let.scope, arguments=arguments, call=call)
        made = yield self._guarded(clause, clause.name.text, span, self.expression(clause.value, inner))
        self._made[key] = made
        return ir.placed(made, span) if made is not None else None

    def _room(self, span: Span) -> bool:
        """Whether the spec is still of a sane size: nested functions can grow without bound."""
        self._instances += 1
        if self._instances <= MOST_INSTANCES:
            return True
        if self._instances == MOST_INSTANCES + 1:
            self.report.fault("A107", f"functions expand to more than {MOST_INSTANCES} distinct calls", span)
        return False

    def _guarded(self, clause: object, name: str, span: Span, task: Task[T]) -> Task[T | None]:
        """The task's result, a fault if it is already being made further out."""
        if id(clause) in self._active:
            chain = list(self._active.values())[list(self._active).index(id(clause)) :]
            circle = " -> ".join(f"`{step}`" for step in [*chain[:8], *(["..."] if len(chain) > 8 else []), name])
            self.report.fault("A103", f"`{name}` is defined by itself", span, label=circle)
            return None
        self._active[id(clause)] = name
        result: T = yield task
        del self._active[id(clause)]
        return result

    def _derived(self, entity: Derived, span: Span) -> Task[ir.Expr | None]:
        item = entity.item
        name = item.name.text
        key = (id(item),)
        if key not in self._made:
            assert item.value is not None
            frame = Frame(scope=entity.scope)
            expr = yield self._guarded(item, name, span, self.expression(item.value, frame))
            self._made.setdefault(key, self._token_vector(entity, expr) if expr is not None else None)
        made = self._made[key]
        return ir.placed(made, span) if made is not None else None

    def _token_vector(self, entity: Derived, expr: ir.Expr) -> ir.Expr | None:
        name = entity.item.name
        vector = self.vectors.vector(expr, f"a derived {entity.what}")
        if vector is None:
            return None
        foreign: ir.Axis = "j" if entity.side is ir.Side.QUERY else "i"
        if foreign in self.vectors.varies(vector):
            source = "queries and `i`" if entity.side is ir.Side.QUERY else "keys, values and `j`"
            label = f"varies with `{foreign}`"
            self.report.fault("A105", f"a {entity.what} is derived from {source}", name.span, label=label)
            return None
        self.derived[name.text] = (entity, vector)
        return ir.Vector(kind=ir.Kind.FLOAT, dims=vector.dims, name=name.text, side=entity.side, span=name.span)

    # --- calls --------------------------------------------------------------------------------

    def _call(self, node: syntax.Call, frame: Frame) -> Task[ir.Expr | None]:
        result: ir.Expr | None
        given: calls.Given = yield self.arguments(node, frame)
        name, span = node.function.name, frame.at(node.span)
        entity = frame.scope.find(name) if name not in frame.arguments else None
        self.used.add(name)
        match entity:
            case None if name not in frame.arguments:
                undeclared(name, frame.at(node.function.span), frame.scope, frame.arguments, self.report)
            case Builtin(signature=signature):
                bound = calls.bind_builtin(name, signature, given, span, self.report)
                if bound is None or any(value is None for _, value in given):
                    return None
                return self._builtin(name, bound[0], bound[1], span)
            case Let(clauses=clauses):
                clause = calls.choose(name, clauses, given, span, self.report)
                if clause is not None:
                    arguments = yield self.parameters(entity, clause, given, span, frame)
                    if arguments is not None:
                        result = yield self._let(entity, clause, arguments, span, frame)
                        return result
            case Misplaced() as entity:
                misplaced(name, entity, frame.at(node.function.span), self.report)
            case _:
                self.report.fault("A104", f"`{name}` is no function", frame.at(node.function.span))
        return None

    def arguments(self, node: syntax.Call, frame: Frame) -> Task[calls.Given]:
        """The arguments of a call, in order."""
        given: calls.Given = []
        for argument in node.args:
            given.append((argument, (yield self.expression(argument.value, frame))))
        return given

    def parameters(
        self, let: Let, clause: syntax.LetClause, given: calls.Given, span: Span, frame: Frame
    ) -> Task[dict[str, ir.Expr | None] | None]:
        """A function's parameters: arguments of the kinds declared, defaults, conditions."""
        assert clause.parameters is not None
        places = calls.places(clause.parameters, given)
        call = frame.call or (span if let.scope.library else None)
        bound: dict[str, ir.Expr | None] = {}
        inner = Frame(scope=let.scope, arguments=bound, call=call)
        for parameter in clause.parameters:
            if parameter.name.text in places:
                value = places[parameter.name.text][1]
            else:
                assert parameter.default is not None
                value = yield self.expression(parameter.default, inner)
            if value is not None:
                value = calls.accept(clause.name.text, parameter, value, self.report)
            bound[parameter.name.text] = value
        if None in bound.values():
            return None
        stated: set[ir.Expr] = set()
        for parameter in clause.parameters:
            if parameter.where is not None:
                condition = yield self.expression(parameter.where, inner)
                value = bound[parameter.name.text]
                assert value is not None
                place = places.get(parameter.name.text)
                at = frame.at(place[0].value.span) if place is not None else span
                if condition is not None and condition not in stated:  # a default may repeat its model's
                    stated.add(condition)
                    self.conditions.require(condition, f"`{clause.name.text}`", parameter.name.text, value, at)
        return bound

    def _builtin(self, name: str, args: dict[str, ir.Expr], more: list[ir.Expr], span: Span) -> ir.Expr | None:
        signature = {**BUILTINS, **INTRINSICS}[name]
        if signature.fn is None:
            return self.vectors.function(name, args, more, span)
        if not signature.variadic:
            return self.typer.apply(signature.fn, tuple(args.values()), span)
        first, *rest = [*args.values(), *more]
        result: ir.Expr | None = first
        for value in rest:
            result = self.typer.apply(signature.fn, (result, value), span) if result is not None else None
        return result

    # --- subscripts ---------------------------------------------------------------------------

    def _subscript(self, node: syntax.Subscript, frame: Frame) -> Task[ir.Expr | None]:
        span = frame.at(node.span)
        base = yield self._subscripted(node.value, frame)
        parts: list[tuple[ir.Expr | None, ir.Expr | None]] = []
        for part in node.index:
            if isinstance(part, syntax.Slice):
                start = (yield self.expression(part.start, frame)) if part.start is not None else None
                stop = (yield self.expression(part.stop, frame)) if part.stop is not None else None
                if (part.start is not None and start is None) or (part.stop is not None and stop is None):
                    return None
                parts.append((start, stop))
            else:
                value = yield self.expression(part, frame)
                if value is None:
                    return None
                parts.append((value, value))
        if base is None:
            return None
        slices = [part for part in node.index if isinstance(part, syntax.Slice)]
        if slices:
            if len(parts) > 1 or isinstance(base, PerHead):
                self.report.fault("A203", "a slice is taken of a vector, alone", span, help="write `x[h][:64]`")
                return None
            bounds = [x for x in parts[0] if x is not None]
            if not all(self._is_size(x) for x in bounds):
                return None
            return self.vectors.sliced(base, parts[0][0], parts[0][1], span)
        index = tuple(value for value, _ in parts if value is not None)
        if not all(self._is_index(value) for value in index):
            return None
        if isinstance(base, PerHead):
            if len(index) != 1:
                self.report.fault("A203", f"`{base.name}` has one axis", span, label=f"{len(index)} indices")
                return None
            return ir.ParamElement(kind=base.kind, name=base.name, index=index[0], span=span)
        return self._element(base, index, span)

    def _subscripted(self, node: syntax.Expr, frame: Frame) -> Task[ir.Expr | PerHead | None]:
        """What is indexed: a param with one entry a head, and, in a recurrence too, an input as a whole."""
        if isinstance(node, syntax.Ref) and node.name not in frame.arguments:
            entity = frame.scope.find(node.name)
            if isinstance(entity, PerHead):
                self.used.add(node.name)
                return entity
            if isinstance(entity, Value) and isinstance(entity.expr, ir.Load):
                self.used.add(node.name)
                return ir.placed(entity.expr, frame.at(node.span))
        result: ir.Expr | None = yield self.expression(node, frame)
        return result

    def _element(self, base: ir.Expr, index: tuple[ir.Expr, ...], span: Span) -> ir.Expr | None:
        if not isinstance(base, ir.Load):
            what = "a vector has slices, no elements" if base.dims else "a number has no elements"
            self.report.fault("A203", what, span, help="inputs are indexed, and params declared `int[H]`")
            return None
        if len(index) > len(base.dims):
            label = f"{len(index)} indices, shape {shape_text(base.dims)}"
            self.report.fault("A203", f"`{base.tensor}` has fewer axes", span, label=label)
            return None
        rows = tuple(_row(value, axis, span) for value, axis in zip(index, base.dims, strict=False))
        return replace(base, index=(*base.index, *rows), dims=base.dims[len(rows) :], span=span)

    def _is_index(self, value: ir.Expr) -> bool:
        assert value.span is not None
        if value.kind is ir.Kind.INT and not value.dims:
            return True
        kind = "an index is an int" if value.kind is not ir.Kind.INT else "an index is one number"
        help = "`int(x)` truncates, `//` divides" if value.kind is ir.Kind.FLOAT else ""
        self.report.fault("A203", kind, value.span, label=f"this is {value.kind}", help=help)
        return False

    def _is_size(self, value: ir.Expr) -> bool:
        """Sizes and slice bounds are known before any tensor's content is."""
        return self._is_index(value) and calls.size_like(value, self.report)

    def _at_token(self, load: ir.Load) -> ir.Expr:
        """In a recurrence an input means its value at the token at hand: leading axes B, H, N are read there."""
        axes: dict[ir.Expr, ir.Axis] = {BATCH: "b", HEADS: "h", QUERIES: "i"}
        index: list[ir.Expr] = []
        for dim in load.dims:
            if dim not in axes:
                break
            index.append(_row(ir.Index(kind=ir.Kind.INT, axis=axes[dim], span=load.span), dim, load.span))
        return replace(load, index=tuple(index), dims=load.dims[len(index) :])


def _row(index: ir.Expr, axis: ir.Expr, span: Span | None) -> ir.Expr:
    """Positions become rows: an axis N is read at the index minus ``q_offset``, M minus ``kv_offset``."""
    if axis not in (QUERIES, KEYS):
        return index
    side = ir.Side.QUERY if axis == QUERIES else ir.Side.KEY
    offset = ir.Offset(kind=ir.Kind.INT, side=side, span=span)
    return ir.Apply(kind=ir.Kind.INT, fn=ir.Fn.SUB, args=(index, offset), span=index.span)

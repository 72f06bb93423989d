"""Functions of vectors: what they take, and the shape of what they give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from attnc.dsl import ir
from attnc.dsl.kinds import Typer, to_float
from attnc.dsl.report import Report
from attnc.dsl.sizes import (
    DIM,
    KEYS,
    MOST_PARTS,
    QUERIES,
    VALUE_DIM,
    add_sizes,
    canonical,
    shape_text,
    size_text,
    subtract_sizes,
)
from attnc.dsl.sizes import parts as parts_of
from attnc.dsl.source import Span


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Typing of vector functions. ``axes`` remembers which indices an expression varies with."""

    report: Report
    typer: Typer
    axes: dict[ir.Expr, frozenset[ir.Axis]]
    recurrence: bool

    def function(self, name: str, args: Mapping[str, ir.Expr], more: list[ir.Expr], span: Span) -> ir.Expr | None:
        """A call of a built-in vector function; ``more`` are the arguments beyond the named of a variadic one."""
        match name:
            case "dot":
                return self._dot(args["x"], args["y"], span)
            case "outer":
                return self._outer(args["x"], args["y"], span)
            case "rope":
                return self._rope(args, span)
            case "l2norm" | "rmsnorm":
                return self._normed(name, args, span)
            case "concat":
                return self._concat([args["x"], args["y"], *more], span)
            case "drawn":
                assert all(arg.kind is ir.Kind.INT for arg in args.values())
                return ir.Drawn(kind=ir.Kind.BOOL, span=span, **args)  # type: ignore[arg-type]
            case "listed":
                return self._listed(args["table"], args["row"], args["column"], span)
        raise AssertionError(name)

    def vector(self, x: ir.Expr, what: str) -> ir.Expr | None:
        """x as floats if it is a vector, else a fault."""
        assert x.span is not None
        if len(x.dims) != 1:
            label = f"this is {shape_text(x.dims)}" if not x.dims else f"its shape is {shape_text(x.dims)}"
            self.report.fault("A204", f"{what} takes vectors", x.span, label=label)
            return None
        return to_float(x) if self.typer.numbers((x,)) else None

    def scalar(self, x: ir.Expr, what: str) -> ir.Expr | None:
        """x as a float if it is one number, else a fault."""
        assert x.span is not None
        if x.dims:
            label = f"its shape is {shape_text(x.dims)}"
            self.report.fault("A204", f"{what} is one number", x.span, label=label)
            return None
        return to_float(x) if self.typer.numbers((x,)) else None

    def varies(self, expr: ir.Expr) -> frozenset[ir.Axis]:
        """``ir.dependencies``, remembered: every node is looked at once however often it is asked for."""
        stack = [expr]
        while stack:
            node = stack[-1]
            if node in self.axes:
                stack.pop()
                continue
            missing = [child for child in ir.children(node) if child not in self.axes]
            if missing:
                stack += missing
                continue
            own: frozenset[ir.Axis] = ir.dependencies(node) if not ir.children(node) else _own_axes(node)
            self.axes[node] = own.union(*(self.axes[child] for child in ir.children(node)))
            stack.pop()
        return self.axes[expr]

    def sliced(self, x: ir.Expr, start: ir.Expr | None, stop: ir.Expr | None, span: Span) -> ir.Expr | None:
        """``x[start:stop]``"""
        vector = self.vector(x, "a slice")
        if vector is None:
            return None
        start = canonical(start) if start is not None else ir.Const(kind=ir.Kind.INT, value=0)
        stop = canonical(stop) if stop is not None else vector.dims[0]
        if (fault := slice_fault(start, stop, vector.dims[0])) is not None:
            self.report.fault("A202", "the slice does not lie in the vector", span, label=fault)
            return None
        dims = (subtract_sizes(stop, start),)
        return ir.Sliced(kind=ir.Kind.FLOAT, dims=dims, operand=vector, start=start, stop=stop, span=span)

    def matmul(self, left: ir.Expr, right: ir.Expr, span: Span) -> ir.Expr | None:
        """``m @ x`` with an input m; in a recurrence also ``x @ S`` and ``S @ x`` with matrices that it makes."""
        if not self.typer.numbers((left, right)):
            return None
        if self.recurrence and not isinstance(left, ir.Load) and {len(left.dims), len(right.dims)} == {1, 2}:
            if left.dims[-1] != right.dims[0]:
                self._misfit(left.dims, right.dims, span)
                return None
            dims = (*left.dims[:-1], *right.dims[1:])
            return ir.MatMul(
                kind=ir.Kind.FLOAT, dims=dims, matrix=to_float(left), operand=to_float(right), over="dims", span=span
            )
        if len(left.dims) != 2 or not isinstance(left, ir.Load):
            assert left.span is not None
            label = f"this is {shape_text(left.dims)}"
            self.report.fault(
                "A206", "the left side of `@` is an input matrix", left.span, label=label,
                help="declare `input m: f32[R, D]` and write `m @ x`",
            )  # fmt: skip
            return None
        operand = self.vector(right, "`@`")
        if operand is None:
            return None
        if self.varies(left) & {"i", "j"}:
            assert left.span is not None
            self.report.fault("A206", "the matrix of `@` varies with the position", left.span)
            return None
        last = left.dims[1]
        if last in (QUERIES, KEYS):
            return self._over_positions(left, operand, span)
        if last not in (DIM, VALUE_DIM):
            self.report.fault(
                "A206", "the last axis of the matrix decides what `@` sums over", span,
                label=f"`{size_text(last)}` is neither `M` or `N` (positions) nor `D` or `E` (dims)",
            )  # fmt: skip
            return None
        if operand.dims[0] != last:
            self._misfit(left.dims, operand.dims, span)
            return None
        dims = left.dims[:1]
        return ir.MatMul(kind=ir.Kind.FLOAT, dims=dims, matrix=to_float(left), operand=operand, over="dims", span=span)

    def _over_positions(self, matrix: ir.Expr, operand: ir.Expr, span: Span) -> ir.Expr | None:
        own: ir.Axis = "j" if matrix.dims[1] == KEYS else "i"
        if self.recurrence or self.varies(operand) & {"i", "j"} != {own}:
            side = "a key or value" if own == "j" else "a query"
            self.report.fault(
                "A206", f"`@` over `{size_text(matrix.dims[1])}` takes {side}", span,
                help="`M` runs along the keys, `N` along the queries",
            )  # fmt: skip
            return None
        return ir.MatMul(
            kind=ir.Kind.FLOAT, dims=operand.dims, matrix=to_float(matrix), operand=operand, over="positions", span=span
        )

    def _dot(self, x: ir.Expr, y: ir.Expr, span: Span) -> ir.Expr | None:
        left, right = self.vector(x, "`dot`"), self.vector(y, "`dot`")
        if left is None or right is None:
            return None
        if left.dims != right.dims:
            self._misfit(left.dims, right.dims, span)
            return None
        return ir.Dot(kind=ir.Kind.FLOAT, left=left, right=right, span=span)

    def _outer(self, x: ir.Expr, y: ir.Expr, span: Span) -> ir.Expr | None:
        if not self.recurrence:
            self.report.fault("A105", "`outer` makes a matrix: it belongs to a recurrence", span)
            return None
        left, right = self.vector(x, "`outer`"), self.vector(y, "`outer`")
        if left is None or right is None:
            return None
        dims = (*left.dims, *right.dims)
        return ir.Outer(kind=ir.Kind.FLOAT, dims=dims, left=left, right=right, span=span)

    def _misfit(self, x: tuple[ir.Expr, ...], y: tuple[ir.Expr, ...], span: Span) -> None:
        label = f"{shape_text(x)} meets {shape_text(y)}"
        help = "sizes are equal if their names are: `key k[64]` declares another dim than `D`"
        self.report.fault("A202", "shapes do not fit", span, label=label, help=help)
        return None

    def _rope(self, args: Mapping[str, ir.Expr], span: Span) -> ir.Expr | None:
        operand = self.vector(args["x"], "`rope`")
        position = self.scalar(args["pos"], "the position")
        base = self.scalar(args["base"], "`base`") if "base" in args else ir.Const(kind=ir.Kind.FLOAT, value=10000.0)
        scaling: ir.Expr | None = ir.Const(kind=ir.Kind.FLOAT, value=1.0)
        if "scaling" in args:
            scaling = args["scaling"]
            scaling = self.vector(scaling, "`scaling`") if scaling.dims else self.scalar(scaling, "`scaling`")
        flag = args.get("interleaved", ir.Const(kind=ir.Kind.BOOL, value=False))
        if not isinstance(flag, ir.Const) or not isinstance(flag.value, bool):
            assert flag.span is not None
            self.report.fault("A207", "`interleaved` is `true` or `false`", flag.span)
            return None
        if operand is None or position is None or base is None or scaling is None:
            return None
        dim = operand.dims[0]
        if isinstance(dim, ir.Const) and dim.value % 2:
            label = f"this has {dim.value}"
            self.report.fault("A202", "`rope` turns pairs: its vector has an even dim", span, label=label)
            return None
        if scaling.dims and not _is_half(scaling.dims[0], dim):
            assert scaling.span is not None
            half = ir.Apply(kind=ir.Kind.INT, fn=ir.Fn.FLOORDIV, args=(dim, ir.Const(kind=ir.Kind.INT, value=2)))
            self.report.fault(
                "A202", "`scaling` has one entry a pair", scaling.span,
                label=f"{shape_text(scaling.dims)}, not {shape_text((canonical(half),))}",
            )  # fmt: skip
            return None
        return ir.Rope(
            kind=ir.Kind.FLOAT, dims=operand.dims, operand=operand, position=position, base=base, scaling=scaling,
            interleaved=flag.value, span=span,
        )  # fmt: skip

    def _normed(self, fn: str, args: Mapping[str, ir.Expr], span: Span) -> ir.Expr | None:
        operand = self.vector(args["x"], f"`{fn}`")
        weight = self.vector(args["w"], "`w`") if "w" in args else None
        default = ir.Const(kind=ir.Kind.FLOAT, value=1e-12 if fn == "l2norm" else 1e-6)
        eps = self.scalar(args["eps"], "`eps`") if "eps" in args else default
        if operand is None or eps is None or ("w" in args and weight is None):
            return None
        if weight is not None and weight.dims != operand.dims:
            self._misfit(operand.dims, weight.dims, span)
            return None
        return ir.Normed(
            kind=ir.Kind.FLOAT, dims=operand.dims, fn="l2norm" if fn == "l2norm" else "rmsnorm", operand=operand,
            weight=weight, eps=eps, span=span,
        )  # fmt: skip

    def _concat(self, parts: list[ir.Expr], span: Span) -> ir.Expr | None:
        vectors = [self.vector(part, "`concat`") for part in parts]
        known = tuple(vector for vector in vectors if vector is not None)
        if len(known) < len(vectors):
            return None
        if parts_of(*(vector.dims[0] for vector in known)) > MOST_PARTS:
            self.report.fault("A209", f"a size has at most {MOST_PARTS} parts", span)
            return None
        dims = (add_sizes(*(vector.dims[0] for vector in known)),)
        return ir.Concat(kind=ir.Kind.FLOAT, dims=dims, parts=known, span=span)

    def _listed(self, table: ir.Expr, row: ir.Expr, column: ir.Expr, span: Span) -> ir.Expr | None:
        if not isinstance(table, ir.Load) or table.index or len(table.dims) != 4 or table.kind is ir.Kind.FLOAT:
            assert table.span is not None
            self.report.fault(
                "A203", "`blocks` takes a bool or integer input of four axes", table.span,
                help="declare `input t: bool[B, H, R, S]` (a table) or `i32[B, H, R, S]` (an index list)",
            )  # fmt: skip
            return None
        if table.kind is ir.Kind.INT:
            return ir.Listed(kind=ir.Kind.BOOL, tensor=table.tensor, row=row, column=column, span=span)
        b, h = (ir.Index(kind=ir.Kind.INT, axis=axis, span=span) for axis in ("b", "h"))
        return replace(table, index=(b, h, row, column), dims=(), span=span)


def slice_fault(start: ir.Expr, stop: ir.Expr, dim: ir.Expr) -> str | None:
    """Why ``start:stop`` is no part of a vector, as far as the numbers are known."""
    known = [x.value if isinstance(x, ir.Const) else None for x in (start, stop, dim)]
    low, high, size = known
    if (low is not None and low < 0) or (high is not None and high < 0):
        return "counted from the end: write `D - n`"
    if (low is not None and high is not None and low >= high) or start == stop:
        return "empty"
    if size is not None and ((high is not None and high > size) or (low is not None and low >= size)):
        return f"the vector has {size} entries"
    return None


def _is_half(half: ir.Expr, dim: ir.Expr) -> bool:
    two = ir.Const(kind=ir.Kind.INT, value=2)
    floored = ir.Apply(kind=ir.Kind.INT, fn=ir.Fn.FLOORDIV, args=(dim, two))
    doubled = ir.Apply(kind=ir.Kind.INT, fn=ir.Fn.MUL, args=(two, half))
    return canonical(half) == canonical(floored) or canonical(doubled) == canonical(dim)


def _own_axes(node: ir.Expr) -> frozenset[ir.Axis]:
    """What a node varies with beyond its parts."""
    return frozenset(("b", "h")) if isinstance(node, ir.Listed) else frozenset()

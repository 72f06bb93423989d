"""Elementwise functions: the kind and the shape of what they give, conversions written out, faults where they
do not fit. Python's promotion: an int meets a float as a float, ``/`` gives a float, a truth value is no number."""

from __future__ import annotations

from dataclasses import dataclass, replace

from attnc.dsl.ir import Apply, Const, Expr, Fn, Kind
from attnc.dsl.report import Report
from attnc.dsl.sizes import shape_text
from attnc.dsl.source import Span

COMPARISONS = {"==": Fn.EQ, "!=": Fn.NE, "<": Fn.LT, "<=": Fn.LE, ">": Fn.GT, ">=": Fn.GE}
ARITHMETIC = {
    "+": Fn.ADD, "-": Fn.SUB, "*": Fn.MUL, "/": Fn.DIV, "//": Fn.FLOORDIV, "%": Fn.MOD, "**": Fn.POW,
    "and": Fn.AND, "or": Fn.OR,
}  # fmt: skip

KEEPS_KIND = frozenset({Fn.ADD, Fn.SUB, Fn.MUL, Fn.FLOORDIV, Fn.MOD, Fn.MIN, Fn.MAX, Fn.CLAMP, Fn.ABS, Fn.SIGN, Fn.NEG})
LOGIC = frozenset({Fn.AND, Fn.OR, Fn.NOT})


def to_float(x: Expr) -> Expr:
    """The same number as a FLOAT; a literal directly."""
    match x:
        case Const(kind=Kind.INT, value=value):
            return Const(kind=Kind.FLOAT, value=float(value), span=x.span)
        case _ if x.kind is Kind.INT:
            return Apply(kind=Kind.FLOAT, dims=x.dims, fn=Fn.FLOAT, args=(x,), span=x.span)
    return x


def negated(x: Expr, span: Span) -> Expr:
    """``-x``; of a literal, the literal's negative."""
    if isinstance(x, Const) and x.kind is not Kind.BOOL:
        return replace(x, value=-x.value, span=span)
    return Apply(kind=x.kind, dims=x.dims, fn=Fn.NEG, args=(x,), span=span)


@dataclass(frozen=True, kw_only=True)
class Typer:
    """``matrices``: whether values of two dims may take part (the state of a recurrence)."""

    report: Report
    matrices: bool

    def apply(self, fn: Fn, args: tuple[Expr, ...], span: Span) -> Expr | None:
        """fn(args), typed; None after a fault."""
        dims = self._broadcast(args, span)
        if dims is None:
            return None
        if fn in LOGIC:
            return self._logic(fn, args, dims, span)
        if fn is Fn.WHERE:
            return self._where(args, dims, span)
        if fn in (Fn.EQ, Fn.NE) and all(arg.kind is Kind.BOOL for arg in args):
            return Apply(kind=Kind.BOOL, dims=dims, fn=fn, args=args, span=span)
        if not self.numbers(args):
            return None
        if fn in COMPARISONS.values():
            return Apply(kind=Kind.BOOL, dims=dims, fn=fn, args=_common(args), span=span)
        if fn is Fn.NEG:
            return negated(args[0], span)
        if fn is Fn.INT or (fn is Fn.FLOOR and args[0].kind is Kind.INT):
            if args[0].kind is Kind.INT:
                return args[0]
            return Apply(kind=Kind.INT, dims=dims, fn=fn, args=args, span=span)
        if fn in KEEPS_KIND or (fn is Fn.POW and _integer_power(args)):
            args = _common(args)
            return Apply(kind=args[0].kind, dims=dims, fn=fn, args=args, span=span)
        floats = tuple(to_float(arg) for arg in args)
        return Apply(kind=Kind.FLOAT, dims=dims, fn=fn, args=floats, span=span)

    def numbers(self, args: tuple[Expr, ...]) -> bool:
        """Whether no argument is a truth value; a fault at each that is."""
        wrong = [arg for arg in args if arg.kind is Kind.BOOL]
        for arg in wrong:
            assert arg.span is not None
            self.report.fault(
                "A201",
                "a truth value is used as a number",
                arg.span,
                label="this is true or false",
                help="write `where(condition, 1, 0)`",
            )
        return not wrong

    def truths(self, args: tuple[Expr, ...]) -> bool:
        """Whether every argument is a truth value."""
        wrong = [arg for arg in args if arg.kind is not Kind.BOOL]
        for arg in wrong:
            assert arg.span is not None
            self.report.fault(
                "A201",
                "a number is used as a truth value",
                arg.span,
                label=f"this is {'an int' if arg.kind is Kind.INT else 'a float'}",
                help="compare it: `x != 0`",
            )
        return not wrong

    def _logic(self, fn: Fn, args: tuple[Expr, ...], dims: tuple[Expr, ...], span: Span) -> Expr | None:
        if not self.truths(args):
            return None
        return Apply(kind=Kind.BOOL, dims=dims, fn=fn, args=args, span=span)

    def _where(self, args: tuple[Expr, ...], dims: tuple[Expr, ...], span: Span) -> Expr | None:
        condition, x, y = args
        if not self.truths((condition,)):
            return None
        if x.kind is Kind.BOOL and y.kind is Kind.BOOL:  # a choice of truth values is logic

            def logic(fn: Fn, *parts: Expr) -> Expr:
                return Apply(kind=Kind.BOOL, dims=dims, fn=fn, args=parts, span=span)

            return logic(Fn.OR, logic(Fn.AND, condition, x), logic(Fn.AND, logic(Fn.NOT, condition), y))
        if not self.numbers((x, y)):
            return None
        x, y = _common((x, y))
        return Apply(kind=x.kind, dims=dims, fn=Fn.WHERE, args=(condition, x, y), span=span)

    def _broadcast(self, args: tuple[Expr, ...], span: Span) -> tuple[Expr, ...] | None:
        """Scalars meet any shape; two shapes must be equal."""
        shaped = [arg for arg in args if arg.dims]
        for arg in shaped:
            assert arg.span is not None
            if len(arg.dims) > 1 and not self.matrices:
                self.report.fault(
                    "A202",
                    "a whole tensor stands where a number or a vector is expected",
                    arg.span,
                    label=f"its shape is {shape_text(arg.dims)}",
                    help="index it, as in `x[b, i]`",
                )
                return None
            if arg.dims != shaped[0].dims:
                self.report.fault(
                    "A202",
                    "shapes do not fit",
                    span,
                    label=f"{shape_text(shaped[0].dims)} meets {shape_text(arg.dims)}",
                    help="elementwise functions take equal shapes, or scalars",
                )
                return None
        return shaped[0].dims if shaped else ()


def _common(args: tuple[Expr, ...]) -> tuple[Expr, ...]:
    if all(arg.kind is args[0].kind for arg in args):
        return args
    return tuple(to_float(arg) for arg in args)


def _integer_power(args: tuple[Expr, ...]) -> bool:
    """``n ** 2``: an int to a literal that is not negative stays an int."""
    base, exponent = args
    return base.kind is exponent.kind is Kind.INT and isinstance(exponent, Const) and exponent.value >= 0

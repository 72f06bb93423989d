"""Expressions as C++ source over vectors of queries.

What varies with the lanes' index is a vector: ``vf`` of reals, ``vi`` of integers as wide as reals, ``vl`` of 64
bits, ``vb`` of truth values. Everything else is a scalar: ``real``, ``i64``, ``bool``; so scalar integers are always
exact, and vectors take 64 bits where the range analysis cannot rule them out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attnc.codegen.printer import ATOM, Names, Printer, Text, regroups
from attnc.codegen.ranges import int_range, needs_int64
from attnc.dsl.ir import Apply, Axis, Const, Expr, Fn, Index, Kind, Load, Table, children, postorder

# C++'s precedence, low to high; ATOM is above.
OR, AND, COMPARE, SUM, PRODUCT, UNARY = range(1, 7)

_INFIX = {
    Fn.ADD: ("+", SUM),
    Fn.SUB: ("-", SUM),
    Fn.MUL: ("*", PRODUCT),
    Fn.DIV: ("/", PRODUCT),
    Fn.EQ: ("==", COMPARE),
    Fn.NE: ("!=", COMPARE),
    Fn.LT: ("<", COMPARE),
    Fn.LE: ("<=", COMPARE),
    Fn.GT: (">", COMPARE),
    Fn.GE: (">=", COMPARE),
    Fn.AND: ("&", AND),
    Fn.OR: ("|", OR),
}
_CALLS = {
    Fn.FLOORDIV: "floordiv",
    Fn.MOD: "mod",
    Fn.POW: "pow",
    Fn.MIN: "minimum",
    Fn.MAX: "maximum",
    Fn.CLAMP: "clamp",
    Fn.ABS: "absolute",
    Fn.SIGN: "sign",
    Fn.EXP: "exp",
    Fn.EXP2: "exp2",
    Fn.EXPM1: "expm1",
    Fn.LOG: "log",
    Fn.LOG1P: "log1p",
    Fn.SQRT: "sqrt",
    Fn.RSQRT: "rsqrt",
    Fn.TANH: "tanh",
    Fn.SIGMOID: "sigmoid",
    Fn.RELU: "relu",
    Fn.ELU: "elu",
    Fn.SOFTPLUS: "softplus",
    Fn.ERF: "erf",
    Fn.SIN: "sin",
    Fn.COS: "cos",
    Fn.FLOOR: "floor",
}
_SCALARS = {Kind.FLOAT: "real", Kind.INT: "i64", Kind.BOOL: "bool"}
_BROADCASTS = {Kind.FLOAT: "vec", Kind.INT: "vec_i", Kind.BOOL: "vec_b"}


@dataclass(frozen=True, kw_only=True)
class TensorText:
    """How a tensor is read: the field of the arguments that holds it, and for each read whether an index is provably
    inside its axis."""

    field: str
    rank: int
    kind: Kind
    safe: Mapping[Load, tuple[bool, ...]]


class CppPrinter(Printer):
    """``lanes``: the index that vectors run along; ``vectors``: Symbols that are vectors; ``levels``: what the names of
    each level begin with: fields of the structs that hold what is computed there."""

    def __init__(
        self,
        leaves: Mapping[Expr, str],
        names: Names,
        tensors: Mapping[str, TensorText],
        *,
        lanes: Axis,
        vectors: Sequence[Expr],
        levels: Sequence[str],
    ) -> None:
        super().__init__(leaves, names)
        self.tensors = tensors
        self.lanes = lanes
        self.levels = levels
        self.tables: dict[str, str] = {}
        self._vectors = set(vectors)
        self._wide: frozenset[Expr] = frozenset()

    # --- what a node is ---------------------------------------------------------------------------

    def prepare(self, roots: Sequence[Expr]) -> None:
        self._wide |= needs_int64(roots)
        for node in postorder(*roots):
            if (isinstance(node, Index) and node.axis == self.lanes) or any(
                child in self._vectors for child in children(node)
            ):
                self._vectors.add(node)

    def name(self, node: Expr, level: int) -> str:
        return self.levels[level] + self.names.fresh(self.base(node))

    def vector(self, node: Expr) -> bool:
        """Whether a node that was printed is a vector."""
        return node in self._vectors

    def type(self, node: Expr) -> str:
        """The C++ type of a node that was printed."""
        if not self.vector(node):
            return _SCALARS[node.kind]
        return {Kind.FLOAT: "vf", Kind.INT: "vl" if node in self._wide else "vi", Kind.BOOL: "vb"}[node.kind]

    # --- operands ---------------------------------------------------------------------------------

    def _term(self, node: Expr, text: Text, kind: Kind, vector: bool, wide: bool) -> Text:
        """An operand beside a vector or a scalar of a kind: what an infix operator takes."""
        if isinstance(node, Const) and kind is not Kind.BOOL:
            return self._literal(node.value, kind, vector, wide)
        if kind is Kind.FLOAT and node.kind is not Kind.FLOAT:
            return self._to_float(node, text)
        if self.vector(node):
            return Text(text=f"wide({text.text})") if wide and node not in self._wide and kind is Kind.INT else text
        if vector and kind is Kind.BOOL:
            return Text(text=f"vec_b({text.text})")
        return Text(text=f"integer({text.text})") if vector and kind is Kind.INT and not wide else text

    def full(self, node: Expr, text: Text, kind: Kind, *, vector: bool, wide: bool = False) -> str:
        """An operand as a whole vector, if ``vector``, or as a scalar: what functions take."""
        term = self._term(node, text, kind, vector, wide)
        if not vector or self.vector(node) or term.text.startswith("vec_b("):
            return term.text
        return f"{'vec_l' if wide else _BROADCASTS[kind]}({term.text})"

    @staticmethod
    def _literal(value: bool | int | float, kind: Kind, vector: bool, wide: bool) -> Text:
        if kind is Kind.FLOAT:
            number = float(value)
            if math.isinf(number):
                return Text(text="INF" if number > 0 else "-INF", binds=ATOM if number > 0 else UNARY)
            return Text(text=f"real({number!r})")
        return Text(text=f"{'integer' if vector and not wide else 'i64'}({int(value)})")

    def _to_float(self, node: Expr, text: Text) -> Text:
        if node.kind is Kind.BOOL:
            one, zero = ("vec(1)", "vec(0)") if self.vector(node) else ("real(1)", "real(0)")
            return Text(text=f"where({text.text}, {one}, {zero})")
        return Text(text=f"to_real({text.text})")

    # --- nodes ------------------------------------------------------------------------------------

    def constant(self, node: Const) -> Text:
        if isinstance(node.value, bool):
            return Text(text="true" if node.value else "false")
        return self._literal(node.value, node.kind, False, False)

    def load(self, node: Load, index: Sequence[str]) -> Text:
        tensor = self.tensors[node.tensor]
        safe = tensor.safe.get(node, (False,) * tensor.rank)
        start, along = f"a.{tensor.field}.at", []
        for axis, (at, where, good) in enumerate(zip(node.index, index, safe, strict=True)):
            place = where if good else f"inside({where}, a.{tensor.field}.size[{axis}])"
            if self.vector(at):
                along.append(f"steps({place}, a.{tensor.field}.stride[{axis}])")
            else:
                start += (
                    f" + {place if good and where.isidentifier() else f'({place})'} * a.{tensor.field}.stride[{axis}]"
                )
        return Text(text=f"read({start}, {' + '.join(along) or 'i64(0)'})")

    def table(self, node: Table, index: Text) -> Text:
        values = ", ".join(self._entry(value, node.kind) for value in node.values)
        text = f"{_SCALARS[node.kind]} {{}}[] = {{{{{values}}}}};"
        name = self.tables.setdefault(text, self.names.fresh("table"))
        return Text(text=f"read({name}, inside({index.text}, {len(node.values)}))")

    def _entry(self, value: bool | int | float, kind: Kind) -> str:
        if kind is Kind.BOOL:
            return "true" if value else "false"
        return self._literal(value, kind, False, False).text

    def apply(self, node: Apply, args: Sequence[Text]) -> Text:
        fn, vector = node.fn, self.vector(node)
        kinds = {part.kind for part in node.args}
        kind = Kind.FLOAT if Kind.FLOAT in kinds else Kind.INT if Kind.INT in kinds else Kind.BOOL
        wide = vector and kind is Kind.INT and any(part in self._wide for part in (node, *node.args))
        match fn:
            case Fn.ADD | Fn.SUB | Fn.MUL | Fn.DIV | Fn.EQ | Fn.NE | Fn.LT | Fn.LE | Fn.GT | Fn.GE | Fn.AND | Fn.OR:
                sign, binds = _INFIX[fn]
                left, right = (
                    self._term(part, text, kind, vector, wide) for part, text in zip(node.args, args, strict=True)
                )
                tight = binds if regroups(node) else binds + 1
                text = f"{left.within(binds + (binds == COMPARE))} {sign} {right.within(tight)}"
                return Text(text=f"truth({text})") if wide and binds == COMPARE else Text(text=text, binds=binds)
            case Fn.NEG:
                return Text(text=f"-{args[0].within(ATOM)}", binds=UNARY)
            case Fn.NOT:
                return Text(text=f"{'~' if vector else '!'}{args[0].within(ATOM)}", binds=UNARY)
            case Fn.WHERE:
                kind = node.kind
                wide = vector and node in self._wide
                parts = [
                    self.full(part, text, kind, vector=vector, wide=wide)
                    for part, text in zip(node.args[1:], args[1:], strict=True)
                ]
                return Text(text=f"where({args[0].text}, {', '.join(parts)})")
            case Fn.INT:
                return self._to_int(node.args[0], args[0])
            case Fn.FLOAT:
                return args[0] if node.args[0].kind is Kind.FLOAT else self._to_float(node.args[0], args[0])
            case Fn.FLOORDIV | Fn.MOD if kind is Kind.INT:
                return self._division(node, args, vector, wide)
            case Fn.RELU if kind is Kind.INT:
                inner = self.full(node.args[0], args[0], kind, vector=vector, wide=wide)
                return Text(text=f"maximum({inner}, {inner} - {inner})")
            case _:
                parts = [
                    self.full(part, text, kind, vector=vector, wide=wide)
                    for part, text in zip(node.args, args, strict=True)
                ]
                return Text(text=f"{_CALLS[fn]}({', '.join(parts)})")

    def _to_int(self, node: Expr, text: Text) -> Text:
        if node.kind is Kind.INT:
            return text
        if node.kind is Kind.BOOL:
            one, zero = ("vec_l(1)", "vec_l(0)") if self.vector(node) else ("i64(1)", "i64(0)")
            return Text(text=f"where({text.text}, {one}, {zero})")
        return Text(text=f"wide({text.text})" if self.vector(node) else f"i64({text.text})")

    def _division(self, node: Apply, args: Sequence[Text], vector: bool, wide: bool) -> Text:
        """Floor division and its remainder; of vectors by powers of two without dividing."""
        dividend, divisor = node.args
        left = self._term(dividend, args[0], Kind.INT, vector, wide)
        match divisor:
            case Const(value=int(value)) if vector and value > 0 and value & (value - 1) == 0:
                if node.fn is Fn.MOD:
                    return Text(text=f"({left.within(SUM)} & {value - 1})")
                return Text(text=f"({left.within(SUM)} >> {value.bit_length() - 1})")
            case _ if not vector and (int_range(dividend)[0] or 0) >= 0 and int_range(divisor)[0] > 0:
                sign = "/" if node.fn is Fn.FLOORDIV else "%"
                right = self._term(divisor, args[1], Kind.INT, vector, wide)
                return Text(text=f"{left.within(PRODUCT)} {sign} {right.within(PRODUCT + 1)}", binds=PRODUCT)
        parts = [
            self.full(part, text, Kind.INT, vector=vector, wide=wide)
            for part, text in zip(node.args, args, strict=True)
        ]
        return Text(text=f"{_CALLS[node.fn]}({', '.join(parts)})")


__all__ = ["CppPrinter", "TensorText"]

"""Expressions as Triton source. ``ACC`` is the kernel's accumulation type; positions are int32 unless the range
analysis cannot rule out more."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import assert_never

from attnc.codegen.printer import AND, ATOM, COMPARE, OR, PRODUCT, SUM, UNARY, Names, Printer, Text, regroups
from attnc.codegen.ranges import holds_zero, int_range, needs_int64
from attnc.dsl.ir import Apply, Const, Expr, Fn, Kind, Load, Table

# Functions that a template defines as @triton.jit helpers, because Triton has none that runs on every backend.
HELPERS = {
    Fn.FLOORDIV: "_floordiv",
    Fn.MOD: "_mod",
    Fn.POW: "_pow",
    Fn.EXPM1: "_expm1",
    Fn.LOG1P: "_log1p",
    Fn.TANH: "_tanh",
    Fn.SIGMOID: "_sigmoid",
    Fn.ELU: "_elu",
    Fn.SOFTPLUS: "_softplus",
    Fn.SIGN: "_sign",
}
_NEEDS = {Fn.ELU: (Fn.EXPM1,), Fn.SOFTPLUS: (Fn.LOG1P,), Fn.MOD: (Fn.FLOORDIV,)}
_CALLS = {
    Fn.ABS: "tl.abs",
    Fn.EXP: "tl.exp",
    Fn.EXP2: "tl.exp2",
    Fn.LOG: "tl.log",
    Fn.SQRT: "tl.sqrt",
    Fn.RSQRT: "tl.rsqrt",
    Fn.ERF: "tl.erf",
    Fn.SIN: "tl.sin",
    Fn.COS: "tl.cos",
    Fn.FLOOR: "tl.floor",
}
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


class TritonPrinter(Printer):
    """Prints inside one kernel. ``loads`` maps a read to its pointer expression, given printed indices; ``vector`` is
    a pointer to vectors, whose dtype says how exact a function has to be."""

    def __init__(self, leaves: Mapping[Expr, str], names: Names, loads: Mapping[str, TensorText], vector: str) -> None:
        super().__init__(leaves, names)
        self.loads = loads
        self.vector = vector
        self.helpers: set[Fn] = set()
        self._wide: frozenset[Expr] = frozenset()

    def prepare(self, roots: Sequence[Expr]) -> None:
        self._wide = needs_int64(roots)

    def constant(self, node: Const) -> Text:
        value = node.value
        if isinstance(value, bool):
            return Text(text=f"tl.full([1, 1], {int(value)}, tl.int1)")
        if isinstance(value, float) and math.isinf(value):
            return Text(text='float("inf")' if value > 0 else 'float("-inf")')
        return Text(text=repr(value), binds=UNARY if value < 0 else ATOM)

    def load(self, node: Load, index: Sequence[str]) -> Text:
        return self.loads[node.tensor].load(node, index)

    def table(self, node: Table, index: Text) -> Text:
        entries = [self._exact(value, repr(value)) for value in node.values]
        text = entries[-1]
        for number in range(len(entries) - 2, -1, -1):
            text = f"tl.where({index.text} <= {number}, {entries[number]}, {text})"
        return Text(text=text)

    def _use(self, fn: Fn) -> str:
        self.helpers.add(fn)
        for other in _NEEDS.get(fn, ()):
            self._use(other)
        return HELPERS[fn]

    def apply(self, node: Apply, args: Sequence[Text]) -> Text:
        fn = node.fn
        if node in self._wide and node.kind is Kind.INT and fn is not Fn.INT:
            args = [self._widened(part, text) for part, text in zip(node.args, args, strict=True)]
        if fn in (Fn.DIV, Fn.FLOORDIV, Fn.MOD) and all(isinstance(part, Const) for part in node.args):
            args = [Text(text=self._tensor(node.args[0], args[0])), args[1]]  # Python would divide these, by zero
        match fn:
            case Fn.ADD | Fn.SUB | Fn.MUL | Fn.DIV | Fn.EQ | Fn.NE | Fn.LT | Fn.LE | Fn.GT | Fn.GE | Fn.AND | Fn.OR:
                sign, binds = _INFIX[fn]
                left, right = args
                tight = binds if regroups(node) else binds + 1
                return Text(text=f"{left.within(binds + (binds == COMPARE))} {sign} {right.within(tight)}", binds=binds)
            case Fn.NEG:
                return Text(text=f"-{args[0].within(UNARY)}", binds=UNARY)
            case Fn.NOT:
                return Text(text=f"{args[0].within(COMPARE + 1)} == 0", binds=COMPARE)
            case Fn.FLOORDIV | Fn.MOD if node.kind is Kind.INT and self._natural(node):
                sign = "//" if fn is Fn.FLOORDIV else "%"
                return Text(text=f"{args[0].within(PRODUCT)} {sign} {args[1].within(PRODUCT + 1)}", binds=PRODUCT)
            case Fn.FLOORDIV if node.kind is Kind.FLOAT:
                return Text(text=f"tl.floor({args[0].within(PRODUCT)} / {args[1].within(PRODUCT + 1)})")
            case Fn.MOD if node.kind is Kind.FLOAT:
                dividend, divisor = args[0].within(PRODUCT), args[1].within(PRODUCT + 1)
                return Text(text=f"{dividend} - tl.floor({dividend} / {divisor}) * {divisor}", binds=SUM)
            case Fn.MIN | Fn.MAX:
                name = "tl.minimum" if fn is Fn.MIN else "tl.maximum"
                nan = ", propagate_nan=tl.PropagateNan.ALL" if node.kind is Kind.FLOAT else ""
                x, y = self._tensor(node.args[0], args[0]), self._operand(node.args[1], args[1])
                return Text(text=f"{name}({x}, {y}{nan})")
            case Fn.CLAMP:
                inner, low, high = (arg.text for arg in args)
                return Text(text=f"tl.where({inner} < {low}, {low}, tl.where({inner} > {high}, {high}, {inner}))")
            case Fn.RELU:
                return Text(text=f"tl.where({args[0].within(COMPARE + 1)} < 0, 0.0, {args[0].text})")
            case Fn.WHERE:
                x, y = self._tensor(node.args[1], args[1]), self._operand(node.args[2], args[2])
                return Text(text=f"tl.where({args[0].text}, {x}, {y})")
            case Fn.INT:
                return Text(text=f"tl.cast({args[0].text}, tl.int64)")
            case Fn.FLOAT:
                return Text(text=f"tl.cast({args[0].text}, ACC)")
            case Fn.ABS | Fn.EXP | Fn.EXP2 | Fn.LOG | Fn.SQRT | Fn.RSQRT | Fn.ERF | Fn.SIN | Fn.COS | Fn.FLOOR:
                return Text(text=f"{_CALLS[fn]}({self._tensor(node.args[0], args[0])})")
            case (
                Fn.FLOORDIV | Fn.MOD | Fn.POW | Fn.EXPM1 | Fn.LOG1P | Fn.TANH | Fn.SIGMOID | Fn.ELU | Fn.SOFTPLUS
                | Fn.SIGN
            ):  # fmt: skip
                parts = [self._tensor(part, text) for part, text in zip(node.args, args, strict=True)]
                parts += [self.vector] if fn is Fn.TANH else []
                text = f"{self._use(fn)}({', '.join(parts)})"
                if fn is Fn.FLOORDIV and holds_zero(node.args[1]):  # a GPU gives anything; x % 0 is x by itself
                    text = f"tl.where({args[1].within(COMPARE + 1)} == 0, 0, {text})"
                return Text(text=text)
            case _:
                assert_never(fn)

    def _natural(self, node: Apply) -> bool:
        """Whether C's division is Python's: nothing negative."""
        dividend, divisor = node.args
        return (int_range(dividend)[0] or 0) >= 0 and int_range(divisor)[0] > 0

    def _widened(self, node: Expr, text: Text) -> Text:
        narrow = node.kind is Kind.INT and not isinstance(node, Const)
        return Text(text=f"tl.cast({text.text}, tl.int64)") if narrow else text

    def _operand(self, node: Expr, text: Text) -> str:
        """An argument of a call, where Triton takes a literal for float32."""
        return self._exact(node.value, text.text) if isinstance(node, Const) else text.text

    def _exact(self, value: bool | int | float, text: str) -> str:
        """A literal as it is, unless float32 would round it."""
        rounds = (
            isinstance(value, float) and abs(value) < 3e38 and struct.unpack("f", struct.pack("f", value))[0] != value
        )
        return f"tl.full([1, 1], {text}, ACC)" if rounds else text

    def _tensor(self, node: Expr, text: Text) -> str:
        """A float literal where only a tensor will do, in full precision."""
        if isinstance(node, Const) and node.kind is Kind.FLOAT:
            return f"tl.full([1, 1], {text.text}, ACC)"
        return text.text


class TensorText:
    """How a tensor is read in a kernel: its pointer's and its strides' names, and whether each index is provably in
    range (otherwise it is clamped to the nearest element)."""

    def __init__(self, pointer: str, strides: Sequence[str], sizes: Sequence[str], kind: Kind) -> None:
        self.pointer = pointer
        self.strides = strides
        self.sizes = sizes
        self.kind = kind
        self.safe: dict[Load, tuple[bool, ...]] = {}

    def load(self, node: Load, index: Sequence[str]) -> Text:
        safe = self.safe.get(node, (False,) * len(index))
        terms = [self.pointer]
        for at, stride, size, good in zip(index, self.strides, self.sizes, safe, strict=True):
            row = at if good else f"tl.minimum(tl.maximum({at}, 0), {size} - 1)"
            terms.append(f"tl.cast({row}, tl.int64) * {stride}")
        text = f"tl.load({' + '.join(terms)})"
        if self.kind is Kind.FLOAT:
            return Text(text=f"tl.cast({text}, ACC)")
        if self.kind is Kind.BOOL:
            return Text(text=f"{text} != 0", binds=COMPARE)
        return Text(text=text)

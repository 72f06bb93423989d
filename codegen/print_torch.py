"""Expressions as PyTorch source: tile code for any device, the token-wise prologue, and bounds over Python ints.

Values are tensors that broadcast over [B, H, rows, columns] (token-wise: [B, heads, tokens, dim]); what depends on
sizes and constants alone stays a Python number. The printed code finds ``acc``, the accumulation dtype, in scope.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from attnc.codegen.printer import AND, ATOM, COMPARE, OR, POWER, PRODUCT, SUM, UNARY, Names, Printer, Text, regroups
from attnc.codegen.ranges import holds_zero
from attnc.dsl.ir import (
    Apply,
    Concat,
    Const,
    Dot,
    Expr,
    Fn,
    Kind,
    Load,
    MatMul,
    Normed,
    Offset,
    Rope,
    Side,
    Size,
    Sliced,
    Symbol,
    Table,
    Vector,
    children,
    postorder,
)

_INFIX = {
    Fn.ADD: ("+", SUM),
    Fn.SUB: ("-", SUM),
    Fn.MUL: ("*", PRODUCT),
    Fn.DIV: ("/", PRODUCT),
    Fn.FLOORDIV: ("//", PRODUCT),
    Fn.MOD: ("%", PRODUCT),
    Fn.POW: ("**", POWER),
    Fn.EQ: ("==", COMPARE),
    Fn.NE: ("!=", COMPARE),
    Fn.LT: ("<", COMPARE),
    Fn.LE: ("<=", COMPARE),
    Fn.GT: (">", COMPARE),
    Fn.GE: (">=", COMPARE),
    Fn.AND: ("&", AND),
    Fn.OR: ("|", OR),
}
_TENSOR = {
    Fn.ABS: "torch.abs",
    Fn.SIGN: "torch.sign",
    Fn.EXP: "torch.exp",
    Fn.EXP2: "torch.exp2",
    Fn.EXPM1: "torch.expm1",
    Fn.LOG: "torch.log",
    Fn.LOG1P: "torch.log1p",
    Fn.SQRT: "torch.sqrt",
    Fn.RSQRT: "torch.rsqrt",
    Fn.TANH: "torch.tanh",
    Fn.SIGMOID: "torch.sigmoid",
    Fn.RELU: "torch.relu",
    Fn.ELU: "torch.nn.functional.elu",
    Fn.SOFTPLUS: "torch.nn.functional.softplus",
    Fn.ERF: "torch.erf",
    Fn.SIN: "torch.sin",
    Fn.COS: "torch.cos",
    Fn.FLOOR: "torch.floor",
}
_DTYPES = {Kind.BOOL: "torch.bool", Kind.INT: "torch.int64", Kind.FLOAT: "acc"}
_NUMBER = {
    Fn.ABS: "abs",
    Fn.LOG: "math.log",
    Fn.SQRT: "math.sqrt",
    Fn.INT: "int",
    Fn.FLOAT: "float",
    Fn.MIN: "min",
    Fn.MAX: "max",
}


class TorchPrinter(Printer):
    """``tensors`` names inputs and token scalars; ``numbers`` are the Symbols that stand for Python ints."""

    def __init__(
        self, leaves: Mapping[Expr, str], names: Names, tensors: Mapping[str, str], numbers: Sequence[Expr] = ()
    ) -> None:
        super().__init__(leaves, names)
        self.tensors = tensors
        self.numbers = frozenset(numbers)
        self._plain: set[Expr] = set()
        self._positive: set[Expr] = set()

    def number(self, root: Expr) -> bool:
        """Whether an expression prints as a Python number, not as a tensor."""
        self.prepare((root,))
        return root in self._plain

    def prepare(self, roots: Sequence[Expr]) -> None:
        for node in postorder(*roots):
            match node:
                case Const() | Size():
                    plain = True
                case Offset(side=side):
                    plain = side is Side.KEY or node in self.numbers
                case Symbol():
                    plain = node in self.numbers
                case Apply():
                    plain = all(child in self._plain for child in children(node)) and self._defined(node)
                case _:
                    plain = False
            if plain:
                self._plain.add(node)
                if self._above_zero(node):
                    self._positive.add(node)

    def _defined(self, node: Apply) -> bool:
        """Whether Python's function of numbers raises nothing where IEEE has a value; else a tensor is printed."""
        match node.fn:
            case Fn.SQRT | Fn.RSQRT | Fn.LOG:
                return node.args[0] in self._positive
            case Fn.DIV | Fn.FLOORDIV | Fn.MOD:
                return node.args[1] in self._positive
            case Fn.POW:
                return node.kind is Kind.INT or (node.args[0] in self._positive and isinstance(node.args[1], Const))
            case Fn.INT:
                return node.args[0].kind is not Kind.FLOAT
            case fn:
                return fn in _INFIX or fn in _NUMBER or fn in (Fn.NEG, Fn.NOT, Fn.WHERE, Fn.CLAMP, Fn.RELU)

    def _above_zero(self, node: Expr) -> bool:
        """Whether a number is known to be positive and finite."""
        match node:
            case Const(value=value):
                return 0 < value < math.inf
            case Size(name=name):
                return name in ("D", "E")
            case Apply(fn=Fn.ADD | Fn.MUL | Fn.DIV | Fn.SQRT | Fn.RSQRT | Fn.MIN | Fn.MAX | Fn.POW | Fn.FLOAT):
                return all(part in self._positive or node.fn is Fn.POW for part in node.args)
            case _:
                return False

    def constant(self, node: Const) -> Text:
        value = node.value
        if isinstance(value, float) and math.isinf(value):
            return Text(text="math.inf" if value > 0 else "-math.inf", binds=ATOM if value > 0 else UNARY)
        negative = not isinstance(value, bool) and value < 0
        return Text(text=repr(value), binds=UNARY if negative else ATOM)

    def load(self, node: Load, index: Sequence[str]) -> Text:
        name = self.tensors[node.tensor]
        text = f"_read({name}, {', '.join(index)})" if index else name
        if node.index and node.dims:
            text += ".squeeze(-2)" if len(node.dims) == 1 else ".squeeze(3)"
        if node.kind is Kind.INT and not index:
            text += ".to(torch.int64)"  # as _read does
        return Text(text=f"{text}.to(acc)" if node.kind is Kind.FLOAT else text)

    def table(self, node: Table, index: Text) -> Text:
        return Text(text=f"_pick({node.values!r}, {index.text}, {_DTYPES[node.kind]})")

    def apply(self, node: Apply, args: Sequence[Text]) -> Text:
        return self._number(node, args) if node in self._plain else self._tensor(node, args)

    def _infix(self, node: Apply, args: Sequence[Text]) -> Text:
        sign, binds = _INFIX[node.fn]
        left, right = args
        strict_left = binds in (COMPARE, POWER)
        strict_right = not regroups(node)
        return Text(text=f"{left.within(binds + strict_left)} {sign} {right.within(binds + strict_right)}", binds=binds)

    def _number(self, node: Apply, args: Sequence[Text]) -> Text:
        """A Python number."""
        fn = node.fn
        texts = [arg.text for arg in args]
        if fn in _INFIX:
            return self._infix(node, args)
        if fn in _NUMBER:
            return Text(text=f"{_NUMBER[fn]}({', '.join(texts)})")
        match fn:
            case Fn.NEG:
                return Text(text=f"-{args[0].within(UNARY)}", binds=UNARY)
            case Fn.NOT:
                return Text(text=f"(not {args[0].within(COMPARE)})")
            case Fn.WHERE:
                return Text(text=f"({args[1].text} if {args[0].text} else {args[2].text})")
            case Fn.CLAMP:
                return Text(text=f"min(max({texts[0]}, {texts[1]}), {texts[2]})")
            case Fn.RELU:
                return Text(text=f"max({texts[0]}, 0.0)")
            case Fn.RSQRT:
                return Text(text=f"1.0 / math.sqrt({texts[0]})", binds=PRODUCT)
            case _:
                raise AssertionError(fn)

    def _tensor(self, node: Apply, args: Sequence[Text]) -> Text:
        fn = node.fn
        texts = [arg.text for arg in args]
        plain = [part in self._plain for part in node.args]
        if all(plain):  # numbers that Python's function may refuse
            texts[0], plain[0] = self._one(node.args[0], texts[0]), False
            args = [Text(text=texts[0]), *args[1:]]
        if fn in (Fn.FLOORDIV, Fn.MOD) and node.kind is Kind.INT and holds_zero(node.args[1]):
            return Text(text=f"{'_quotient' if fn is Fn.FLOORDIV else '_remainder'}({', '.join(texts)})")
        if fn in _INFIX:
            return self._infix(node, args)
        if fn in _TENSOR:
            return Text(text=f"{_TENSOR[fn]}({texts[0]})")
        match fn:
            case Fn.NEG:
                return Text(text=f"-{args[0].within(UNARY)}", binds=UNARY)
            case Fn.NOT:
                return Text(text=f"~{args[0].within(UNARY)}", binds=UNARY)
            case Fn.MIN | Fn.MAX:
                name = "torch.minimum" if fn is Fn.MIN else "torch.maximum"
                left = f"_like({texts[0]}, {texts[1]})" if plain[0] else texts[0]
                right = f"_like({texts[1]}, {texts[0]})" if plain[1] else texts[1]
                return Text(text=f"{name}({left}, {right})")
            case Fn.CLAMP:
                model = texts[plain.index(False)]
                if plain == [False, True, True]:
                    return Text(text=f"torch.clamp({', '.join(texts)})")
                parts = [f"_like({text}, {model})" if flat else text for text, flat in zip(texts, plain, strict=True)]
                return Text(text=f"torch.clamp({', '.join(parts)})")
            case Fn.WHERE:
                if plain[0]:
                    texts[1:] = [
                        self._one(part, text) if flat else text
                        for part, text, flat in zip(node.args[1:], texts[1:], plain[1:], strict=True)
                    ]
                    return Text(text=f"({texts[1]} if {texts[0]} else {texts[2]})")
                if plain[1] and plain[2]:
                    texts[1] = f"_full({texts[1]}, {texts[0]}, {_DTYPES[node.kind]})"
                return Text(text=f"torch.where({', '.join(texts)})")
            case Fn.INT:
                return Text(text=f"{args[0].within(ATOM)}.to(torch.int64)")
            case Fn.FLOAT:
                return Text(text=f"{args[0].within(ATOM)}.to(acc)")
            case _:
                raise AssertionError(fn)

    def _one(self, node: Expr, text: str) -> str:
        """A number as a tensor, which broadcasts."""
        return f"torch.full((1, 1, 1, 1), {text}, dtype={_DTYPES[node.kind]}, device=device)"

    def other(self, node: Expr, args: Sequence[Text]) -> Text:
        """Token-wise vectors: [B, heads, tokens, dim]."""
        texts = [arg.text for arg in args]
        match node:
            case Dot():
                left, right = args
                product = f"{left.within(PRODUCT)} * {right.within(PRODUCT)}"
                return Text(text=f"({product}).sum(-1, keepdim=True)")
            case MatMul(over="positions"):
                return Text(text=f"torch.matmul({texts[0]}, {texts[1]})")
            case MatMul(matrix=Load(index=())):
                return Text(text=f"torch.matmul({texts[1]}, {args[0].within(ATOM)}.mT)")
            case MatMul():
                return Text(
                    text=f"torch.matmul({texts[0]}.unsqueeze(2), {args[1].within(ATOM)}.unsqueeze(-1)).squeeze(-1)"
                )
            case Rope():
                return Text(text=f"_rope({', '.join(texts)}, interleaved={node.interleaved})")
            case Normed(fn="l2norm"):
                return Text(text=f"_l2norm({', '.join(texts)})")
            case Normed(weight=None):
                return Text(text=f"_rmsnorm({texts[0]}, 1.0, {texts[1]})")
            case Normed():
                return Text(text=f"_rmsnorm({', '.join(texts)})")
            case Concat():
                return Text(text=f"_concat({', '.join(texts)})")
            case Sliced(operand=operand):
                name = operand.name if isinstance(operand, Vector) else "a vector"
                return Text(text=f"_part({name!r}, {', '.join(texts)})")
            case _:
                return super().other(node, args)


__all__ = ["TorchPrinter"]

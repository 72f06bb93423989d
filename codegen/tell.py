"""Expressions as a spec would write them, for messages."""

from __future__ import annotations

from attnc.codegen.build import ZERO, offset
from attnc.codegen.simplify import simplify
from attnc.dsl.ir import (
    Apply,
    Const,
    Drawn,
    Expr,
    Fn,
    Index,
    Kind,
    Listed,
    Load,
    Offset,
    Side,
    Size,
    Symbol,
    Table,
    postorder,
    substitute,
)

_INFIX = {
    Fn.OR: ("or", 0), Fn.AND: ("and", 1), Fn.EQ: ("==", 3), Fn.NE: ("!=", 3), Fn.LT: ("<", 3), Fn.LE: ("<=", 3),
    Fn.GT: (">", 3), Fn.GE: (">=", 3), Fn.ADD: ("+", 4), Fn.SUB: ("-", 4), Fn.MUL: ("*", 5), Fn.DIV: ("/", 5),
    Fn.FLOORDIV: ("//", 5), Fn.MOD: ("%", 5), Fn.POW: ("**", 7),
}  # fmt: skip
_PREFIX = {Fn.NOT: ("not ", 2), Fn.NEG: ("-", 6)}
_ATOM = 8
_LENGTH = 72  # more is cut


def tell(expr: Expr) -> str:
    """One line of spec text, cut where it is long; an axis named N or M is read at i or j, as specs do."""
    (expr,) = simplify(substitute((expr,), {offset(side): ZERO for side in Side}))
    texts: dict[Expr, tuple[str, int]] = {}
    for node in postorder(expr):
        texts[node] = _text(node, texts)
    text, _ = texts[expr]
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH - 3]}..."


def _text(node: Expr, texts: dict[Expr, tuple[str, int]]) -> tuple[str, int]:
    def within(part: Expr, binds: int) -> str:
        text, own = texts[part]
        text = text if len(text) <= 2 * _LENGTH else "..."  # a graph's text may be far longer than the graph
        return text if own >= binds else f"({text})"

    match node:
        case Const(value=value):
            return str(value).lower(), _ATOM
        case Index(axis=axis):
            return axis, _ATOM
        case Size(name=name) | Symbol(name=name):
            return name, _ATOM
        case Offset(side=side):
            return "q_offset" if side is Side.QUERY else "kv_offset", _ATOM
        case Load(tensor=tensor, index=index):
            return f"{tensor}[{', '.join(within(at, 0) for at in index)}]" if index else tensor, _ATOM
        case Table(values=values, index=at):
            return f"({', '.join(map(str, values))})[{within(at, 0)}]", _ATOM
        case Drawn(row=row, column=column):
            return f"random({within(row, 0)}, {within(column, 0)})", _ATOM
        case Listed(tensor=tensor, row=row, column=column):
            return f"blocks({tensor}, {within(row, 0)}, {within(column, 0)})", _ATOM
        case Apply(fn=Fn.FLOAT, args=(x,)) if x.kind is not Kind.FLOAT:
            return texts[x]
        case Apply(fn=fn, args=(x, y)) if fn in _INFIX:
            word, binds = _INFIX[fn]
            return f"{within(x, binds)} {word} {within(y, binds + 1)}", binds
        case Apply(fn=fn, args=(x,)) if fn in _PREFIX:
            word, binds = _PREFIX[fn]
            return f"{word}{within(x, binds)}", binds
        case Apply(fn=fn, args=args):
            return f"{fn.value}({', '.join(within(arg, 0) for arg in args)})", _ATOM
        case _:
            return "...", _ATOM

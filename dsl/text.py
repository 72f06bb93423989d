"""AST -> text: expressions with the fewest parentheses that keep their tree, clauses on one line.

Everything is iterative: an expression may be as deep as the text was long.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from attnc.dsl import syntax
from attnc.dsl.syntax import (
    Attribute,
    Binary,
    Bool,
    Call,
    Comparison,
    ListLiteral,
    Number,
    Ref,
    Slice,
    Subscript,
    Unary,
)

# How tightly an operator binds; the grammar's levels in its order.
OR, AND, NOT, COMPARISON, SUM, PRODUCT, SIGN, POWER, POSTFIX, ATOM = range(10)
BINARY = {
    "or": OR, "and": AND, "+": SUM, "-": SUM, "*": PRODUCT, "/": PRODUCT, "//": PRODUCT, "%": PRODUCT, "@": PRODUCT,
    "**": POWER,
}  # fmt: skip

Piece = str | tuple[syntax.Expr | Slice, int]


def level(node: syntax.Expr | Slice) -> int:
    """How tightly the outermost operator of a node binds."""
    match node:
        case Binary(op=op):
            return BINARY[op]
        case Comparison():
            return COMPARISON
        case Unary(op=op):
            return NOT if op == "not" else SIGN
        case Call() | Subscript() | Attribute():
            return POSTFIX
        case Number() | Bool() | Ref() | ListLiteral() | Slice():
            return ATOM
        case _:
            assert_never(node)


def expression(root: syntax.Expr, at_least: int = OR) -> str:
    """The text of an expression, in parentheses if it binds more loosely than ``at_least``."""
    done: list[str] = []
    stack: list[Piece] = [(root, at_least)]
    while stack:
        piece = stack.pop()
        if isinstance(piece, str):
            done.append(piece)
            continue
        node, least = piece
        parts = _parts(node)
        stack += reversed(["(", *parts, ")"] if level(node) < least else parts)
    return "".join(done)


def _parts(node: syntax.Expr | Slice) -> list[Piece]:
    """A node as strings and sub-expressions, each with the level it needs to stand there bare."""
    match node:
        case Number(text=text):
            return [text]
        case Bool(value=value):
            return ["true" if value else "false"]
        case Ref(name=name):
            return [name]
        case Call(function=function, args=args):
            parts: list[Piece] = []
            for argument in args:
                parts += [f"{argument.name.text} = "] if argument.name else []
                parts += [(argument.value, OR), ", "]
            return [f"{function.name}(", *parts[:-1], ")"]
        case Subscript(value=value, index=index):
            return [(value, POSTFIX), "[", *_listed(index), "]"]
        case Attribute(value=value, name=name):
            if isinstance(value, Number) and value.text.isdigit():  # `1.x` is the float `1.` and a name
                return ["(", value.text, f").{name.text}"]
            return [(value, POSTFIX), f".{name.text}"]
        case Unary(op=op, operand=operand):
            return ["not ", (operand, NOT)] if op == "not" else [op, (operand, SIGN)]
        case Binary(op="**", left=left, right=right):
            return [(left, POSTFIX), " ** ", (right, SIGN)]
        case Binary(op=op, left=left, right=right):
            return [(left, BINARY[op]), f" {op} ", (right, BINARY[op] + 1)]
        case Comparison(operands=operands, ops=ops):
            chained: list[Piece] = [(operands[0], SUM)]
            for sign, operand in zip(ops, operands[1:], strict=True):
                chained += [f" {sign} ", (operand, SUM)]
            return chained
        case ListLiteral(items=items):
            return ["[", *_listed(items), "]"]
        case Slice(start=start, stop=stop):
            return [*([(start, OR)] if start else []), ":", *([(stop, OR)] if stop else [])]
        case _:
            assert_never(node)


def _listed(items: Iterable[syntax.Expr | Slice]) -> list[Piece]:
    parts: list[Piece] = []
    for item in items:
        parts += [(item, OR), ", "]
    return parts[:-1]


def chain(root: syntax.Expr) -> list[tuple[str, syntax.Expr]]:
    """``a or b or c`` as (``""``, a), (``or``, b), (``or``, c): the operands of the outermost ``or``, ``and`` or
    sum. Any other expression is a chain of one."""
    links: list[tuple[str, syntax.Expr]] = []
    outermost = level(root)
    while isinstance(root, Binary) and level(root) == outermost and outermost in (OR, AND, SUM):
        links.append((root.op, root.right))
        root = root.left
    return [("", root), *reversed(links)]


def type_(node: syntax.Type) -> str:
    axes = "" if node.axes is None else "[" + ", ".join(map(expression, node.axes)) + "]"
    return node.element.text + axes + (" nograd" if node.nograd else "")


def parameter(node: syntax.Parameter) -> str:
    type_name = f": {node.type.text}" if node.type else ""
    return node.name.text + type_name + _default(node.default) + _where(node.where)


def signature(node: syntax.LetClause) -> str:
    """What stands before the ``=`` of a let."""
    if node.parameters is None:
        return node.name.text
    return f"{node.name.text}({', '.join(map(parameter, node.parameters))})"


def pair(node: syntax.Pair) -> tuple[str, str]:
    """``weight(s) = ...`` and ``divisor(t) = ...``"""
    weight = f"weight({node.weight_argument.text}) = {expression(node.weight)}"
    return weight, f"divisor({node.divisor_argument.text}) = {expression(node.divisor)}"


def declared(clause: syntax.ParamClause | syntax.InputClause) -> str:
    """A declaration after its keyword."""
    head = f"{clause.name.text}: {type_(clause.type)}"
    match clause:
        case syntax.ParamClause(default=default, where=where):
            return head + _default(default) + _where(where)
        case syntax.InputClause():
            return head
        case _:
            assert_never(clause)


def vector(node: syntax.VectorItem) -> str:
    dim = "" if node.dim is None else f"[{expression(node.dim)}]"
    return node.name.text + dim + _default(node.value)


def emitted(node: syntax.EmitItem) -> str:
    return node.name.text if node.branch is None else f"{node.branch.text}.{node.name.text}"


def layout(node: syntax.KvClause) -> str:
    storage = "" if node.storage is None else f" {_applied(node.storage, node.storage_args)}"
    return _applied(node.layout, node.layout_args) + storage


def state(node: syntax.StateClause) -> str:
    return f"{node.name.text}[{', '.join(map(expression, node.axes))}]"


def _applied(name: syntax.Name, args: tuple[syntax.Argument, ...]) -> str:
    if not args:
        return name.text
    given = [(f"{item.name.text} = " if item.name else "") + expression(item.value) for item in args]
    return f"{name.text}({', '.join(given)})"


def _default(node: syntax.Expr | None) -> str:
    return "" if node is None else f" = {expression(node)}"


def _where(node: syntax.Expr | None) -> str:
    return "" if node is None else f" where {expression(node)}"

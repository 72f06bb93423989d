"""AST -> text: expressions with the fewest parentheses that keep their tree; clauses on one line, with any
notation of expressions.

Everything is iterative: an expression may be as deep as the text was long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
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

# Every clause but a branch, which holds clauses itself.
Plain = (
    syntax.ParamClause
    | syntax.InputClause
    | syntax.VectorClause
    | syntax.LetClause
    | syntax.ScoreClause
    | syntax.MaskClause
    | syntax.NormalizeClause
    | syntax.KvClause
    | syntax.EmitClause
    | syntax.OutputClause
    | syntax.StateClause
    | syntax.StepClause
    | syntax.ReadClause
)
Show = Callable[[syntax.Expr], str]  # how expressions are written
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


def value(clause: Plain, show: Show = expression) -> str:
    """What follows a clause's keyword, on one line."""
    match clause:
        case syntax.ParamClause(name=name, type=type_, default=default, where=where):
            return f"{name.text}: {_type(type_, show)}{_given(' = ', default, show)}{_given(' where ', where, show)}"
        case syntax.InputClause(name=name, type=type_):
            return f"{name.text}: {_type(type_, show)}"
        case syntax.VectorClause(items=items):
            return ", ".join(_vector(item, show) for item in items)
        case syntax.LetClause(value=body):
            return f"{signature(clause, show)} = {body_text(body, show)}"
        case syntax.KvClause(layout=layout, layout_args=args, storage=storage, storage_args=storage_args):
            stored = "" if storage is None else f" {_applied(storage, storage_args, show)}"
            return _applied(layout, args, show) + stored
        case syntax.EmitClause(items=emits):
            return ", ".join(
                f"{item.branch.text}.{item.name.text}" if item.branch else item.name.text for item in emits
            )
        case syntax.StateClause(name=name, axes=axes):
            return f"{name.text}[{', '.join(map(show, axes))}]"
        case (
            syntax.ScoreClause(value=body)
            | syntax.MaskClause(value=body)
            | syntax.NormalizeClause(value=body)
            | syntax.OutputClause(value=body)
            | syntax.StepClause(value=body)
            | syntax.ReadClause(value=body)
        ):
            return body_text(body, show)
        case _:
            assert_never(clause)


def word(clause: syntax.Clause) -> str:
    """The keyword of a clause."""
    if isinstance(clause, syntax.VectorClause):
        return clause.role
    return type(clause).__name__.removesuffix("Clause").lower()


def signature(clause: syntax.LetClause, show: Show = expression) -> str:
    """What stands before the ``=`` of a let."""
    if clause.parameters is None:
        return clause.name.text
    return f"{clause.name.text}({', '.join(_parameter(item, show) for item in clause.parameters)})"


def body_text(body: syntax.Expr | syntax.Pair, show: Show = expression) -> str:
    return " ".join(pair(body, show)) if isinstance(body, syntax.Pair) else show(body)


def pair(body: syntax.Pair, show: Show = expression) -> tuple[str, str]:
    """``weight(s) = ...`` and ``divisor(t) = ...``"""
    weight = f"weight({body.weight_argument.text}) = {show(body.weight)}"
    return weight, f"divisor({body.divisor_argument.text}) = {show(body.divisor)}"


def _type(node: syntax.Type, show: Show) -> str:
    axes = "" if node.axes is None else f"[{', '.join(map(show, node.axes))}]"
    return node.element.text + axes + (" nograd" if node.nograd else "")


def _vector(node: syntax.VectorItem, show: Show) -> str:
    dim = "" if node.dim is None else f"[{show(node.dim)}]"
    return node.name.text + dim + _given(" = ", node.value, show)


def _parameter(node: syntax.Parameter, show: Show) -> str:
    type_name = f": {node.type.text}" if node.type else ""
    return node.name.text + type_name + _given(" = ", node.default, show) + _given(" where ", node.where, show)


def _given(mark: str, node: syntax.Expr | None, show: Show) -> str:
    return "" if node is None else mark + show(node)


def _applied(name: syntax.Name, args: tuple[syntax.Argument, ...], show: Show) -> str:
    if not args:
        return name.text
    given = [(f"{item.name.text} = " if item.name else "") + show(item.value) for item in args]
    return f"{name.text}({', '.join(given)})"

"""The AST as text: a clause a line, expressions in prefix form, so that the tree can be read off."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from attnc.dsl import syntax, text
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

Node = syntax.Expr | Slice | syntax.Argument
Piece = str | Node


def print_ast(file: syntax.File) -> str:
    """Constructs and lets in the order written; places and comments left out. Two files with the same text here
    mean the same. Iterative: an expression may be as deep as its text was long."""
    items: list[syntax.Construct | syntax.LetClause] = [*file.constructs, *file.lets]
    lines: list[str] = []
    for item in sorted(items, key=lambda item: item.span.start):
        match item:
            case syntax.Construct(word=word, name=name, clauses=clauses):
                lines.append(f"{word} {name.text}")
                lines += _clauses(clauses, "  ")
            case syntax.LetClause():
                lines += _clauses((item,), "")
            case _:
                assert_never(item)
    return "".join(f"{line}\n" for line in lines)


def _clauses(clauses: Iterable[syntax.Clause], indent: str) -> list[str]:
    lines: list[str] = []
    for clause in clauses:
        if isinstance(clause, syntax.BranchClause):
            lines.append(f"{indent}branch {clause.name.text}")
            lines += _clauses(clause.clauses, indent + "  ")  # branches do not nest: the grammar sees to it
        else:
            lines.append(indent + _clause(clause))
    return lines


def _clause(
    clause: syntax.ParamClause
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
    | syntax.ReadClause,
) -> str:
    match clause:
        case syntax.ParamClause(name=name, type=type_, default=default, where=where):
            return f"param {name.text}: {_type(type_)}{_given('=', default)}{_given('where', where)}"
        case syntax.InputClause(name=name, type=type_):
            return f"input {name.text}: {_type(type_)}"
        case syntax.VectorClause(role=role, items=items):
            return f"{role} " + ", ".join(_vector(item) for item in items)
        case syntax.LetClause(name=name, parameters=parameters, value=value):
            taken = "" if parameters is None else "(" + ", ".join(map(_parameter, parameters)) + ")"
            return f"let {name.text}{taken} = {_value(value)}"
        case syntax.ScoreClause(value=value):
            return f"score {_value(value)}"
        case syntax.MaskClause(value=value):
            return f"mask {_value(value)}"
        case syntax.NormalizeClause(value=value):
            return f"normalize {_value(value)}"
        case syntax.KvClause(layout=layout, layout_args=args, storage=storage, storage_args=storage_args):
            stored = "" if storage is None else f" {_applied(storage, storage_args)}"
            return f"kv {_applied(layout, args)}{stored}"
        case syntax.EmitClause(items=items):
            return "emit " + ", ".join(map(text.emitted, items))
        case syntax.OutputClause(value=value):
            return f"output {_value(value)}"
        case syntax.StateClause(name=name, axes=axes):
            return f"state {name.text}[{', '.join(map(prefix, axes))}]"
        case syntax.StepClause(value=value):
            return f"step {_value(value)}"
        case syntax.ReadClause(value=value):
            return f"read {_value(value)}"
        case _:
            assert_never(clause)


def _type(node: syntax.Type) -> str:
    axes = "" if node.axes is None else f"[{', '.join(map(prefix, node.axes))}]"
    return node.element.text + axes + (" nograd" if node.nograd else "")


def _vector(node: syntax.VectorItem) -> str:
    dim = "" if node.dim is None else f"[{prefix(node.dim)}]"
    return node.name.text + dim + _given("=", node.value)


def _parameter(node: syntax.Parameter) -> str:
    type_name = f": {node.type.text}" if node.type else ""
    return node.name.text + type_name + _given("=", node.default) + _given("where", node.where)


def _value(value: syntax.Expr | syntax.Pair) -> str:
    if not isinstance(value, syntax.Pair):
        return prefix(value)
    weight = f"(weight {value.weight_argument.text} {prefix(value.weight)})"
    return f"{weight} (divisor {value.divisor_argument.text} {prefix(value.divisor)})"


def _given(mark: str, value: syntax.Expr | None) -> str:
    return "" if value is None else f" {mark} {prefix(value)}"


def _applied(name: syntax.Name, args: Iterable[syntax.Argument]) -> str:
    given = " ".join(prefix(argument) for argument in args)
    return f"({name.text} {given})" if given else name.text


def prefix(root: Node) -> str:
    """``(+ (call f x) 1)``: every operator before its operands, in parentheses."""
    done: list[str] = []
    stack: list[Piece] = [root]
    while stack:
        piece = stack.pop()
        if isinstance(piece, str):
            done.append(piece)
        else:
            stack += reversed(_parts(piece))
    return "".join(done)


def _parts(node: Node) -> list[Piece]:
    match node:
        case Number(text=written):
            return [written]
        case Bool(value=truth):
            return ["true" if truth else "false"]
        case Ref(name=name):
            return [name]
        case syntax.Argument(name=keyword, value=value):
            return ["(= ", keyword.text, " ", value, ")"] if keyword else [value]
        case Call(function=function, args=args):
            return _form(f"call {function.name}", args)
        case Subscript(value=value, index=index):
            return _form("at", (value, *index))
        case Slice(start=start, stop=stop):
            return ["(: ", start or "_", " ", stop or "_", ")"]
        case Attribute(value=value, name=name_):
            return ["(. ", value, f" {name_.text})"]
        case Unary(op=sign, operand=operand):
            return _form(sign, (operand,))
        case Binary(op=op, left=left, right=right):
            return _form(op, (left, right))
        case Comparison(operands=operands, ops=ops):
            return _form(" ".join(("compare", *ops)), operands)
        case ListLiteral(items=items):
            return _form("list", items)
        case _:
            assert_never(node)


def _form(head: str, items: Iterable[Node]) -> list[Piece]:
    parts: list[Piece] = [f"({head}"]
    for item in items:
        parts += [" ", item]
    return [*parts, ")"]

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
            lines.append(f"{indent}{text.word(clause)} {text.value(clause, prefix)}")
    return lines


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

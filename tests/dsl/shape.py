"""An AST without its places, as nested tuples: what two texts that mean the same have in common."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

from attnc.dsl import syntax
from attnc.dsl.parse import parse
from attnc.dsl.source import Source

ORDER = (
    "param", "input", "query", "key", "value", "let", "state", "step", "read", "score", "mask", "normalize", "kv",
    "emit", "branch", "output",
)  # fmt: skip


def read(text: str, *, library: bool = False) -> syntax.File:
    return parse(Source(name="test.attn", text=text), library=library)


def shape(node: object) -> object:
    """For shallow trees: it recurses."""
    if is_dataclass(node) and not isinstance(node, type):
        inner = [
            (item.name, shape(getattr(node, item.name)))
            for item in fields(node)
            if item.name not in ("span", "op_span", "op_spans", "source", "comments")
        ]
        return (type(node).__name__, *inner)
    return tuple(map(shape, node)) if isinstance(node, tuple) else node


def word(clause: object) -> str:
    if isinstance(clause, syntax.VectorClause):
        return clause.role
    return type(clause).__name__.removesuffix("Clause").lower()


def ordered(node: object) -> object:
    """The shape with clauses in the order of the language page."""
    match node:
        case syntax.File(constructs=constructs, lets=lets):
            return tuple(map(ordered, constructs)), shape(lets)
        case syntax.Construct(name=name, clauses=clauses) | syntax.BranchClause(name=name, clauses=clauses):
            inner = sorted(clauses, key=lambda clause: ORDER.index(word(clause)))
            return type(node).__name__, getattr(node, "word", ""), name.text, tuple(map(ordered, inner))
        case _:
            return shape(node)

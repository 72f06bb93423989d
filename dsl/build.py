"""Parser reductions -> nodes of syntax.py: one method a grammar rule, called by lark as it reduces.

The grammar keeps every token, so a node's span is that of its first and last child. Nothing here recurses:
children are nodes already. A parenthesized operand keeps its own tight span; the parentheses count only
towards the spans of what it becomes a part of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from lark import Token, Transformer, v_args

from attnc.dsl import syntax
from attnc.dsl.source import Source, Span

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Parenthesized:
    """An operand in parentheses, until its user takes it."""

    inner: syntax.Expr
    span: Span


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """A whole file but for its comments, which the grammar never sees."""

    constructs: tuple[syntax.Construct, ...]
    lets: tuple[syntax.LetClause, ...]

    def file(self, source: Source, comments: tuple[syntax.Comment, ...]) -> syntax.File:
        return syntax.File(source=source, constructs=self.constructs, lets=self.lets, comments=comments)


Operand = syntax.Expr | Parenthesized
Child = Any  # a token, a node or None; each rule's shape is fixed by the grammar


def token_span(token: Token) -> Span:
    """Where a token stands. Lark fills both positions for every lexed token."""
    assert token.start_pos is not None and token.end_pos is not None
    return Span(start=token.start_pos, end=token.end_pos)


def _span(*children: Child) -> Span:
    """From the first to the last child that is there."""
    present = [child for child in children if child is not None]
    return _place(present[0]).to(_place(present[-1]))


def _place(child: Child) -> Span:
    if isinstance(child, Token):
        return token_span(child)
    span: Span = child.span
    return span


def _name(token: Token) -> syntax.Name:
    return syntax.Name(text=str(token), span=token_span(token))


def _named(token: Token | None) -> syntax.Name | None:
    return None if token is None else _name(token)


def _bare(operand: Operand) -> syntax.Expr:
    return operand.inner if isinstance(operand, Parenthesized) else operand


def _given(operand: Operand | None) -> syntax.Expr | None:
    return None if operand is None else _bare(operand)


def _bares(children: Iterable[Child]) -> tuple[Any, ...]:
    """The nodes among the children, tokens left out."""
    return tuple(_bare(child) for child in children if not isinstance(child, Token))


def _only(children: Iterable[Child], kind: type[T]) -> tuple[T, ...]:
    return tuple(child for child in children if isinstance(child, kind))


class Builder(Transformer[Token, Parsed]):
    """Stateless; one instance serves every parse."""

    def file(self, children: Sequence[Child]) -> Parsed:
        return Parsed(constructs=_only(children, syntax.Construct), lets=_only(children, syntax.LetClause))

    def construct(self, children: Sequence[Child]) -> syntax.Construct:
        word, name, _, *clauses, close = children
        return syntax.Construct(
            word="attention" if word == "attention" else "recurrence",
            name=_name(name),
            clauses=tuple(clauses),
            span=_span(word, close),
        )

    def branch(self, children: Sequence[Child]) -> syntax.BranchClause:
        word, name, _, *clauses, close = children
        return syntax.BranchClause(name=_name(name), clauses=tuple(clauses), span=_span(word, close))

    # --- clauses ------------------------------------------------------------------------------

    @v_args(inline=True)
    def param(self, *children: Child) -> syntax.ParamClause:
        _, name, _, type_, _, default, _, where = children
        return syntax.ParamClause(
            name=_name(name), type=type_, default=_given(default), where=_given(where), span=_span(*children)
        )

    @v_args(inline=True)
    def input(self, *children: Child) -> syntax.InputClause:
        _, name, _, type_, nograd = children
        if nograd is not None:
            type_ = syntax.Type(element=type_.element, axes=type_.axes, nograd=True, span=_span(type_, nograd))
        return syntax.InputClause(name=_name(name), type=type_, span=_span(*children))

    def vectors(self, children: Sequence[Child]) -> syntax.VectorClause:
        word = children[0]
        role = {"QUERY": "query", "KEY": "key", "VALUE": "value"}[word.type]
        return syntax.VectorClause(
            role=role,  # type: ignore[arg-type]  # one of the three literals
            items=_only(children, syntax.VectorItem),
            span=_span(*children),
        )

    @v_args(inline=True)
    def vector(self, *children: Child) -> syntax.VectorItem:
        name, _, dim, _, _, value = children
        return syntax.VectorItem(name=_name(name), dim=_given(dim), value=_given(value), span=_span(*children))

    @v_args(inline=True)
    def let(self, *children: Child) -> syntax.LetClause:
        _, name, parameters, _, value = children
        return syntax.LetClause(
            name=_name(name),
            parameters=parameters,
            value=value if isinstance(value, syntax.Pair) else _bare(value),
            span=_span(*children),
        )

    @v_args(inline=True)
    def score(self, word: Token, value: Operand) -> syntax.ScoreClause:
        return syntax.ScoreClause(value=_bare(value), span=_span(word, value))

    @v_args(inline=True)
    def mask(self, word: Token, value: Operand) -> syntax.MaskClause:
        return syntax.MaskClause(value=_bare(value), span=_span(word, value))

    @v_args(inline=True)
    def normalize(self, word: Token, value: syntax.Ref | syntax.Call | syntax.Pair) -> syntax.NormalizeClause:
        return syntax.NormalizeClause(value=value, span=_span(word, value))

    @v_args(inline=True)
    def kv(
        self, word: Token, layout: syntax.Ref | syntax.Call, storage: syntax.Ref | syntax.Call | None
    ) -> syntax.KvClause:
        name, arguments = _taken(layout)
        storage_name, storage_arguments = (None, ()) if storage is None else _taken(storage)
        return syntax.KvClause(
            layout=name,
            layout_args=arguments,
            storage=storage_name,
            storage_args=storage_arguments,
            span=_span(word, layout, storage),
        )

    def emit(self, children: Sequence[Child]) -> syntax.EmitClause:
        return syntax.EmitClause(items=_only(children, syntax.EmitItem), span=_span(*children))

    @v_args(inline=True)
    def emitted(self, first: Token, dot: Token | None, second: Token | None) -> syntax.EmitItem:
        if second is None:
            return syntax.EmitItem(branch=None, name=_name(first), span=_span(first))
        return syntax.EmitItem(branch=_name(first), name=_name(second), span=_span(first, second))

    @v_args(inline=True)
    def output(self, word: Token, value: Operand) -> syntax.OutputClause:
        return syntax.OutputClause(value=_bare(value), span=_span(word, value))

    def state(self, children: Sequence[Child]) -> syntax.StateClause:
        _, name, _, *axes, _ = children
        return syntax.StateClause(name=_name(name), axes=_bares(axes), span=_span(*children))

    @v_args(inline=True)
    def step(self, word: Token, value: Operand) -> syntax.StepClause:
        return syntax.StepClause(value=_bare(value), span=_span(word, value))

    @v_args(inline=True)
    def read(self, word: Token, value: Operand) -> syntax.ReadClause:
        return syntax.ReadClause(value=_bare(value), span=_span(word, value))

    def type(self, children: Sequence[Child]) -> syntax.Type:
        element, *axes = children
        return syntax.Type(
            element=_name(element), axes=_bares(axes) if axes else None, nograd=False, span=_span(*children)
        )

    def list(self, children: Sequence[Child]) -> syntax.ListLiteral:
        return syntax.ListLiteral(items=_bares(children), span=_span(*children))

    def parameters(self, children: Sequence[Child]) -> tuple[syntax.Parameter, ...]:
        return _only(children, syntax.Parameter)

    @v_args(inline=True)
    def parameter(self, *children: Child) -> syntax.Parameter:
        name, _, type_, _, default, _, where = children
        return syntax.Parameter(
            name=_name(name), type=_named(type_), default=_given(default), where=_given(where), span=_span(*children)
        )

    @v_args(inline=True)
    def pair(self, *children: Child) -> syntax.Pair:
        _, _, s, _, _, weight, _, _, t, _, _, divisor = children
        return syntax.Pair(
            weight_argument=_name(s),
            weight=_bare(weight),
            divisor_argument=_name(t),
            divisor=_bare(divisor),
            span=_span(*children),
        )

    # --- expressions (most of a text: v_args would cost more than the nodes) --------------------

    def parenthesized(self, children: Sequence[Child]) -> Parenthesized:
        left, inner, right = children
        return Parenthesized(inner=_bare(inner), span=_span(left, right))

    def binary(self, children: Sequence[Child]) -> syntax.Binary:
        left, op, right = children
        return syntax.Binary(
            op=str(op),  # type: ignore[arg-type]  # the grammar admits these operators alone
            left=_bare(left),
            right=_bare(right),
            op_span=token_span(op),
            span=_span(left, right),
        )

    def unary(self, children: Sequence[Child]) -> syntax.Unary:
        op, operand = children
        return syntax.Unary(
            op=str(op),  # type: ignore[arg-type]  # the grammar admits these operators alone
            operand=_bare(operand),
            span=_span(op, operand),
        )

    def comparison(self, children: Sequence[Child]) -> syntax.Comparison:
        ops = _only(children, Token)
        return syntax.Comparison(
            operands=_bares(children),
            ops=tuple(str(op) for op in ops),  # type: ignore[misc]  # COMPARE lists these alone
            op_spans=tuple(token_span(op) for op in ops),
            span=_span(*children),
        )

    def ref(self, children: Sequence[Child]) -> syntax.Ref:
        (token,) = children
        return syntax.Ref(name=str(token), span=token_span(token))

    def number(self, children: Sequence[Child]) -> syntax.Number:
        (token,) = children
        value = int(token) if token.type == "INT" else float(token)
        return syntax.Number(value=value, text=str(token), span=token_span(token))

    @v_args(inline=True)
    def boolean(self, token: Token) -> syntax.Bool:
        return syntax.Bool(value=token.type == "TRUE", span=token_span(token))

    def call(self, children: Sequence[Child]) -> syntax.Call:
        function = children[0]
        return syntax.Call(
            function=syntax.Ref(name=str(function), span=token_span(function)),
            args=_only(children, syntax.Argument),
            span=_span(*children),
        )

    def argument(self, children: Sequence[Child]) -> syntax.Argument:
        name, _, value = children
        return syntax.Argument(name=_named(name), value=_bare(value), span=_span(name, value))

    def subscript(self, children: Sequence[Child]) -> syntax.Subscript:
        value, _, *index, _ = children
        return syntax.Subscript(value=_bare(value), index=_bares(index), span=_span(*children))

    @v_args(inline=True)
    def slice(self, start: Operand | None, colon: Token, stop: Operand | None) -> syntax.Slice:
        return syntax.Slice(start=_given(start), stop=_given(stop), span=_span(start, colon, stop))

    @v_args(inline=True)
    def attribute(self, value: Operand, dot: Token, name: Token) -> syntax.Attribute:
        return syntax.Attribute(value=_bare(value), name=_name(name), span=_span(value, name))


def _taken(item: syntax.Ref | syntax.Call) -> tuple[syntax.Name, tuple[syntax.Argument, ...]]:
    """The name and arguments of ``paged(page = 16)`` or ``contiguous``."""
    match item:
        case syntax.Ref(name=name, span=span):
            return syntax.Name(text=name, span=span), ()
        case syntax.Call(function=function, args=args):
            return syntax.Name(text=function.name, span=function.span), args

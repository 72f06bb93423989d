"""The AST: what was written, with spans, comments kept apart. Made by parse.py, read by format.py and check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from attnc.dsl.source import Source, Span


@dataclass(frozen=True, kw_only=True)
class Name:
    """An identifier where it is declared or named as a keyword argument."""

    text: str
    span: Span


# --- expressions ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Number:
    """``4``, ``0.5``, ``1e-6``, ``inf``; ``text`` as written. An int literal has an int value."""

    value: int | float
    text: str
    span: Span


@dataclass(frozen=True, kw_only=True)
class Bool:
    value: bool
    span: Span


@dataclass(frozen=True, kw_only=True)
class Ref:
    """A name in use."""

    name: str
    span: Span


@dataclass(frozen=True, kw_only=True)
class Argument:
    name: Name | None
    value: Expr
    span: Span


@dataclass(frozen=True, kw_only=True)
class Call:
    """``f(x, y, block = 64)``"""

    function: Ref
    args: tuple[Argument, ...]
    span: Span


@dataclass(frozen=True, kw_only=True)
class Slice:
    """``:512``, ``64:``, ``a:b`` inside a subscript."""

    start: Expr | None
    stop: Expr | None
    span: Span


@dataclass(frozen=True, kw_only=True)
class Subscript:
    """``bias[h, i - j + M]``, ``k[:512]``"""

    value: Expr
    index: tuple[Expr | Slice, ...]
    span: Span


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """``pos.lse``"""

    value: Expr
    name: Name
    span: Span


@dataclass(frozen=True, kw_only=True)
class Unary:
    op: Literal["-", "+", "not"]
    operand: Expr
    span: Span


@dataclass(frozen=True, kw_only=True)
class Binary:
    op: Literal["+", "-", "*", "/", "//", "%", "**", "@", "and", "or"]
    left: Expr
    right: Expr
    op_span: Span
    span: Span


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """``0 <= i - j < w``: one more operand than operators."""

    operands: tuple[Expr, ...]
    ops: tuple[Literal["==", "!=", "<", "<=", ">", ">="], ...]
    op_spans: tuple[Span, ...]
    span: Span


@dataclass(frozen=True, kw_only=True)
class ListLiteral:
    """``[1, 2, 4, 8]``: the default of a per-head param, nowhere else."""

    items: tuple[Expr, ...]
    span: Span


Expr = Number | Bool | Ref | Call | Subscript | Attribute | Unary | Binary | Comparison | ListLiteral


# --- clauses ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Type:
    """``f32[B, H, N]``, ``int``, ``int[H]``: element name and the sizes, None where no brackets are."""

    element: Name
    axes: tuple[Expr, ...] | None
    nograd: bool
    span: Span


@dataclass(frozen=True, kw_only=True)
class ParamClause:
    """``param w: int = 256 where w >= 0``"""

    name: Name
    type: Type
    default: Expr | None
    where: Expr | None
    span: Span


@dataclass(frozen=True, kw_only=True)
class InputClause:
    """``input x: f32[H, N] nograd``"""

    name: Name
    type: Type
    span: Span


@dataclass(frozen=True, kw_only=True)
class VectorItem:
    """``q``, ``qr[64]`` (declared, with its dim), ``kp = e @ k`` (derived)."""

    name: Name
    dim: Expr | None
    value: Expr | None
    span: Span


@dataclass(frozen=True, kw_only=True)
class VectorClause:
    """``query q1, q2``; inside a branch, ``value v2`` chooses that branch's value."""

    role: Literal["query", "key", "value"]
    items: tuple[VectorItem, ...]
    span: Span


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """``r: int = l where r >= 0`` of a function; the type name is optional."""

    name: Name
    type: Name | None
    default: Expr | None
    where: Expr | None
    span: Span


@dataclass(frozen=True, kw_only=True)
class Pair:
    """``weight(s) = E divisor(t) = E``; argument names as written (always s and t)."""

    weight_argument: Name
    weight: Expr
    divisor_argument: Name
    divisor: Expr
    span: Span


@dataclass(frozen=True, kw_only=True)
class LetClause:
    """``let a = E``, ``let f(x) = E``, ``let f(x) = weight(s) = E divisor(t) = E``."""

    name: Name
    parameters: tuple[Parameter, ...] | None
    value: Expr | Pair
    span: Span


@dataclass(frozen=True, kw_only=True)
class ScoreClause:
    value: Expr
    span: Span


@dataclass(frozen=True, kw_only=True)
class MaskClause:
    value: Expr
    span: Span


@dataclass(frozen=True, kw_only=True)
class NormalizeClause:
    """``normalize softmax(sink = e)`` (Ref or Call) or a pair in place."""

    value: Expr | Pair
    span: Span


@dataclass(frozen=True, kw_only=True)
class KvClause:
    """``kv paged(page = 16) int8(per = token)``: a layout and, after it, a storage type."""

    layout: Name
    layout_args: tuple[Argument, ...]
    storage: Name | None
    storage_args: tuple[Argument, ...]
    span: Span


@dataclass(frozen=True, kw_only=True)
class EmitItem:
    """``lse`` or ``pos.lse``"""

    branch: Name | None
    name: Name
    span: Span


@dataclass(frozen=True, kw_only=True)
class EmitClause:
    items: tuple[EmitItem, ...]
    span: Span


@dataclass(frozen=True, kw_only=True)
class BranchClause:
    name: Name
    clauses: tuple[Clause, ...]
    span: Span


@dataclass(frozen=True, kw_only=True)
class OutputClause:
    value: Expr
    span: Span


@dataclass(frozen=True, kw_only=True)
class StateClause:
    """``state S[D, E]`` of a recurrence."""

    name: Name
    axes: tuple[Expr, ...]
    span: Span


@dataclass(frozen=True, kw_only=True)
class StepClause:
    value: Expr
    span: Span


@dataclass(frozen=True, kw_only=True)
class ReadClause:
    value: Expr
    span: Span


Clause = (
    ParamClause
    | InputClause
    | VectorClause
    | LetClause
    | ScoreClause
    | MaskClause
    | NormalizeClause
    | KvClause
    | EmitClause
    | BranchClause
    | OutputClause
    | StateClause
    | StepClause
    | ReadClause
)


@dataclass(frozen=True, kw_only=True)
class Construct:
    """``attention NAME { ... }`` or ``recurrence NAME { ... }``"""

    word: Literal["attention", "recurrence"]
    name: Name
    clauses: tuple[Clause, ...]
    span: Span


@dataclass(frozen=True, kw_only=True)
class Comment:
    """``# ...`` to the end of the line, without the newline. ``own_line``: nothing stands before it."""

    text: str
    own_line: bool
    span: Span


@dataclass(frozen=True, kw_only=True)
class File:
    """A parsed file. Top-level ``lets`` are legal in the standard library alone."""

    source: Source
    constructs: tuple[Construct, ...]
    lets: tuple[LetClause, ...]
    comments: tuple[Comment, ...]

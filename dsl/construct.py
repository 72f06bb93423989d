"""What a checked file declares: an ``Attention`` or a ``Recurrence``, and its parts, over the graph of dsl/ir.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from attnc.dsl.ir import Expr, Kind, Side
from attnc.dsl.source import Source, Span


@dataclass(frozen=True, kw_only=True)
class ParamDecl:
    """A compile-time constant. ``per_head``: a list with one entry a head. ``default`` None: must be given."""

    name: str
    kind: Kind
    per_head: bool
    default: bool | int | float | tuple[bool | int | float, ...] | None
    span: Span


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A statement about params that must hold: ``window(w)`` needs ``w >= 0``. Checked at specialization;
    ``params`` are the names to report by, ``text`` the condition as a person reads it."""

    expr: Expr
    params: tuple[str, ...]
    text: str
    span: Span


@dataclass(frozen=True, kw_only=True)
class InputDecl:
    """A run-time tensor. ``dtype`` as written (f32 f16 bf16 f64 i32 i64 bool); ``axes`` are size expressions:
    Size, Const, and arithmetic of them. Scalar inputs have no axes."""

    name: str
    dtype: str
    kind: Kind
    axes: tuple[Expr, ...]
    differentiable: bool
    span: Span


@dataclass(frozen=True, kw_only=True)
class VectorDecl:
    """An argument of the call: ``q[B, H, N, dim]``, ``k[B, G, M, dim]``, ``v[B, G, M, dim]``."""

    name: str
    role: Literal["query", "key", "value"]
    dim: Expr
    span: Span


@dataclass(frozen=True, kw_only=True)
class TokenDecl:
    """A token-wise value computed before the pairwise part, in order; later ones may use earlier ones.
    Vector (``dim`` given): [B, heads, length, dim], used through Vector. Scalar (``dim`` None):
    [B, heads, length], read through Load(tensor=name, index=(b, h, row)) whatever the side: a backend reads it
    at h's key-value head where heads is G. ``heads``: "H", or "G" for a key side that does not depend on h."""

    name: str
    side: Side
    expr: Expr
    dim: Expr | None
    heads: Literal["H", "G"]
    length: Expr
    span: Span | None = None


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """Weights ``weight(s)`` over Symbol s; output divided by ``divisor(t)`` over Symbol t, the weights' sum.
    The divisor may also read inputs and params at (b, h, i)."""

    name: str
    weight: Expr
    divisor: Expr
    span: Span


@dataclass(frozen=True, kw_only=True)
class Branch:
    """One map: out[b, h, i] = sum_j weight(score) value[b, g, j] / divisor. ``mask`` is Const True for all keys.
    ``value`` names a VectorDecl or TokenDecl; ``keys`` is the number of key rows (Size M unless derived)."""

    name: str
    score: Expr
    mask: Expr
    normalization: Normalization
    value: str
    keys: Expr
    span: Span


EmitName = Literal["lse", "rowmax", "entropy", "colsum", "total"]


@dataclass(frozen=True, kw_only=True)
class Emit:
    """An extra result. ``name`` is its field in the result: ``lse``, or ``pos_lse`` for ``pos.lse``."""

    name: str
    branch: str
    what: EmitName
    span: Span


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The key-value layout and storage. Only plain ``contiguous`` compiles for now."""

    kind: Literal["contiguous", "packed", "paged", "latent"] = "contiguous"
    args: tuple[tuple[str, int | str], ...] = ()
    storage: Literal["int8", "int4", "fp8"] | None = None
    storage_args: tuple[tuple[str, int | str], ...] = ()
    span: Span | None = None


@dataclass(frozen=True, kw_only=True)
class Attention:
    """A checked ``attention``. A spec without branches has one, named ``out``, and the output Symbol out.
    ``sizes`` are the names that inputs' axes bind beyond the standard ones, in order of first appearance."""

    name: str
    params: tuple[ParamDecl, ...]
    conditions: tuple[Condition, ...]
    inputs: tuple[InputDecl, ...]
    vectors: tuple[VectorDecl, ...]
    sizes: tuple[str, ...]
    tokens: tuple[TokenDecl, ...]
    branches: tuple[Branch, ...]
    output: Expr
    emits: tuple[Emit, ...]
    layout: Layout
    source: Source
    span: Span


@dataclass(frozen=True, kw_only=True)
class Recurrence:
    """A checked ``recurrence``: S <- step, out = read. Compiled by a later issue."""

    name: str
    params: tuple[ParamDecl, ...]
    conditions: tuple[Condition, ...]
    inputs: tuple[InputDecl, ...]
    vectors: tuple[VectorDecl, ...]
    sizes: tuple[str, ...]
    state: str
    state_dims: tuple[Expr, ...]
    step: Expr
    read: Expr
    source: Source
    span: Span


Construct = Attention | Recurrence

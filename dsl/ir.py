"""The typed IR: mathematics over one query index i and one key index j, in the field's names.

Expressions are a graph of frozen nodes. A node is its content: two nodes are equal if their digests
are, spans aside, so equal sub-expressions are one node in any dict or set and passes stay linear.
Graphs are walked with ``postorder``, never by recursion (a spec may nest 10,000 deep).

After ``split`` (dsl/split.py) the pairwise part (score, mask) holds only Const, ParamRef, ParamElement,
Table, Index, Size, Offset, Symbol, Load without remaining dims, Dot of two Vectors, Drawn, Listed and Apply;
everything token-wise (rope, norms, projections, dot(q, q)) stands in ``Attention.tokens``.
``specialize`` (dsl/specialize.py) then replaces ParamRef by Const and ParamElement by Table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from functools import cache, cached_property
from hashlib import blake2b
from typing import Literal, Union

from attnc.dsl.source import Span


class Kind(StrEnum):
    """The kind of a scalar or of a tensor's elements. Widths are the backend's business."""

    BOOL = "bool"
    INT = "int"
    FLOAT = "float"


class Side(StrEnum):
    """Which sequence a token vector runs along."""

    QUERY = "query"
    KEY = "key"


Axis = Literal["b", "h", "i", "j"]


class Fn(StrEnum):
    """Elementwise functions. ``/`` is true division, ``//`` and ``%`` floor; min and max are binary."""

    ADD = "add"
    SUB = "sub"
    MUL = "mul"
    DIV = "div"
    FLOORDIV = "floordiv"
    MOD = "mod"
    POW = "pow"
    NEG = "neg"
    MIN = "min"
    MAX = "max"
    CLAMP = "clamp"  # clamp(x, lo, hi)
    ABS = "abs"
    SIGN = "sign"
    EXP = "exp"
    EXP2 = "exp2"
    EXPM1 = "expm1"
    LOG = "log"
    LOG1P = "log1p"
    SQRT = "sqrt"
    RSQRT = "rsqrt"
    TANH = "tanh"
    SIGMOID = "sigmoid"
    RELU = "relu"
    ELU = "elu"
    SOFTPLUS = "softplus"
    ERF = "erf"
    SIN = "sin"
    COS = "cos"
    FLOOR = "floor"  # float -> float
    WHERE = "where"  # where(condition, x, y)
    EQ = "eq"
    NE = "ne"
    LT = "lt"
    LE = "le"
    GT = "gt"
    GE = "ge"
    AND = "and"
    OR = "or"
    NOT = "not"
    INT = "int"  # truncates towards zero
    FLOAT = "float"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Node:
    """What every expression has: its kind, its dims beyond the indices (none for a scalar), its place."""

    kind: Kind
    dims: tuple[Expr, ...] = ()
    span: Span | None = None
    digest: bytes = field(init=False, repr=False, default=b"")

    def __post_init__(self) -> None:
        content = blake2b(type(self).__name__.encode(), digest_size=16)
        for name in _content(self):
            _feed(content, getattr(self, name))
        object.__setattr__(self, "digest", content.digest())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Node) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @cached_property
    def _children(self) -> tuple[Expr, ...]:
        found: list[Expr] = []
        for name in _content(self):
            if name in ("kind", "dims"):
                continue
            value = getattr(self, name)
            if isinstance(value, _Node):
                found.append(value)  # type: ignore[arg-type]  # every _Node is an Expr
            elif isinstance(value, tuple):
                found += [part for part in value if isinstance(part, _Node)]  # type: ignore[misc]  # likewise
        return tuple(found)


def _content(node: _Node) -> tuple[str, ...]:
    """The names of the fields that make a node what it is."""
    return _content_of(type(node))  # type: ignore[arg-type]  # mypy takes __hash__ for the class's own


@cache
def _content_of(node: type) -> tuple[str, ...]:
    return tuple(item.name for item in fields(node) if item.name not in ("span", "digest"))


def _feed(content: blake2b, value: object) -> None:
    if isinstance(value, _Node):
        content.update(b"n" + value.digest)
    elif isinstance(value, tuple):
        content.update(b"(%d" % len(value))
        for item in value:
            _feed(content, item)
    else:  # str, int, float, bool, None, an enum: repr tells 1 from 1.0 and from True
        text = repr(value).encode()
        content.update(b"v%d:" % len(text) + text)


@dataclass(frozen=True, kw_only=True, eq=False)
class Const(_Node):
    """A number or truth value; float constants may be inf, never NaN."""

    value: bool | int | float


@dataclass(frozen=True, kw_only=True, eq=False)
class ParamRef(_Node):
    """A compile-time scalar, not yet bound."""

    name: str


@dataclass(frozen=True, kw_only=True, eq=False)
class ParamElement(_Node):
    """One entry of a per-head param ``int[H]``, not yet bound."""

    name: str
    index: Expr


@dataclass(frozen=True, kw_only=True, eq=False)
class Table(_Node):
    """One entry of a compile-time list; an index outside reads the nearest."""

    values: tuple[bool | int | float, ...]
    index: Expr


@dataclass(frozen=True, kw_only=True, eq=False)
class Index(_Node):
    """``b``, ``h``, absolute query position ``i``, absolute key position ``j``."""

    axis: Axis


@dataclass(frozen=True, kw_only=True, eq=False)
class Size(_Node):
    """B H G N M D E, or a size that an input's axes name."""

    name: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Offset(_Node):
    """``q_offset`` (of batch b) or ``kv_offset``: position minus tensor row."""

    side: Side


@dataclass(frozen=True, kw_only=True, eq=False)
class Symbol(_Node):
    """A bound variable: ``s`` and ``t`` in a pair, a branch in an output, the state in a recurrence."""

    name: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Vector(_Node):
    """A token's vector: declared (q, k, v) or derived (a TokenDecl); dims is its one size.
    In a recurrence, and in token-wise code, the token is the one at hand."""

    name: str
    side: Side


@dataclass(frozen=True, kw_only=True, eq=False)
class Load(_Node):
    """An input, or a token-wise scalar, read at ``index`` (rows, not positions: an axis named N is already
    read at ``i - q_offset``). Indices outside the axis read the nearest element. Axes beyond the index remain
    as ``dims``."""

    tensor: str
    index: tuple[Expr, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Dot(_Node):
    """The inner product of two vectors. A query's with a key's is pairwise: the tile's matrix product."""

    left: Expr
    right: Expr


@dataclass(frozen=True, kw_only=True, eq=False)
class Apply(_Node):
    """An elementwise function; vectors among the arguments broadcast over scalars."""

    fn: Fn
    args: tuple[Expr, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn(_Node):
    """True where ``column`` is among ``count`` distinct numbers of range(blocks), drawn by (seed, head, row)."""

    head: Expr
    row: Expr
    column: Expr
    count: Expr
    seed: Expr
    blocks: Expr


@dataclass(frozen=True, kw_only=True, eq=False)
class Listed(_Node):
    """True where ``column`` is in the index list ``tensor[b, h, row, :]``; -1 is an unused slot."""

    tensor: str
    row: Expr
    column: Expr


@dataclass(frozen=True, kw_only=True, eq=False)
class MatMul(_Node):
    """``m @ x``. over='dims': along the vector's dim. over='positions': along the sequence. In a recurrence also
    a vector (``matrix``) times the state (``operand``), ``q @ S``: along the state's first dim."""

    matrix: Expr
    operand: Expr
    over: Literal["dims", "positions"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Rope(_Node):
    """Rotary embedding (Su et al., 2021): pair k turns by position * base ** (-2k / dim) / scaling[k].
    ``scaling`` is a scalar or a vector of dim / 2. ``interleaved`` rotates neighbours instead of halves."""

    operand: Expr
    position: Expr
    base: Expr
    scaling: Expr
    interleaved: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Normed(_Node):
    """``l2norm``: x / max(|x|, eps), eps = 1e-12. ``rmsnorm``: x * rsqrt(mean(x * x) + eps) * weight, eps = 1e-6."""

    fn: Literal["l2norm", "rmsnorm"]
    operand: Expr
    weight: Expr | None
    eps: Expr


@dataclass(frozen=True, kw_only=True, eq=False)
class Concat(_Node):
    parts: tuple[Expr, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Sliced(_Node):
    """``x[start:stop]`` along a vector's dim; both given, in range where they are constants."""

    operand: Expr
    start: Expr
    stop: Expr


@dataclass(frozen=True, kw_only=True, eq=False)
class Outer(_Node):
    """``outer(x, y)``: a matrix; recurrences only."""

    left: Expr
    right: Expr


Expr = Union[
    Const, ParamRef, ParamElement, Table, Index, Size, Offset, Symbol, Vector, Load, Dot, Apply, Drawn, Listed,
    MatMul, Rope, Normed, Concat, Sliced, Outer,
]  # fmt: skip


def placed(node: Expr, span: Span | None) -> Expr:
    """The same node with another place in the text. A place is no part of what a node is: its digest stays."""
    moved = object.__new__(type(node))
    moved.__dict__.update(node.__dict__, span=span)
    return moved


def children(node: Expr) -> tuple[Expr, ...]:
    """The sub-expressions of a node in a fixed order, dims left out."""
    return node._children


def postorder(*roots: Expr) -> list[Expr]:
    """Every node below the roots once, operands before their users, in a deterministic order."""
    done: dict[Expr, None] = {}
    stack: list[tuple[Expr, bool]] = [(root, False) for root in reversed(roots)]
    while stack:
        node, ready = stack.pop()
        if node in done:
            continue
        if ready:
            done[node] = None
        else:
            stack.append((node, True))
            stack += [(child, False) for child in reversed(children(node))]
    return list(done)


def rebuild(node: Expr, new: Callable[[Expr], Expr]) -> Expr:
    """The node with each direct sub-expression (dims included) replaced by ``new(child)``."""
    changes: dict[str, object] = {}
    for name in _content(node):
        value = getattr(node, name)
        if isinstance(value, _Node):
            changed: object = new(value)  # type: ignore[arg-type]
        elif isinstance(value, tuple) and any(isinstance(part, _Node) for part in value):
            changed = tuple(new(part) if isinstance(part, _Node) else part for part in value)  # type: ignore[arg-type]
        else:
            continue
        if changed != value:
            changes[name] = changed
    return replace(node, **changes) if changes else node  # type: ignore[arg-type]


def transform(roots: Iterable[Expr], step: Callable[[Expr], Expr]) -> tuple[Expr, ...]:
    """Rewrite graphs bottom-up: ``step`` sees each distinct node once, its operands already rewritten."""
    roots = tuple(roots)
    made: dict[Expr, Expr] = {}
    for node in postorder(*roots):
        made[node] = step(rebuild(node, lambda child: made.get(child, child)))
    return tuple(made[root] for root in roots)


def substitute(roots: Iterable[Expr], values: dict[Expr, Expr]) -> tuple[Expr, ...]:
    """Replace nodes (leaves or whole sub-expressions) by others."""
    return transform(roots, lambda node: values.get(node, node))


def dependencies(*roots: Expr) -> frozenset[Axis]:
    """Which of b, h, i, j the expressions vary with. A query's vector varies with b, h, i, a key's with b, h, j;
    ``q_offset`` with b."""
    found: set[Axis] = set()
    for node in postorder(*roots):
        match node:
            case Index(axis=axis):
                found.add(axis)
            case Vector(side=side):
                found |= {"b", "h", "i" if side is Side.QUERY else "j"}
            case Offset(side=Side.QUERY) | Listed():
                found.add("b")
                if isinstance(node, Listed):
                    found.add("h")
    return frozenset(found)

"""Token-wise parts leave the pairwise score.

What varies with the query or the key alone (``phi(q)``, ``rope(k, j)``, ``dot(k, k)``) becomes a TokenDecl, computed
once a token; the pairwise part keeps the inner products of a query's vector with a key's, and scalars.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from attnc.dsl import ir
from attnc.dsl.construct import TokenDecl
from attnc.dsl.report import Report
from attnc.dsl.sizes import KEYS, QUERIES, size_text
from attnc.dsl.source import Span
from attnc.dsl.vectors import Vectors

MOST_NODES = 200_000


@dataclass(kw_only=True)
class Splitter:
    """``tokens`` by name, each after those it uses; ``taken`` are the names that new ones may not have."""

    report: Report
    vectors: Vectors
    taken: set[str]
    tokens: dict[str, TokenDecl] = field(default_factory=dict)
    _by_expr: dict[ir.Expr, str] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict)
    _nodes: int = 0

    def declare(self, name: str, side: ir.Side, expr: ir.Expr, span: Span) -> TokenDecl | None:
        """A token-wise value under a name; None after a fault."""
        if not self._room(expr, span):
            return None
        length = self._length(expr, side, span)
        if length is None:
            return None
        every_head = side is ir.Side.QUERY or self._varies_with_head(expr)
        dim = expr.dims[0] if expr.dims else None
        token = TokenDecl(
            name=name, side=side, expr=expr, dim=dim, heads="H" if every_head else "G", length=length, span=span
        )
        self.tokens[name] = token
        self._by_expr.setdefault(expr, name)
        return token

    def pairwise(self, root: ir.Expr) -> ir.Expr | None:
        """The expression with every inner product either a query's with a key's or a token's scalar."""
        made: dict[ir.Expr, ir.Expr] = {}
        failed = False
        for node in above_dots(root):
            if isinstance(node, ir.Dot):
                dot = self._dot(node)
                failed |= dot is None
                made[node] = dot or node
            else:
                made[node] = ir.rebuild(node, lambda child: made.get(child, child))
        return None if failed else made[root]

    def _room(self, expr: ir.Expr, span: Span) -> bool:
        """Whether the spec is still of a sane size: parts that tokens share are written out in each."""
        if self._nodes > MOST_NODES:
            return False
        self._nodes += len(ir.postorder(expr))
        if self._nodes > MOST_NODES:
            self.report.fault("A107", f"token-wise parts expand to more than {MOST_NODES} nodes", span)
        return self._nodes <= MOST_NODES

    def keys(self, value: str, *roots: ir.Expr) -> ir.Expr | None:
        """How many key rows a branch has: its value and every key that its score reads must agree."""
        lengths = {self.length_of(value): value}
        for node in ir.postorder(*roots):
            match node:
                case ir.Vector(side=ir.Side.KEY, name=name):
                    lengths.setdefault(self.length_of(name), name)
                case ir.Load(tensor=name) if name in self.tokens and self.tokens[name].side is ir.Side.KEY:
                    lengths.setdefault(self.length_of(name), name)
        if len(lengths) > 1:
            (x, first), (y, second) = list(lengths.items())[:2]
            span = next(node.span for node in roots if node.span is not None)
            message = f"`{first}` has {size_text(x)} rows and `{second}` {size_text(y)}"
            self.report.fault("A409", message, span, help="keys and values of one map are equally many")
            return None
        return next(iter(lengths))

    def length_of(self, name: str) -> ir.Expr:
        """The rows of a key or value."""
        return self.tokens[name].length if name in self.tokens else KEYS

    def _dot(self, node: ir.Dot) -> ir.Expr | None:
        left, right = (self.vectors.varies(x) & {"i", "j"} for x in (node.left, node.right))
        if left | right != {"i", "j"}:
            return self._scalar(node, ir.Side.KEY if left | right == {"j"} else ir.Side.QUERY)
        for part, axes in ((node.left, left), (node.right, right)):
            if len(axes) > 1:
                assert part.span is not None
                self.report.fault(
                    "A205", "a vector mixes query and key", part.span, label="varies with both `i` and `j`",
                    help="only `dot` joins the two; what varies with the pair stands outside of it",
                )  # fmt: skip
                return None
        query, key = (node.left, node.right) if left == {"i"} else (node.right, node.left)
        x, y = self._token(query, ir.Side.QUERY), self._token(key, ir.Side.KEY)
        return replace(node, left=x, right=y) if x is not None and y is not None else None

    def _token(self, expr: ir.Expr, side: ir.Side) -> ir.Expr | None:
        """A vector's own name, or a new one for an expression."""
        if isinstance(expr, ir.Vector):
            return expr
        token = self._named(expr, side)
        if token is None:
            return None
        return ir.Vector(kind=ir.Kind.FLOAT, dims=expr.dims, name=token.name, side=side, span=expr.span)

    def _scalar(self, expr: ir.Expr, side: ir.Side) -> ir.Expr | None:
        """A token's scalar, read at the pair's own token."""
        token = self._named(expr, side)
        if token is None:
            return None
        axes: tuple[ir.Axis, ...] = ("b", "h", "i" if side is ir.Side.QUERY else "j")
        b, h, position = (ir.Index(kind=ir.Kind.INT, axis=axis, span=expr.span) for axis in axes)
        offset = ir.Offset(kind=ir.Kind.INT, side=side, span=expr.span)
        row = ir.Apply(kind=ir.Kind.INT, fn=ir.Fn.SUB, args=(position, offset), span=expr.span)
        return ir.Load(kind=ir.Kind.FLOAT, tensor=token.name, index=(b, h, row), span=expr.span)

    def _named(self, expr: ir.Expr, side: ir.Side) -> TokenDecl | None:
        if expr in self._by_expr and self.tokens[self._by_expr[expr]].side is side:
            return self.tokens[self._by_expr[expr]]
        assert expr.span is not None
        if self._nodes > MOST_NODES:
            return None
        base = _first_vector(expr) or side.value
        number = self._numbers.get(base, 0) + 1
        while f"{base}_{number}" in self.taken:
            number += 1
        self._numbers[base] = number
        name = f"{base}_{number}"
        self.taken.add(name)
        return self.declare(name, side, expr, expr.span)

    def _varies_with_head(self, expr: ir.Expr) -> bool:
        for node in ir.postorder(expr):
            match node:
                case ir.Index(axis="h"):
                    return True
                case ir.Vector(name=name) if name in self.tokens and self.tokens[name].heads == "H":
                    return True
        return False

    def _length(self, expr: ir.Expr, side: ir.Side, span: Span) -> ir.Expr | None:
        """Along how many tokens the value runs; a fault where parts disagree."""
        own = QUERIES if side is ir.Side.QUERY else KEYS
        lengths: dict[ir.Expr, ir.Expr | None] = {}
        for node in ir.postorder(expr):
            parts = {lengths[child] for child in ir.children(node)} - {None}
            if len(parts) > 1:
                message = "tokens of sequences of different lengths are mixed"
                self.report.fault("A409", message, node.span or span)
                return None
            length = next(iter(parts), None)
            match node:
                case ir.Vector(name=name):
                    length = self.tokens[name].length if name in self.tokens else own
                case ir.MatMul(over="positions", matrix=matrix):
                    if length not in (None, matrix.dims[1]):
                        assert length is not None
                        message = f"`@` sums over {size_text(matrix.dims[1])} positions"
                        label = f"the operand has {size_text(length)}"
                        self.report.fault("A409", message, node.span or span, label=label)
                        return None
                    length = matrix.dims[0]
            lengths[node] = length
        length = lengths[expr] or own
        if side is ir.Side.QUERY and length != own:
            self.report.fault("A409", f"queries stay {size_text(own)} many", span, label=size_text(length))
            return None
        return length


def _first_vector(expr: ir.Expr) -> str:
    """The leftmost vector's name, or nothing."""
    seen: set[ir.Expr] = set()
    stack = [expr]
    while stack:
        node = stack.pop()
        if isinstance(node, ir.Vector):
            return node.name
        if node not in seen:
            seen.add(node)
            stack += reversed(ir.children(node))
    return ""


def above_dots(root: ir.Expr) -> Iterator[ir.Expr]:
    """The pairwise part in postorder: inner products are leaves of it."""
    done: set[ir.Expr] = set()
    stack: list[tuple[ir.Expr, bool]] = [(root, False)]
    while stack:
        node, ready = stack.pop()
        if node in done:
            continue
        if ready or isinstance(node, ir.Dot):
            done.add(node)
            yield node
        else:
            stack.append((node, True))
            stack += [(child, False) for child in reversed(ir.children(node))]


def live_tokens(tokens: dict[str, TokenDecl], used: set[str]) -> tuple[TokenDecl, ...]:
    """The tokens that are used, directly or through others, in order."""
    live: list[TokenDecl] = []
    for token in reversed(tokens.values()):
        if token.name in used:
            live.append(token)
            used |= names_read(token.expr)
    return tuple(reversed(live))


def names_read(*roots: ir.Expr) -> set[str]:
    """The vectors and tensors that expressions read."""
    found: set[str] = set()
    for node in ir.postorder(*roots):
        match node:
            case ir.Vector(name=name) | ir.Load(tensor=name) | ir.Listed(tensor=name):
                found.add(name)
    return found

"""Names: one namespace a construct, nothing shadowed, near misses suggested."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from attnc.dsl import ir, syntax
from attnc.dsl.library import BUILTINS, INTRINSICS, Library, Signature
from attnc.dsl.report import Report, near
from attnc.dsl.source import Span

SIZES = ("B", "H", "G", "N", "M", "D", "E")
INDICES: tuple[ir.Axis, ...] = ("b", "h", "i", "j")
OFFSETS = {"q_offset": ir.Side.QUERY, "kv_offset": ir.Side.KEY}
DEFAULTS = ("query", "key", "value")
RESERVED = frozenset({*SIZES, *INDICES, *OFFSETS, "out", "backend"})


@dataclass(frozen=True, kw_only=True)
class Value:
    """A name for an expression: a param, an input, a declared vector, a size, an index. None: already at fault."""

    what: str
    expr: ir.Expr | None
    span: Span | None = None


@dataclass(frozen=True, kw_only=True)
class PerHead:
    """A param with one entry a head: means something only when indexed."""

    what: str = "param"
    name: str
    kind: ir.Kind
    span: Span


@dataclass(frozen=True, kw_only=True)
class Let:
    """A let, or the overloads of one in the library. ``scope`` is where its text is read."""

    what: str = "let"
    clauses: tuple[syntax.LetClause, ...]
    scope: Scope
    span: Span | None


@dataclass(frozen=True, kw_only=True)
class Derived:
    """``key kp = e @ k``"""

    what: str
    item: syntax.VectorItem
    side: ir.Side
    scope: Scope
    span: Span


@dataclass(frozen=True, kw_only=True)
class Misplaced:
    """A name that means something, but only elsewhere: a branch outside ``output``, a normalization in a score."""

    what: str
    place: str
    span: Span | None = None


@dataclass(frozen=True, kw_only=True)
class Builtin:
    what: str = "function"
    signature: Signature
    span: None = None


Entity = Value | PerHead | Let | Derived | Misplaced | Builtin


@dataclass(kw_only=True)
class Scope:
    """Names and what they mean; a branch's scope lies inside its construct's. ``library``: text of std.attn."""

    names: dict[str, Entity] = field(default_factory=dict)
    parent: Scope | None = None
    library: bool = False

    def find(self, name: str) -> Entity | None:
        scope: Scope | None = self
        while scope is not None:
            if name in scope.names:
                return scope.names[name]
            scope = scope.parent
        return None

    def visible(self) -> Iterator[str]:
        scope: Scope | None = self
        while scope is not None:
            yield from scope.names
            scope = scope.parent

    def declare(self, name: syntax.Name, entity: Entity, report: Report) -> None:
        """Add a name; a fault if it already means something. Of two meanings neither is believed if one is the
        library's: the spec meant its own."""
        taken = complain_if_taken(self, name, report)
        if not taken:
            self.names[name.text] = entity
        elif name.text not in RESERVED and (other := self.find(name.text)) is not None and other.span is None:
            self.names[name.text] = Value(what=entity.what, expr=None, span=name.span)


def complain_if_taken(scope: Scope, name: syntax.Name, report: Report) -> bool:
    """Whether the name already means something, which is then reported."""
    other = scope.find(name.text)
    if name.text in RESERVED:
        report.fault(
            "A102", f"`{name.text}` is a name that every spec has", name.span, label="reserved", help="choose another"
        )
        return True
    if other is None:
        return False
    if other.span is None and other.what in DEFAULTS:
        message, label = f"`{name.text}` is the {other.what}", f"unless a `{other.what}` clause names others"
    elif other.span is None:
        message, label = f"`{name.text}` is a name of the standard library", "shadows it"
    else:
        line, _ = report.source.position(other.span.start)
        message, label = f"`{name.text}` is declared twice", f"first declared on line {line}"
    report.fault("A102", message, name.span, label=label, help="nothing may be shadowed: choose another name")
    return True


def library_scope(library: Library) -> Scope:
    """What std.attn's own text sees."""
    scope = Scope(library=True)
    for name in SIZES:
        scope.names[name] = Value(what="size", expr=ir.Size(kind=ir.Kind.INT, name=name))
    for axis in INDICES:
        scope.names[axis] = Value(what="index", expr=ir.Index(kind=ir.Kind.INT, axis=axis))
    for name, side in OFFSETS.items():
        scope.names[name] = Value(what="offset", expr=ir.Offset(kind=ir.Kind.INT, side=side))
    for name, signature in {**BUILTINS, **INTRINSICS}.items():
        scope.names[name] = Builtin(signature=signature)
    for name, clauses in library.masks.items():
        scope.names[name] = Let(clauses=clauses, scope=scope, span=None)
    return scope


def construct_scope(library: Library) -> Scope:
    """What a spec sees before it declares anything: the library and the standard names, not the intrinsics."""
    inner = library_scope(library)
    names: dict[str, Entity] = {name: entity for name, entity in inner.names.items() if name not in INTRINSICS}
    for name in library.normalizations:
        names.setdefault(name, Misplaced(what="normalization", place="after `normalize`"))
    return Scope(names=names)


_ONE_PAIR = "an expression is of one query and one key: nothing in it runs over others"
_OVER_MANY = frozenset(["argmax", "argmin", "cumprod", "cumsum", "logsumexp", "mean", "prod", "rank", "sort", "topk"])


def misplaced(name: str, entity: Misplaced, span: Span, report: Report) -> None:
    """The fault of a name that stands where it means nothing."""
    help = _ONE_PAIR if entity.what == "normalization" else ""
    report.fault("A105", f"`{name}` is a {entity.what}: it stands {entity.place}", span, help=help)


def undeclared(name: str, span: Span, scope: Scope, arguments: Mapping[str, object], report: Report) -> None:
    """The fault of a name that means nothing."""
    help = near(name, [*scope.visible(), *arguments]) if not report.crowded() else ""
    if name == "nan":
        help = "NaN is no number of the language; `inf` is"
    if name in _OVER_MANY:
        help = _ONE_PAIR
    report.fault("A101", f"nothing is called `{name}` here", span, label="unknown name", help=help)

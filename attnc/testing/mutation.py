"""Mutants of a spec: its text after a few edits that the grammar knows of. Most still check; the rest must be refused
with a code. An edit replaces the text of a node of the tree, so that nothing else has to be printed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from hypothesis import strategies as st

from attnc.dsl import syntax
from attnc.dsl.diagnostics import SpecError
from attnc.dsl.format import format_source
from attnc.dsl.library import BUILTINS, standard_library
from attnc.dsl.parse import parse, without_comments
from attnc.dsl.source import Source, Span
from attnc.testing.grammar import Draw, Part, masks, normalizations, scores

_ARITHMETIC = ("+", "-", "*", "/", "//", "%", "**")
_RELATIONS = ("<", "<=", ">", ">=", "==", "!=")
_EXCHANGED = {"i": "j", "j": "i", "b": "h", "h": "b", "N": "M", "M": "N", "D": "E", "E": "D"}
_MASKS = (
    "causal", "window(3)", "window(5, 2)", "prefix(4)", "global(2)", "dilated(3, 2)", "strided(3)", "fixed(4, 1)",
    "block(5)", "block_window(4, 1)", "random(2, block = 4, seed = 1)", "j >= 3", "(i + j) % 3 == 1", "true", "false",
)  # fmt: skip
_EMITTED = ("lse", "total", "rowmax", "entropy", "colsum")
_UNARY = tuple(name for name, signature in BUILTINS.items() if signature.parameters == ("x",))
_ELEMENTS = (("f32", "bf16", "f16"), ("i32", "i64", "bool"), ("int", "float", "bool"))
_EXPRESSIONS = (
    syntax.Number, syntax.Bool, syntax.Ref, syntax.Call, syntax.Subscript, syntax.Attribute, syntax.Unary,
    syntax.Binary, syntax.Comparison,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Site:
    """A node that an edit can replace, its place and text, and where inputs are declared above it."""

    node: Any
    span: Span
    text: str
    declarations: int


@st.composite
def mutants(draw: Draw, text: str, *, edits: int = 3) -> str:
    """The text of a spec after one to ``edits`` edits: another operator, number, name or function; operands swapped,
    dropped, wrapped or taken from elsewhere in the file; another mask, score or normalization, of the library or
    drawn; clauses dropped, doubled, added; other emits, types and axes. What it gives parses; a text that does not
    raises SpecError."""
    text = format_source(Source(name="<text>", text=without_comments(text)))
    for _ in range(draw(st.integers(1, edits))):
        try:
            text = format_source(Source(name="<text>", text=draw(_edited(text))))
        except SpecError:  # what was taken from elsewhere may nest too deep: the edit is left out
            continue
    return text


@st.composite
def _edited(draw: Draw, text: str) -> str:
    sites = list(_sites(text))
    site = draw(st.sampled_from(sites))
    others = {other.text for other in sites if type(other.node) is type(site.node) or _exchangeable(other, site)}
    made: str | Part = draw(st.sampled_from([*_instead(site, text), *sorted(others - {site.text})]))
    if isinstance(made, st.SearchStrategy):
        made = draw(made)
    start, end = site.span.start, site.span.end
    if not isinstance(made, Part):
        return text[:start] + made + text[end:]
    declared = [item for item in made.inputs.split("  ") if item and item not in text]
    head = text[: site.declarations] + " ".join(["", *declared, ""]) + text[site.declarations : start]
    return head + made.text + text[end:]


def _exchangeable(one: _Site, other: _Site) -> bool:
    expressions = isinstance(one.node, _EXPRESSIONS) and isinstance(other.node, _EXPRESSIONS)
    return expressions and _condition(one.node) == _condition(other.node)


def _condition(node: syntax.Expr) -> bool:
    """Whether it is true or false by its form; ``marked[b, j]`` and names of lets pass for numbers."""
    match node:
        case syntax.Ref(name=name) | syntax.Call(function=syntax.Ref(name=name)):
            return name in standard_library().masks
        case syntax.Binary(op=op) | syntax.Unary(op=op):
            return op in ("and", "or", "not")
        case _:
            return isinstance(node, syntax.Bool | syntax.Comparison)


def _sites(text: str) -> Iterator[_Site]:
    """The nodes of a spec that edits replace, outermost first."""
    for construct in parse(Source(name="<text>", text=text)).constructs:
        opened = text.index("{", construct.name.span.end) + 1
        stack: list[Any] = [construct]
        while stack:
            node = stack.pop()
            span = getattr(node, "span", None)
            if isinstance(node, tuple):
                stack += reversed(node)
            elif is_dataclass(node) and not isinstance(node, Span):
                if not isinstance(node, syntax.Type) and not _names_a_normalization(node):
                    names = [item.name for item in fields(node) if (type(node), item.name) != (syntax.Call, "function")]
                    stack += [getattr(node, name) for name in reversed(names)]
                if span is not None and not isinstance(node, syntax.Name | syntax.Argument):
                    yield _Site(node=node, span=span, text=text[span.start : span.end], declarations=opened)


def _names_a_normalization(node: Any) -> bool:
    return isinstance(node, syntax.NormalizeClause) and isinstance(node.value, syntax.Ref)


# --- what may stand in place of a node -----------------------------------------------------------

_New = str | st.SearchStrategy[Any]  # of texts, or of parts with the inputs that they read


def _instead(site: _Site, text: str) -> Sequence[_New]:
    node, was = site.node, site.text

    def of(child: Any) -> str:
        return f"({text[child.span.start : child.span.end]})"

    match node:
        case syntax.Construct() | syntax.BranchClause():
            return [f"{was[:-1]} {clause} }}" for clause in _ADDED]
        case syntax.MaskClause():
            made = masks().map(lambda part: Part(text=f"mask {part}", inputs=part.inputs))
            return ["", f"mask not {of(node.value)}", *(f"mask {x} and {of(node.value)}" for x in _MASKS), made]
        case syntax.ScoreClause():
            return ["", scores().map(lambda part: Part(text=f"score {part}", inputs=part.inputs))]
        case syntax.NormalizeClause():
            made = normalizations().map(lambda part: Part(text=f"normalize {part}", inputs=part.inputs))
            return [*(f"normalize {x}" for x in ("softmax", "softmax1", "sigmoid", "relu", "abs_sum", "none")), made]
        case syntax.EmitClause():
            return ["", *(f"{was}, {name}" for name in _EMITTED), *(f"emit {name}" for name in _EMITTED)]
        case syntax.EmitItem():
            branch = f"{node.branch.text}." if node.branch else ""
            return [branch + name for name in _EMITTED]
        case syntax.Type():
            element = node.element.text
            axes = was[len(element) :]
            near = next((kind for kind in _ELEMENTS if element in kind), ("f32",))
            return [*(name + axes for name in near), *(element + shape for shape in ("", "[H]", "[B, M]", "[B, H, N]"))]
        case syntax.Pair():
            return [normalizations()]
        case syntax.VectorItem():
            return [f"{node.name.text}[{size}]" for size in ("8", "D", "E")] + [f"x, {was}"]
        case _ if isinstance(node, _EXPRESSIONS):
            return _other(node, was, of)
        case _:
            return ["", was + "\n" + was]


_ADDED = (
    "mask causal", "mask window(3)", "emit lse", "emit colsum", "emit total, entropy, rowmax", "score dot(q, k)",
    "normalize softmax", "input x: f32[B, H, N]", "param p: int = 3", "value w", "query p", "let t = 1",
    "kv contiguous", "branch y { score dot(q, k) / 4 mask j <= i normalize softmax }", "output 2 * x",
)  # fmt: skip


def _other(node: syntax.Expr, was: str, of: Callable[[Any], str]) -> list[_New]:
    """In place of an expression: a near one first, then the expression inside another."""
    made: list[_New] = []
    match node:
        case syntax.Number(value=value):
            made += [f"({new})" for new in ("0", "1", value + 1, value - 1, 2 * value, -value)]
        case syntax.Bool(value=value):
            made += ["false" if value else "true"]
        case syntax.Ref(name=name):
            made += [_EXCHANGED[name]] if name in _EXCHANGED else []
        case syntax.Unary(operand=operand):
            made += [of(operand)]
        case syntax.Binary(op=op, left=left, right=right):
            ops = ("and", "or") if op in ("and", "or") else _ARITHMETIC
            made += [of(left), of(right), f"{of(right)} {op} {of(left)}"]
            made += [f"{of(left)} {new} {of(right)}" for new in ops if new != op]
        case syntax.Comparison(operands=(*_, left, right), ops=(*_, op)):
            made += [f"{of(left)} {new} {of(right)}" for new in _RELATIONS if new != op]
        case syntax.Call(function=function, args=args):
            inner = was[len(function.name) :]
            made += [f"{new}{inner}" for new in _UNARY] if function.name in _UNARY else []
            made += [of(argument.value) for argument in args[:2]]
        case syntax.Subscript(value=value, index=index):
            made += [of(value), f"{of(value)}[{', '.join(of(place) for place in reversed(index))}]"]
        case _:
            pass
    if _condition(node):
        made += [f"({was} {op} {mask})" for mask in _MASKS for op in ("and", "or")]
        return [*made, f"(not {was})", masks()]
    made += [f"(-{was})", f"({was} + 1)", f"({was} * 0.5)", f"where(i > j, {was}, -{was})"]
    return [*made, *(f"{name}({was})" for name in _UNARY), scores()]

"""Helpers of the checker's tests: specs from parts, and what every checked spec must satisfy."""

from __future__ import annotations

from attnc.dsl import ir
from attnc.dsl.check import check
from attnc.dsl.construct import Attention, Construct
from attnc.dsl.diagnostics import Diagnostic, SpecError
from attnc.dsl.frontend import compile_text
from attnc.dsl.parse import parse
from attnc.dsl.source import Source

PAIRWISE = (
    ir.Const, ir.ParamRef, ir.ParamElement, ir.Table, ir.Index, ir.Size, ir.Offset, ir.Symbol, ir.Load, ir.Dot,
    ir.Vector, ir.Drawn, ir.Listed, ir.Apply,
)  # fmt: skip


def spec(*clauses: str, score: str = "dot(q, k)", mask: str = "causal", normalize: str = "softmax") -> str:
    return "\n".join(["attention a {", *clauses, f"score {score}", f"mask {mask}", f"normalize {normalize}", "}"])


def compiled(text: str, **params: object) -> Construct:
    return compile_text(Source(name="<text>", text=text), params)


def attention(text: str, **params: object) -> Attention:
    construct = compiled(text, **params)
    assert isinstance(construct, Attention)
    assert_sound(construct)
    return construct


def unspecialized(text: str) -> Attention:
    (construct,) = check(parse(Source(name="<text>", text=text))).constructs
    assert isinstance(construct, Attention)
    return construct


def faults(text: str, **params: object) -> tuple[Diagnostic, ...]:
    """What is wrong with a text; nothing if it compiles."""
    try:
        compiled(text, **params)
    except SpecError as error:
        return error.diagnostics
    return ()


def fault(text: str, **params: object) -> tuple[str, str]:
    """The only fault: its code, and the characters that it points at."""
    (found,) = faults(text, **params)
    return found.code, text[found.span.start : found.span.end]


def assert_sound(construct: Attention) -> None:
    """What ir.py promises to codegen and the reference about a split and specialized attention."""
    vectors = {vector.name: vector.dim for vector in construct.vectors}
    sides = {vector.name: ir.Side.QUERY if vector.role == "query" else ir.Side.KEY for vector in construct.vectors}
    scalars: set[str] = set()
    for token in construct.tokens:
        foreign = "j" if token.side is ir.Side.QUERY else "i"
        assert foreign not in ir.dependencies(token.expr)
        assert token.expr.kind is ir.Kind.FLOAT
        assert token.expr.dims == (() if token.dim is None else (token.dim,))
        assert_known(token.expr, vectors, sides)
        if token.dim is None:
            scalars.add(token.name)
        else:
            vectors[token.name] = token.dim
        sides[token.name] = token.side
    tensors = {tensor.name for tensor in construct.inputs} | scalars
    for branch in construct.branches:
        assert branch.value in vectors
        assert sides[branch.value] is ir.Side.KEY
        assert (branch.score.kind, branch.score.dims) == (ir.Kind.FLOAT, ())
        assert (branch.mask.kind, branch.mask.dims) == (ir.Kind.BOOL, ())
        for node in ir.postorder(branch.score, branch.mask, branch.normalization.divisor):
            assert isinstance(node, PAIRWISE)
            assert not isinstance(node, ir.ParamRef | ir.ParamElement)
            assert node.span is not None or isinstance(node, ir.Const)
            if isinstance(node, ir.Dot):
                assert isinstance(node.left, ir.Vector) and node.left.side is ir.Side.QUERY
                assert isinstance(node.right, ir.Vector) and node.right.side is ir.Side.KEY
                assert node.left.dims == node.right.dims
            if isinstance(node, ir.Load):
                assert node.dims == ()
                assert node.tensor in tensors
            assert_promoted(node)
        assert_known(branch.score, vectors, sides)
        assert "j" not in ir.dependencies(branch.normalization.divisor)
    assert len(construct.output.dims) == 1
    assert construct.conditions == ()


def assert_known(root: ir.Expr, vectors: dict[str, ir.Expr], sides: dict[str, ir.Side]) -> None:
    for node in ir.postorder(root):
        if isinstance(node, ir.Vector):
            assert (node.dims, node.side) == ((vectors[node.name],), sides[node.name])
        assert_promoted(node)


def assert_promoted(node: ir.Expr) -> None:
    """Conversions are written out: the arguments of an arithmetic function are of one kind."""
    if isinstance(node, ir.Apply) and node.fn is not ir.Fn.WHERE:
        assert len({arg.kind for arg in node.args}) == 1
    if isinstance(node, ir.Apply) and node.fn is ir.Fn.WHERE:
        assert node.args[0].kind is ir.Kind.BOOL
        assert node.args[1].kind is node.args[2].kind is node.kind

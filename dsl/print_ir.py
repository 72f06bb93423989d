"""The typed IR as text: one line a shared node, numbered in evaluation order. Deterministic, for people and goldens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import assert_never

from attnc.dsl import ir
from attnc.dsl.construct import Attention, Construct, Layout, Recurrence
from attnc.dsl.sizes import HEADS, KEYS, QUERIES, shape_text, size_text


def print_ir(construct: Construct) -> str:
    """The whole construct."""
    word = "attention" if isinstance(construct, Attention) else "recurrence"
    lines = [f"{word} {construct.name} {{", *_declarations(construct)]
    match construct:
        case Attention():
            for token in construct.tokens:
                length = size_text(token.length)
                lines.append(f"  token {token.name}: {token.side.value} per B, {token.heads}, {length}")
                lines += _graph("value", token.expr)
            for branch in construct.branches:
                lines.append(f"  branch {branch.name}: {size_text(branch.keys)} keys, value {branch.value}")
                lines += _graph("score", branch.score)
                lines += _graph("mask", branch.mask)
                lines.append(f"    normalize {branch.normalization.name}")
                lines += _graph("weight", branch.normalization.weight)
                lines += _graph("divisor", branch.normalization.divisor)
            lines.append("  output")
            lines += _graph("value", construct.output)
            lines += [f"  emit {emit.name}: {emit.what} of {emit.branch}" for emit in construct.emits]
            lines.append(f"  kv {_layout(construct.layout)}")
        case Recurrence():
            lines.append(f"  state {construct.state}: float{shape_text(construct.state_dims)}")
            lines += _graph("step", construct.step)
            lines += _graph("read", construct.read)
        case _:
            assert_never(construct)
    return "\n".join([*lines, "}"]) + "\n"


def _declarations(construct: Construct) -> Iterator[str]:
    for param in construct.params:
        default = "" if param.default is None else f" = {_value(param.default)}"
        yield f"  param {param.name}: {param.kind.value}{'[H]' if param.per_head else ''}{default}"
    for condition in construct.conditions:
        yield f"  require {condition.text}"
    for tensor in construct.inputs:
        gradient = " differentiable" if tensor.differentiable else ""
        yield f"  input {tensor.name}: {tensor.dtype}{shape_text(tensor.axes) if tensor.axes else ''}{gradient}"
    for vector in construct.vectors:
        heads, length = (HEADS, QUERIES) if vector.role == "query" else (ir.Size(kind=ir.Kind.INT, name="G"), KEYS)
        shape = shape_text((ir.Size(kind=ir.Kind.INT, name="B"), heads, length, vector.dim))
        yield f"  {vector.role} {vector.name}: {shape}"
    if construct.sizes:
        yield f"  sizes {', '.join(construct.sizes)}"


def _graph(title: str, root: ir.Expr) -> Iterator[str]:
    """Each inner node on its own line; leaves stand where they are used."""
    names: dict[ir.Expr, str] = {}
    count = 0
    yield f"    {title}:"
    for node in ir.postorder(root):
        leaf = _leaf(node)
        if leaf is not None:
            names[node] = leaf
            continue
        name = f"%{count}"
        count += 1
        yield f"      {name}: {_type(node)} = {_operation(node, names)}"
        names[node] = name
    yield f"      {names[root]}: {_type(root)}"


def _type(node: ir.Expr) -> str:
    return node.kind.value + (shape_text(node.dims) if node.dims else "")


def _leaf(node: ir.Expr) -> str | None:
    match node:
        case ir.Const(value=value):
            return _value(value)
        case ir.ParamRef(name=name) | ir.Symbol(name=name) | ir.Vector(name=name) | ir.Size(name=name):
            return name
        case ir.Index(axis=axis):
            return axis
        case ir.Offset(side=side):
            return "q_offset" if side is ir.Side.QUERY else "kv_offset"
        case ir.Load(tensor=tensor, index=()):
            return tensor
    return None


def _operation(node: ir.Expr, names: Mapping[ir.Expr, str]) -> str:
    parts = " ".join(names[child] for child in ir.children(node))
    match node:
        case ir.Apply(fn=fn):
            return f"{fn.value} {parts}"
        case ir.Load(tensor=tensor, index=index):
            return f"load {tensor}[{', '.join(names[x] for x in index)}]"
        case ir.ParamElement(name=name, index=index):
            return f"param {name}[{names[index]}]"
        case ir.Table(values=values, index=index):
            return f"table {_value(values)}[{names[index]}]"
        case ir.Dot():
            return f"dot {parts}"
        case ir.Drawn():
            return f"drawn {parts}"
        case ir.Listed(tensor=tensor):
            return f"listed {tensor} {parts}"
        case ir.MatMul(over=over):
            return f"matmul over {over} {parts}"
        case ir.Rope(interleaved=interleaved):
            return f"rope {'interleaved ' if interleaved else ''}{parts}"
        case ir.Normed(fn=fn):
            return f"{fn} {parts}"
        case ir.Concat():
            return f"concat {parts}"
        case ir.Sliced():
            return f"slice {parts}"
        case ir.Outer():
            return f"outer {parts}"
        case ir.Const() | ir.ParamRef() | ir.Index() | ir.Size() | ir.Offset() | ir.Symbol() | ir.Vector():
            raise AssertionError("leaves are printed where they are used")
        case _:
            assert_never(node)


def _value(value: bool | int | float | tuple[bool | int | float, ...]) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _layout(layout: Layout) -> str:
    def named(name: str, args: tuple[tuple[str, int | str], ...]) -> str:
        inner = ", ".join(f"{key} = {value}" for key, value in args)
        return f"{name}({inner})" if inner else name

    storage = f" {named(layout.storage, layout.storage_args)}" if layout.storage is not None else ""
    return named(layout.kind, layout.args) + storage

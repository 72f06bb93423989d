"""What surrounds the maps of a program, as PyTorch text: token-wise values, tables, the output, sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attnc.codegen import build
from attnc.codegen.kernel import ALL
from attnc.codegen.names import KERNEL_WORDS, Naming
from attnc.codegen.print_torch import TorchPrinter
from attnc.codegen.printer import Names, Text
from attnc.codegen.program import DrawnTable, ListedTable, Program
from attnc.codegen.simplify import simplify
from attnc.dsl.ir import Concat, Const, Expr, Load, Normed, Rope, Side, Size, Sliced, Vector, dependencies, postorder


@dataclass(frozen=True, kw_only=True)
class Prologue:
    """Statements before the maps: positions, token-wise values, tables."""

    lines: tuple[str, ...]
    helpers: frozenset[str]


def _read_names(program: Program) -> tuple[str, ...]:
    attention = program.attention
    return (*(item.name for item in attention.inputs), *(token.name for token in attention.tokens))


def prologue(program: Program, naming: Naming) -> Prologue:
    """The token-wise values, in order: vectors [B, heads, tokens, dim], scalars [B, H, tokens]. In the accumulation
    dtype; what is a part of a vector and nothing else, in the vector's own."""
    attention = program.attention
    tensors = {name: naming.tensor(name) for name in _read_names(program)}
    names = Names([*KERNEL_WORDS, *naming.taken])
    lines: list[str] = []
    helpers: set[str] = set()
    scalars = {token.name: token for token in attention.tokens if token.dim is None}
    for token in attention.tokens:
        (root,) = simplify((token.expr,))
        heads = token.heads
        leaves: dict[Expr, str] = {
            build.index("b"): "_grid(B, 0, device)",
            build.index("h"): "_grid(H, 1, device)",
            build.index("i"): "(_grid(N, 2, device) + base)",
            build.index("j"): f"(_grid({size_text(token.length)}, 2, device) + kv_offset)",
            build.offset(Side.QUERY): "base",
            build.offset(Side.KEY): "kv_offset",
            build.sub(build.index("i"), build.offset(Side.QUERY)): "_grid(N, 2, device)",
            build.sub(build.index("j"), build.offset(Side.KEY)): f"_grid({size_text(token.length)}, 2, device)",
        }
        nodes = postorder(root)
        moved = all(isinstance(node, Vector | Sliced | Const | Size) for node in nodes)  # a view of the caller's tensor
        for node in nodes:
            match node:
                case Vector(name=name):
                    text = naming.tensor(name) if moved else f"{naming.tensor(name)}.to(acc)"
                    leaves[node] = f"_repeat({text}, H)" if heads == "H" and token.side is Side.KEY else text
                case Size(name=name):
                    leaves[node] = size_text(node)
                case Load(tensor=name) if name in scalars:
                    leaves[node] = f"{naming.tensor(name)}.unsqueeze(-1)"
                case Rope():
                    helpers.add("rope")
                case Normed(fn=fn):
                    helpers.add(fn)
                case Concat():
                    helpers.add("concat")
                case Sliced():
                    helpers.add("part")
                case _:
                    pass
        printer = TorchPrinter(leaves, names, tensors)
        count = "H" if token.dim is None or heads == "H" else "G"
        size = size_text(token.dim) if token.dim is not None else "1"
        shape = f"B, {count}, {size_text(token.length)}, {size}"
        ident = naming.tensor(token.name)
        plain_repeat = token.dim is None and token.side is Side.KEY and heads == "G"

        def finish(
            text: Text, shape: str = shape, scalar: bool = token.dim is None, repeat: bool = plain_repeat
        ) -> str:
            inner = f"_repeat({text.text}, H)" if repeat else text.within(7)
            return f"{inner}.expand({shape}).squeeze(-1)" if scalar else f"_by_rows({inner}.expand({shape}))"

        made = printer.block({ident: root}, (ALL,), finish={ident: finish})
        lines += made.lines[0]
    return Prologue(lines=tuple(lines), helpers=frozenset(helpers))


def size_text(size: Expr, *, shown: bool = False) -> str:
    """A size expression over ``sizes``, the bound names of a call; ``shown``: as a reader writes it."""
    leaves: dict[Expr, str] = {
        node: node.name if shown else f'sizes["{node.name}"]' for node in postorder(size) if isinstance(node, Size)
    }
    return TorchPrinter(leaves, Names(()), {}).inline(simplify((size,))[0])


def tables(program: Program, naming: Naming) -> tuple[str, ...]:
    """Statements that make the tables of a call."""
    lines = []
    for table in program.tables:
        ident = naming.tensor(table.name)
        match table:
            case DrawnTable():
                leaves: dict[Expr, str] = {build.index("h"): "_grid(H, 1, device).squeeze(-1)"}
                head = TorchPrinter(leaves, Names(()), {}).inline(table.head)
                if not dependencies(table.head):
                    head = f"torch.full((1, 1, 1), {head}, device=device)"
                seed, count = size_text(table.seed), size_text(table.blocks)
                lines += [
                    f"first = base.squeeze(-1) // {table.block}",
                    f"blocks = _grid(-(-N // {table.block}) + 1, 2, device).squeeze(-1) + first",
                    f"{ident} = draw({seed}, {head}, blocks, {table.count}, {count})",
                ]
            case ListedTable():
                offset_free: dict[Expr, str] = {build.offset(Side.KEY): "kv_offset"}
                sized: dict[Expr, str] = {
                    node: f'sizes["{node.name}"]' for node in postorder(table.width) if isinstance(node, Size)
                }
                width = TorchPrinter({**offset_free, **sized}, Names(()), {}).inline(table.width)
                lines.append(f"{ident} = _table({naming.tensor(table.tensor)!s}, {width}, {table.tensor!r})")
    return tuple(lines)


def output_lines(program: Program, naming: Naming) -> tuple[str, ...]:
    """``out`` from the branches' results: [B, H, N, E]."""
    attention = program.attention
    if program.single:
        return ()
    tensors = {name: naming.tensor(name) for name in _read_names(program)}
    leaves: dict[Expr, str] = {
        build.index("b"): "_grid(B, 0, device)",
        build.index("h"): "_grid(H, 1, device)",
        build.index("i"): "(_grid(N, 2, device) + base)",
        build.offset(Side.QUERY): "base",
        build.offset(Side.KEY): "kv_offset",
        build.sub(build.index("i"), build.offset(Side.QUERY)): "_grid(N, 2, device)",
    }
    (root,) = simplify((attention.output,))
    for node in postorder(root):
        match node:
            case Size():
                leaves[node] = size_text(node)
            case _:
                pass
    for item in program.maps:
        for node in postorder(root):
            if getattr(node, "name", None) == item.name and not isinstance(node, Size):
                leaves[node] = f"{naming.function(item.name)[1:]}_out"
    names = Names([*KERNEL_WORDS, *naming.taken, *leaves.values()])
    made = TorchPrinter(leaves, names, tensors).block({"out": root}, (ALL,))
    return made.lines[0]


def axis_texts(axes: Sequence[Expr]) -> str:
    """The axes of an input as the literal that bind reads."""
    parts = []
    for axis in axes:
        match axis:
            case Size(name=name):
                parts.append(repr(name))
            case Const(value=value):
                parts.append(repr(value))
            case _:
                leaves: dict[Expr, str] = {
                    node: f'z["{node.name}"]' for node in postorder(axis) if isinstance(node, Size)
                }
                shown: dict[Expr, str] = {node: node.name for node in postorder(axis) if isinstance(node, Size)}
                text = TorchPrinter(leaves, Names(()), {}).inline(axis)
                label = TorchPrinter(shown, Names(()), {}).inline(axis)
                parts.append(f"({label!r}, lambda z: {text})")
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"

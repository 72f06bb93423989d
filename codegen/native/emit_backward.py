"""The backward of a group of maps as the frozen context of its C++ text: what its forward's text holds, and for every
map the cotangents of its dots and of what it reads."""

from __future__ import annotations

from dataclasses import dataclass

from attnc.codegen import build
from attnc.codegen.emit_triton import gradients
from attnc.codegen.kernel_builder import vector_dims
from attnc.codegen.names import Naming
from attnc.codegen.native.emit_native import (
    Builder,
    NativeGroup,
    NativeMap,
    native_context,
    native_map,
    own_dots,
)
from attnc.codegen.program import Group, Map, Program
from attnc.dsl.ir import Expr

_REACHES = ("row", "column", "pair")


@dataclass(frozen=True, kw_only=True)
class BackMap:
    """One map's cotangents. ``lines`` fill d_dot, and d_input with what is summed along rows, then along columns, then
    with what leaves by pairs: so many of each, ``by``. ``given``, ``colsum``: what the host passes for the fields of
    Cotangents, for gradients and for sums of weights, which not every map has."""

    forward: NativeMap
    lines: tuple[str, ...]
    by: tuple[int, int, int]
    given: tuple[str, ...]
    colsum: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class BackGroup:
    """What templates/native/gradients.cpp.j2 and backward.py.j2 need of one pass."""

    context: NativeGroup
    query_live: str | None
    maps: tuple[BackMap, ...]


def native_backward(program: Program, group: Group, naming: Naming) -> BackGroup:
    """The C++ context of one pass's backward, for a group that has a native forward."""
    builder = Builder(program, group, naming)
    _, dim_of = vector_dims(group, naming)
    totals = {(item.name, part): total for item, part, total, _ in gradients(group, naming).inputs}
    maps = []
    for item in group.maps:
        forward = native_map(builder, item, dim_of)
        sorted_parts = [[part for part in item.input_gradients if part.read.reach == reach] for reach in _REACHES]
        names = [tuple(totals[item.name, part] for part in parts) for parts in sorted_parts]
        rows, columns, pairs = (len(parts) for parts in sorted_parts)
        maps.append(
            BackMap(
                forward=forward,
                lines=_lines(builder, item, [part.value for parts in sorted_parts for part in parts]),
                by=(rows, columns, pairs),
                given=_given(builder, forward, names),
                colsum=_weights(forward, (rows, columns, pairs)) if item.colsum else (),
            )
        )
    query_live = None if group.query_mask == build.TRUE else builder.of_row(group.query_mask)
    context = native_context(builder, tuple(item.forward for item in maps))
    return BackGroup(context=context, query_live=query_live, maps=tuple(maps))


def _lines(builder: Builder, item: Map, inputs: list[Expr]) -> tuple[str, ...]:
    """Statements that fill d_dot and d_input."""
    cotangents = {symbol: value for (symbol, _, _), value in zip(builder.group.dots, item.dot_gradients, strict=True)}
    roots = {f"d_dot[{at}]": cotangents[symbol] for at, (symbol, _, _) in enumerate(own_dots(builder.group, item))}
    roots |= {f"d_input[{at}]": value for at, value in enumerate(inputs)}
    made = builder.block(roots, vector=True) if roots else ()
    return tuple(line if line.startswith(("d_dot[", "d_input[")) else f"const auto {line}" for line in made)


def _statistics(item: NativeMap) -> tuple[str, str]:
    """Addresses of the statistics that weights are recomputed from: the shift, and what they are multiplied by."""
    if item.plain:
        return f"lse{item.tag}.data_ptr()", "0"
    return f"shift{item.tag}.data_ptr()" if item.exponential else "0", f"inverse{item.tag}.data_ptr()"


def _given(builder: Builder, item: NativeMap, names: list[tuple[str, ...]]) -> tuple[str, ...]:
    """The fields of Cotangents: gradients are added to d_x of each vector x and to the totals ``names``."""
    rows, columns, pairs = names
    return (
        f"do{item.tag}.data_ptr()",
        f"*do{item.tag}.stride()[:3]",
        *_statistics(item),
        f"delta{item.tag}.data_ptr()",
        *([f"d_{query}.data_ptr()" for query, _, _ in item.dots] or ["0"]),
        *([f"d_{key}.data_ptr()" for _, key, _ in item.dots] or ["0"]),
        f"d_{builder.naming.tensor(builder.group.value)}.data_ptr()",
        *(f"{name}.data_ptr()" for name in rows),
        "0",
        *(f"{name}.data_ptr()" for name in columns),
        "0",
        *(f"{name}.data_ptr() if pairs else 0" for name in pairs),
        "0",
        "row_start",
        "row_stop",
    )


def _weights(item: NativeMap, by: tuple[int, int, int]) -> tuple[str, ...]:
    """The same where weights are summed over queries, into the first total of columns."""
    slots = max(1, len(item.dots))
    rows, columns, pairs = by
    zeros = ["0"] * (1 + 2 * slots + 1 + rows + 1)
    return ("*[0] * 4", *_statistics(item), *zeros, "colsum.data_ptr()", *["0"] * (columns + pairs + 1), "0", "N")

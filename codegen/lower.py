"""Typed IR -> Program: every branch as one map, its forward and backward as expressions.

A map is ``out[b, h, i] = sum_j w_ij value[b, g, j] / divisor(t_i)`` with ``w = weight(score)``, ``t = sum_j w``.

Forward. Exponential weights are kept as ``w = exp(score - m)`` with a running maximum m; then ``t = exp(m) l``, and
the divisor is rewritten once, symbolically, as ``divisor(t) = exp(m) scaled(l, m)`` (``scale_divisor``), so that no
finite score overflows. Other weights have m = 0, ``l = t``, ``scaled = divisor``.

Backward. With p = w / divisor and dp_ij = <d out_i, value_j>, the cotangent of w * d(divisor's numerator) is

    g_ij = p_ij (dp_ij - delta_i)                      exponential: the cotangent of the score
    g_ij = (dp_ij - delta_i) / divisor_i               other: the cotangent of weight(score)
    delta_i = d divisor/dt (<d out_i, out_i> - d lse_i) - divisor_i d total_i

(the same algebra as FlashAttention's, Dao et al. 2022, section B.4, for any divisor). Cotangents of the dots and of
every input read follow from g by ``derive`` over the shared graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict

from attnc.codegen import build
from attnc.codegen.bounds import key_only, query_only
from attnc.codegen.derive import derive
from attnc.codegen.divisor import L, T, scale_divisor
from attnc.codegen.exponent import deciding
from attnc.codegen.passes import Pass, passes
from attnc.codegen.prepass import Reach, reach
from attnc.codegen.printer import Names
from attnc.codegen.program import DrawnTable, Group, InputGradient, ListedTable, Map, Program, Read
from attnc.codegen.residue import Residue
from attnc.codegen.simplify import simplify
from attnc.dsl.construct import Attention, Branch
from attnc.dsl.diagnostics import Diagnostic, SpecError
from attnc.dsl.ir import (
    Apply,
    Const,
    Dot,
    Drawn,
    Expr,
    Fn,
    Index,
    Kind,
    Listed,
    Load,
    Side,
    Symbol,
    Vector,
    dependencies,
    postorder,
    substitute,
    transform,
)

G = build.symbol("g", Kind.FLOAT)
S = build.symbol("s", Kind.FLOAT)

MOST_DRAWN = 256  # random blocks a query block: every pair is compared with each of them


@dataclass(frozen=True, kw_only=True)
class _Algebra:
    """A branch's expressions, simplified, dots still in place."""

    branch: Branch
    score: Expr
    raw: Expr
    mask: Expr
    passes: tuple[Pass, ...]
    exponential: bool
    weight: Expr
    dots: tuple[Dot, ...]


def lower(attention: Attention) -> Program:
    """A specialized attention as maps. Raises SpecError for what has no lowering."""
    tables: dict[Expr, DrawnTable | ListedTable] = {}
    shared: dict[object, list[_Algebra]] = {}
    for branch in attention.branches:
        found = _algebra(attention, branch, tables)
        keys = frozenset(dot.right for dot in found.dots)
        # A window beside a whole row is cheaper alone: together, each tile would cost both maps.
        first = found.passes[0]
        live = reach(first.mask, first.mask, _drawn_blocks(tables), branch.keys, first.residue)
        visited = live.keys.bounds.may, live.keys.cut, live.listings, first.residue
        same = visited if len(found.passes) == 1 else found.passes
        shared.setdefault((keys, branch.value, branch.keys, same), []).append(found)
    names = Names([branch.name for branch in attention.branches])
    groups = tuple(_group(attention, members, names, _drawn_blocks(tables)) for members in shared.values())
    return Program(attention=attention, tables=tuple(tables.values()), groups=groups)


def _drawn_blocks(tables: Mapping[Expr, DrawnTable | ListedTable]) -> dict[str, int]:
    return {table.name: table.block for table in tables.values() if isinstance(table, DrawnTable)}


def _algebra(attention: Attention, branch: Branch, tables: dict[Expr, DrawnTable | ListedTable]) -> _Algebra:
    score, mask = transform((branch.score, branch.mask), lambda node: _tabulate(attention, node, tables))
    raw, mask = simplify((score, mask))
    split = passes(mask, branch.keys, _drawn_blocks(tables))
    mask = split[0].mask if len(split) == 1 else mask
    raw = _reciprocals(raw)
    weight = simplify((branch.normalization.weight,))[0]
    exponent = _exponent(weight)
    if exponent is not None:
        score = simplify(substitute((exponent,), {S: raw}))[0]
        weight = build.apply(Fn.EXP, S)
    else:
        score = raw
    return _Algebra(
        branch=branch,
        score=score,
        raw=raw,
        mask=mask,
        passes=split,
        exponential=exponent is not None,
        weight=weight,
        dots=tuple(node for node in postorder(score, raw, mask, weight) if isinstance(node, Dot)),
    )


def _group(attention: Attention, members: list[_Algebra], names: Names, drawn: Mapping[str, int]) -> Group:
    symbols: dict[Expr, Symbol] = {}
    dots: list[tuple[Symbol, str, str]] = []
    for dot in dict.fromkeys(dot for member in members for dot in member.dots):
        assert isinstance(dot.left, Vector) and isinstance(dot.right, Vector)
        symbols[dot] = build.symbol(f"dot{len(dots)}", Kind.FLOAT)
        dots.append((symbols[dot], dot.left.name, dot.right.name))
    alone = len(members) == 1
    maps = tuple(_map(attention, member, symbols, "" if alone else f"_{member.branch.name}") for member in members)
    group = Group(
        name=maps[0].name if alone else names.fresh("_".join(item.name for item in maps)),
        maps=maps,
        dots=tuple(dots),
        value=members[0].branch.value,
        length=members[0].branch.keys,
        residue=members[0].passes[0].residue,
        **_live(maps, drawn, members[0].branch.keys, members[0].passes[0].residue),
    )
    if len(members[0].passes) == 1:
        return group
    parts: list[Group] = []
    for part in members[0].passes:
        own = tuple(replace(item, mask=part.mask) for item in maps)
        live = _live(own, drawn, group.length, part.residue)
        name = names.fresh(f"{group.name}_part{len(parts)}")
        parts.append(replace(group, name=name, maps=own, residue=part.residue, partial=True, **live))
    together = tuple(node for item in (group, *parts) for node in item.expressions)
    parts = [replace(part, together=together) for part in parts]
    return replace(group, residue=None, parts=tuple(parts), together=together)


def summed(group: Group) -> Group:
    """A part whose weights are not divided: a softmax over its own keys alone, or the mere sum."""
    maps = [
        replace(item, scaled=L, floors=(), plain=True) if item.exponential else replace(item, scaled=build.const(1.0))
        for item in group.maps
    ]
    return replace(group, maps=tuple(maps))


class _Live(TypedDict):
    mask: Expr
    key_mask: Expr
    query_mask: Expr
    reach: Reach


def _live(maps: Sequence[Map], drawn: Mapping[str, int], length: Expr, residue: Residue | None) -> _Live:
    """Where pairs of some map are live, and what a pass over them visits."""
    (some,) = simplify((build.any_of(item.mask for item in maps),))
    (every,) = simplify((build.all_of(item.mask for item in maps),))
    visited = reach(some, every, drawn, length, residue)
    return _Live(mask=some, key_mask=key_only(some), query_mask=query_only(some), reach=visited)


def _map(attention: Attention, found: _Algebra, names: Mapping[Expr, Symbol], tag: str) -> Map:
    branch, exponential = found.branch, found.exponential
    divisor = simplify((branch.normalization.divisor,))[0]
    floors: tuple[Expr, ...] = ()
    if exponential:
        scaled, floors = scale_divisor(divisor)
    else:
        scaled = substitute((divisor,), {T: L})[0]
    scaled = simplify((scaled,))[0]
    plain = exponential and scaled == L

    score, raw, mask, weight = substitute((found.score, found.raw, found.mask, found.weight), dict(names))
    differentiable = _differentiable(attention)
    root = score if exponential else simplify(substitute((weight,), {S: score}))[0]
    congruence = [item.residue.condition for item in found.passes if item.residue is not None]
    reads = tuple(node for node in postorder(score, raw, mask, weight, *congruence) if isinstance(node, Load))
    wanted = [read for read in postorder(root) if isinstance(read, Load) and read.tensor in differentiable]
    symbols = list(names.values())
    gradients = derive(root, (*symbols, *wanted), G)
    order: list[Expr] = [*symbols, *wanted]
    simplified = simplify([gradients[node] for node in order])
    by_node = dict(zip(order, simplified, strict=True))

    divisor_reads = tuple(node for node in postorder(scaled, *floors) if isinstance(node, Load))
    divisor_wanted = [read for read in postorder(scaled) if isinstance(read, Load) and read.tensor in differentiable]
    partials = derive(scaled, (L, *divisor_wanted), build.const(1.0))
    leaves: list[Expr] = [L, *divisor_wanted]
    by_l, *by_reads = simplify([partials[node] for node in leaves])

    whats = {emit.what for emit in attention.emits if emit.branch == branch.name}
    return Map(
        name=branch.name,
        tag=tag,
        score=score,
        raw=raw,
        mask=mask,
        exponential=exponential,
        weight=weight,
        scaled=scaled,
        floors=floors,
        plain=plain,
        reads=reads,
        divisor_reads=divisor_reads,
        dot_gradients=tuple(by_node[symbol] for symbol in symbols),
        input_gradients=tuple(
            InputGradient(read=Read(load=read, reach=_reach(read)), value=by_node[read])
            for read in wanted
            if by_node[read] != build.const(0.0)
        ),
        scaled_by_l=by_l,
        scaled_by_read=tuple(zip(divisor_wanted, by_reads, strict=True)),
        rowmax="rowmax" in whats,
        entropy="entropy" in whats,
        colsum="colsum" in whats,
    )


def _differentiable(attention: Attention) -> frozenset[str]:
    inputs = {item.name for item in attention.inputs if item.differentiable and item.kind is Kind.FLOAT}
    return frozenset(inputs | {token.name for token in attention.tokens if token.dim is None})


def _reach(load: Load) -> Literal["row", "column", "pair"]:
    found = dependencies(*load.index)
    if "j" not in found:
        return "row"
    return "pair" if "i" in found else "column"


def _exponent(weight: Expr) -> Expr | None:
    """The exponent g of a weight exp(g) or exp2(g / ln 2), else None."""
    match weight:
        case Apply(fn=Fn.EXP, args=(inner,)):
            return inner
        case Apply(fn=Fn.EXP2, args=(inner,)):
            return build.mul(inner, 0.6931471805599453)
    return None


def _reciprocals(score: Expr) -> Expr:
    """``x / u`` as ``x * (1 / u)`` where x varies over the tile and u does not: one division a tile, not one a pair."""
    kept = deciding(score)

    def step(node: Expr) -> Expr:
        if node in kept:
            return node
        match node:
            case Apply(fn=Fn.DIV, args=(x, Const(value=float(u)))) if _pairwise(x) and u != 0:
                return build.mul(x, 1.0 / u)
            case Apply(fn=Fn.DIV, args=(x, u)) if _pairwise(x) and not dependencies(u) & {"i", "j"}:
                return build.mul(x, build.div(1.0, u))
        return node

    return transform((score,), step)[0]


def _pairwise(node: Expr) -> bool:
    found = dependencies(node)
    return "i" in found and "j" in found


def _tabulate(attention: Attention, node: Expr, tables: dict[Expr, DrawnTable | ListedTable]) -> Expr:
    """Random draws and index lists become reads of small tables that are made once a call."""
    match node:
        case Drawn():
            return _drawn(attention, node, tables)
        case Listed():
            table = tables.get(node)
            if table is None:
                last = build.add(build.offset(Side.KEY), build.sub(build.size("M"), 1))
                (width,) = simplify(substitute((build.add(node.column, 1),), {build.index("j"): last}))
                table = ListedTable(name=f"listed {len(tables)}", tensor=node.tensor, width=width)
                tables[node] = table
            return Load(
                kind=Kind.BOOL,
                tensor=table.name,
                index=(build.index("b"), build.index("h"), node.row, node.column),
            )
    return node


def _drawn(attention: Attention, node: Drawn, tables: dict[Expr, DrawnTable | ListedTable]) -> Expr:
    row, count, seed = simplify((node.row, node.count, node.seed))
    match row:
        case Apply(fn=Fn.FLOORDIV, args=(position, Const(value=int(block)))):
            pass
        case _:  # blocks of one
            position, block = row, 1
    match position, count, seed:
        case Index(axis="i"), Const(value=int(slots)), Const() if slots <= MOST_DRAWN and not dependencies(node.blocks):
            pass
        case _:
            fault = Diagnostic(
                code="A504",
                message="a random pattern with these arguments has no compiled form",
                span=node.span or attention.span,
                label=f"count (at most {MOST_DRAWN}), block and seed must be constants, the span one for all pairs",
                help="write numbers or params",
            )
            raise SpecError(attention.source, (fault,))
    key = Drawn(
        kind=Kind.BOOL, head=node.head, row=row, column=build.const(0), count=count, seed=seed, blocks=node.blocks
    )
    table = tables.get(key)
    if table is None:
        (blocks,) = simplify((node.blocks,))
        table = DrawnTable(
            name=f"drawn {len(tables)}", head=node.head, block=block, count=slots, seed=seed, blocks=blocks
        )
        tables[key] = table
    first = build.floordiv(build.offset(Side.QUERY), block)
    at = build.sub(row, first)
    hits = [
        build.eq(
            Load(
                kind=Kind.INT,
                tensor=table.name,
                index=(build.index("b"), build.index("h"), at, build.const(slot)),
            ),
            node.column,
        )
        for slot in range(slots)
    ]
    return build.apply(Fn.AND, build.ge(node.column, 0), build.any_of(hits))


__all__ = [
    "DrawnTable",
    "Group",
    "InputGradient",
    "ListedTable",
    "Map",
    "Program",
    "Read",
    "lower",
    "summed",
]

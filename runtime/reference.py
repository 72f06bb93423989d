"""The dense reference: what a spec means, evaluated from the IR. Every kernel is compared with it.

The mask is evaluated densely; everything else of a pair (score, weight) on the list of live pairs alone, so a
masked pair can neither be seen nor receive a gradient, whatever it holds. PyTorch's autograd differentiates it in
every vector and input. Memory grows as the number of pairs.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, reduce
from math import log
from typing import Any

import torch
from torch import Tensor

from attnc.codegen.ranges import LIMIT, LIMIT_TEXT
from attnc.dsl.construct import Attention, Branch, TokenDecl
from attnc.dsl.ir import (
    Apply,
    Axis,
    Const,
    Dot,
    Expr,
    Fn,
    Kind,
    Listed,
    Load,
    MatMul,
    Side,
    Size,
    Symbol,
    Vector,
    postorder,
)
from attnc.dsl.sizes import size_text
from attnc.runtime.evaluate import Domain, Scope, evaluate, size
from attnc.runtime.pairs import Pairs
from attnc.runtime.scaled import Scaled, evaluate_divisor


def reference(
    construct: Attention,
    vectors: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor | int | float | bool],
    *,
    q_offset: int | Tensor | None = None,
    kv_offset: int = 0,
    dtype: torch.dtype | None = None,
    check: bool = False,
) -> Any:
    """The op's result: a tensor [B, H, N, E], or a named tuple of it and the emits.

    ``dtype`` None: computed in float32 (float64 for float64 vectors) and stored in the vectors' dtype; else
    computed and stored in ``dtype``. ``check``: an index outside its axis in a live pair raises IndexError."""
    maps, out = branches(construct, vectors, inputs, q_offset=q_offset, kv_offset=kv_offset, dtype=dtype, check=check)
    out = out.to(next(iter(vectors.values())).dtype if dtype is None else dtype)
    if not construct.emits:
        return out
    emitted = [getattr(maps[emit.branch], emit.what) for emit in construct.emits]
    return result_type(construct.name, ("out", *(emit.name for emit in construct.emits)))(out, *emitted)


def branches(
    construct: Attention,
    vectors: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor | int | float | bool],
    *,
    q_offset: int | Tensor | None = None,
    kv_offset: int = 0,
    dtype: torch.dtype | None = None,
    check: bool = False,
) -> tuple[dict[str, MapResult], Tensor]:
    """Every branch's output and statistics, and the op's output, in the dtype that they are computed in."""
    first = next(iter(vectors.values()))
    computed = dtype or (torch.float64 if first.dtype is torch.float64 else torch.float32)
    with torch.autocast(first.device.type, enabled=False):
        call = _bind(construct, vectors, inputs, q_offset, kv_offset, computed, first.device, check)
        maps = {branch.name: _map(branch, call) for branch in construct.branches}
        return maps, _output(construct.output, maps, call)


@cache
def result_type(name: str, fields: tuple[str, ...]) -> Any:
    """The named tuple of a spec that emits: one class for equal names, so results compare and flatten alike."""
    return namedtuple(f"{name}_result", fields)


def mask(
    construct: Attention,
    N: int,
    M: int,
    B: int,
    H: int,
    inputs: Mapping[str, Tensor | int | float | bool],
    q_offset: int | Tensor | None = None,
    kv_offset: int = 0,
) -> Tensor:
    """Which pairs are live in some branch: bool [B or 1, H or 1, N, keys], 1 where the mask does not vary.

    Only the inputs that masks read are needed."""
    scope = mask_scope(construct, N, M, B, H, inputs, q_offset, kv_offset)
    return reduce(torch.logical_or, (_mask(branch, scope, B, H, N) for branch in construct.branches))


def mask_scope(
    construct: Attention,
    N: int,
    M: int,
    B: int,
    H: int,
    inputs: Mapping[str, Tensor | int | float | bool],
    q_offset: int | Tensor | None = None,
    kv_offset: int = 0,
) -> Scope:
    """What masks may read, checked: TypeError for an input that is unknown or missing, ValueError for one whose axes
    are others than declared, for sizes and for offsets that are not one number or one a batch."""
    for name, number in {"N": N, "M": M, "B": B, "H": H}.items():
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= LIMIT:
            raise ValueError(f"{construct.name}: {name}: expected an int from 0 to {LIMIT_TEXT}, got {number!r}")
    _check_mask_inputs(construct, inputs)
    sizes = _input_sizes(construct, inputs) | {"B": B, "H": H, "N": N, "M": M}
    device = next((value.device for value in inputs.values() if isinstance(value, Tensor)), torch.device("cpu"))
    scope = _scope(construct, inputs, sizes, q_offset, kv_offset, torch.float32, device, check=False)
    _check_axes(construct, scope)
    if scope.q_offset.numel() not in (1, B):
        raise ValueError(f"{construct.name}: q_offset has {scope.q_offset.numel()} numbers for B = {B}")
    return scope


def _check_mask_inputs(construct: Attention, inputs: Mapping[str, Tensor | int | float | bool]) -> None:
    declared = [item.name for item in construct.inputs]
    for name in inputs:
        if name not in declared:
            raise TypeError(f"{construct.name} has no input {name}; its inputs: {', '.join(declared) or 'none'}")
    for item in construct.inputs:
        if item.name in inputs and (rank := torch.as_tensor(inputs[item.name]).dim()) != len(item.axes):
            wanted = ", ".join(map(size_text, item.axes))
            raise ValueError(f"{construct.name}: {item.name}: expected [{wanted}], got {rank} axes")
    for node in postorder(*(branch.mask for branch in construct.branches)):
        if isinstance(node, Load | Listed) and node.tensor not in inputs:
            raise TypeError(f"the mask of {construct.name} reads the input {node.tensor}: give it by keyword")


def _check_axes(construct: Attention, scope: Scope) -> None:
    """An axis declared B or H may be 1. An axis of a size that is not known here is not checked."""
    for declared in construct.inputs:
        if declared.name not in scope.inputs:
            continue
        actual = scope.inputs[declared.name].shape
        for number, axis in enumerate(declared.axes):
            if any(isinstance(part, Size) and part.name not in scope.sizes for part in postorder(axis)):
                continue
            expected, found = size(axis, scope.sizes), actual[number]
            if found != expected and not (found == 1 and (declared.name, number) in scope.spread):
                where = f"axis {number} is {size_text(axis)} = {expected}"
                raise ValueError(f"{construct.name}: {declared.name}: {where}, but the tensor has {found} there")


@dataclass(frozen=True, kw_only=True)
class _Call:
    """One call: B, H, N and what expressions may name. ``vectors`` holds declared and derived ones, each
    [B, heads, length, dim]."""

    B: int
    H: int
    N: int
    scope: Scope
    vectors: Mapping[str, Tensor]

    def by_query_head(self, name: str) -> Tensor:
        """A vector with one head for each query head: head h of a key is its group's, h // (H / G)."""
        return _per_head(self.vectors[name], self.H)


def _per_head(x: Tensor, heads: int) -> Tensor:
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


@dataclass(frozen=True, kw_only=True)
class MapResult:
    """A branch's output and statistics: [B, H, N, E], [B, H, N] each, colsum [B, H, keys]."""

    out: Tensor
    lse: Tensor
    total: Tensor
    rowmax: Tensor
    entropy: Tensor
    colsum: Tensor


# --- binding ----------------------------------------------------------------------------------


def _input_sizes(construct: Attention, inputs: Mapping[str, Tensor | int | float | bool]) -> dict[str, int]:
    """The sizes that inputs' axes name. An axis B or H may be spread from 1, so those come from the vectors."""
    sizes: dict[str, int] = {}
    for declared in construct.inputs:
        value = inputs.get(declared.name)
        if value is None:
            continue
        for number, axis in enumerate(declared.axes):
            if isinstance(axis, Size) and axis.name not in ("B", "H"):
                assert isinstance(value, Tensor), f"{declared.name} has axes"
                sizes.setdefault(axis.name, value.shape[number])
    return sizes


def _bind(
    construct: Attention,
    vectors: Mapping[str, Tensor],
    inputs: Mapping[str, Tensor | int | float | bool],
    q_offset: int | Tensor | None,
    kv_offset: int,
    dtype: torch.dtype,
    device: torch.device,
    check: bool,
) -> _Call:
    lengths = {"query": ("H", "N"), "key": ("G", "M"), "value": ("G", "M")}
    sizes = _input_sizes(construct, inputs)
    for declared in construct.vectors:
        B, heads, length, dim = vectors[declared.name].shape
        sizes |= {"B": B, lengths[declared.role][0]: heads, lengths[declared.role][1]: length}
        if isinstance(declared.dim, Size):
            sizes[declared.dim.name] = dim
    scope = _scope(construct, inputs, sizes, q_offset, kv_offset, dtype, device, check)
    call = _Call(
        B=sizes["B"],
        H=sizes["H"],
        N=sizes["N"],
        scope=scope,
        vectors={declared.name: vectors[declared.name].to(dtype) for declared in construct.vectors},
    )
    for token in construct.tokens:
        call = _with_token(call, token)
    return call


def _scope(
    construct: Attention,
    inputs: Mapping[str, Tensor | int | float | bool],
    sizes: Mapping[str, int],
    q_offset: int | Tensor | None,
    kv_offset: int,
    dtype: torch.dtype,
    device: torch.device,
    check: bool,
) -> Scope:
    kinds = {Kind.BOOL: torch.bool, Kind.INT: torch.int64, Kind.FLOAT: dtype}
    bound: dict[str, Tensor] = {}
    spreading: set[tuple[str, int]] = set()
    for declared in construct.inputs:
        if declared.name not in inputs:
            continue
        bound[declared.name] = torch.as_tensor(inputs[declared.name], device=device).to(kinds[declared.kind])
        for number, axis in enumerate(declared.axes):
            if isinstance(axis, Size) and axis.name in ("B", "H"):
                spreading.add((declared.name, number))
    offset = sizes["M"] - sizes["N"] if q_offset is None else q_offset
    return Scope(
        dtype=dtype,
        device=device,
        sizes=sizes,
        inputs=bound,
        q_offset=torch.as_tensor(offset, device=device).to(torch.int64).reshape(-1),
        kv_offset=kv_offset,
        spread=frozenset(spreading),
        check=check,
    )


# --- token-wise values ------------------------------------------------------------------------


def _with_token(call: _Call, token: TokenDecl) -> _Call:
    """The call with one more token-wise value. A product along positions (``e @ k``) changes the length, so the
    parts of the expression are evaluated length by length, innermost first."""
    scope = call.scope
    heads = call.H if token.heads == "H" else scope.sizes["G"]
    known: dict[int, dict[Expr, Tensor]] = {}
    domains: dict[int, Domain] = {}

    def at(length: int) -> tuple[Domain, dict[Expr, Tensor]]:
        if length not in known:
            domains[length], known[length] = _token_domain(call, token.side, heads, length), {}
        return domains[length], known[length]

    nodes = postorder(token.expr)
    for node in nodes:
        if isinstance(node, Vector):
            value = _per_head(call.vectors[node.name], heads)
            at(value.shape[2])[1][node] = value
    for node in nodes:
        if isinstance(node, MatMul) and node.over == "positions":
            rows, columns = (size(dim, scope.sizes) for dim in node.matrix.dims)
            at(rows)[1][node.operand] = evaluate(node.operand, scope, *at(columns))
    length = size(token.length, scope.sizes)
    value = evaluate(token.expr, scope, *at(length))
    shape = (call.B, heads, length)
    if token.dim is None:
        by_head = _per_head(value.expand(shape), call.H)
        return replace(call, scope=replace(scope, inputs={**scope.inputs, token.name: by_head}))
    made = value.expand(*shape, size(token.dim, scope.sizes))
    return replace(call, vectors={**call.vectors, token.name: made})


def _token_domain(call: _Call, side: Side, heads: int, length: int) -> Domain:
    """All tokens [B, heads, length] of a side. With one head a group, h is the group's first query head."""
    scope = call.scope
    rows = torch.arange(length, device=scope.device).reshape(1, 1, length)
    b = torch.arange(call.B, device=scope.device).reshape(-1, 1, 1)
    h = torch.arange(heads, device=scope.device).reshape(1, -1, 1) * (call.H // max(heads, 1))
    if side is Side.QUERY:
        return Domain(rank=3, indices={"b": b, "h": h, "i": rows + scope.q_offset.reshape(-1, 1, 1)})
    return Domain(rank=3, indices={"b": b, "h": h, "j": rows + scope.kv_offset})


# --- one map ----------------------------------------------------------------------------------


def _mask(branch: Branch, scope: Scope, B: int, H: int, N: int) -> Tensor:
    """bool [B or 1, H or 1, N, keys]."""
    keys = size(branch.keys, scope.sizes)
    indices: dict[Axis, Tensor] = {
        "b": torch.arange(B, device=scope.device).reshape(-1, 1, 1, 1),
        "h": torch.arange(H, device=scope.device).reshape(1, -1, 1, 1),
        "i": torch.arange(N, device=scope.device).reshape(1, 1, -1, 1) + scope.q_offset.reshape(-1, 1, 1, 1),
        "j": torch.arange(keys, device=scope.device).reshape(1, 1, 1, -1) + scope.kv_offset,
    }
    live = evaluate(branch.mask, replace(scope, check=False), Domain(rank=4, indices=indices), {})
    return live.expand(live.shape[0], live.shape[1], N, keys)


def _pair_domain(pairs: Pairs, scope: Scope) -> Domain:
    """The live pairs as index lists [P]."""
    _, H, N, M = pairs.shape
    line = pairs.row // max(N, 1)
    b, row, column = line // max(H, 1), pairs.row % max(N, 1), pairs.flat % max(M, 1)
    i = row + (scope.q_offset[b] if scope.q_offset.numel() > 1 else scope.q_offset)
    return Domain(rank=1, indices={"b": b, "h": line % max(H, 1), "i": i, "j": column + scope.kv_offset})


def _rows(call: _Call) -> Domain:
    """All query rows [B, H, N]; j has no value."""
    return _token_domain(call, Side.QUERY, call.H, call.N)


def _scores(branch: Branch, pairs: Pairs, call: _Call) -> Tensor:
    """The score of each live pair: [P]."""
    known: dict[Expr, Tensor] = {}
    for node in postorder(branch.score):
        if isinstance(node, Dot):
            assert isinstance(node.left, Vector) and isinstance(node.right, Vector), "split leaves dots of vectors"
            left, right = (node.left, node.right) if node.left.side is Side.QUERY else (node.right, node.left)
            known[node] = pairs.dot(call.by_query_head(left.name), call.by_query_head(right.name))
    return evaluate(branch.score, call.scope, _pair_domain(pairs, call.scope), known).expand(pairs.count)


def _exponent(weight: Expr) -> tuple[Expr, float] | None:
    """(z, c) where the weight is exp(c * z)."""
    match weight:
        case Apply(fn=Fn.EXP, args=(z,)):
            return z, 1.0
        case Apply(fn=Fn.EXP2, args=(z,)):
            return z, log(2.0)
        case _:
            return None


def _map(branch: Branch, call: _Call) -> MapResult:
    scope = call.scope
    live = _mask(branch, scope, call.B, call.H, call.N).expand(call.B, call.H, call.N, -1)
    pairs = Pairs.of(live)
    if scope.check and not isinstance(branch.mask, Const):
        evaluate(branch.mask, scope, _pair_domain(pairs, scope), {})
    score = _scores(branch, pairs, call)
    rowmax = pairs.row_max(score.detach())
    dead = rowmax == -torch.inf  # no live pair, or all of them score -inf: a row with no key
    if (live & dead.unsqueeze(-1)).any():  # its pairs leave the list, so that no gradient starts there
        pairs = Pairs.of(live & ~dead.unsqueeze(-1))
        score = _scores(branch, pairs, call)

    symbol = Symbol(kind=Kind.FLOAT, name="s")
    domain = _pair_domain(pairs, scope)
    if exponent := _exponent(branch.normalization.weight):
        z = evaluate(exponent[0], scope, domain, {symbol: score}).expand_as(score) * exponent[1]
        top = pairs.row_max(z.detach())
        top = torch.where(top.isfinite(), top, 0)
        weight = torch.exp(z - pairs.select_rows(top))
    else:
        top = torch.zeros_like(rowmax)
        weight = evaluate(branch.normalization.weight, scope, domain, {symbol: score}).expand_as(score)

    total = pairs.spread(weight).sum(-1)
    safe = torch.where(dead, 1, total)  # a divisor's derivative at a sum of 0 may be inf
    divisor = evaluate_divisor(branch.normalization.divisor, Scaled(mantissa=safe, scale=top), scope, _rows(call))
    scale = torch.where(divisor.scale == -torch.inf, 0, divisor.scale).detach()
    mantissa = torch.where(dead, 1, divisor.mantissa)

    factor = torch.exp(torch.where(dead, 0, top - scale)) / mantissa
    summed = pairs.sum(weight, call.by_query_head(branch.value))
    after = (weight * pairs.select_rows(factor)).detach()
    return MapResult(
        out=torch.where(dead.unsqueeze(-1), 0, summed * factor.unsqueeze(-1)),
        lse=torch.where(dead, -torch.inf, torch.log(mantissa) + scale),
        total=torch.where(dead, 0, total * torch.exp(top)),
        rowmax=rowmax,
        entropy=-pairs.spread(torch.xlogy(after, after)).sum(-1),
        colsum=pairs.spread(after).sum(-2),
    )


def _output(output: Expr, maps: Mapping[str, MapResult], call: _Call) -> Tensor:
    """Branches combined: [B, H, N, E]."""
    known: dict[Expr, Tensor] = {
        node: maps[node.name].out for node in postorder(output) if isinstance(node, Symbol) and node.name in maps
    }
    return evaluate(output, call.scope, _rows(call), known)

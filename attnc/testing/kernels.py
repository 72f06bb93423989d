"""What kernels are compiled for: params, dtype, sizes of vectors. A few of them serve many calls, for compiling is what
a fuzz spends its time on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from random import Random
from typing import Any

import torch
from torch import Tensor

from attnc.dsl.construct import Attention, ParamDecl
from attnc.dsl.diagnostics import SpecError
from attnc.dsl.ir import (
    Apply,
    Axis,
    Const,
    Expr,
    Fn,
    Index,
    Kind,
    Listed,
    Load,
    MatMul,
    Normed,
    Offset,
    Rope,
    Side,
    Size,
    Table,
    dependencies,
    postorder,
)
from attnc.runtime.evaluate import size
from attnc.runtime.op import Op
from attnc.runtime.reference import mask
from attnc.testing.call import Call, like, make

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16, "f64": torch.float64}
DIMS = (1, 2, 3, 5, 8, 16, 17, 32, 40, 64, 80, 128)
_STANDARD = ("B", "H", "G", "N", "M", "D", "E")
_EXPONENTIAL = (Fn.EXP, Fn.EXP2, Fn.EXPM1, Fn.POW)


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """An op at its params, the dtype of its vectors, and the sizes that are not drawn for every call: D, E, those that
    the spec names itself. ``heads``: H, where a param has one entry a head."""

    op: Op
    dtype: torch.dtype
    sizes: Mapping[str, int]
    heads: int | None = None

    @cached_property
    def traits(self) -> Traits:
        return Traits(self.op.construct)


class Traits:
    """What of a spec decides which values it can be called with."""

    def __init__(self, construct: Attention) -> None:
        scores = postorder(*(branch.score for branch in construct.branches))
        weights = postorder(*(branch.normalization.weight for branch in construct.branches))
        tokens = postorder(*(token.expr for token in construct.tokens))
        every = [*scores, *weights, *tokens, *postorder(construct.output)]
        exponential = [b for b in construct.branches if any(_is(x, Fn.EXP) for x in postorder(b.normalization.weight))]
        self.bounded = (  # scores of hundreds overflow nothing
            len(exponential) == len(construct.branches)
            and not any(_is(x, *_EXPONENTIAL) for x in [*scores, *tokens])
            and not any(emit.what == "total" for emit in construct.emits)
        )
        self.near = any(isinstance(x, Rope) or _from_position(x) for x in every)  # float32 holds no large positions
        self.normed = any(isinstance(x, Normed) for x in every)  # of a vector near zero: a gradient beyond every bound
        self.mixed = any(isinstance(x, MatMul) and x.over == "positions" for x in tokens)  # keys are no rows of k
        self.masked = any(not isinstance(branch.mask, Const) for branch in construct.branches)


def _from_position(node: Expr) -> bool:
    """A float made from an index."""
    parts = node.args if isinstance(node, Apply) and node.kind is Kind.FLOAT else ()
    return any(part.kind is Kind.INT and dependencies(part) & {"i", "j"} for part in parts)


def _is(node: Expr, *functions: Fn) -> bool:
    return isinstance(node, Apply) and node.fn in functions


# --- drawing them -------------------------------------------------------------------------------


def pool(
    load: Callable[[Mapping[str, object]], Op],
    declared: Sequence[ParamDecl],
    given: Mapping[str, object],
    *,
    count: int,
    seed: int,
    dtypes: Sequence[torch.dtype] = tuple(DTYPES.values()),
    dims: Sequence[int] = DIMS,
) -> list[Kernels]:
    """``count`` of them, the smallest first; the same for the same arguments. ``load`` makes the op of params.
    SpecError where no params fit, ValueError where no sizes do."""
    made = list(islice(_drawn(load, declared, given, Random(seed), dtypes, dims, 40 * count), count))
    order = list(dtypes)
    return sorted(made, key=lambda x: (order.index(x.dtype), sum(x.sizes.values())))


def _drawn(
    load: Callable[[Mapping[str, object]], Op],
    declared: Sequence[ParamDecl],
    given: Mapping[str, object],
    random: Random,
    dtypes: Sequence[torch.dtype],
    dims: Sequence[int],
    tries: int,
) -> Iterator[Kernels]:
    found, fault = 0, None
    for number in range(tries):
        heads = _heads(declared, given, random)
        params = {item.name: _value(item, heads, random) for item in declared} | dict(given)
        try:
            op = load(params)
            construct = op.construct
        except SpecError as error:
            if set(given) == {item.name for item in declared}:
                raise
            fault = error
            continue
        sizes = {name: random.choice((1, 2, 3, 5, 8, 9)) for name in construct.sizes if name not in _STANDARD}
        sizes |= {name: random.choice(dims) for name in "DE"}
        kernels = Kernels(op=op, dtype=dtypes[number % len(dtypes)], sizes=sizes, heads=heads)
        if kernels.traits.normed and min(sizes.values()) < 3:
            continue  # the norm of one number is its size: what is left is a sign
        try:
            call = arguments(kernels, Request(B=1, G=1, H=heads or 1, N=2, M=3))
            op.reference(*call.args, **call.kwargs)
        except (TypeError, ValueError, RuntimeError, KeyError) as error:
            refused = error
            continue
        found += 1
        yield kernels
    if not found:
        if fault is not None:
            raise fault
        raise ValueError(f"no sizes were found that {load(given).name} can be called with: {refused}")


def _heads(declared: Sequence[ParamDecl], given: Mapping[str, object], random: Random) -> int | None:
    per_head = [item.name for item in declared if item.per_head]
    lengths = [len(value) for name in per_head if isinstance(value := given.get(name), list | tuple)]
    return lengths[0] if lengths else random.choice((1, 2, 3)) if per_head else None


def _value(param: ParamDecl, heads: int | None, random: Random) -> object:
    def one(default: object) -> object:
        match param.kind:
            case Kind.BOOL:
                return random.random() < 0.5
            case Kind.INT:
                near = (default,) if isinstance(default, int) and abs(default) <= 64 else ()
                return random.choice((1, 2, 3, 4, 0, 5, 7, 8, 13, 16, 33, *near))
            case _:
                around = float(default) if isinstance(default, int | float) and default else 1.0
                return around * random.choice((1.0, 0.5, 2.0))

    if not param.per_head:
        return one(param.default)
    return tuple(one(None) for _ in range(heads or 1))


# --- a call of them -----------------------------------------------------------------------------

LAYOUTS = ("BHND", "BNHD", "gaps", "spread")
VALUES = ("plain", "normal", "large", "tied", "zero", "tiny", "garbage")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What one call is made from, beside its kernels. ``values``: small multiples of 1/8; of the normal distribution;
    scores of hundreds; keys that are all one; queries of zero; keys and values below the smallest normal number; inf
    and NaN where the language says that they do not matter."""

    B: int
    G: int
    H: int
    N: int
    M: int
    q_offset: int | tuple[int, ...] | None = None
    kv_offset: int = 0
    layout: str = "BHND"
    values: str = "plain"
    seed: int = 0


def arguments(kernels: Kernels, request: Request) -> Call:
    """The same call for the same request, vectors in the dtype of the kernels."""
    op, construct = kernels.op, kernels.op.construct
    sizes = dict(kernels.sizes) | {name: getattr(request, name) for name in "BGHNM"}
    sizes |= _blocks(construct, sizes)
    generator = torch.Generator().manual_seed(request.seed)
    inputs = {item.name: _input(construct, item.name, sizes, generator) for item in construct.inputs}
    options: dict[str, Any] = {}
    if request.q_offset is not None:
        several = isinstance(request.q_offset, tuple)
        options["q_offset"] = torch.tensor(request.q_offset) if several else request.q_offset
    if request.kv_offset:
        options["kv_offset"] = request.kv_offset
    made = make(op, sizes, inputs=inputs, layout=request.layout, seed=request.seed, **options)
    vectors = {
        item.name: _vector(kernels, item.role, made.vectors[item.name], request.values, generator)
        for item in construct.vectors
    }
    made = replace(made, vectors=vectors)
    if request.values == "garbage":
        made = _spoiled(made, kernels, sizes)
    return made.prepared(kernels.dtype)


def _vector(kernels: Kernels, role: str, x: Tensor, values: str, generator: torch.Generator) -> Tensor:
    if values == "normal":
        drawn = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        return like(drawn, x)
    if values == "large" and role == "query" and kernels.traits.bounded:
        return x * 32
    if values == "tied" and role == "key":
        return like(x[:, :, :1].expand(x.shape), x)
    if values == "zero" and role == "query" and not kernels.traits.normed:
        return x * 0
    if values == "tiny" and role != "query" and not kernels.traits.normed:
        return x * torch.finfo(kernels.dtype).smallest_normal
    return x


def _blocks(construct: Attention, sizes: Mapping[str, int]) -> dict[str, int]:
    """Sizes of tables whose rows or columns are blocks of n positions: ceil(N / n), ceil(M / n)."""
    found: dict[str, int] = {}
    axes = {item.name: item.axes for item in construct.inputs}
    for node in _pairwise(construct):
        match node:
            case Load(tensor=name, index=index) if name in axes:
                read = list(zip(axes[name], index, strict=False))
            case Listed(tensor=name, row=row):
                read = [(axes[name][2], row)]
            case _:
                continue
        for axis, place in read:
            if isinstance(axis, Size) and axis.name in construct.sizes and (block := _block(place)):
                length = sizes["N" if "i" in dependencies(place) else "M"]
                found[axis.name] = max(-(-length // block), 1)
    return found


def _pairwise(construct: Attention) -> list[Expr]:
    return postorder(*(part for branch in construct.branches for part in (branch.mask, branch.score)))


def _block(place: Expr) -> int:
    """n of ``row // n``, 0 where it is none."""
    match place:
        case Apply(fn=Fn.FLOORDIV, args=(_, Const(value=int(n)))) if n > 0:
            return n
    return 0


def _input(construct: Attention, name: str, sizes: Mapping[str, int], generator: torch.Generator) -> Tensor:
    """Floats: multiples of 1/16, of both signs or none negative. Bools: none, few, many or all. Ints: runs of ids,
    lengths, small numbers; of an index list blocks that are there."""
    (item,) = (item for item in construct.inputs if item.name == name)
    shape = [size(axis, sizes) for axis in item.axes]
    for n, axis in enumerate(item.axes):
        if isinstance(axis, Size) and axis.name in ("B", "H") and _coin(generator, 4) == 0:
            shape[n] = 1
    match item.kind:
        case Kind.FLOAT:
            low = (-16, 1)[_coin(generator)]
            made = torch.randint(low, 17, shape, generator=generator).double() / 16
        case Kind.BOOL:
            share = (0.3, 0.03, 1.0, 0.0)[_coin(generator, 4)]
            made = torch.rand(shape, generator=generator) < share
        case _:
            made = _ints(construct, name, shape, sizes, generator)
            made = made.to(torch.int32 if item.dtype == "i32" else torch.int64)
    if made.dim() > 1 and _coin(generator) and made.numel():  # another order in memory
        return made.permute(*reversed(range(made.dim()))).contiguous().permute(*reversed(range(made.dim())))
    return made


def _ints(
    construct: Attention, name: str, shape: Sequence[int], sizes: Mapping[str, int], generator: torch.Generator
) -> Tensor:
    every = _pairwise(construct)
    for node in every:
        if isinstance(node, Listed) and node.tensor == name:
            blocks = -(-sizes["M"] // (_block(node.column) or 1))
            return torch.randint(-1, max(blocks, 0), shape, generator=generator)
    divides = any(_is(x, Fn.MOD, Fn.FLOORDIV) and _reads(x.args[1], name) for x in every if isinstance(x, Apply))
    low = 1 if divides else 0
    kind = _coin(generator, 3)
    if kind == 0:
        return torch.randint(low, max(sizes["M"], low) + 1, shape, generator=generator)
    if kind == 1 or not shape:
        return torch.randint(low, 9, shape, generator=generator)
    return low + (torch.rand(shape, generator=generator) < 1 / 9).cumsum(-1)


def _reads(expr: Expr, name: str) -> bool:
    return any(isinstance(node, Load) and node.tensor == name for node in postorder(expr))


def _coin(generator: torch.Generator, sides: int = 2) -> int:
    return int(torch.randint(0, sides, (), generator=generator))


# --- inf and NaN where they do not matter -------------------------------------------------------


def _spoiled(call: Call, kernels: Kernels, sizes: Mapping[str, int]) -> Call:
    """Trash in what only masked pairs read: entries of pairs, and rows of keys and values that a condition over the
    key alone masks in every branch."""
    construct, options = call.op.construct, call.options
    if not kernels.traits.masked or not sizes["M"]:
        return call
    N, M, B, H = (sizes[name] for name in "NMBH")
    live = mask(construct, N, M, B, H, call.inputs, **options)
    trash = torch.tensor([torch.inf, torch.nan, -torch.inf], dtype=torch.float64)[torch.arange(M) % 3]
    inputs = dict(call.inputs)
    for name in _by_pair(construct):
        x, seen = inputs[name], live.expand(B, H, N, M)
        for axis in range(2):
            seen = seen.any(axis, keepdim=True) if x.shape[axis] == 1 else seen
        inputs[name] = like(torch.where(seen, x, trash), x)
    vectors = dict(call.vectors)
    if not kernels.traits.mixed:
        by_key = replace(
            construct,
            branches=tuple(replace(branch, mask=_over_keys(branch.mask)) for branch in construct.branches),
        )
        kept = mask(by_key, N, M, B, H, call.inputs, **options).expand(B, H, N, M).any(2).any(1)  # [B, M]
        for item in construct.vectors:
            if item.role != "query":
                x = vectors[item.name]
                rows = kept.any(0, keepdim=True).expand(kept.shape) if x.stride(0) == 0 else kept
                vectors[item.name] = like(torch.where(rows[:, None, :, None], x, trash[:, None]), x)
    return replace(call, vectors=vectors, inputs=inputs)


def _by_pair(construct: Attention) -> list[str]:
    """Float inputs [B, H, N, M] that nothing reads but at (b, h, i, j)."""
    offsets: dict[Axis, Side] = {"i": Side.QUERY, "j": Side.KEY}
    plain: list[Expr] = [Index(kind=Kind.INT, axis=axis) for axis in ("b", "h")]
    for axis, side in offsets.items():
        row = (Index(kind=Kind.INT, axis=axis), Offset(kind=Kind.INT, side=side))
        plain.append(Apply(kind=Kind.INT, fn=Fn.SUB, args=row))
    roots = [part for b in construct.branches for part in (b.mask, b.score, b.normalization.divisor)]
    nodes = postorder(*roots, *(token.expr for token in construct.tokens), construct.output)
    found: dict[str, bool] = {}
    for node in nodes:
        if isinstance(node, Load):
            found[node.tensor] = found.get(node.tensor, True) and list(node.index) == plain
    floats = {item.name for item in construct.inputs if item.kind is Kind.FLOAT}
    masks = {node.tensor for b in construct.branches for node in postorder(b.mask) if isinstance(node, Load)}
    return [name for name, alone in found.items() if alone and name in floats - masks]


def _over_keys(root: Expr) -> Expr:
    """The conjuncts of a mask that ask for the key alone."""
    kept: Expr = Const(kind=Kind.BOOL, value=True)
    stack = [root]
    while stack:
        match stack.pop():
            case Apply(fn=Fn.AND, args=args):
                stack += args
            case node if dependencies(node) <= {"b", "j"} and not any(
                isinstance(x, Listed | Table) for x in postorder(node)
            ):
                kept = Apply(kind=Kind.BOOL, fn=Fn.AND, args=(kept, node))
    return kept

"""A map as the contexts of its Triton kernels. Everything is decided here; templates/kernels.py.j2 prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from attnc.codegen import build
from attnc.codegen.exponent import LOG2E, Exponent, exponent, pulled, regrouped
from attnc.codegen.kernel import (
    ALL,
    HEAD,
    KEY,
    ROW,
    Argument,
    Axes,
    DotText,
    Kernel,
    MapText,
    TokenTensor,
    TotalText,
)
from attnc.codegen.kernel_builder import Builder
from attnc.codegen.lower import G, summed
from attnc.codegen.names import Naming
from attnc.codegen.plan import Plan
from attnc.codegen.printer import Text
from attnc.codegen.program import Group, InputGradient, Map, Program
from attnc.codegen.relative import sloped
from attnc.dsl.ir import Apply, Axis, Const, Expr, Fn, Side, Symbol, dependencies, postorder


def kernels(program: Program, group: Group, naming: Naming, plan: Plan) -> tuple[Kernel, ...]:
    """The kernels of a group, pass by pass: forward, gradients by query, gradients by key, and a map's sums over
    queries if it emits them."""
    found, described = [], plan.described
    for part in group.passes:
        found.append(_forward(program, summed(part) if part.partial else part, naming, described))
        found.append(_backward_query(program, part, naming, described))
        found.append(_by_key(program, part, naming, described, part.maps, grads=True))
        found += [_by_key(program, part, naming, described, (item,), grads=False) for item in part.maps if item.colsum]
    return tuple(replace(kernel, split=plan.split) for kernel in found)


def _gradients(
    builder: Builder, levels: Sequence[Axes], wanted: Mapping[str, Expr]
) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """Statements for cotangents, and which of them a partial tile must guard: masked pairs send nothing, whatever
    their score's derivative is."""
    if not wanted:
        return tuple(() for _ in levels), ()
    finish: dict[str, Callable[[Text], str]] = {}
    wanted = {name: builder.near(root) for name, root in wanted.items()}
    for name, root in wanted.items():
        finish |= builder.full(name, root)
    lines = builder.block(wanted, levels, finish=finish, keep=False)
    return lines, tuple(name for name, root in wanted.items() if not _scaled_g(root))


def _scaled_g(root: Expr) -> bool:
    """g times what does not vary over the tile: zero wherever g is."""
    match root:
        case Apply(fn=Fn.MUL, args=(x, y)):
            return (x == G and _uniform(y)) or (y == G and _uniform(x))
        case Apply(fn=Fn.NEG, args=(x,)):
            return x == G
    return False


def _uniform(node: Expr) -> bool:
    return not dependencies(node) and not any(isinstance(part, Symbol) for part in postorder(node))


def _pull(group: Group, side: Side) -> tuple[Group, dict[str, Expr]]:
    """The group with cotangents of dots as the kernel of one side sums them: a uniform factor that all terms of a
    vector's gradient share is left out, and given by the vector's name."""
    axes: frozenset[Axis] = frozenset(("b", "h") if side is Side.QUERY else ("b",))
    vectors = [query if side is Side.QUERY else key for _, query, key in group.dots]
    zero = build.const(0.0)
    grouped = [[regrouped(value) for value in item.dot_gradients] for item in group.maps]
    split = [[pulled(value, axes) for value in values] for values in grouped]
    factors: dict[str, set[Expr]] = {}
    for values in split:
        for name, (rest, factor) in zip(vectors, values, strict=True):
            if rest != zero:
                factors.setdefault(name, set()).add(factor)
    shared = {name: found.pop() for name, found in factors.items() if len(found) == 1}
    scales = {name: factor for name, factor in shared.items() if factor != build.const(1.0)}
    maps = tuple(
        replace(
            item,
            dot_gradients=tuple(
                parts[0] if name in scales else value for name, parts, value in zip(vectors, pair, whole, strict=True)
            ),
        )
        for item, pair, whole in zip(group.maps, split, grouped, strict=True)
    )
    return replace(group, maps=maps), scales


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """Names of cotangents: of each dot (a sum over the group's maps, empty where zero), the expressions that need a
    statement by map, and of every input read (map, number, gradient, name of its total, name of its cotangent)."""

    dots: tuple[DotText, ...]
    wanted: tuple[dict[str, Expr], ...]
    inputs: tuple[tuple[Map, InputGradient, str, str], ...]


def gradients(group: Group, naming: Naming) -> Gradients:
    """What the cotangents of a group are called, the same in every kernel and in PyTorch."""
    wanted: list[dict[str, Expr]] = []
    terms: list[list[str]] = [[] for _ in group.dots]
    inputs: list[tuple[Map, InputGradient, str, str]] = []
    for item in group.maps:
        own: dict[str, Expr] = {}
        for place, ((symbol, _, _), value) in enumerate(zip(group.dots, item.dot_gradients, strict=True)):
            if isinstance(value, Const) and value.value == 0:
                continue
            name = f"g_ij{item.tag}" if value == G else f"d_{symbol.name}{item.tag}"
            terms[place].append(name)
            if value != G:
                own[name] = value
        for part in item.input_gradients:
            total = f"d_{naming.tensor(part.read.load.tensor)}_{len(inputs)}"
            name = f"g_ij{item.tag}" if part.value == G else f"{total}_ij"
            inputs.append((item, part, total, name))
            if part.value != G:
                own[name] = part.value
        wanted.append(own)
    dots = tuple(
        DotText(
            name=symbol.name,
            query=naming.tensor(query),
            key=naming.tensor(key),
            gradient=f"({' + '.join(found)})" if len(found) > 1 else "".join(found),
        )
        for (symbol, query, key), found in zip(group.dots, terms, strict=True)
    )
    return Gradients(dots=dots, wanted=tuple(wanted), inputs=tuple(inputs))


@dataclass(frozen=True, kw_only=True)
class _Lines:
    """Where statements of each level go while a kernel is put together."""

    outer: list[str]
    head: list[str]

    def place(self, found: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
        """Keep the outer levels' statements, give back the innermost's."""
        if len(found) > 1:
            self.outer.extend(found[0])
        if len(found) > 2:
            self.head.extend(found[1])
        return found[-1]


def _map_text(
    builder: Builder,
    item: Map,
    levels: Sequence[Axes],
    lines: _Lines,
    wanted: Mapping[str, Expr],
    *,
    slopes: bool = False,
) -> MapText:
    """What every kernel prints of a map: score, mask and weight, and the cotangents in ``wanted``. ``slopes``: what
    grows with the position may be added as a vector along the tile, for which the kernel has registers."""
    builder.enter(item)
    score, weight = f"s{item.tag}", f"p{item.tag}"
    found = exponent(item.score) if item.exponential else Exponent(scale=build.const(1.0), rest=item.score, fused=False)
    rest = builder.near(found.rest)
    whole = builder.full(score, rest)
    notes = builder.note("s", score)
    scale, scale_log2 = _scales(builder, item, found.scale, levels, lines)
    slope_lines: tuple[str, ...] = ()
    parts = None
    if slopes and found.fused:
        parts = sloped(found.rest, item.mask, builder.axis, build.mul(found.scale, LOG2E))
    if parts is not None:
        near = builder.near(parts.rest)
        roots = {score: near, f"along{item.tag}": parts.along, f"across{item.tag}": parts.across}
        finish = _inner(builder.full(score, near), score)
        slope_lines = lines.place(builder.block(roots, levels, finish=finish, notes=notes, keep=False))
    made = builder.block({score: rest}, levels, finish=_inner(whole, score), notes=notes, keep=parts is None)
    score_lines = lines.place(made)
    if item.exponential and not whole and parts is None:
        builder.printer.leaves.setdefault(rest, score)
    mask_lines = lines.place(builder.live(levels))
    weight_lines: tuple[str, ...] = ()
    if not item.exponential:
        finish = _inner(builder.full(weight, item.weight), weight)
        weight_lines = lines.place(
            builder.block({weight: item.weight}, levels, finish=finish, notes=builder.note("p", weight))
        )
    gradient_lines, guards = _gradients(builder, levels, wanted)
    name = f"do{item.tag}"
    dim = builder.token(builder.group.value).dim
    return MapText(
        tag=item.tag,
        exponential=item.exponential,
        plain=item.plain,
        rowmax=item.rowmax,
        entropy=item.entropy,
        grad_out=TokenTensor(name=name, dim=dim, strides=tuple(f"{name}_stride{axis}" for axis in range(3))),
        score_lines=score_lines,
        mask_lines=mask_lines,
        mask_p=builder.transposed,  # by queries, only g is summed
        mask_g=len(guards) < len(wanted)
        or any(value == G for value in item.dot_gradients)
        or any(part.value == G for part in item.input_gradients),
        scale=scale,
        scale_log2=scale_log2,
        fused=found.fused,
        slope_lines=slope_lines,
        weight_lines=weight_lines,
        gradient_lines=lines.place(gradient_lines),
        guards=guards,
    )


def _scales(builder: Builder, item: Map, scale: Expr, levels: Sequence[Axes], lines: _Lines) -> tuple[str, str]:
    """What the score is multiplied by, "" for 1, and the same times log2 e: named outside every loop."""
    match scale:
        case Const(value=value) if value == 1:
            return "", "LOG2E"
        case Const(value=value):
            return repr(value), f"({value!r} * LOG2E)"
    natural, log2 = f"scale{item.tag}", f"scale_log2{item.tag}"
    for part in builder.block({natural: scale}, levels, keep=False):
        lines.outer.extend(part)
    lines.outer.append(f"{log2} = {natural} * LOG2E")
    builder.printer.leaves[scale] = natural
    return natural, log2


def _along_dims(name: str, mask: Expr, axis: Axis) -> str:
    """A mask of one side's rows as [rows, 1]; one that varies with none is a scalar already."""
    return f"tl.trans({name})" if axis in dependencies(mask) else name


def _key_live(builder: Builder, lines: _Lines) -> tuple[tuple[str, ...], str]:
    """Statements for keys that no query may see, so that what they hold never enters."""
    if builder.group.key_mask == build.TRUE:
        return (), ""
    made = builder.block({"key_live": builder.group.key_mask}, (ROW, ALL), keep=False)
    return lines.place(made), _along_dims("key_live", builder.group.key_mask, "j")


def _forward(program: Program, group: Group, naming: Naming, described: bool) -> Kernel:
    builder = Builder(program, group, naming, described, transposed=False)
    lines = _Lines(outer=[], head=[])
    bounds, may, must, uses_tile = builder.bounds(Side.KEY, (ALL,))
    lines.outer.extend(bounds[0])
    key_lines, key_live = _key_live(builder, lines)
    tensors = _vectors(builder)
    tensors += builder.read_arguments(group.reads if group.partial else (*group.reads, *group.divisor_reads))
    maps = []
    for item in group.maps:
        text = _map_text(builder, item, (ROW, ALL), lines, {}, slopes=True)
        raw = f"raw{item.tag}"
        raw_lines: tuple[str, ...] = ()
        if item.rowmax and not (item.exponential and item.raw == item.score):
            finish = _inner(builder.full(raw, builder.near(item.raw)), raw)
            raw_lines = lines.place(builder.block({raw: builder.near(item.raw)}, (ROW, ALL), finish=finish))
        floors: tuple[str, ...] = ()
        divisor_lines: tuple[str, ...] = ()
        if not item.plain:
            roots = {builder.names.fresh("floor"): floor for floor in item.floors}
            if roots:
                lines.outer.extend(builder.block(roots, (ALL,))[0])
            floors = tuple(roots)
            notes = builder.note("p", "divisor")
            divisor_lines = builder.block({"divisor": item.scaled}, (ALL,), notes=notes, keep=False)[0]
        maps.append(replace(text, raw_lines=raw_lines, floors=floors, divisor_lines=divisor_lines))
        tensors.append(_plain(f"out{item.tag}", "vector" if program.single and not group.partial else "acc"))
        tensors += [_plain(name) for name in stored(item)]
    return Kernel(
        kind="forward",
        splits=group.splits,
        name=f"{naming.function(group.name)}_forward_kernel",
        dots=gradients(group, naming).dots,
        maps=tuple(maps),
        may=may,
        must=must,
        may_uses_tile=uses_tile,
        outer=tuple(lines.outer),
        key_lines=key_lines,
        key_live=key_live,
        **_shared(builder, tensors),
    )


def _backward_query(program: Program, group: Group, naming: Naming, described: bool) -> Kernel:
    builder = Builder(program, group, naming, described, transposed=False)
    lines = _Lines(outer=[], head=[])
    bounds, may, must, uses_tile = builder.bounds(Side.KEY, (ALL,))
    lines.outer.extend(bounds[0])
    key_lines, key_live = _key_live(builder, lines)
    group, scales = _pull(group, Side.QUERY)
    found = gradients(group, naming)
    columns = {name for _, part, _, name in found.inputs if part.read.reach == "column"}
    tensors = [*_vectors(builder), *builder.read_arguments(group.reads)]
    maps = []
    for item, own in zip(group.maps, found.wanted, strict=True):
        wanted = {name: value for name, value in own.items() if name not in columns}
        maps.append(_map_text(builder, item, (ROW, ALL), lines, wanted))
        tensors += _backward_arguments(builder, item, maps[-1])
    tensors += [_plain(f"d_{naming.tensor(name)}", _gradient(group)) for name in group.queries]
    totals = {
        reach: tuple(TotalText(total=t, gradient=name) for _, part, t, name in found.inputs if part.read.reach == reach)
        for reach in ("row", "pair")
    }
    tensors += [_plain(item.total) for item in (*totals["row"], *totals["pair"])]
    return Kernel(
        kind="query",
        name=f"{naming.function(group.name)}_query_kernel",
        dots=found.dots,
        maps=tuple(maps),
        may=may,
        must=must,
        may_uses_tile=uses_tile,
        outer=tuple(lines.outer),
        key_lines=key_lines,
        key_live=key_live,
        row_totals=totals["row"],
        pair_totals=totals["pair"],
        scales=_after(builder, scales),
        grads=True,
        **_shared(builder, tensors),
    )


def _by_key(
    program: Program, group: Group, naming: Naming, described: bool, members: Sequence[Map], *, grads: bool
) -> Kernel:
    builder = Builder(program, group, naming, described, transposed=True)
    lines = _Lines(outer=[], head=[])
    bounds, may, must, uses_tile = builder.bounds(Side.QUERY, (ALL,))
    lines.head.extend(bounds[0])
    query_lines: tuple[str, ...] = ()
    query_live = ""
    if group.query_mask != build.TRUE:
        query_lines = builder.block({"query_live": group.query_mask}, (ALL,), keep=False)[0]
        query_live = _along_dims("query_live", group.query_mask, "i")
    scales: dict[str, Expr] = {}
    if grads:
        group, scales = _pull(group, Side.KEY)
        members = group.maps
    found = gradients(group, naming)
    columns = tuple(
        TotalText(total=total, gradient=name) for _, part, total, name in found.inputs if part.read.reach == "column"
    )
    others = {name for _, part, _, name in found.inputs if part.read.reach != "column"}
    tensors = [*_vectors(builder), *builder.read_arguments(group.reads)]
    maps = []
    for item, own in zip(group.maps, found.wanted, strict=True):
        if item not in members:
            continue
        wanted = {name: value for name, value in own.items() if name not in others} if grads else {}
        maps.append(_map_text(builder, item, (KEY, HEAD, ALL), lines, wanted))
        tensors += _backward_arguments(builder, item, maps[-1])[: None if grads else len(statistics(item))]
    if grads:
        tensors += [_plain(f"d_{naming.tensor(name)}", _gradient(group)) for name in (*group.keys, group.value)]
        totals = columns
    else:
        totals = (TotalText(total="colsum", gradient=f"p{members[0].tag}"),)
    tensors += [_plain(item.total) for item in totals]
    name = "key_kernel" if grads else f"colsum{members[0].tag}_kernel"
    return Kernel(
        kind="key",
        name=f"{naming.function(group.name)}_{name}",
        dots=found.dots,
        maps=tuple(maps),
        may=may,
        must=must,
        may_uses_tile=uses_tile,
        outer=tuple(lines.outer),
        head_lines=tuple(lines.head),
        query_lines=query_lines,
        query_live=query_live,
        column_totals=totals,
        scales=_after(builder, scales),
        grads=grads,
        **_shared(builder, tensors),
    )


def _after(builder: Builder, scales: Mapping[str, Expr]) -> tuple[tuple[str, str], ...]:
    """What each vector's gradient is multiplied by after the loop, as text."""
    return tuple((builder.naming.tensor(name), builder.printer.inline(factor)) for name, factor in scales.items())


class _Shared(TypedDict):
    step: int
    tensors: tuple[Argument, ...]
    listed: bool
    sizes: tuple[str, ...]
    size_values: tuple[str, ...]
    dims: tuple[str, ...]
    dim_values: tuple[tuple[str, str], ...]
    queries: tuple[TokenTensor, ...]
    keys: tuple[TokenTensor, ...]
    value: TokenTensor
    helpers: frozenset[str]
    described: bool


def _shared(builder: Builder, tensors: Sequence[Argument]) -> _Shared:
    """What every kernel of a group has."""
    group = builder.group
    return _Shared(
        step=group.step,
        tensors=(*tensors, *builder.visit_arguments()),
        listed=bool(group.reach.listings),
        sizes=tuple(builder.sizes),
        size_values=tuple(builder.sizes.values()),
        dims=builder.dims,
        dim_values=builder.dim_values(),
        queries=tuple(map(builder.token, group.queries)),
        keys=tuple(map(builder.token, group.keys)),
        value=builder.token(group.value),
        helpers=frozenset(str(fn) for fn in builder.printer.helpers),
        described=builder.described,
    )


def _vectors(builder: Builder) -> list[Argument]:
    group = builder.group
    queries = [builder.argument(builder.token(name), Side.QUERY) for name in group.queries]
    return queries + [builder.argument(builder.token(name), Side.KEY) for name in (*group.keys, group.value)]


def _backward_arguments(builder: Builder, item: Map, text: MapText) -> list[Argument]:
    """A map's row statistics, its delta and the cotangent of its output."""
    rows = [_plain(name) for name in (*statistics(item), f"delta{item.tag}")]
    return [*rows, builder.argument(text.grad_out, Side.QUERY)]


def statistics(item: Map) -> tuple[str, ...]:
    """The row statistics that a backward kernel reads, beside delta."""
    if item.plain:
        return (f"lse{item.tag}",)
    return (f"shift{item.tag}", f"inverse{item.tag}") if item.exponential else (f"inverse{item.tag}",)


def saved(item: Map) -> tuple[str, ...]:
    """The row statistics that the backward needs of the forward."""
    return (f"lse{item.tag}",) if item.plain else (f"shift{item.tag}", f"l{item.tag}")


def stored(item: Map) -> tuple[str, ...]:
    """Every row statistic that a forward kernel writes."""
    more = [f"rowmax{item.tag}"] * item.rowmax + [f"u{item.tag}"] * item.entropy
    return (*saved(item), *more)


def _gradient(group: Group) -> str:
    """The type of vectors' gradients: those of several passes are rounded when they are added."""
    return "acc" if group.partial else "vector"


def _plain(name: str, element: str = "acc") -> Argument:
    return Argument(name=name, host=name, element=element)


def _inner(finish: Mapping[str, Callable[[Text], str]], name: str) -> dict[str, Callable[[Text], str]]:
    """A root whose statement stands in the innermost loop, whatever it varies with."""
    return {name: finish.get(name, lambda text: text.text)}

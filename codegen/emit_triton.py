"""A map as the contexts of its Triton kernels. Everything is decided here; templates/kernels.py.j2 prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from attnc.codegen import build
from attnc.codegen.kernel import ALL, HEAD, KEY, ROW, Argument, Axes, DotText, Kernel, TokenTensor, TotalText
from attnc.codegen.kernel_builder import Builder
from attnc.codegen.lower import G, Map, Program
from attnc.codegen.names import Naming
from attnc.codegen.printer import Text
from attnc.dsl.ir import Apply, Const, Expr, Fn, Side, Symbol, dependencies, postorder


def kernels(program: Program, item: Map, naming: Naming) -> tuple[Kernel, ...]:
    """The kernels of a map: forward, gradients by query, gradients by key, and the sum over queries if emitted."""
    found = [_by_query(program, item, naming, backward=False), _by_query(program, item, naming, backward=True)]
    found.append(_by_key(program, item, naming, grads=True))
    if item.colsum:
        found.append(_by_key(program, item, naming, grads=False))
    return tuple(found)


def _gradients(
    builder: Builder, levels: Sequence[Axes], wanted: Mapping[str, Expr]
) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """Statements for cotangents, and which of them a partial tile must guard: masked pairs send nothing, whatever
    their score's derivative is."""
    roots = {name: value for name, value in wanted.items() if value != G}
    if not roots:
        return tuple(() for _ in levels), ()
    finish: dict[str, Callable[[Text], str]] = {}
    for name, root in roots.items():
        finish |= builder.full(name, root)
    lines = builder.block(roots, levels, finish=finish, keep=False)
    return lines, tuple(name for name, root in roots.items() if not _scaled_g(root))


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


def _named(value: Expr, name: str) -> str:
    if value == G:
        return "g_ij"
    return "" if isinstance(value, Const) and value.value == 0 else name


def gradient_names(item: Map, naming: Naming) -> tuple[tuple[DotText, ...], dict[str, Expr], tuple[str, ...]]:
    """The dots with their cotangents' names, the cotangents that need a statement, and the name of each input
    gradient's pairwise cotangent."""
    wanted: dict[str, Expr] = {}
    dots = []
    for (symbol, query, key), gradient in zip(item.dots, item.dot_gradients, strict=True):
        name = _named(gradient, f"d_{symbol.name}")
        if name and gradient != G:
            wanted[name] = gradient
        dots.append(DotText(name=symbol.name, query=naming.tensor(query), key=naming.tensor(key), gradient=name))
    names = []
    for number, part in enumerate(item.input_gradients):
        name = "g_ij" if part.value == G else f"d_{naming.tensor(part.read.load.tensor)}_{number}_ij"
        if part.value != G:
            wanted[name] = part.value
        names.append(name)
    return tuple(dots), wanted, tuple(names)


def _by_query(program: Program, item: Map, naming: Naming, *, backward: bool) -> Kernel:
    builder = Builder(program, item, naming, transposed=False)
    levels = (ROW, ALL)
    outer: list[str] = []
    lines, may, must, uses_tile = builder.bounds(item.key_bounds, Side.KEY, (ALL,))
    outer += lines[0]
    key_lines: tuple[str, ...] = ()
    key_live = ""
    if item.key_mask != build.TRUE:
        lines = builder.block({"key_live": item.key_mask}, levels, notes=builder.note("live"), keep=False)
        outer += lines[0]
        key_lines, key_live = lines[1], "tl.trans(key_live)"
    lines = builder.block(
        {"s": item.score}, levels, finish=_inner(builder.full("s", item.score), "s"), notes=builder.note("s")
    )
    outer += lines[0]
    score_lines = lines[1]
    raw_lines: tuple[str, ...] = ()
    if item.rowmax and not backward:
        lines = builder.block({"raw": item.raw}, levels, finish=_inner(builder.full("raw", item.raw), "raw"))
        outer += lines[0]
        raw_lines = lines[1]
    lines = builder.live(levels)
    outer += lines[0]
    mask_lines = lines[-1]
    weight_lines: tuple[str, ...] = ()
    if not item.exponential:
        finish = _inner(builder.full("p", item.weight), "p")
        if backward:
            finish = {"p": partial(_divided, finish["p"], "[:, None]")}
        lines = builder.block({"p": item.weight}, levels, finish=finish, notes=builder.note("p"))
        outer += lines[0]
        weight_lines = lines[1]

    queries = tuple(builder.token(name) for name in item.queries)
    keys = tuple(builder.token(name) for name in item.keys)
    value = builder.token(item.value)
    grad_out = TokenTensor(name="do", dim=value.dim, strides=("do_stride0", "do_stride1", "do_stride2"))
    floors: tuple[str, ...] = ()
    divisor_lines: tuple[str, ...] = ()
    gradient_lines: tuple[str, ...] = ()
    guards: tuple[str, ...] = ()
    totals: dict[str, list[TotalText]] = {"row": [], "pair": [], "column": []}
    dots = tuple(
        DotText(name=symbol.name, query=naming.tensor(query), key=naming.tensor(key))
        for symbol, query, key in item.dots
    )
    tensors = [*map(builder.argument, queries), *map(builder.argument, keys), builder.argument(value)]
    if backward:
        wanted: dict[str, Expr] = {}
        made = []
        for dot, gradient in zip(dots, item.dot_gradients, strict=True):
            name = _named(gradient, f"d_{dot.name}")
            wanted |= {name: gradient} if name else {}
            made.append(DotText(name=dot.name, query=dot.query, key=dot.key, gradient=name))
        dots = tuple(made)
        for number, part in enumerate(item.input_gradients):
            total = f"d_{builder.reads[part.read.load.tensor]}_{number}"
            if part.read.reach == "column":
                continue
            name = f"{total}_ij"
            wanted[name] = part.value
            totals[part.read.reach].append(TotalText(total=total, gradient="g_ij" if part.value == G else name))
        lines, guards = _gradients(builder, levels, wanted)
        outer += lines[0]
        gradient_lines = lines[1]
        tensors += builder.read_arguments(item.reads)
        tensors.append(builder.argument(grad_out))
        tensors += [_plain(name) for name in statistics(item)]
        tensors.append(_plain("delta"))
        tensors += [_plain(f"d_{query.name}", "vector") for query in queries]
        tensors += [_plain(total.total) for total in (*totals["row"], *totals["pair"])]
    else:
        tensors += builder.read_arguments((*item.reads, *item.divisor_reads))
        tensors.append(_plain("out", "vector"))
        tensors += [_plain(name) for name in saved(item)]
        tensors += [_plain("rowmax")] * item.rowmax + [_plain("u")] * item.entropy
        if not item.plain:
            if item.floors:
                roots = {builder.names.fresh("floor"): floor for floor in item.floors}
                outer += builder.block(roots, (ALL,))[0]
                floors = tuple(roots)
            divisor_lines = builder.block({"divisor": item.scaled}, (ALL,), notes=builder.note("p"), keep=False)[0]
    prefix = naming.function(item.name)
    return Kernel(
        kind="query" if backward else "forward",
        name=f"{prefix}_query_kernel" if backward else f"{prefix}_forward_kernel",
        tensors=tuple(tensors),
        sizes=tuple(builder.sizes),
        size_values=tuple(builder.sizes.values()),
        dims=builder.dims,
        dim_values=builder.dim_values(),
        queries=queries,
        keys=keys,
        value=value,
        grad_out=grad_out,
        dots=dots,
        exponential=item.exponential,
        plain=item.plain,
        rowmax=item.rowmax,
        entropy=item.entropy,
        may=may,
        must=must,
        may_uses_tile=uses_tile,
        outer=tuple(outer),
        head_lines=(),
        key_lines=key_lines,
        query_lines=(),
        key_live=key_live,
        query_live="",
        score_lines=score_lines,
        raw_lines=raw_lines,
        mask_lines=mask_lines,
        weight_lines=weight_lines,
        divisor_lines=divisor_lines,
        floors=floors,
        gradient_lines=gradient_lines,
        guards=guards,
        row_gradients=tuple(totals["row"]),
        pair_gradients=tuple(totals["pair"]),
        column_totals=(),
        grads=backward,
        strips=backward and bool(totals["pair"]),
        helpers=_helpers(builder),
    )


def _by_key(program: Program, item: Map, naming: Naming, *, grads: bool) -> Kernel:
    builder = Builder(program, item, naming, transposed=True)
    levels = (KEY, HEAD, ALL)
    outer: list[str] = []
    head: list[str] = []
    lines, may, must, uses_tile = builder.bounds(item.query_bounds, Side.QUERY, (ALL,))
    head += lines[0]
    query_lines: tuple[str, ...] = ()
    query_live = ""
    if item.query_mask != build.TRUE:
        query_lines = builder.block({"query_live": item.query_mask}, (ALL,), notes=builder.note("live"), keep=False)[0]
        query_live = "tl.trans(query_live)"

    def place(found: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
        outer.extend(found[0])
        head.extend(found[1])
        return found[2]

    finish = _inner(builder.full("s", item.score), "s")
    score_lines = place(builder.block({"s": item.score}, levels, finish=finish, notes=builder.note("s")))
    mask_lines = place(builder.live(levels))
    weight_lines: tuple[str, ...] = ()
    if not item.exponential:
        whole = _inner(builder.full("p", item.weight), "p")["p"]
        finish = {"p": partial(_divided, whole, "[None, :]")}
        weight_lines = place(builder.block({"p": item.weight}, levels, finish=finish, notes=builder.note("p")))

    queries = tuple(builder.token(name) for name in item.queries)
    keys = tuple(builder.token(name) for name in item.keys)
    value = builder.token(item.value)
    grad_out = TokenTensor(name="do", dim=value.dim, strides=("do_stride0", "do_stride1", "do_stride2"))
    dots = []
    totals: list[TotalText] = []
    gradient_lines: tuple[str, ...] = ()
    guards: tuple[str, ...] = ()
    tensors = [*map(builder.argument, queries), *map(builder.argument, keys)]
    tensors += [builder.argument(value)] * grads
    tensors += builder.read_arguments(item.reads)
    wanted: dict[str, Expr] = {}
    for (symbol, query, key), gradient in zip(item.dots, item.dot_gradients, strict=True):
        name = _named(gradient, f"d_{symbol.name}") if grads else ""
        wanted |= {name: gradient} if name else {}
        dots.append(DotText(name=symbol.name, query=naming.tensor(query), key=naming.tensor(key), gradient=name))
    if grads:
        for number, part in enumerate(item.input_gradients):
            if part.read.reach == "column":
                total = f"d_{builder.reads[part.read.load.tensor]}_{number}"
                wanted[f"{total}_ij"] = part.value
                totals.append(TotalText(total=total, gradient="g_ij" if part.value == G else f"{total}_ij"))
        made, guards = _gradients(builder, levels, wanted)
        gradient_lines = place(made)
        tensors.append(builder.argument(grad_out))
    else:
        totals.append(TotalText(total="colsum", gradient="p"))
    tensors += [_plain(name) for name in statistics(item)]
    if grads:
        tensors.append(_plain("delta"))
        tensors += [_plain(f"d_{token.name}", "vector") for token in (*keys, value)]
    tensors += [_plain(total.total) for total in totals]
    prefix = naming.function(item.name)
    return Kernel(
        kind="key",
        name=f"{prefix}_key_kernel" if grads else f"{prefix}_colsum_kernel",
        tensors=tuple(tensors),
        sizes=tuple(builder.sizes),
        size_values=tuple(builder.sizes.values()),
        dims=builder.dims,
        dim_values=builder.dim_values(),
        queries=queries,
        keys=keys,
        value=value,
        grad_out=grad_out,
        dots=tuple(dots),
        exponential=item.exponential,
        plain=item.plain,
        rowmax=False,
        entropy=False,
        may=may,
        must=must,
        may_uses_tile=uses_tile,
        outer=tuple(outer),
        head_lines=tuple(head),
        key_lines=(),
        query_lines=query_lines,
        key_live="",
        query_live=query_live,
        score_lines=score_lines,
        raw_lines=(),
        mask_lines=mask_lines,
        weight_lines=weight_lines,
        divisor_lines=(),
        floors=(),
        gradient_lines=gradient_lines,
        guards=guards,
        row_gradients=(),
        pair_gradients=(),
        column_totals=tuple(totals),
        grads=grads,
        strips=False,
        helpers=_helpers(builder),
    )


def statistics(item: Map) -> tuple[str, ...]:
    """The row statistics that a backward kernel reads, beside delta."""
    if item.plain:
        return ("lse",)
    return ("shift", "inverse") if item.exponential else ("inverse",)


def saved(item: Map) -> tuple[str, ...]:
    """The row statistics that a forward kernel writes."""
    return ("lse",) if item.plain else ("shift", "l")


def _plain(name: str, element: str = "acc") -> Argument:
    return Argument(name=name, host=name, element=element)


def _inner(finish: Mapping[str, Callable[[Text], str]], name: str) -> dict[str, Callable[[Text], str]]:
    """A root whose statement stands in the innermost loop, whatever it varies with."""
    return {name: finish.get(name, lambda text: text.text)}


def _divided(whole: Callable[[Text], str], rows: str, text: Text) -> str:
    return f"({whole(text)}) * inverse{rows}"


def _helpers(builder: Builder) -> frozenset[str]:
    return frozenset(str(fn) for fn in builder.printer.helpers)

"""A map as the frozen contexts of its Triton kernels. Everything is decided here; templates/kernels.py.j2 prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from attnc.codegen import build
from attnc.codegen.bounds import Bounds
from attnc.codegen.lower import DrawnTable, G, L, Map, Program, S
from attnc.codegen.lower import M as SHIFT
from attnc.codegen.names import KERNEL_WORDS, Naming
from attnc.codegen.print_triton import TensorText, TritonPrinter
from attnc.codegen.printer import AND, Names, Text
from attnc.codegen.ranges import in_bounds
from attnc.codegen.simplify import simplify
from attnc.dsl.ir import Apply, Axis, Const, Expr, Fn, Kind, Load, Side, Size, dependencies, postorder

Axes = frozenset[Axis]
ROW: Axes = frozenset(("b", "h", "i"))
ALL: Axes = frozenset(("b", "h", "i", "j"))
KEY: Axes = frozenset(("b", "j"))
HEAD: Axes = frozenset(("b", "h", "j"))

PAIR = "[BLOCK_M, BLOCK_N]"
PAIR_T = "[BLOCK_N, BLOCK_M]"


@dataclass(frozen=True, kw_only=True)
class Argument:
    """A pointer argument, its further arguments, and what the host passes for each. ``element``: "vector" for the
    dtype of the query, key and value tensors, "acc" for the accumulation dtype, else a dtype of the language."""

    name: str
    host: str
    element: str = "vector"
    arguments: tuple[str, ...] = ()
    values: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TokenTensor:
    """A query, key or value tensor: its variable, its dim's constexpr and its strides' names."""

    name: str
    dim: str
    strides: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DotText:
    """A matrix product of the tile; ``gradient`` names its cotangent, empty where that is zero."""

    name: str
    query: str
    key: str
    gradient: str = ""


@dataclass(frozen=True, kw_only=True)
class TotalText:
    """A cotangent and where it is summed to: a row, a column or a strip of pairs."""

    total: str
    gradient: str


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """What templates/kernels.py.j2 needs to print one kernel."""

    kind: Literal["forward", "query", "key"]
    name: str
    tensors: tuple[Argument, ...]
    sizes: tuple[str, ...]
    dims: tuple[str, ...]
    dim_values: tuple[tuple[str, str], ...]
    queries: tuple[TokenTensor, ...]
    keys: tuple[TokenTensor, ...]
    value: TokenTensor
    grad_out: TokenTensor
    dots: tuple[DotText, ...]
    exponential: bool
    plain: bool
    rowmax: bool
    entropy: bool
    may: tuple[tuple[str, str], ...]
    must: tuple[tuple[str, str], ...]
    may_uses_tile: bool
    outer: tuple[str, ...]
    head_lines: tuple[str, ...]
    key_lines: tuple[str, ...]
    query_lines: tuple[str, ...]
    key_live: str
    query_live: str
    score_lines: tuple[str, ...]
    raw_lines: tuple[str, ...]
    mask_lines: tuple[str, ...]
    weight_lines: tuple[str, ...]
    divisor_lines: tuple[str, ...]
    floors: tuple[str, ...]
    gradient_lines: tuple[str, ...]
    guards: tuple[str, ...]
    row_gradients: tuple[TotalText, ...]
    pair_gradients: tuple[TotalText, ...]
    column_totals: tuple[TotalText, ...]
    grads: bool
    strips: bool
    helpers: frozenset[str]

    @property
    def key_outputs(self) -> tuple[TokenTensor, ...]:
        """Whose gradients a key kernel writes."""
        return (*self.keys, self.value)

    def operand(self, name: str) -> str:
        """The type that a tile is multiplied in beside ``name``: weights that are no exponential may be large, so
        they stay in the accumulation type."""
        return f"{name}.dtype" if self.exponential else "ACC"


class _Builder:
    """The state of printing one kernel: names taken, expressions already named, helpers used."""

    def __init__(self, program: Program, item: Map, naming: Naming, *, transposed: bool) -> None:
        self.program = program
        self.map = item
        self.naming = naming
        self.transposed = transposed
        self.names = Names([*KERNEL_WORDS, *naming.taken])
        self.reads = {read.tensor: naming.tensor(read.tensor) for read in (*item.reads, *item.divisor_reads)}
        self.texts: dict[str, TensorText] = {}
        self.sized: dict[str, list[int]] = {name: [] for name in self.reads}
        for tensor in self.reads:
            self._describe(tensor)
        self.dims, self.dim_of = _dims(program, item, naming)
        leaves: dict[Expr, str] = {
            build.index("b"): "b",
            build.index("h"): "h",
            build.index("i"): "i",
            build.index("j"): "j",
            build.offset(Side.QUERY): "q_offset",
            build.offset(Side.KEY): "kv_offset",
            G: "g_ij",
            S: "s",
            L: "l",
            SHIFT: "m",
            **{build.symbol(word, Kind.INT): word for word in ("i0", "i1", "j0", "j1")},
            **{symbol: symbol.name for symbol, _, _ in item.dots},
        }
        self.sizes: dict[str, str] = {}
        self.printer = TritonPrinter(leaves, self.names, self.texts)
        self._name_sizes()
        self.symbols: dict[Expr, Axes] = {G: ALL, S: ALL, **{symbol: ALL for symbol, _, _ in item.dots}}

    def _describe(self, tensor: str) -> None:
        uses = [use for use in (*self.map.reads, *self.map.divisor_reads) if use.tensor == tensor]
        axes = self.naming.axes(tensor)
        text = TensorText(
            pointer=f"{self.reads[tensor]}_ptr",
            strides=[f"{self.reads[tensor]}_stride{axis}" for axis in range(len(axes))],
            sizes=[f"{self.reads[tensor]}_size{axis}" for axis in range(len(axes))],
            kind=uses[0].kind,
        )
        drawn = any(isinstance(table, DrawnTable) and table.name == tensor for table in self.program.tables)
        for use in uses:
            if drawn:
                text.safe[use] = (True,) * len(axes)
            elif self.map.length == build.size("M") or "j" not in dependencies(use):
                text.safe[use] = in_bounds(use, axes)
            else:  # keys run over a derived length
                text.safe[use] = (False,) * len(axes)
            unsafe = [axis for axis, safe in enumerate(text.safe[use]) if not safe]
            self.sized[tensor] += [axis for axis in unsafe if axis not in self.sized[tensor]]
        self.texts[tensor] = text

    def _name_sizes(self) -> None:
        leaves = self.printer.leaves
        standard = {"H": "H", "G": "G", "N": "N"}
        for name, text in standard.items():
            leaves[build.size(name)] = text
        leaves[self.map.length] = "M"
        for dim, text in self.dim_of.items():
            if isinstance(dim, Size):
                leaves[dim] = text
        bounds = [end for bound in (self.map.key_bounds, self.map.query_bounds) for end in ends(bound)]
        roots = [self.map.score, self.map.raw, self.map.mask, self.map.weight, self.map.scaled, *self.map.floors]
        roots += [*self.map.dot_gradients, *(item.value for item in self.map.input_gradients), *bounds]
        for node in postorder(*roots):
            if isinstance(node, Size) and node not in leaves:
                name = f"size_{node.name}"
                leaves[node] = name
                self.sizes[name] = self.naming.size(node.name)

    def block(
        self,
        roots: Mapping[str, Expr],
        levels: Sequence[Axes],
        *,
        finish: Mapping[str, Callable[[Text], str]] | None = None,
        notes: Mapping[str, str] | None = None,
        keep: bool = True,
    ) -> tuple[tuple[str, ...], ...]:
        """Statements a level. ``keep``: later blocks may use the names that this one made."""
        made = self.printer.block(roots, levels, symbols=self.symbols, finish=finish, notes=notes)
        if keep:
            self.printer.leaves.update(made.named)
        return made.lines

    def token(self, name: str) -> TokenTensor:
        ident = self.naming.tensor(name)
        return TokenTensor(
            name=ident,
            dim=self.dim_of[self.naming.dim(name)],
            strides=tuple(f"{ident}_stride{axis}" for axis in range(3)),
        )

    def dim_values(self) -> tuple[tuple[str, str], ...]:
        """Each dim's constexpr and what the host passes for it."""
        found: dict[str, str] = {}
        for name in (*self.map.queries, self.map.value):
            found.setdefault(self.dim_of[self.naming.dim(name)], f"{self.naming.tensor(name)}.shape[3]")
        return tuple(found.items())

    def argument(self, token: TokenTensor) -> Argument:
        values = tuple(f"{token.name}.stride({axis})" for axis in range(3))
        return Argument(name=token.name, host=token.name, arguments=token.strides, values=values)

    def read_arguments(self, reads: Sequence[Load]) -> tuple[Argument, ...]:
        found = []
        for tensor in dict.fromkeys(read.tensor for read in reads):
            name, text = self.reads[tensor], self.texts[tensor]
            sized = sorted(self.sized[tensor])
            found.append(
                Argument(
                    name=name,
                    host=f"{name}.view(torch.uint8)" if text.kind is Kind.BOOL else name,
                    element=self.naming.element(tensor),
                    arguments=(*text.strides, *(text.sizes[axis] for axis in sized)),
                    values=(
                        *(f"_stride({name}, {axis})" for axis in range(len(text.strides))),
                        *(f"{name}.shape[{axis}]" for axis in sized),
                    ),
                )
            )
        return tuple(found)

    def bounds(
        self, bound: Bounds, side: Side, levels: Sequence[Axes]
    ) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, str], ...], tuple[tuple[str, str], ...], bool]:
        """Statements for the ends of the live intervals, in tensor rows, and their names; "" for open ends."""
        roots, may, must, uses = bound_names(bound, side, self.names)
        lines = self.block(roots, levels, keep=False) if roots else tuple(() for _ in levels)
        return lines, may or (("0", "0"),), must, uses

    def live(self, levels: Sequence[Axes]) -> tuple[tuple[str, ...], ...]:
        """Statements that make ``live`` of a partial tile: the mask, and that the row exists."""
        tail = "(row < N)[None, :]" if self.transposed else "(col < M)[None, :]"
        if not self.map.masked:
            return (*(() for _ in levels[1:]), (f"live = {tail}",))
        finish = {"live": lambda text: f"{text.within(AND)} & {tail}"}
        return self.block({"live": self.map.mask}, levels, finish=finish, notes=self.note("live"), keep=False)

    def note(self, name: str) -> dict[str, str]:
        line = self.naming.line(self.map.name, name)
        return {name: f"  # {line}"} if line else {}

    def full(self, name: str, root: Expr) -> dict[str, Callable[[Text], str]]:
        """A value that does not vary with both indices still fills the tile."""
        needs = any(node in self.symbols for node in postorder(root)) or {"i", "j"} <= dependencies(root)
        shape = PAIR_T if self.transposed else PAIR
        return {} if needs else {name: lambda text: f"{text.within(3)} + tl.zeros({shape}, ACC)"}


def ends(bound: Bounds) -> tuple[Expr, ...]:
    """Every end of every interval that is not open."""
    return tuple(end for interval in (*bound.may, *bound.must) for end in interval if end is not None)


def bound_names(
    bound: Bounds, side: Side, names: Names
) -> tuple[dict[str, Expr], tuple[tuple[str, str], ...], tuple[tuple[str, str], ...], bool]:
    """The ends of the live intervals in tensor rows under fresh names, the names as (lo, hi) of ``may`` and of
    ``must`` ("" for open ends), and whether they vary with the tile."""
    roots: dict[str, Expr] = {}
    found: dict[str, list[tuple[str, str]]] = {"may": [], "must": []}
    for word, intervals in (("may", bound.may), ("must", bound.must)):
        for number, interval in enumerate(intervals):
            pair = ["", ""]
            for place, end in enumerate(interval):
                if end is not None:
                    pair[place] = names.fresh(f"{word}{number}_{('lo', 'hi')[place]}")
                    (roots[pair[place]],) = simplify((build.sub(end, build.offset(side)),))
            found[word].append((pair[0], pair[1]))
    below = postorder(*roots.values()) if roots else []
    return roots, tuple(found["may"]), tuple(found["must"]), bound.first in below or bound.last in below


def _dims(program: Program, item: Map, naming: Naming) -> tuple[tuple[str, ...], dict[Expr, str]]:
    """The distinct vector sizes of a map, as constexpr names."""
    found: dict[Expr, str] = {}
    for name in (*item.queries, item.value):
        dim = naming.dim(name)
        if dim not in found:
            found[dim] = dim.name if isinstance(dim, Size) and dim.name in ("D", "E") else f"D{len(found)}"
    for query, key in ((query, key) for _, query, key in item.dots):
        found.setdefault(naming.dim(key), found[naming.dim(query)])
    return tuple(dict.fromkeys(found.values())), found


def kernels(program: Program, item: Map, naming: Naming) -> tuple[Kernel, ...]:
    """The kernels of a map: forward, gradients by query, gradients by key, and the sum over queries if emitted."""
    found = [_by_query(program, item, naming, backward=False), _by_query(program, item, naming, backward=True)]
    found.append(_by_key(program, item, naming, grads=True))
    if item.colsum:
        found.append(_by_key(program, item, naming, grads=False))
    return tuple(found)


def _gradients(
    builder: _Builder, levels: Sequence[Axes], wanted: Mapping[str, Expr]
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
            return (x == G and not dependencies(y)) or (y == G and not dependencies(x))
        case Apply(fn=Fn.NEG, args=(x,)):
            return x == G
    return False


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
    builder = _Builder(program, item, naming, transposed=False)
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
    builder = _Builder(program, item, naming, transposed=True)
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


def _helpers(builder: _Builder) -> frozenset[str]:
    return frozenset(str(fn) for fn in builder.printer.helpers)

"""A program as the frozen contexts of its PyTorch text: blocked maps, row statistics, prologue, output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from attnc.codegen import build
from attnc.codegen.divisor import L
from attnc.codegen.divisor import M as SHIFT
from attnc.codegen.emit_prepass import PrepassText, prepass, span_leaves
from attnc.codegen.emit_triton import gradients, saved, statistics, stored
from attnc.codegen.kernel import ALL, HEADS, ROW, Axes, DotText
from attnc.codegen.kernel_builder import bound_names, host_sizes
from attnc.codegen.lower import G, S
from attnc.codegen.names import KERNEL_WORDS, Naming
from attnc.codegen.print_torch import TorchPrinter
from attnc.codegen.printer import SUM, Names, Text
from attnc.codegen.program import Group, Map, Program
from attnc.codegen.simplify import simplify
from attnc.dsl.ir import (
    Expr,
    Kind,
    Load,
    Side,
    postorder,
)

_NUMBERS = tuple(build.symbol(word, Kind.INT) for word in ("i0", "i1", "j0", "j1"))


@dataclass(frozen=True, kw_only=True)
class TorchMap:
    """One map's PyTorch text. ``tag`` ends the names of what it does not share with the other maps of its group."""

    tag: str
    name: str
    exponential: bool
    plain: bool
    masked: bool
    rowmax: bool
    entropy: bool
    colsum: bool
    lse: bool
    total: bool
    saved: tuple[str, ...]
    stored: tuple[str, ...]
    statistics: tuple[str, ...]
    score_lines: tuple[str, ...]
    raw_lines: tuple[str, ...]
    mask_lines: tuple[str, ...]
    weight_lines: tuple[str, ...]
    floor_lines: tuple[str, ...]
    divisor_lines: tuple[str, ...]
    gradient_lines: tuple[str, ...]
    guards: tuple[str, ...]
    row_lines: tuple[str, ...]
    divisor_totals: tuple[str, ...]

    @property
    def extras(self) -> tuple[str, ...]:
        """What the op returns of this map beyond out and the saved rows."""
        return tuple(
            f"{name}{self.tag}"
            for name, wanted in (
                ("lse", self.lse and not self.plain),
                ("total", self.total),
                ("rowmax", self.rowmax),
                ("entropy", self.entropy),
                ("colsum", self.colsum),
            )
            if wanted
        )


@dataclass(frozen=True, kw_only=True)
class TorchGroup:
    """What templates/eager.py.j2 and templates/op.py.j2 need to print one group of maps."""

    prefix: str
    partial: bool
    splits: bool
    arguments: str
    tensor_arguments: tuple[str, ...]
    size_arguments: tuple[str, ...]
    queries: tuple[str, ...]
    keys: tuple[str, ...]
    value: str
    reads: tuple[str, ...]
    input_totals: tuple[str, ...]
    dots: tuple[DotText, ...]
    index_dots: tuple[DotText, ...]  # that say where gradients of inputs go, pair by pair
    maps: tuple[TorchMap, ...]
    out_dtype: str
    may: tuple[tuple[str, str], ...]
    must: tuple[tuple[str, str], ...]
    uses_tile: bool
    step: int
    outer0: tuple[str, ...]
    outer: tuple[str, ...]
    key_lines: tuple[str, ...]
    zeroed: tuple[str, ...]
    query_lines: tuple[str, ...]
    prepass: PrepassText
    accumulate: tuple[tuple[str, str], ...]
    scatter: tuple[tuple[str, str, str, str], ...]

    @property
    def differentiable(self) -> tuple[str, ...]:
        """Inputs that take gradients: through scores, or through divisors."""
        through = {*self.input_totals, *(name for item in self.maps for name in item.divisor_totals)}
        return tuple(name for name in self.reads if name in through)

    @property
    def pair_inputs(self) -> tuple[str, ...]:
        """Inputs whose gradients need the pairwise cotangents themselves."""
        return tuple(dict.fromkeys(name for name, _, reach, _ in self.scatter if reach == "pair"))

    @property
    def computed(self) -> tuple[str, ...]:
        """What the forward functions give, map after map."""
        return tuple(name for item in self.maps for name in (f"out{item.tag}", *item.stored))

    @property
    def computed_rows(self) -> tuple[str, ...]:
        """The same, as the blocked PyTorch code calls it."""
        return tuple(name for item in self.maps for name in (f"out{item.tag}", *(f"{row}_rows" for row in item.stored)))

    @property
    def backward_rows(self) -> tuple[str, ...]:
        """What a backward kernel reads of each map: statistics, delta, the cotangent of its output."""
        return tuple(name for item in self.maps for name in (*item.statistics, f"delta{item.tag}", f"do{item.tag}"))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Everything that the op returns, map after map."""
        return tuple(name for item in self.maps for name in (f"out{item.tag}", *item.saved, *item.extras))


def _leaves(group: Group) -> dict[Expr, str]:
    rows = build.sub(build.index("i"), build.offset(Side.QUERY))
    cols = build.sub(build.index("j"), build.offset(Side.KEY))
    return {
        build.index("b"): "b",
        build.index("h"): "h",
        build.index("i"): "i",
        build.index("j"): "j",
        build.offset(Side.QUERY): "base",
        build.offset(Side.KEY): "kv_offset",
        rows: "rows",
        cols: "cols",
        L: "l",
        SHIFT: "m",
        **{number: number.name for number in _NUMBERS},
        **{symbol: symbol.name for symbol, _, _ in group.dots},
        **span_leaves(group),
    }


class _Builder:
    """The state of printing one group in PyTorch."""

    def __init__(self, group: Group, naming: Naming) -> None:
        self.group = group
        self.naming = naming
        reads = (*group.reads, *group.divisor_reads)
        self.tensors = {read.tensor: naming.tensor(read.tensor) for read in reads}
        hosts = host_sizes(group, naming)
        self.sizes = tuple(host for size, host in hosts.items() if host == naming.size(size.name))
        self.leaves = _leaves(group)
        self.leaves |= dict(hosts.items())
        self.names = Names([*KERNEL_WORDS, *naming.taken])
        self.printer = TorchPrinter(self.leaves, self.names, self.tensors, _NUMBERS)
        self.symbols: dict[Expr, Axes] = {
            G: ALL,
            S: ALL,
            **{symbol: ALL for symbol, _, _ in group.dots},
            **dict.fromkeys(_NUMBERS, ROW),
        }
        self.outer0: list[str] = []
        self.outer: list[str] = []
        self.innermost: set[Expr] = set()

    def enter(self, item: Map) -> None:
        """From here on, what is printed belongs to this map. Sums over columns print one map alone: where there are
        some, no map uses what another named inside its loop."""
        own = {S, G}
        if any(other.colsum for other in self.group.maps):
            for node in self.innermost:
                del self.printer.leaves[node]
            self.innermost.clear()
        kept = {node: text for node, text in self.printer.leaves.items() if not own & set(postorder(node))}
        self.printer.leaves = kept | {S: f"s{item.tag}", G: f"g_ij{item.tag}"}

    def block(
        self,
        roots: Mapping[str, Expr],
        finish: Mapping[str, Callable[[Text], str]],
        notes: Mapping[str, str] | None = None,
        *,
        keep: bool = True,
    ) -> tuple[str, ...]:
        """Statements of the innermost level; those of outer levels are put where they belong. ``keep``: later blocks
        may use the names that this one made."""
        levels = (HEADS, ROW, ALL)
        made = self.printer.block(roots, levels, symbols=self.symbols, finish=finish, notes=notes)
        if keep:
            self.printer.leaves.update(made.named)
            inside = {line.split(" = ")[0] for line in made.lines[2]}
            self.innermost |= {node for node, name in made.named.items() if name in inside}
        self.outer0.extend(made.lines[0])
        self.outer.extend(made.lines[1])
        return made.lines[2]

    def inner(self, name: str, root: Expr, *, shape: bool = False) -> dict[str, Callable[[Text], str]]:
        """A root whose statement stands in the innermost loop; ``shape``: and which fills the tile."""
        if shape and not any(node in self.symbols for node in postorder(root)):
            sizes = "stop - start, end - at" if self.group.step == 1 else "rows.shape[2], cols.shape[3]"
            zeros = f"torch.zeros(B, H, {sizes}, device=device, dtype=acc)"
            return {name: lambda text: f"{text.within(SUM)} + {zeros}"}
        if root.kind is Kind.BOOL and self.printer.number(root):
            return {name: lambda text: f"torch.full((1, 1, 1, 1), {text.text}, device=device)"}
        return {name: lambda text: text.text}

    def note(self, item: Map, what: str, name: str) -> dict[str, str]:
        line = self.naming.line(item.name, what)
        return {name: f"  # {line}"} if line else {}

    def index(self, load: Load) -> str:
        """The indices of a read, each as one expression, with a comma before each."""
        return "".join(f", {inline(at, self.leaves, self.tensors, self.names)}" for at in load.index)


def torch_group(program: Program, group: Group, naming: Naming) -> TorchGroup:
    """The PyTorch context of one group."""
    builder = _Builder(group, naming)
    before = prepass(group, naming, builder.leaves, builder.tensors)
    queries = tuple(naming.tensor(name) for name in group.queries)
    keys = tuple(naming.tensor(name) for name in group.keys)
    value = naming.tensor(group.value)
    reads = tuple(dict.fromkeys(builder.tensors.values()))
    bound_roots, may, must, uses_tile = bound_names(group.reach.keys.bounds, Side.KEY, builder.names)
    if bound_roots:
        builder.outer += builder.printer.block(bound_roots, (ALL,), symbols=builder.symbols).lines[0]
    if group.residue is not None:
        root = {"residues": group.residue.rows(Side.KEY, build.index("i"))}
        finish: dict[str, Callable[[Text], str]] = {"residues": lambda text: f"torch.unique({text.text}).tolist()"}
        builder.outer += builder.printer.block(root, (ALL,), symbols=builder.symbols, finish=finish).lines[0]
    key_lines: tuple[str, ...] = ()
    zeroed: tuple[str, ...] = ()
    if group.key_mask != build.TRUE:
        key_lines = builder.block({"key_live": group.key_mask}, builder.inner("key_live", group.key_mask), keep=False)
        zeroed = (*(f"{key}_tile" for key in keys), f"{value}_values")
    found = gradients(group, naming)
    maps = tuple(
        _torch_map(program, builder, item, wanted) for item, wanted in zip(group.maps, found.wanted, strict=True)
    )
    query_lines: tuple[str, ...] = ()
    if group.query_mask != build.TRUE:
        finish = builder.inner("query_live", group.query_mask)
        query_lines = builder.printer.block({"query_live": group.query_mask}, (ALL,), finish=finish).lines[0]
    accumulate = []
    scatter = []
    indices = set[Expr]()
    for _, part, total, name in found.inputs:
        load = part.read.load
        ident = builder.tensors[load.tensor]
        accumulate.append((ident, f"_accumulate(d_{ident}, {name}{builder.index(load)})"))
        indices.update(postorder(*load.index))
        scatter.append((ident, total, part.read.reach, builder.index(load)))
    arguments = (*queries, *keys, value, *reads, "q_offsets", "B", "H", "N", "q_offset", "kv_offset", *builder.sizes)
    return TorchGroup(
        prefix=naming.function(group.name),
        partial=group.partial,
        splits=group.splits,
        arguments=", ".join(arguments),
        tensor_arguments=(*queries, *keys, value, *reads),
        size_arguments=builder.sizes,
        queries=queries,
        keys=keys,
        value=value,
        reads=reads,
        input_totals=tuple(dict.fromkeys(name for name, _, _, _ in scatter)),
        dots=found.dots,
        index_dots=tuple(dot for dot, (symbol, _, _) in zip(found.dots, group.dots, strict=True) if symbol in indices),
        maps=maps,
        out_dtype=f"{value}.dtype" if program.single and not group.partial else "acc",
        may=may,
        must=must,
        uses_tile=uses_tile,
        step=group.step,
        outer0=tuple(builder.outer0),
        outer=tuple(builder.outer),
        key_lines=key_lines,
        zeroed=zeroed,
        query_lines=query_lines,
        prepass=before,
        accumulate=tuple(accumulate),
        scatter=tuple(scatter),
    )


def _torch_map(program: Program, builder: _Builder, item: Map, wanted: Mapping[str, Expr]) -> TorchMap:
    builder.enter(item)
    score, raw, live, weight = (f"{word}{item.tag}" for word in ("s", "raw", "live", "p"))
    inner, note = builder.inner, builder.note
    score_lines = builder.block({score: item.score}, inner(score, item.score, shape=True), note(item, "s", score))
    raw_lines: tuple[str, ...] = ()
    if item.rowmax:
        # The forward alone prints it: the backward must not use its names.
        raw_lines = builder.block({raw: item.raw}, inner(raw, item.raw, shape=True), keep=False)
    residue = builder.group.residue
    # Keys of several classes may meet one block of queries: the congruence is a part of the mask here.
    mask = item.mask if residue is None else build.all_of((residue.condition, item.mask))
    (mask,) = simplify((mask,))
    mask_lines = builder.block({live: mask}, inner(live, mask), note(item, "live", live), keep=False)
    weight_lines: tuple[str, ...] = ()
    if not item.exponential:
        finish = inner(weight, item.weight, shape=True)
        weight_lines = builder.block({weight: item.weight}, finish, note(item, "p", weight))
    finish = {}
    for name, root in wanted.items():
        finish |= inner(name, root)
    gradient_lines = builder.block(wanted, finish, keep=False) if wanted else ()

    floor_lines: list[str] = []
    divisor_lines: tuple[str, ...] = ()
    row_lines: list[str] = []
    divisor_totals: dict[str, None] = {}
    if not item.plain:
        printer = TorchPrinter(builder.leaves, builder.names, builder.tensors, _NUMBERS)
        for floor in item.floors:
            at_least = "torch.clamp(m, min={})" if printer.number(floor) else "torch.maximum(m, {})"
            floor_lines += printer.block({"m": floor}, (ALL,), finish={"m": partial(_put, at_least)}).lines[0]
        whole = "torch.full_like(l, {})" if printer.number(item.scaled) else "{}"
        finish = {"divisor": partial(_put, whole)}
        notes = note(item, "p", "divisor")
        divisor_lines = printer.block({"divisor": item.scaled}, (ALL,), finish=finish, notes=notes).lines[0]
        parts = {"by_l": item.scaled_by_l, **{f"by_read{n}": e for n, (_, e) in enumerate(item.scaled_by_read)}}
        row_lines += printer.block(parts, (ALL,)).lines[0]
        for number, (load, _) in enumerate(item.scaled_by_read):
            ident = builder.tensors[load.tensor]
            divisor_totals[ident] = None
            row_lines.append(f"_accumulate(e_{ident}, d_log * by_read{number} / divisor{builder.index(load)})")

    emitted = {emit.what for emit in program.attention.emits if emit.branch == item.name}
    return TorchMap(
        tag=item.tag,
        name=item.name,
        exponential=item.exponential,
        plain=item.plain,
        masked=mask != build.TRUE,
        rowmax=item.rowmax,
        entropy=item.entropy,
        colsum=item.colsum,
        lse="lse" in emitted,
        total="total" in emitted,
        saved=saved(item),
        stored=stored(item),
        statistics=statistics(item),
        score_lines=score_lines,
        raw_lines=raw_lines,
        mask_lines=mask_lines,
        weight_lines=weight_lines,
        floor_lines=tuple(floor_lines),
        divisor_lines=divisor_lines,
        gradient_lines=gradient_lines,
        guards=tuple(wanted),
        row_lines=tuple(row_lines),
        divisor_totals=tuple(divisor_totals),
    )


def _put(form: str, text: Text) -> str:
    return form.format(text.text)


def inline(root: Expr, leaves: Mapping[Expr, str], tensors: Mapping[str, str], names: Names) -> str:
    """An expression on one line, nothing shared."""
    printer = TorchPrinter(leaves, names, tensors, _NUMBERS)
    return printer.inline(root)

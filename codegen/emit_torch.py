"""A program as the frozen contexts of its PyTorch text: blocked maps, row statistics, prologue, output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from attnc.codegen import build
from attnc.codegen.emit_triton import gradient_names, saved, statistics
from attnc.codegen.kernel import ALL, ROW, Axes, DotText
from attnc.codegen.kernel_builder import bound_names, host_sizes
from attnc.codegen.lower import G, L, Map, Program, S
from attnc.codegen.lower import M as SHIFT
from attnc.codegen.names import KERNEL_WORDS, Naming
from attnc.codegen.print_torch import TorchPrinter
from attnc.codegen.printer import SUM, Names, Text
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
    """What templates/eager.py.j2 and templates/op.py.j2 need to print one map."""

    prefix: str
    branch: str
    arguments: str
    call: str
    tensor_arguments: tuple[str, ...]
    size_arguments: tuple[str, ...]
    queries: tuple[str, ...]
    keys: tuple[str, ...]
    value: str
    reads: tuple[str, ...]
    differentiable: tuple[str, ...]
    input_totals: tuple[str, ...]
    rows: tuple[str, ...]
    saved: tuple[str, ...]
    statistics: tuple[str, ...]
    dots: tuple[DotText, ...]
    exponential: bool
    plain: bool
    masked: bool
    rowmax: bool
    entropy: bool
    colsum: bool
    lse: bool
    total: bool
    out_dtype: str
    may: tuple[tuple[str, str], ...]
    must: tuple[tuple[str, str], ...]
    uses_tile: bool
    outer0: tuple[str, ...]
    outer: tuple[str, ...]
    key_lines: tuple[str, ...]
    zeroed: tuple[str, ...]
    query_lines: tuple[str, ...]
    score_lines: tuple[str, ...]
    raw_lines: tuple[str, ...]
    mask_lines: tuple[str, ...]
    weight_lines: tuple[str, ...]
    floor_lines: tuple[str, ...]
    divisor_lines: tuple[str, ...]
    gradient_lines: tuple[str, ...]
    guards: tuple[str, ...]
    accumulate: tuple[tuple[str, str], ...]
    by_l: str
    row_lines: tuple[str, ...]
    divisor_totals: tuple[str, ...]
    scatter: tuple[tuple[str, str, str, str], ...]

    @property
    def pair_inputs(self) -> tuple[str, ...]:
        """Inputs whose gradients need the pairwise cotangents themselves."""
        return tuple(dict.fromkeys(name for name, _, reach, _ in self.scatter if reach == "pair"))

    @property
    def extras(self) -> tuple[str, ...]:
        """What the op returns beyond out and the saved rows."""
        return tuple(
            name
            for name, wanted in (
                ("lse", self.lse and not self.plain),
                ("total", self.total),
                ("rowmax", self.rowmax),
                ("entropy", self.entropy),
                ("colsum", self.colsum),
            )
            if wanted
        )


def _leaves(item: Map) -> dict[Expr, str]:
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
        G: "g_ij",
        S: "s",
        L: "l",
        SHIFT: "m",
        **{number: number.name for number in _NUMBERS},
        **{symbol: symbol.name for symbol, _, _ in item.dots},
    }


def torch_map(program: Program, item: Map, naming: Naming) -> TorchMap:
    """The PyTorch context of one map."""
    queries = tuple(naming.tensor(name) for name in item.queries)
    keys = tuple(naming.tensor(name) for name in item.keys)
    value = naming.tensor(item.value)
    reads = tuple(dict.fromkeys(naming.tensor(read.tensor) for read in (*item.reads, *item.divisor_reads)))
    tensors = {read.tensor: naming.tensor(read.tensor) for read in (*item.reads, *item.divisor_reads)}
    leaves = _leaves(item)
    names = Names([*KERNEL_WORDS, *naming.taken])
    hosts = host_sizes(item, naming)
    leaves.update(hosts)
    sizes = [size.name for size, host in hosts.items() if host == naming.size(size.name)]
    printer = TorchPrinter(leaves, names, tensors, _NUMBERS)
    symbols: dict[Expr, Axes] = {
        G: ALL,
        S: ALL,
        **{symbol: ALL for symbol, _, _ in item.dots},
        **dict.fromkeys(_NUMBERS, ROW),
    }

    def block(
        made: Mapping[str, Expr],
        finish: Mapping[str, Callable[[Text], str]] | None = None,
        notes: Mapping[str, str] | None = None,
        keep: bool = True,
    ) -> tuple[tuple[str, ...], ...]:
        result = printer.block(made, (frozenset(("b", "h")), ROW, ALL), symbols=symbols, finish=finish, notes=notes)
        if keep:
            printer.leaves.update(result.named)
        return result.lines

    outer0: list[str] = []
    outer: list[str] = []

    def place(lines: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
        outer0.extend(lines[0])
        outer.extend(lines[1])
        return lines[2]

    def inner(name: str, root: Expr, shape: bool = False) -> dict[str, Callable[[Text], str]]:
        if shape and not any(node in symbols for node in postorder(root)):
            return {
                name: lambda text: (
                    f"{text.within(SUM)} + torch.zeros(B, H, stop - start, end - at, device=device, dtype=acc)"
                )
            }
        if root.kind is Kind.BOOL and printer.number(root):
            return {name: lambda text: f"torch.full((1, 1, 1, 1), {text.text}, device=device)"}
        return {name: lambda text: text.text}

    def note(what: str) -> dict[str, str]:
        line = naming.line(item.name, what)
        return {what: f"  # {line}"} if line else {}

    bound_roots, may, must, uses_tile = bound_names(item.key_bounds, Side.KEY, names)
    if bound_roots:
        lines = printer.block(bound_roots, (ALL,), symbols=symbols)
        outer += lines.lines[0]
    key_lines: tuple[str, ...] = ()
    zeroed: tuple[str, ...] = ()
    if item.key_mask != build.TRUE:
        key_lines = place(block({"key_live": item.key_mask}, inner("key_live", item.key_mask), keep=False))
        zeroed = (*(f"{key}_tile" for key in keys), f"{value}_values")
    score_lines = place(block({"s": item.score}, inner("s", item.score, shape=True), note("s")))
    raw_lines = place(block({"raw": item.raw}, inner("raw", item.raw, shape=True))) if item.rowmax else ()
    mask_lines = place(block({"live": item.mask}, inner("live", item.mask), note("live"), keep=False))
    weight_lines: tuple[str, ...] = ()
    if not item.exponential:
        weight_lines = place(block({"p": item.weight}, inner("p", item.weight, shape=True), note("p")))
    query_lines: tuple[str, ...] = ()
    if item.query_mask != build.TRUE:
        query_lines = sum(block({"query_live": item.query_mask}, inner("query_live", item.query_mask), keep=False), ())

    dots, wanted, names_of = gradient_names(item, naming)
    finish: dict[str, Callable[[Text], str]] = {}
    for name, root in wanted.items():
        finish |= inner(name, root)
    gradient_lines = place(block(wanted, finish, keep=False)) if wanted else ()
    accumulate = []
    totals: dict[str, None] = {}
    scatter = []
    for number, part in enumerate(item.input_gradients):
        ident = tensors[part.read.load.tensor]
        totals[ident] = None
        index = _index_texts(part.read.load, leaves, tensors, names)
        accumulate.append((ident, f"_accumulate(d_{ident}, {', '.join((names_of[number], *index))})"))
        scatter.append((ident, f"d_{ident}_{number}", part.read.reach, ", ".join(index)))

    floor_lines: list[str] = []
    divisor_lines: list[str] = []
    row_lines: list[str] = []
    divisor_totals: dict[str, None] = {}
    by_l = "1.0"
    if not item.plain:
        rows_printer = TorchPrinter(leaves, names, tensors, _NUMBERS)
        for floor in item.floors:
            at_least = "torch.clamp(m, min={})" if rows_printer.number(floor) else "torch.maximum(m, {})"
            finish = {"m": partial(_put, at_least)}
            floor_lines += rows_printer.block({"m": floor}, (ALL,), finish=finish).lines[0]
        finish = (
            {"divisor": lambda text: f"torch.full_like(l, {text.text})"} if rows_printer.number(item.scaled) else {}
        )
        made = rows_printer.block({"divisor": item.scaled}, (ALL,), finish=finish, notes=_renamed(note("p"), "divisor"))
        divisor_lines += made.lines[0]
        parts = {"by_l": item.scaled_by_l, **{f"by_read{n}": e for n, (_, e) in enumerate(item.scaled_by_read)}}
        made = rows_printer.block(parts, (ALL,))
        row_lines += made.lines[0]
        for number, (load, _) in enumerate(item.scaled_by_read):
            ident = tensors[load.tensor]
            divisor_totals[ident] = None
            index = _index_texts(load, leaves, tensors, names)
            row_lines.append(f"_accumulate(e_{ident}, {', '.join((f'd_log * by_read{number} / divisor', *index))})")

    attention = program.attention
    emitted = {emit.what for emit in attention.emits if emit.branch == item.name}
    differentiable = tuple(name for name in reads if name in totals or name in divisor_totals)
    arguments = (*queries, *keys, value, *reads, "q_offsets", "B", "H", "N", "q_offset", "kv_offset")
    size_arguments = tuple(naming.size(name) for name in sizes)
    return TorchMap(
        prefix=naming.function(item.name),
        branch=item.name,
        arguments=", ".join((*arguments, *size_arguments)),
        call=", ".join((*arguments, *size_arguments)),
        tensor_arguments=(*queries, *keys, value, *reads),
        size_arguments=size_arguments,
        queries=queries,
        keys=keys,
        value=value,
        reads=reads,
        differentiable=differentiable,
        input_totals=tuple(totals),
        rows=(*saved(item), *(["rowmax"] if item.rowmax else []), *(["u"] if item.entropy else [])),
        saved=saved(item),
        statistics=statistics(item),
        dots=dots,
        exponential=item.exponential,
        plain=item.plain,
        masked=item.masked,
        rowmax=item.rowmax,
        entropy=item.entropy,
        colsum=item.colsum,
        lse="lse" in emitted,
        total="total" in emitted,
        out_dtype=f"{value}.dtype" if program.single else "acc",
        may=may,
        must=must,
        uses_tile=uses_tile,
        outer0=tuple(outer0),
        outer=tuple(outer),
        key_lines=key_lines,
        zeroed=zeroed,
        query_lines=query_lines,
        score_lines=score_lines,
        raw_lines=raw_lines,
        mask_lines=mask_lines,
        weight_lines=weight_lines,
        floor_lines=tuple(floor_lines),
        divisor_lines=tuple(divisor_lines),
        gradient_lines=gradient_lines,
        guards=tuple(wanted),
        accumulate=tuple(accumulate),
        by_l=by_l,
        row_lines=tuple(row_lines),
        divisor_totals=tuple(divisor_totals),
        scatter=tuple(scatter),
    )


def _put(form: str, text: Text) -> str:
    return form.format(text.text)


def _renamed(notes: Mapping[str, str], name: str) -> dict[str, str]:
    return dict.fromkeys((name,), next(iter(notes.values()))) if notes else {}


def _index_texts(load: Load, leaves: Mapping[Expr, str], tensors: Mapping[str, str], names: Names) -> tuple[str, ...]:
    """Each index of a read as one expression, whatever its length."""
    return tuple(inline(at, leaves, tensors, names) for at in load.index)


def inline(root: Expr, leaves: Mapping[Expr, str], tensors: Mapping[str, str], names: Names) -> str:
    """An expression on one line, nothing shared."""
    printer = TorchPrinter(leaves, names, tensors, _NUMBERS)
    return printer.inline(root)

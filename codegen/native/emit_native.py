"""A group of maps as the frozen context of its C++ text. The text itself is constant but for what is printed here: what
is read and computed once a head, once a query, once a key and for every pair, and where live keys lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attnc.codegen import build
from attnc.codegen.divisor import L
from attnc.codegen.divisor import M as SHIFT
from attnc.codegen.emit_prepass import arguments, span_leaves
from attnc.codegen.emit_triton import stored
from attnc.codegen.exponent import Exponent, exponent
from attnc.codegen.kernel import ALL, HEAD, HEADS, ROW, Axes
from attnc.codegen.kernel_builder import bound_names, host_sizes, vector_dims
from attnc.codegen.lower import G, S, summed
from attnc.codegen.names import Naming
from attnc.codegen.native.print_cpp import CppPrinter, TensorText
from attnc.codegen.printer import Names, Text
from attnc.codegen.program import DrawnTable, Group, Map, Program
from attnc.codegen.ranges import in_bounds
from attnc.dsl.ir import Apply, Axis, Expr, Fn, Kind, Load, Side, Symbol, Table, dependencies, postorder

LEVELS: tuple[Axes, ...] = (HEADS, ROW, HEAD, ALL)  # a head, a query, a key, a pair
_FIELDS = ("c.", "r.", "k.", "")

# Names that the functions around printed statements use.
_WORDS = ["a", "c", "r", "k", "i", "j", "s", "l", "m", "g", "d_dot", "d_input", "dot", "keys", "found", "x"]
_LIGHT = frozenset((Fn.ADD, Fn.SUB, Fn.NEG, Fn.MUL, Fn.ABS, Fn.MIN, Fn.MAX, Fn.FLOAT, Fn.TANH))
_POINTERS = {Kind.FLOAT: "real", Kind.INT: "i64", Kind.BOOL: "bool"}


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field of the arguments, and what the host passes for it: 8 bytes each, in order."""

    declared: str
    values: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Function:
    """Statements and the expression that they lead to."""

    lines: tuple[str, ...]
    result: str


@dataclass(frozen=True, kw_only=True)
class NativeMap:
    """One map's C++ functions; None where it has none. ``results``: its tensors on the host by what Rows calls them."""

    name: str
    tag: str
    dots: tuple[tuple[str, str, str], ...]  # query, key, dim
    exponential: bool
    plain: bool
    fused: bool
    light: bool  # one dot, and arithmetic of it
    rowmax: bool
    entropy: bool
    score: Function
    live: Function
    raw: Function | None
    weight: Function | None
    at_least: tuple[str, ...]
    divisor: Function | None
    results: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class NativeGroup:
    """What templates/native/*.j2 need of one pass."""

    prefix: str
    fields: tuple[Field, ...]
    reads: tuple[tuple[str, str], ...]  # tensors read element by element, and what the host makes of them
    dims: tuple[tuple[str, str], ...]
    value: str
    value_dim: str
    step: int
    tables: tuple[str, ...]
    head_fields: tuple[str, ...]
    row_fields: tuple[str, ...]
    column_fields: tuple[str, ...]
    head_lines: tuple[str, ...]
    row_lines: tuple[str, ...]
    column_lines: tuple[str, ...]
    first_key: Function | None
    alike: bool
    key_live: Function | None
    visit_lines: tuple[str, ...]
    ends: tuple[str, ...]
    listed: bool
    may: tuple[tuple[str, str], ...]
    must: tuple[tuple[str, str], ...]
    maps: tuple[NativeMap, ...]
    out: str
    lanes: Axis


class Builder:
    """The state of printing one pass: names taken, what is computed once a head, a query, a key. ``lanes``: the index
    that vectors run along."""

    def __init__(self, program: Program, group: Group, naming: Naming, lanes: Axis = "i") -> None:
        self.program = program
        self.group = group
        self.naming = naming
        self.reads = tuple(dict.fromkeys(read.tensor for read in (*group.reads, *group.divisor_reads)))
        self.tensors = {tensor: self._tensor(tensor) for tensor in self.reads}
        self.sizes: dict[str, str] = {}
        bounds = group.reach.keys.bounds
        leaves: dict[Expr, str] = {
            build.index("b"): "c.b",
            build.index("h"): "c.h",
            build.index("i"): "r.i",
            build.index("j"): "k.j",
            build.offset(Side.QUERY): "c.q_offset",
            build.offset(Side.KEY): "a.kv_offset",
            L: "l",
            SHIFT: "m",
            S: "s",
            G: "g",
            bounds.first: "i0",
            bounds.last: "i1",
            **{build.size(name): f"a.{name}" for name in ("B", "H", "N")},
            group.length: "a.M",
            **span_leaves(group),
        }
        for size, host in host_sizes(group, naming).items():
            if size not in leaves:
                leaves[size] = f"a.size_{size.name}"
                self.sizes[f"size_{size.name}"] = host
        vectors = [L, SHIFT, S, G, *(symbol for symbol, _, _ in group.dots)]
        self.printer = CppPrinter(leaves, Names(_WORDS), self.tensors, lanes=lanes, vectors=vectors, levels=_FIELDS)
        self.symbols: dict[Expr, Axes] = dict.fromkeys(vectors, ALL)
        self.symbols |= dict.fromkeys((bounds.first, bounds.last, *span_leaves(group)), ALL)
        self.lines: list[list[str]] = [[], [], []]
        self.fields: list[list[str]] = [[], [], []]

    def _tensor(self, tensor: str) -> TensorText:
        group, axes = self.group, self.naming.axes(tensor)
        uses = [use for use in (*group.reads, *group.divisor_reads) if use.tensor == tensor]
        drawn = any(isinstance(table, DrawnTable) and table.name == tensor for table in self.program.tables)
        safe: dict[Load, tuple[bool, ...]] = {}
        for use in uses:
            if drawn:
                safe[use] = (True,) * len(axes)
            elif group.length == build.size("M") or "j" not in dependencies(use):
                safe[use] = in_bounds(use, axes)
        return TensorText(field=f"in_{self.naming.tensor(tensor)}", rank=len(axes), kind=uses[0].kind, safe=safe)

    def head(self, name: str, root: Expr) -> None:
        """A real that is computed once a head, as a field of that name."""
        made = self.block({"found": root}, vector=False)
        assert len(made) == 1, "it varies with the head at most"
        self.lines[0].append(made[0].replace("found", f"c.{name}", 1))
        self.fields[0].append(f"real {name}")

    def function(self, root: Expr, *, vector: bool = True) -> Function:
        """Statements of one function; what varies less is computed further out."""
        found = self.block({"found": root}, vector=vector)
        return Function(lines=found[:-1], result=found[-1].removeprefix("found = "))

    def of_row(self, root: Expr) -> str:
        """A number of the row: its statements stand with the row."""
        (found,) = self.block({"found": root}, vector=True)
        return found.removeprefix("found = ")

    def block(self, roots: Mapping[str, Expr], *, vector: bool) -> tuple[str, ...]:
        """Statements of the innermost level; ``vector``: roots are made vectors."""
        printer = self.printer

        def whole(root: Expr, text: Text) -> str:
            return printer.full(root, text, root.kind, vector=True) if vector else text.text

        finish = {name: (lambda text, root=root: whole(root, text)) for name, root in roots.items()}
        made = printer.block(roots, LEVELS, symbols=self.symbols, finish=finish)
        for node, name in made.named.items():
            level = next((place for place, field in enumerate(_FIELDS) if field and name.startswith(field)), None)
            if level is not None:
                printer.leaves[node] = name
                self.fields[level].append(f"{printer.type(node)} {name.removeprefix(_FIELDS[level])}")
        for level, lines in enumerate(made.lines[:-1]):
            self.lines[level] += lines
        return made.lines[-1]


def native_group(program: Program, group: Group, naming: Naming) -> NativeGroup:
    """The C++ context of one pass."""
    forward = summed(group) if group.partial else group
    builder = Builder(program, forward, naming)
    _, dim_of = vector_dims(group, naming)
    return native_context(builder, tuple(native_map(builder, item, dim_of) for item in forward.maps))


def native_context(builder: Builder, maps: tuple[NativeMap, ...]) -> NativeGroup:
    """What a pass prints beside its maps, once they have been printed."""
    program, group, naming = builder.program, builder.group, builder.naming
    _, dim_of = vector_dims(group, naming)
    bounds = group.reach.keys.bounds
    roots, may, must, _ = bound_names(bounds, Side.KEY, builder.printer.names)
    visit_lines = builder.block(roots, vector=False) if roots else ()
    first_key, alike = None, True
    if group.residue is not None:
        rows = group.residue.rows(Side.KEY, bounds.first)
        first_key, alike = builder.function(rows, vector=False), "h" not in dependencies(rows)
    key_live = None
    if group.key_mask != build.TRUE:
        key_live = builder.function(group.key_mask, vector=builder.printer.lanes == "j")
    tensor = naming.tensor
    out = "element" if program.single and not group.partial else "real"
    dims: dict[str, str] = {}
    for name in (*group.queries, group.value):
        dims.setdefault(dim_of[naming.dim(name)], f"{tensor(name)}.shape[3]")
    return NativeGroup(
        prefix=naming.function(group.name),
        fields=_fields(builder),
        reads=tuple((tensor(name), _host(builder.tensors[name].kind)) for name in builder.reads),
        dims=tuple(dims.items()),
        value=tensor(group.value),
        value_dim=dim_of[naming.dim(group.value)],
        step=group.step,
        tables=tuple(f"static const {text.format(name)}" for text, name in builder.printer.tables.items()),
        head_fields=tuple(builder.fields[0]),
        row_fields=tuple(builder.fields[1]),
        column_fields=tuple(builder.fields[2]),
        head_lines=tuple(builder.lines[0]),
        row_lines=tuple(builder.lines[1]),
        column_lines=tuple(builder.lines[2]),
        first_key=first_key,
        alike=alike,
        key_live=key_live,
        visit_lines=visit_lines,
        ends=tuple(span_leaves(group).values()),
        listed=bool(group.reach.listings),
        may=may,
        must=must,
        maps=maps,
        out=out,
        lanes=builder.printer.lanes,
    )


def _host(kind: Kind) -> str:
    return {Kind.FLOAT: ".to(acc)", Kind.INT: ".to(torch.int64)", Kind.BOOL: ""}[kind]


def _fields(builder: Builder) -> tuple[Field, ...]:
    """Every argument of the C++ functions, in order."""
    group, naming = builder.group, builder.naming
    found = []
    for name in dict.fromkeys((*group.queries, *group.keys, group.value)):
        ident = naming.tensor(name)
        values = (f"{ident}.data_ptr()", *(f"{ident}.stride({axis})" for axis in range(3)))
        found.append(Field(declared=f"Token at_{ident}", values=values))
    for name in builder.reads:
        ident, text = naming.tensor(name), builder.tensors[name]
        values = (
            f"{ident}.data_ptr()",
            *(f"_stride({ident}, {axis})" for axis in range(text.rank)),
            *(f"{ident}.shape[{axis}]" for axis in range(text.rank)),
        )
        found.append(Field(declared=f"Tensor<{_POINTERS[text.kind]}, {text.rank}> {text.field}", values=values))
    offsets = "0 if q_offsets is None else q_offsets.data_ptr()"
    found.append(Field(declared="const i64* q_offsets", values=(offsets,)))
    found += [
        Field(declared=f"i64 {name}", values=(name,)) for name in ("q_offset", "kv_offset", "B", "H", "G", "N", "M")
    ]
    found += [Field(declared=f"i64 {name}", values=(host,)) for name, host in builder.sizes.items()]
    for argument in arguments(group):
        values = (f"{argument.name}.data_ptr()", *argument.values)
        found.append(Field(declared=f"Listing {argument.name}", values=values))
    return tuple(found)


def own_dots(group: Group, item: Map) -> list[tuple[Symbol, str, str]]:
    """The dots of a group that one of its maps uses."""
    used = set(postorder(item.score, item.raw, item.mask, item.weight))
    return [(symbol, query, key) for symbol, query, key in group.dots if symbol in used]


def _light(score: Expr) -> bool:
    """Whether what varies with the pair is little code: it is printed once for each accumulator of a register block."""

    def allowed(node: Expr) -> bool:
        return node.fn in _LIGHT if isinstance(node, Apply) else not isinstance(node, Load | Table)

    def varies(node: Expr) -> bool:
        return {"i", "j"} <= dependencies(node) or any(isinstance(part, Symbol) for part in postorder(node))

    return all(allowed(node) or not varies(node) for node in postorder(score))


def native_map(builder: Builder, item: Map, dim_of: Mapping[Expr, str]) -> NativeMap:
    naming, printer = builder.naming, builder.printer
    dots = own_dots(builder.group, item)
    printer.leaves |= {symbol: f"dot[{place}]" for place, (symbol, _, _) in enumerate(dots)}
    found = Exponent(scale=build.const(1.0), rest=item.score, fused=False)
    if item.exponential:
        found = exponent(item.score)
    builder.head(f"scale_{item.name}", found.scale)
    tag = item.tag
    names = {"out": "out", "shift": "lse" if item.plain else "shift", "l": "l", "rowmax": "rowmax", "u": "u"}
    made = ("out", *(name.removesuffix(tag) if tag else name for name in stored(item)))
    return NativeMap(
        name=item.name,
        tag=tag,
        dots=tuple((naming.tensor(q), naming.tensor(k), dim_of[naming.dim(q)]) for _, q, k in dots),
        exponential=item.exponential,
        plain=item.plain,
        fused=found.fused,
        light=len(dots) == 1 and _light(found.rest),
        rowmax=item.rowmax,
        entropy=item.entropy,
        score=builder.function(found.rest),
        live=builder.function(item.mask),
        raw=builder.function(item.raw) if item.rowmax else None,  # the running maximum of weights hides a NaN
        weight=None if item.exponential else builder.function(item.weight),
        at_least=tuple(builder.of_row(floor) for floor in item.floors),
        divisor=None if item.plain else builder.function(item.scaled),
        results=tuple((word, f"{names[word]}{tag}" if names[word] in made else "") for word in names),
    )

"""Names, tensors, sizes and statements of one Triton kernel while its context is put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attnc.codegen import build
from attnc.codegen.bounds import Bounds
from attnc.codegen.divisor import L
from attnc.codegen.divisor import M as SHIFT
from attnc.codegen.emit_prepass import arguments, span_end, span_leaves
from attnc.codegen.kernel import ALL, PAIR, PAIR_T, Argument, Axes, TokenTensor
from attnc.codegen.lower import G, S
from attnc.codegen.names import KERNEL_WORDS, Naming
from attnc.codegen.prepass import ENDS
from attnc.codegen.print_triton import TensorText, TritonPrinter
from attnc.codegen.printer import Names, Text
from attnc.codegen.program import DrawnTable, Group, Map, Program
from attnc.codegen.ranges import in_bounds
from attnc.codegen.relative import OFFS, START, distances, live
from attnc.codegen.simplify import simplify
from attnc.dsl.ir import Axis, Expr, Kind, Load, Side, Size, dependencies, postorder


class Builder:
    """The state of printing one kernel: names taken, expressions already named, helpers used."""

    def __init__(self, program: Program, group: Group, naming: Naming, described: bool, *, transposed: bool) -> None:
        self.program = program
        streamed = group.query_mask if transposed else group.key_mask
        # Rows of a class are no block, and what no pair may see is left out row by row: pointers do both.
        self.described = described and group.step == 1 and streamed == build.TRUE
        self.group = group
        self.naming = naming
        self.transposed = transposed
        self.names = Names([*KERNEL_WORDS, *naming.taken])
        self.reads = {read.tensor: naming.tensor(read.tensor) for read in (*group.reads, *group.divisor_reads)}
        self.texts: dict[str, TensorText] = {}
        self.sized: dict[str, list[int]] = {name: [] for name in self.reads}
        for tensor in self.reads:
            self._describe(tensor)
        self.dims, self.dim_of = vector_dims(group, naming)
        leaves: dict[Expr, str] = {
            build.index("b"): "b",
            build.index("h"): "h",
            build.index("i"): "i",
            build.index("j"): "j",
            build.offset(Side.QUERY): "q_offset",
            build.offset(Side.KEY): "kv_offset",
            L: "l",
            SHIFT: "m",
            OFFS: "offs_m" if transposed else "offs_n",
            START: "start",
            **{build.symbol(word, Kind.INT): word for word in ("i0", "i1", "j0", "j1")},
            **{symbol: symbol.name for symbol, _, _ in group.dots},
            **span_leaves(group),
        }
        self.sizes: dict[str, str] = {}
        vector = f"{naming.tensor(group.value)}_ptr.dtype"
        element = f"({vector} if DESCRIBED else {vector}.element_ty)" if self.described else f"{vector}.element_ty"
        self.printer = TritonPrinter(leaves, self.names, self.texts, element)
        self._name_sizes()
        self.axis: Axis = "i" if transposed else "j"  # what runs along a tile of the loop
        along: Axes = frozenset((self.axis,))
        self.symbols: dict[Expr, Axes] = {
            OFFS: along,
            START: along,
            G: ALL,
            S: ALL,
            **{symbol: ALL for symbol, _, _ in group.dots},
        }

    def _describe(self, tensor: str) -> None:
        uses = [use for use in (*self.group.reads, *self.group.divisor_reads) if use.tensor == tensor]
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
            elif self.group.length == build.size("M") or "j" not in dependencies(use):
                text.safe[use] = in_bounds(use, axes)
            else:  # keys run over a derived length
                text.safe[use] = (False,) * len(axes)
            unsafe = [axis for axis, safe in enumerate(text.safe[use]) if not safe]
            self.sized[tensor] += [axis for axis in unsafe if axis not in self.sized[tensor]]
        self.texts[tensor] = text

    def _name_sizes(self) -> None:
        leaves = self.printer.leaves
        standard = {"H": "H", "N": "N"}  # a map may be given its keys per query head, so G is not the kernel's own
        for name, text in standard.items():
            leaves[build.size(name)] = text
        leaves[self.group.length] = "M"
        for dim, text in self.dim_of.items():
            if isinstance(dim, Size):
                leaves[dim] = text
        for size, host in host_sizes(self.group, self.naming).items():
            if size not in leaves:
                leaves[size] = f"size_{size.name}"
                self.sizes[leaves[size]] = host

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
        for name in (*self.group.queries, self.group.value):
            found.setdefault(self.dim_of[self.naming.dim(name)], f"{self.naming.tensor(name)}.shape[3]")
        return tuple(found.items())

    def argument(self, token: TokenTensor, side: Side) -> Argument:
        """A tensor of vectors of the queries' or of the keys' side: itself, or where the call allows its descriptor."""
        values = tuple(f"{token.name}.stride({axis})" for axis in range(3))
        block = "BLOCK_M" if side is Side.QUERY else "BLOCK_N"
        host = f"_rows({token.name}, {block.lower()}, described)" if self.described else token.name
        return Argument(name=token.name, host=host, arguments=token.strides, values=values, block=block, dim=token.dim)

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
        self, side: Side, levels: Sequence[Axes]
    ) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, str], ...], tuple[tuple[str, str], ...], bool]:
        """Statements for the ends of the live intervals, in tensor rows, and their names; "" for open ends. Where the
        group has residue classes, also for ``residue``, the class of the rows of ``side`` that meet the tile."""
        bound = (self.group.reach.keys if side is Side.KEY else self.group.reach.queries).bounds
        roots, may, must, uses = bound_names(bound, side, self.names)
        finish: dict[str, Callable[[Text], str]] = {}
        if self.group.residue is not None:
            roots["residue"] = self.group.residue.rows(side, bound.first)
            finish["residue"] = lambda text: f"tl.cast({text.text}, tl.int32)"
            uses = True
        lines = self.block(roots, levels, finish=finish, keep=False) if roots else tuple(() for _ in levels)
        if self.group.reach.spans:
            lines = ((*self._span_ends(side), *lines[0]), *lines[1:])
        return lines, may or (("0", "0"),), must, uses

    def _span_ends(self, side: Side) -> list[str]:
        """Statements that read this tile's spans."""
        tile = "start_m // BLOCK_M" if side is Side.KEY else "start_n // BLOCK_N"
        names = [span_end(number, end) for number in range(len(self.group.reach.spans)) for end in ENDS]
        at = "b * tl.cast(spans_stride0, tl.int64) + h * tl.cast(spans_stride1, tl.int64)"
        return [
            f"at_span = spans_ptr + {at} + {tile} * {len(names)}",
            *(f"{name} = tl.load(at_span + {place})" for place, name in enumerate(names)),
        ]

    def visit_arguments(self) -> tuple[Argument, ...]:
        """What the kernel reads of spans and lists."""
        return arguments(self.group)

    def enter(self, item: Map) -> None:
        """From here on, what is printed belongs to this map."""
        self.map = item
        own = (S, G)
        kept = {node: text for node, text in self.printer.leaves.items() if not set(own) & set(postorder(node))}
        self.printer.leaves = kept | {S: f"s{item.tag}", G: f"g_ij{item.tag}"}

    def live(self, levels: Sequence[Axes]) -> tuple[tuple[str, ...], ...]:
        """Statements that make ``live`` of a partial tile: the mask, and that the row exists."""
        name = f"live{self.map.tag}"
        found = live(self.map.mask, self.axis, build.size("N") if self.transposed else self.group.length)
        lines: list[tuple[str, ...]] = [()] * len(levels)
        ends = {f"first{self.map.tag}": found.first, f"last{self.map.tag}": found.last}
        for end, root in ends.items():
            if root is not None and root not in self.printer.leaves:
                made = self.block({end: root}, levels)
                self.printer.leaves[root] = end
                lines = [(*before, *more) for before, more in zip(lines, made, strict=True)]
        notes = {} if self.map.mask == build.TRUE else self.note("live", name)
        made = self.block({name: found.mask}, levels, notes=notes, keep=False)
        return tuple((*before, *more) for before, more in zip(lines, made, strict=True))

    def near(self, root: Expr) -> Expr:
        """A score or cotangent with distances told from the start of the tile."""
        return distances(root, self.axis)

    def note(self, what: str, name: str) -> dict[str, str]:
        """Beside a root's statement, the line of the spec that it came from."""
        line = self.naming.line(self.map.name, what)
        return {name: f"  # {line}"} if line else {}

    def full(self, name: str, root: Expr) -> dict[str, Callable[[Text], str]]:
        """A value that does not vary with both indices still fills the tile."""
        axes = dependencies(root).union(*(self.symbols.get(node, frozenset()) for node in postorder(root)))
        shape = PAIR_T if self.transposed else PAIR
        return {} if {"i", "j"} <= axes else {name: lambda text: f"{text.within(3)} + tl.zeros({shape}, ACC)"}


def host_sizes(group: Group, naming: Naming) -> Mapping[Size, str]:
    """Every size that a group's expressions name, and what the host's functions of this group call it: what they can
    read off their tensors, else an argument ``size_...``."""
    known: dict[Expr, str] = {build.size(name): name for name in ("B", "H", "N")}
    known[group.length] = "M"
    known[naming.dim(group.value)] = "E"
    for name in group.queries:
        known.setdefault(naming.dim(name), f"{naming.tensor(name)}.shape[3]")
    found = [node for node in postorder(*group.expressions) if isinstance(node, Size)]
    return {size: known.get(size, naming.size(size.name)) for size in found}


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


def vector_dims(group: Group, naming: Naming) -> tuple[tuple[str, ...], dict[Expr, str]]:
    """The distinct vector sizes of a group, as constexpr names."""
    found: dict[Expr, str] = {}
    for name in (*group.queries, group.value):
        dim = naming.dim(name)
        if dim not in found:
            found[dim] = dim.name if isinstance(dim, Size) and dim.name in ("D", "E") else f"D{len(found)}"
    for query, key in ((query, key) for _, query, key in group.dots):
        found.setdefault(naming.dim(key), found[naming.dim(query)])
    return tuple(dict.fromkeys(found.values())), found

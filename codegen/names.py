"""What things are called in a generated module: tensors, sizes, functions, and the spec lines they came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from attnc.codegen import build
from attnc.codegen.lower import DrawnTable, ListedTable, Map, Program
from attnc.codegen.printer import Names
from attnc.dsl.ir import Expr, Size

# Names that the templates use for themselves, inside kernels and beside them.
KERNEL_WORDS = (
    "tl triton torch math part tile tiles start start_m start_n at passed row rows col cols dims operand "
    "b h g i j i0 i1 j0 j1 acc l_i m_i u_i m_new m_safe alpha p s raw rowmax seen live key_live query_live dead "
    "at_row at_col l_safe rescale lag shift l m divisor lse u inverse delta dp do g_ij out colsum "
    "q_offset q_offsets kv_offset B H G N M D E ACC PER_BATCH BLOCK_M BLOCK_N LOG2E full_tiles partial_tiles "
    "row_start row_stop full base o d_out call sizes vectors inputs backend needs tokens results tables "
    + " ".join(f"{letter}{n}" for letter in ("a", "b", "c", "d", "e", "f", "lo", "hi", "dot", "d_dot") for n in range(9))
).split()


@dataclass(frozen=True)
class Naming:
    """Identifiers of one program, made once and shared by every part of its module."""

    program: Program
    idents: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = Names(KERNEL_WORDS)
        attention = self.program.attention
        for item in (*attention.vectors, *attention.inputs, *attention.tokens, *self.program.tables):
            self.idents[item.name] = names.fresh(item.name)

    @property
    def taken(self) -> tuple[str, ...]:
        return tuple(self.idents.values())

    @cached_property
    def _axes(self) -> dict[str, tuple[Expr, ...]]:
        b, h, n = build.size("B"), build.size("H"), build.size("N")
        found: dict[str, tuple[Expr, ...]] = {item.name: item.axes for item in self.program.attention.inputs}
        for token in self.program.attention.tokens:
            if token.dim is None:
                found[token.name] = (b, h, token.length)
        for table in self.program.tables:
            match table:
                case DrawnTable():
                    found[table.name] = (b, h, n, build.const(table.count))
                case ListedTable():
                    found[table.name] = (b, h, build.size(table.name), table.width)
        return found

    def tensor(self, name: str) -> str:
        """The identifier of a vector, input, token value or table."""
        return self.idents[name]

    def axes(self, name: str) -> tuple[Expr, ...]:
        """The sizes of a tensor that is read element by element."""
        return self._axes[name]

    def dim(self, name: str) -> Expr:
        """The size of a query's, key's or value's vectors."""
        for vector in self.program.attention.vectors:
            if vector.name == name:
                return vector.dim
        for token in self.program.attention.tokens:
            if token.name == name and token.dim is not None:
                return token.dim
        raise KeyError(name)

    def size(self, name: str) -> str:
        """What the host calls a size that it passes on."""
        return f"size_{name}"

    def function(self, branch: str) -> str:
        """The prefix of a branch's functions."""
        return f"_{branch}"

    def line(self, branch: str, what: str) -> str:
        """``longformer.attn:7``: where the text of a statement came from, or nothing."""
        source = self.program.attention.source
        for item in self.program.attention.branches:
            if item.name == branch:
                spans = {"s": item.score.span, "live": item.mask.span, "p": item.normalization.span}
                span = spans.get(what)
                if span is not None:
                    name = source.name.rsplit("/", 1)[-1]
                    return f"{name}:{source.position(span.start)[0]}"
        return ""


def map_sizes(item: Map, sizes: tuple[Size, ...]) -> tuple[str, ...]:
    """Names of sizes that a map's functions take beyond those they read off their tensors."""
    return tuple(dict.fromkeys(size.name for size in sizes if size != item.length))

"""What things are called in a generated module: tensors, sizes, functions, and the spec lines they came from."""

from __future__ import annotations

import builtins
import re
from dataclasses import dataclass, field
from functools import cached_property

from attnc.codegen import build
from attnc.codegen.printer import Names
from attnc.codegen.program import DrawnTable, ListedTable, Program
from attnc.dsl.ir import Expr

# Names in the functions and kernels that hold a spec's own names; tests/backends/test_names.py compares.
KERNEL_WORDS = (
    "tl triton torch math part tile tiles start start_m start_n at passed row rows col cols dims operand "
    "b h g i j i0 i1 j0 j1 acc l_i m_i u_i m_new m_safe alpha p s raw rowmax seen live key_live query_live dead "
    "at_row at_col l_safe rescale lag shift l m divisor lse u inverse delta dp do g_ij out colsum total entropy "
    "q_offset q_offsets kv_offset B H G N M D E ACC PER_BATCH BLOCK_M BLOCK_N LOG2E full_tiles partial_tiles "
    "row_start row_stop full base o d_out call sizes vectors inputs backend device end first blocks stop run strip "
    "block_m block_n warps stages by_l d_log d_lse d_total inner gradients statistics cotangents ctx output name dtype "
    "spans listed listed_first listed_from first_full first_partial full_from partial_from place at_first "
    "at_span at_listed "
    "residue residues length classes passes found into share arguments PAIRS pairs at_pair needs totals w_log_w "
    "log2_p scale scale_log2 LN2 TANH_APPROX offs_m offs_n last zero along across "
    "split splits SPLITS DESCRIBED ROLES described roles registers ctypes given wide alive library team results "
    "ROWS COLUMNS STRIP PRECISION bind draw float int min max range list tuple isinstance Call "
    + " ".join(f"{letter}{n}" for letter in ("a", "b", "c", "d", "e", "f", "lo", "hi", "dot", "D") for n in range(9))
).split()
# Names at the top of a module that do not begin with an underscore.
MODULE_WORDS = [
    "annotations",
    "Iterator",
    "Path",
    "cache",
    "contextmanager",
    "ctypes",
    "errno",
    "importlib",
    "math",
    "forward_ad",
    "nullcontext",
    "os",
    "platform",
    "sha256",
    "shlex",
    "shutil",
    "struct",
    "subprocess",
    "suppress",
    "sys",
    "tempfile",
    "time",
    "warnings",
    "NamedTuple",
    "Union",
    "torch",
    "triton",
    "tl",
    "TensorDescriptor",
    "LOG2E",
    "LN2",
    "TANH_APPROX",
    "ROWS",
    "COLUMNS",
    "STRIP",
    "PRECISION",
    "Call",
    "bind",
    "mix",
    "draw",
]
# What the templates make of a name: d_q, e_sink, size_D, by_read0, span0_lo; q_ptr, q_tile, v_values, q_stride0, ...
_MADE_BEFORE = re.compile(r"(d|e|by|size|BLOCK|TAIL|span\d+)_")
_MADE_AFTER = re.compile(r"_(ptr|tail|tile|values|rows|sum|ij|at|(stride|size)?\d+)$")


def _own(name: str, tags: tuple[str, ...]) -> str:
    """A name near the spec's that no template makes of another; none begins with an underscore, as helpers do, or
    ends with a map's tag."""
    name = name.replace(" ", "").lstrip("_") or "x"
    name = f"x_{name}" if _MADE_BEFORE.match(name) or name[0].isdigit() else name
    return f"{name}_" if _MADE_AFTER.search(name) or name.endswith(tags) else name


@dataclass(frozen=True)
class Naming:
    """Identifiers of one program, made once and shared by every part of its module."""

    program: Program
    idents: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        attention = self.program.attention
        results = ("out", "lse", "shift", "l", "total", "rowmax", "entropy", "colsum", "u")
        made = [f"{branch.name}_{word}" for branch in attention.branches for word in results]
        names = Names([*KERNEL_WORDS, *made, self.result])
        tags = tuple(item.tag for item in self.program.maps if item.tag)
        for item in (*attention.vectors, *attention.inputs, *attention.tokens, *self.program.tables):
            self.idents[item.name] = names.fresh(_own(item.name, tags))

    @property
    def public(self) -> str:
        """The module's one public function: named like the spec, but for what the module itself needs."""
        return Names((*MODULE_WORDS, *dir(builtins))).fresh(self.program.attention.name.lstrip("_") or "x")

    @property
    def result(self) -> str:
        """The named tuple of a spec that emits."""
        name = self.program.attention.name
        return f"{name[:1].upper()}{name[1:]}Result"

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

    def element(self, name: str) -> str:
        """The dtype, as the language spells it, of a tensor that is read element by element; "acc" for token values."""
        for item in self.program.attention.inputs:
            if item.name == name:
                return item.dtype
        for table in self.program.tables:
            if table.name == name:
                return "i64" if isinstance(table, DrawnTable) else "bool"
        return "acc"

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

"""What templates/kernels.py.j2 prints: kernels as frozen contexts, every decision already made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from attnc.dsl.ir import Axis

Axes = frozenset[Axis]
ROW: Axes = frozenset(("b", "h", "i"))
ALL: Axes = frozenset(("b", "h", "i", "j"))
HEADS: Axes = frozenset(("b", "h"))
KEY: Axes = frozenset(("b", "j"))
HEAD: Axes = frozenset(("b", "h", "j"))

PAIR = "[BLOCK_M, BLOCK_N]"
PAIR_T = "[BLOCK_N, BLOCK_M]"


@dataclass(frozen=True, kw_only=True)
class Argument:
    """A pointer argument, its further arguments, and what the host passes for each. ``element``: "vector" for the
    dtype of the query, key and value tensors, "acc" for the accumulation dtype, else a dtype of the language.
    ``block`` and ``dim`` of a tensor of vectors: the constexprs that say how many rows a tile of it has, and how long
    a vector is."""

    name: str
    host: str
    element: str = "vector"
    arguments: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    block: str = ""
    dim: str = ""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A power of two of a vector's elements: how names of it end, its constexpr, and text for which elements they are.
    ``guard``: the constexpr that is 0 where a call has no such part."""

    tag: str
    block: str
    dims: str
    guard: str = ""


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
class MapText:
    """The statements of one map in a kernel. ``tag`` ends the names of what it does not share with other maps. An
    exponential weight is of ``s * scale`` ("" for 1); ``scale_log2`` is scale * log2 e, and ``fused`` says that
    s * scale_log2 does not overflow. ``slope_lines``: where there are some, the score in base 2 is, to fewer digits,
    also s * scale_log2 + along{tag} - across{tag} of these.
    ``mask_p``, ``mask_g``: whether p and g_ij leave a kernel as they are, and so must be 0 where a pair is masked."""

    tag: str
    exponential: bool
    plain: bool
    rowmax: bool
    entropy: bool
    grad_out: TokenTensor
    score_lines: tuple[str, ...]
    mask_lines: tuple[str, ...]
    scale: str = ""
    scale_log2: str = "LOG2E"
    fused: bool = False
    mask_p: bool = True
    mask_g: bool = True
    slope_lines: tuple[str, ...] = ()
    raw_lines: tuple[str, ...] = ()
    weight_lines: tuple[str, ...] = ()
    divisor_lines: tuple[str, ...] = ()
    floors: tuple[str, ...] = ()
    gradient_lines: tuple[str, ...] = ()
    guards: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """What templates/kernels.py.j2 needs to print one kernel: what its maps share, and the maps. ``scales``: vectors
    whose gradient is multiplied once, after the loop, and by what. ``described``: its tensors of vectors may come as
    descriptors, of which the copy engine (TMA) loads whole tiles; then warps may have roles of their own. ``split``:
    vectors may be taken in two parts, each a power of two, in place of one that holds them."""

    kind: Literal["forward", "query", "key"]
    name: str
    tensors: tuple[Argument, ...]
    sizes: tuple[str, ...]
    size_values: tuple[str, ...]
    dims: tuple[str, ...]
    dim_values: tuple[tuple[str, str], ...]
    queries: tuple[TokenTensor, ...]
    keys: tuple[TokenTensor, ...]
    value: TokenTensor
    dots: tuple[DotText, ...]
    maps: tuple[MapText, ...]
    may: tuple[tuple[str, str], ...]
    must: tuple[tuple[str, str], ...]
    may_uses_tile: bool
    step: int
    listed: bool
    outer: tuple[str, ...]
    helpers: frozenset[str]
    head_lines: tuple[str, ...] = ()
    key_lines: tuple[str, ...] = ()
    query_lines: tuple[str, ...] = ()
    key_live: str = ""
    query_live: str = ""
    row_totals: tuple[TotalText, ...] = ()
    pair_totals: tuple[TotalText, ...] = ()
    column_totals: tuple[TotalText, ...] = ()
    splits: bool = False
    scales: tuple[tuple[str, str], ...] = ()
    grads: bool = False
    described: bool = False
    split: bool = False

    @property
    def dim_arguments(self) -> str:
        """The vectors' sizes and the powers of two that hold them."""
        names = ("", "BLOCK_", "TAIL_") if self.split else ("", "BLOCK_")
        return " ".join(f"{name}{dim}: tl.constexpr," for dim in self.dims for name in names)

    def parts(self, dim: str) -> tuple[Part, ...]:
        """What vectors of a size are taken in: one power of two, and where calls may split them a smaller one."""
        first = Part(tag="", block=f"BLOCK_{dim}", dims=f"tl.arange(0, BLOCK_{dim})")
        if not self.split:
            return (first,)
        tail = f"TAIL_{dim}"
        return first, Part(tag="_tail", block=tail, dims=f"BLOCK_{dim} + tl.arange(0, {tail})", guard=tail)

    def dim(self, name: str) -> str:
        """The size of a tensor of vectors."""
        return next(item.dim for item in (*self.queries, *self.keys, self.value) if item.name == name)

    @property
    def strips(self) -> bool:
        """Whether pairwise cotangents leave the kernel, in strips of queries."""
        return bool(self.pair_totals)

    @property
    def key_outputs(self) -> tuple[TokenTensor, ...]:
        """Whose gradients a key kernel writes."""
        return (*self.keys, self.value)

    def operand(self, name: str) -> str:
        """The type that a cotangent is multiplied in beside ``name``: weights that are no exponential may be large,
        so they stay in the accumulation type."""
        return f"{name}.dtype" if all(item.exponential for item in self.maps) else "ACC"

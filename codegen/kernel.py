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
    descriptors, of which the copy engine (TMA) loads whole tiles; then warps may have roles of their own."""

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

    @property
    def dim_arguments(self) -> str:
        """The vectors' sizes and the powers of two that hold them."""
        return " ".join(f"{dim}: tl.constexpr, BLOCK_{dim}: tl.constexpr," for dim in self.dims)

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

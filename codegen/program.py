"""A lowered spec: a ``Program`` of ``Group`` s of ``Map`` s, expressions that a backend prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from attnc.codegen.prepass import Reach
from attnc.codegen.residue import Residue
from attnc.dsl.construct import Attention
from attnc.dsl.ir import Expr, Load, Symbol


@dataclass(frozen=True, kw_only=True)
class DrawnTable:
    """Random blocks, drawn once a call, under a name that no spec can spell: int64 [B or 1, H or 1,
    ceil(N / block) + 1, count]; its row 0 is the block of position q_offset."""

    name: str
    head: Expr
    block: int
    count: int
    seed: Expr
    blocks: Expr


@dataclass(frozen=True, kw_only=True)
class ListedTable:
    """An index list made a boolean table once a call, under a name that no spec can spell: [B or 1, H or 1, rows,
    width]."""

    name: str
    tensor: str
    width: Expr


@dataclass(frozen=True, kw_only=True)
class Read:
    """One way an input is read. ``reach``: what its value varies with inside a tile: nothing beyond (b, h) or rows
    ("row"), columns ("column") or both ("pair")."""

    load: Load
    reach: Literal["row", "column", "pair"]


@dataclass(frozen=True, kw_only=True)
class InputGradient:
    """The cotangent of one read, over Symbol g (pairwise), before it is summed to the input's shape."""

    read: Read
    value: Expr


@dataclass(frozen=True, kw_only=True)
class Map:
    """One branch, ready to be printed. Its dots are the Symbols of its group; pairs outside ``mask`` have weight 0."""

    name: str
    tag: str
    score: Expr
    raw: Expr
    mask: Expr
    exponential: bool
    weight: Expr
    scaled: Expr
    floors: tuple[Expr, ...]
    plain: bool
    reads: tuple[Load, ...]
    divisor_reads: tuple[Load, ...]
    dot_gradients: tuple[Expr, ...]
    input_gradients: tuple[InputGradient, ...]
    scaled_by_l: Expr
    scaled_by_read: tuple[tuple[Load, Expr], ...]
    rowmax: bool
    entropy: bool
    colsum: bool


@dataclass(frozen=True, kw_only=True)
class Group:
    """Maps over the same keys, live in the same tiles, and the same values, computed in one pass: each dot once,
    each tile of keys read once.
    ``mask`` is live where any map is; ``must`` of its reach holds for all of them. ``dots``: Symbol, query, key.
    ``residue``: what its masks demand beside what they say themselves; tiles are then gathered by its step.
    ``parts``: passes over disjoint pairs whose results are merged, where one pass would cost more; a part is
    ``partial``: its weights are not divided. ``together``: what a whole and its parts print, for them to agree."""

    name: str
    maps: tuple[Map, ...]
    dots: tuple[tuple[Symbol, str, str], ...]
    value: str
    length: Expr
    residue: Residue | None
    mask: Expr
    key_mask: Expr
    query_mask: Expr
    reach: Reach
    parts: tuple[Group, ...] = ()
    partial: bool = False
    together: tuple[Expr, ...] = ()

    @property
    def passes(self) -> tuple[Group, ...]:
        return self.parts or (self,)

    @property
    def splits(self) -> bool:
        """Whether several programs may share one query's keys: what a pass gives of some of them can be merged."""
        return self.partial or all(item.plain for item in self.maps)

    @property
    def queries(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(query for _, query, _ in self.dots))

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(key for _, _, key in self.dots))

    @property
    def reads(self) -> tuple[Load, ...]:
        """What scores, masks and weights read."""
        return tuple(dict.fromkeys(read for item in self.maps for read in item.reads))

    @property
    def divisor_reads(self) -> tuple[Load, ...]:
        return tuple(dict.fromkeys(read for item in self.maps for read in item.divisor_reads))

    @property
    def step(self) -> int:
        """How many rows lie between two neighbours of a tile."""
        return 1 if self.residue is None else self.residue.step

    @property
    def expressions(self) -> tuple[Expr, ...]:
        """Everything that is printed for some map."""
        if self.together:
            return self.together
        found: list[Expr] = []
        for item in self.maps:
            found += [item.score, item.raw, item.mask, item.weight, item.scaled, *item.floors, *item.dot_gradients]
            found += [part.value for part in item.input_gradients]
        for visits in (self.reach.keys, self.reach.queries):
            found += [end for region in visits.regions for interval in region for end in interval if end is not None]
        for span in self.reach.spans:
            found += [span.row, span.column]
        if self.residue is not None:
            found += [self.residue.condition, self.residue.key, self.residue.query]
        return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Program:
    """A whole spec: its attention (prologue, output, emits), its branches as maps, in groups of one pass each."""

    attention: Attention
    tables: tuple[DrawnTable | ListedTable, ...]
    groups: tuple[Group, ...]

    @property
    def maps(self) -> tuple[Map, ...]:
        return tuple(item for group in self.groups for item in group.maps)

    @property
    def single(self) -> bool:
        """Whether the one map's output is the op's output."""
        return len(self.maps) == 1 and isinstance(self.attention.output, Symbol)

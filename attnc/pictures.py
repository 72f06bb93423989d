"""What ``attnc show`` draws: the pairs of a mask, or its tiles with what they cost, a picture a head."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from torch import Tensor

from attnc.codegen.residue import separate
from attnc.codegen.tilemap import TileMap
from attnc.dsl.construct import Attention
from attnc.runtime.reference import mask
from attnc.runtime.tiles import tile_map
from attnc.show import Kinds, heads, live, png, svg, terminal, tile_image, tile_terminal

Inputs = Mapping[str, Tensor]

PAIRS = 2**24  # that are drawn one by one, or counted, at most


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One head's, of ``heads``. ``text`` for a terminal, ``rows`` for an image under ``title``: a tone for each kind, a
    fill for each but 0; ``cell`` is the height and width of one."""

    head: int
    heads: int
    text: str
    title: str
    rows: Kinds
    fills: Sequence[str] = ("#246",)
    tones: bytes = b"\xff\x30"
    cell: tuple[int, int] = (1, 1)

    def png(self) -> bytes:
        return png(self.rows, tones=self.tones, cell=self.cell)

    def svg(self) -> bytes:
        return svg(self.rows, title=self.title, fills=self.fills, cell=self.cell).encode()

    def named(self, path: str) -> str:
        """``mask.png`` for one head; ``mask.0.png``, ``mask.1.png`` for several."""
        stem, extension = os.path.splitext(path)
        return path if self.heads == 1 else f"{stem}.{self.head}{extension}"


def pairs(construct: Attention, N: int, M: int, H: int, inputs: Inputs, *, columns: int) -> Iterator[Picture]:
    """The live pairs of each head that differs, the text at most ``columns`` wide."""
    found: list[list[list[bool]]] = mask(construct, N, M, 1, H, inputs)[0].tolist()
    for head, rows in enumerate(found):
        keys = len(rows[0])
        title = f"{_size(construct, head, len(found), N, keys)}, {_share(live(rows), N * keys)} live"
        text = f"{title}\n{terminal(rows, columns=columns)}"
        yield Picture(head=head, heads=len(found), text=text, title=title, rows=rows)


def tiles(
    construct: Attention, N: int, M: int, H: int, inputs: Inputs, block: tuple[int, int], *, columns: int
) -> Iterator[Picture]:
    """The tiles of each head that differs, their numbers, what is computed of a dense map, and, where there are not
    too many pairs to count, what of them is live."""
    found = tile_map(construct, N, M, 1, H, inputs, block=block)
    counted = N * found.lengths[1] <= PAIRS
    pairs = heads(tile_map(construct, N, M, 1, H, inputs, block=(1, 1))) if counted else []
    for head, (part, ones) in enumerate(zip_longest(heads(found), pairs)):
        of = found.shape[1]
        size = f"{_size(construct, head, of, *part.lengths)}, tiles of {block[0]} x {block[1]}"
        drawing, cell = tile_terminal(part, columns=columns)
        rows, image_cell = tile_image(part)
        yield Picture(
            head=head,
            heads=of,
            text="\n".join([_scaled(size, cell), drawing, *_numbers(part, ones), *_classes(construct)]),
            title=_scaled(size, image_cell),
            rows=rows,
            fills=("#9bd", "#246"),
            tones=b"\xff\xa8\x30",
            cell=block,
        )


def _scaled(size: str, cell: tuple[int, int]) -> str:
    return size if cell == (1, 1) else f"{size}, each cell {cell[0]} x {cell[1]} of them"


def _numbers(part: TileMap, ones: TileMap | None) -> list[str]:
    """Counts, cost and density in words. ``ones``: the map of tiles of one pair."""
    counts = part.counts()
    computed, every = counts.partial + counts.full, sum(counts)
    lines = [
        f"{every:,} tiles: {counts.empty:,} empty, {counts.partial:,} partial, {counts.full:,} full",
        f"{computed:,} hold live pairs: {_share(computed, every)} of the cost of dense",
    ]
    if ones is not None and not (found := ones.counts()).partial:
        N, M = part.lengths
        lines[-1] += f"; {_share(found.full, N * M)} of the pairs are live"
    if not part.exact:
        lines.append(f"not exact, some partial tiles may be empty or full: {', '.join(part.why)}")
    return lines


def _classes(construct: Attention) -> list[str]:
    """What the map does not show: kernels that gather the rows of a residue class."""
    steps = [residue.step for branch in construct.branches if (residue := separate(branch.mask)[0]) is not None]
    if len(steps) < len(construct.branches):
        return []
    return [f"rows of one class modulo {min(steps)} are gathered into dense tiles: about 1/{min(steps)} of that cost"]


def _size(construct: Attention, head: int, heads: int, N: int, M: int) -> str:
    return f"{construct.name}{f', head {head}' if heads > 1 else ''}: N = {N}, M = {M}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%"

"""Pictures of a mask and of its tiles: for a terminal, as SVG, as PNG. Rows are queries, columns keys."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, pairwise

import numpy as np

from attnc.codegen.arrays import Array
from attnc.codegen.tilemap import EMPTY, FULL, PARTIAL, TileMap

Rows = Sequence[Sequence[bool]]
"""``rows[i][j]``: does query i see key j. At least one row and one column."""
Kinds = Sequence[Sequence[int]]
"""``kinds[r][c]``: how much of what a cell stands for is live; 0 nothing. Pairs have 1, tiles 1 partial, 2 full."""

_HALVES = " ▄▀█"  # by 2 * upper + lower
_SHADES = " ░▒▓█"
_TILES = " ▒█"  # empty, partial, full
_MOST_CELLS = 1024  # in a row or column of an image


def live(rows: Rows) -> int:
    """How many pairs are live."""
    return sum(map(sum, rows))


def terminal(rows: Rows, *, columns: int) -> str:
    """The mask in a frame at most ``columns`` wide, two rows of cells a line, so that cells are square. A cell is
    one pair where that fits; else characters shade squares of pairs: blank is empty, the full block full."""
    height, width = len(rows), len(rows[0])
    side = -(-width // max(columns - 2, 1))
    lines = []
    for top in range(0, height, 2 * side):
        block = rows[top : top + 2 * side]
        lines.append("".join(_character(block, left, side) for left in range(0, width, side)))
    return _framed(lines)


def _framed(lines: Sequence[str]) -> str:
    bar = "─" * len(lines[0])
    return "\n".join([f"┌{bar}┐", *(f"│{line}│" for line in lines), f"└{bar}┘"])


def _character(block: Rows, left: int, side: int) -> str:
    """One character: ``side`` columns from ``left`` of ``2 * side`` rows, fewer at the edges."""
    if side == 1:
        lower = len(block) > 1 and block[1][left]
        return _HALVES[2 * block[0][left] + lower]
    cells = [pair for row in block for pair in row[left : left + side]]
    count = sum(cells)
    if count in (0, len(cells)):
        return _SHADES[-1 if count else 0]
    return _SHADES[1 + 3 * count // len(cells)]


# --- tiles ----------------------------------------------------------------------------------------


def heads(tiles: TileMap) -> list[TileMap]:
    """The map of each batch and head of its own."""
    rows = tiles.shape[2]
    ends = tiles.offsets[::rows]
    return [
        replace(
            tiles,
            shape=(1, 1, *tiles.shape[2:]),
            offsets=tiles.offsets[head * rows : (head + 1) * rows + 1] - first,
            starts=tiles.starts[first:last],
            stops=tiles.stops[first:last],
            kinds=tiles.kinds[first:last],
        )
        for head, (first, last) in enumerate(pairwise(ends))
    ]


def cells(tiles: TileMap, *, high: int, wide: int) -> list[list[int]]:
    """The tiles of one head, ``high`` x ``wide`` of them a cell: their kind where they are of one, else partial. Made
    from the map's runs, so that a map that would not fit can be drawn."""
    rows, columns = tiles.shape[2:]
    edges = np.arange(0, columns, wide)
    drawn: list[list[int]] = []
    for top in range(0, rows, high):
        bottom = min(top + high, rows)
        part = slice(tiles.offsets[top], tiles.offsets[bottom])
        starts, stops, kinds = tiles.starts[part], tiles.stops[part], tiles.kinds[part]
        live, full = (
            np.add.reduceat(_covering(starts[chosen], stops[chosen], columns), edges)
            for chosen in (kinds != EMPTY, kinds == FULL)
        )
        every = (bottom - top) * np.diff(edges, append=columns)
        drawn.append(np.where(live == 0, EMPTY, np.where(full == every, FULL, PARTIAL)).tolist())
    return drawn


def _covering(starts: Array, stops: Array, columns: int) -> Array:
    """How many of the runs cover each column."""
    begun, ended = (np.bincount(places, minlength=columns + 1) for places in (starts, stops))
    return np.cumsum(begun - ended)[:columns]


def tile_terminal(tiles: TileMap, *, columns: int) -> tuple[str, tuple[int, int]]:
    """One head's tiles in a frame at most ``columns`` wide, and how many tiles (down, across) a cell of it stands for:
    as few as fit. Blank is empty, the full block full, grey partial or of several kinds."""
    (block_m, block_n), (rows, across) = tiles.block, tiles.shape[2:]
    room = max(columns - 2, 1)
    high, wide, letters = 1, 1, max(round(2 * block_n / block_m), 1)  # a character is twice as high as it is wide
    if across * letters > room:
        wide, letters = -(-across // room), 1
        high = max(round(2 * wide * block_n / block_m), 1)
    high = max(high, -(-rows // room))
    lines = ["".join(_TILES[kind] * letters for kind in row) for row in cells(tiles, high=high, wide=wide)]
    return _framed(lines), (high, wide)


def tile_image(tiles: TileMap) -> tuple[list[list[int]], tuple[int, int]]:
    """One head's tiles as at most 1024 x 1024 cells, and how many tiles (down, across) each stands for."""
    side = -(-max(tiles.shape[2:]) // _MOST_CELLS)
    return cells(tiles, high=side, wide=side), (side, side)


# --- images ---------------------------------------------------------------------------------------


def _runs(row: Sequence[int], kind: int) -> Iterator[tuple[int, int]]:
    """``(start, length)`` of each run of a kind."""
    at = 0
    for found, group in groupby(row):
        length = len(list(group))
        if found == kind:
            yield at, length
        at += length


def svg(rows: Kinds, *, title: str, fills: Sequence[str] = ("#246",), cell: tuple[int, int] = (1, 1)) -> str:
    """A path for each kind but 0, in its fill; a rectangle for every run of it. ``cell``: height and width of one."""
    (tall, broad), height, width = cell, cell[0] * len(rows), cell[1] * len(rows[0])
    margin = max(width, height) / 64 if cell != (1, 1) else 1
    text = title.replace("&", "&amp;").replace("<", "&lt;")
    paths = [
        f'  <path fill="{fill}" d="'
        + "".join(
            f"M{at * broad} {i * tall}h{n * broad}v{tall}h-{n * broad}z"
            for i, row in enumerate(rows)
            for at, n in _runs(row, kind)
        )
        + '"/>\n'
        for kind, fill in enumerate(fills, start=1)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-margin:g} {-margin:g} {width + 2 * margin:g}'
        f' {height + 2 * margin:g}" width="512" shape-rendering="crispEdges">\n'
        f"  <title>{text}</title>\n"
        f'  <rect x="{-margin / 2:g}" y="{-margin / 2:g}" width="{width + margin:g}" height="{height + margin:g}"'
        f' fill="#fff" stroke="#888" stroke-width="{margin:g}"/>\n' + "".join(paths) + "</svg>\n"
    )


def png(rows: Kinds, *, tones: bytes = b"\xff\x30", cell: tuple[int, int] = (1, 1)) -> bytes:
    """A grey-scale PNG (PNG 1.2, RFC 2083), a tone a kind, about 512 wide. ``cell``: height and width of one."""
    height, width = len(rows), len(rows[0])
    broad = max(512 // width, 1)
    tall = max(round(broad * cell[0] / cell[1]), 1)
    lines = bytearray()
    for row in rows:
        line = b"\x00" + b"".join(tones[kind : kind + 1] * broad for kind in row)  # 0: no filter
        lines += line * tall
    header = struct.pack(">IIBBBBB", width * broad, height * tall, 8, 0, 0, 0, 0)  # 8 bits, grey
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(lines), 9)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

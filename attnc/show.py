"""Pictures of a mask: for a terminal, as SVG, as PNG. Rows are queries, columns keys."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import groupby

Rows = Sequence[Sequence[bool]]
"""``rows[i][j]``: does query i see key j. At least one row and one column."""

_HALVES = " ▄▀█"  # by 2 * upper + lower
_SHADES = " ░▒▓█"


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


def _runs(row: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """``(start, length)`` of each run of live keys."""
    at = 0
    for alive, group in groupby(row):
        length = len(list(group))
        if alive:
            yield at, length
        at += length


def svg(rows: Rows, *, title: str) -> str:
    """One path, a rectangle for every run of live keys; a unit a pair."""
    height, width = len(rows), len(rows[0])
    path = "".join(f"M{at} {i}h{n}v1h-{n}z" for i, row in enumerate(rows) for at, n in _runs(row))
    text = title.replace("&", "&amp;").replace("<", "&lt;")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-1 -1 {width + 2} {height + 2}" width="512"'
        ' shape-rendering="crispEdges">\n'
        f"  <title>{text}</title>\n"
        f'  <rect x="-0.5" y="-0.5" width="{width + 1}" height="{height + 1}" fill="#fff" stroke="#888"/>\n'
        f'  <path fill="#246" d="{path}"/>\n'
        "</svg>\n"
    )


def png(rows: Rows) -> bytes:
    """A grey-scale PNG of two tones (PNG 1.2, RFC 2083), a pair a square of pixels, about 512 wide."""
    height, width = len(rows), len(rows[0])
    scale = max(512 // width, 1)
    lines = bytearray()
    for row in rows:
        line = b"\x00" + b"".join((b"\x30" if alive else b"\xff") * scale for alive in row)  # 0: no filter
        lines += line * scale
    header = struct.pack(">IIBBBBB", width * scale, height * scale, 8, 0, 0, 0, 0)  # 8 bits, grey
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(lines), 9)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

"""Pictures of masks: every form shows the pairs that are live and no other."""

from __future__ import annotations

import re
import struct
import zlib
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from attnc.show import live, png, svg, terminal


@st.composite
def masks(draw: st.DrawFn, largest: int = 40) -> list[list[bool]]:
    width = draw(st.integers(1, largest))
    row = st.lists(st.booleans(), min_size=width, max_size=width)
    return draw(st.lists(row, min_size=1, max_size=largest))


CAUSAL = [[j <= i for j in range(4)] for i in range(4)]


def test_terminal() -> None:
    assert terminal(CAUSAL, columns=80).splitlines() == ["┌────┐", "│█▄  │", "│███▄│", "└────┘"]


def test_terminal_of_an_odd_number_of_rows() -> None:
    assert terminal(CAUSAL[:3], columns=80).splitlines() == ["┌────┐", "│█▄  │", "│▀▀▀ │", "└────┘"]


def test_terminal_shades_what_does_not_fit() -> None:
    rows = [[j <= i for j in range(64)] for i in range(64)]
    lines = terminal(rows, columns=18).splitlines()
    assert {len(line) for line in lines} == {18}
    assert lines[1] == "│▓░" + " " * 14 + "│"
    assert lines[-2] == "│" + "█" * 14 + "▓░│"


@given(masks())
def test_terminal_says_each_pair(rows: list[list[bool]]) -> None:
    """Read back from the half blocks, the mask is the one that was drawn."""
    body = [line[1:-1] for line in terminal(rows, columns=len(rows[0]) + 2).splitlines()[1:-1]]
    halves = [[character in cell for character in line] for line in body for cell in ("▀█", "▄█")]
    assert halves[: len(rows)] == rows
    assert not any(map(any, halves[len(rows) :]))


@given(masks(), st.integers(3, 12))
def test_terminal_never_hides_a_pair(rows: list[list[bool]], columns: int) -> None:
    """Blank means that no pair of the square is live, the full block that every one is."""
    text = terminal(rows, columns=columns)
    assert max(map(len, text.splitlines())) <= columns
    assert (set(text) & set("░▒▓█▀▄") != set()) == any(map(any, rows))
    assert (set(text) & set(" ░▒▓▀▄") == set()) <= all(map(all, rows))


@given(masks())
def test_svg_says_each_pair(rows: list[list[bool]]) -> None:
    tree = ElementTree.fromstring(svg(rows, title="a < b & c"))
    title, path = tree.find("{*}title"), tree.find("{*}path")
    assert title is not None and title.text == "a < b & c"
    assert path is not None
    drawn = [[False] * len(rows[0]) for _ in rows]
    for j, i, length in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\d+z", path.attrib["d"]):
        for column in range(int(j), int(j) + int(length)):
            assert not drawn[int(i)][column]
            drawn[int(i)][column] = True
    assert drawn == rows


@given(masks())
def test_png_says_each_pair(rows: list[list[bool]]) -> None:
    image = png(rows)
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(image):
        (length,) = struct.unpack_from(">I", image, at)
        name, data = image[at + 4 : at + 8], image[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", image, at + 8 + length) == (zlib.crc32(name + data),)
        chunks[name] = data
        at += 12 + length
    width, height, depth, tone = struct.unpack_from(">IIBB", chunks[b"IHDR"])
    assert (depth, tone) == (8, 0)
    scale = width // len(rows[0])
    assert (width, height) == (scale * len(rows[0]), scale * len(rows))
    pixels = zlib.decompress(chunks[b"IDAT"])
    lines = [pixels[y * (width + 1) : (y + 1) * (width + 1)] for y in range(height)]
    assert all(line[0] == 0 for line in lines)
    assert [[line[1 + scale * j] < 128 for j in range(len(rows[0]))] for line in lines[::scale]] == rows


@given(masks())
def test_live_counts(rows: list[list[bool]]) -> None:
    assert live(rows) == sum(pair for row in rows for pair in row)

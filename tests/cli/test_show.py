"""Pictures of masks: every form shows the pairs that are live and no other."""

from __future__ import annotations

import re
import struct
import zlib
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from attnc.codegen.build import FALSE, TRUE, all_of, any_of, eq, index, le, lt, mod, sub
from attnc.codegen.tilemap import TileMap, tile_map
from attnc.dsl.ir import Expr
from attnc.show import cells, heads, live, png, svg, terminal, tile_image, tile_terminal


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


# --- tiles ------------------------------------------------------------------------------------

I, J, HEAD = index("i"), index("j"), index("h")
MASKS: dict[str, Expr] = {
    "none": FALSE,
    "all": TRUE,
    "causal": le(J, I),
    "window": all_of((le(J, I), le(sub(I, J), 9))),
    "global": any_of((lt(I, 4), lt(J, 4), eq(I, J))),
    "far strides": eq(mod(sub(I, J), 9), 0),
    "by head": le(sub(J, I), HEAD),
}


def by_hand(tiles: TileMap, head: int, high: int, wide: int) -> list[list[int]]:
    """Cells of the dense map."""
    dense = tiles.dense().reshape(-1, *tiles.shape[2:])[head]
    squares = [
        [{*dense[r : r + high, c : c + wide].flat} for c in range(0, dense.shape[1], wide)]
        for r in range(0, dense.shape[0], high)
    ]
    return [[square.pop() if len(square) == 1 else 1 for square in line] for line in squares]


@given(
    st.sampled_from(sorted(MASKS)), st.integers(1, 40), st.integers(1, 40), st.tuples(*[st.integers(1, 9)] * 2),
    st.integers(1, 6), st.integers(1, 6),
)  # fmt: skip
def test_cells_are_the_kinds_of_their_tiles(
    name: str, N: int, M: int, block: tuple[int, int], high: int, wide: int
) -> None:
    tiles = tile_map(MASKS[name], N, M, block, H=3)
    single = heads(tiles)
    assert len(single) == (3 if name == "by head" else 1)
    for head, part in enumerate(single):
        assert cells(part, high=high, wide=wide) == by_hand(tiles, head, high, wide)
        assert (part.dense() == tiles.dense()[:, head : head + 1]).all()
    assert [sum(kind) for kind in zip(*(part.counts() for part in single), strict=True)] == [*tiles.counts()]


def test_tiles_in_a_terminal() -> None:
    text, cell = tile_terminal(tile_map(MASKS["causal"], 12, 12, (4, 4)), columns=80)
    assert text.splitlines() == ["┌──────┐", "│▒▒    │", "│██▒▒  │", "│████▒▒│", "└──────┘"]
    assert cell == (1, 1)


def test_tall_tiles_are_one_character() -> None:
    text, cell = tile_terminal(tile_map(MASKS["causal"], 12, 6, (4, 2), q_offset=0), columns=80)
    assert text.splitlines() == ["┌───┐", "│▒▒ │", "│██▒│", "│███│", "└───┘"]
    assert cell == (1, 1)


def test_tiles_that_do_not_fit_are_joined() -> None:
    text, cell = tile_terminal(tile_map(MASKS["causal"], 64, 64, (1, 1)), columns=18)
    assert cell == (8, 4)
    assert text.splitlines()[1:3] == ["│▒▒              │", "│██▒▒            │"]


@given(st.sampled_from(sorted(MASKS)), st.integers(1, 300), st.integers(1, 300), st.integers(3, 40))
def test_tiles_stay_within_the_terminal(name: str, N: int, M: int, columns: int) -> None:
    tiles = heads(tile_map(MASKS[name], N, M, (3, 4)))[0]
    text, (high, wide) = tile_terminal(tiles, columns=columns)
    lines = text.splitlines()
    assert max(map(len, lines)) <= columns
    assert len(lines) - 2 <= max(columns - 2, 1)
    kinds = {" ": 0, "▒": 1, "█": 2}
    shown = [[kinds[letter] for letter in line[1:-1]] for line in lines[1:-1]]
    wanted = cells(tiles, high=high, wide=wide)
    times = len(shown[0]) // len(wanted[0])
    assert [row[::times] for row in shown] == wanted


def test_an_image_of_many_tiles_is_scaled_down() -> None:
    tiles = tile_map(MASKS["causal"], 2**18, 2**18, (128, 128))
    rows, cell = tile_image(tiles)
    assert cell == (2, 2)
    assert len(rows) == len(rows[0]) == 1024
    assert rows[1][:3] == [2, 1, 0]


def test_images_tell_partial_from_full() -> None:
    rows = cells(tile_map(MASKS["causal"], 8, 8, (4, 2)), high=1, wide=1)
    assert rows == [[1, 1, 0, 0], [2, 2, 1, 1]]
    tree = ElementTree.fromstring(svg(rows, title="t", fills=("#9bd", "#246"), cell=(4, 2)))
    partial, full = tree.findall("{*}path")
    assert (partial.attrib["fill"], partial.attrib["d"]) == ("#9bd", "M0 0h4v4h-4zM4 4h4v4h-4z")
    assert (full.attrib["fill"], full.attrib["d"]) == ("#246", "M0 4h4v4h-4z")
    image = png(rows, tones=b"\xff\xa8\x30", cell=(4, 2))
    assert struct.unpack_from(">II", image, 16) == (512, 512)
    at = image.index(b"IDAT")
    (length,) = struct.unpack_from(">I", image, at - 4)
    pixels = zlib.decompress(image[at + 4 : at + 4 + length])
    assert [pixels[513 * y + 1 + x] for y in (0, 300) for x in (0, 200, 300, 500)] == [
        168,
        168,
        255,
        255,
        48,
        48,
        168,
        168,
    ]

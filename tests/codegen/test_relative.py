"""Masks and distances told from a tile's start equal those of positions."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.codegen import build
from attnc.codegen.exponent import exponent
from attnc.codegen.lower import lower
from attnc.codegen.relative import OFFS, START, distances, live, sloped
from attnc.dsl.frontend import compilable, compile_text
from attnc.dsl.ir import Axis, Expr, Fn, Index, Kind, Load, Side, dependencies, postorder
from attnc.dsl.source import Source
from tests.codegen.evaluate import evaluate
from tests.codegen.expressions import bools, ints

I, J = build.index("i"), build.index("j")
DOT = build.symbol("dot0", Kind.FLOAT)
N, M = 13, 17
OFFSETS: dict[Expr, int] = {build.offset(Side.QUERY): 3, build.offset(Side.KEY): -2}


def leaves(row: int, column: int) -> dict[Expr, bool | int | float]:
    i, j = row + 3, column - 2
    sizes = {
        build.size(name): number for name, number in {"B": 1, "H": 2, "G": 2, "N": N, "M": M, "D": 8, "E": 8}.items()
    }
    return {I: i, J: j, build.index("h"): 1, build.index("b"): 0, **sizes, **OFFSETS}


def agree(mask: Expr, axis: Axis) -> None:
    length = build.size("M" if axis == "j" else "N")
    told = live(mask, axis, length).mask
    count = M if axis == "j" else N
    for start in (0, 8, 16):
        for offs in range(8):
            for other in range(N if axis == "j" else M):
                row, column = (other, start + offs) if axis == "j" else (start + offs, other)
                known = leaves(row, column)
                exists = start + offs < count
                wanted = exists and bool(evaluate(mask, known, read))
                assert bool(evaluate(told, {**known, OFFS: offs, START: start}, read)) == wanted, (start, offs, other)


def read(tensor: str, *index: object) -> bool | int:
    return hash((tensor, *index)) % 3 == 0 if tensor == "flag" else 5


def mask(text: str) -> Expr:
    spec = f"attention spec {{ score dot(q, k)  mask {text}  normalize softmax }}"
    return lower(compilable(compile_text(Source(name="spec.attn", text=spec), {}))).maps[0].mask


@pytest.mark.parametrize("axis", ["i", "j"])
@pytest.mark.parametrize(
    ("text", "positions"),
    [
        ("causal", False),
        ("window(3)", False),
        ("causal and window(4)", False),
        ("causal or prefix(4)", False),
        ("causal and (window(3) or sink(2))", False),
        ("0 <= i - 2 * j < 7", False),
        ("not causal", False),
        ("true", False),
        ("false", False),
        ("block(4) and causal", True),
    ],
)
def test_masks_of_the_library(text: str, positions: bool, axis: Axis) -> None:
    """And what runs along the tile is named by its place in it alone, but for what is not affine."""
    found = mask(text)
    agree(found, axis)
    below = postorder(live(found, axis, build.size("M" if axis == "j" else "N")).mask)
    assert any(isinstance(node, Index) and node.axis == axis for node in below) is positions


@given(mask=bools(ints()), axis=st.sampled_from(["i", "j"]))
def test_any_mask(mask: Expr, axis: Axis) -> None:
    agree(mask, axis)


@given(far=st.integers(-(2**29), 2**29), apart=st.integers(-300, 300), axis=st.sampled_from(["i", "j"]))
def test_distances(far: int, apart: int, axis: Axis) -> None:
    apart_of = build.sub(build.mul(2, I), build.add(J, I))
    for text in (build.to_float(apart_of), build.to_float(build.absolute(apart_of))):
        told = distances(text, axis)
        assert told != text
        known: dict[Expr, bool | int | float] = {I: far + apart, J: far, **OFFSETS}
        row = far + apart - 3 if axis == "i" else far + 2
        wanted = evaluate(text, known)
        assert evaluate(told, {**known, OFFS: row % 64, START: row - row % 64}) == wanted


def test_where_a_tensor_is_read_stays() -> None:
    """Positions are exact there, and known to lie within the tensor by what they are."""
    far = build.apply(Fn.INT, build.mul(build.to_float(build.sub(I, J)), 0.5))
    read_at = Load(kind=Kind.FLOAT, tensor="bias", index=(far,))
    told = distances(build.mul(read_at, build.to_float(build.sub(I, J))), "j")
    assert read_at in postorder(told)
    assert OFFS in postorder(told)


# --- what grows with the position -------------------------------------------------------------


def score(text: str, mask: str) -> tuple[Expr, Expr]:
    """The score that a kernel computes for each pair, and the mask."""
    spec = (
        f"attention spec {{ input slope: f32[H]  input pair: f32[N, M]  score {text}  mask {mask}  normalize softmax }}"
    )
    (found,) = lower(compilable(compile_text(Source(name="spec.attn", text=spec), {}))).maps
    return exponent(found.score).rest, found.mask


@pytest.mark.parametrize("axis", ["i", "j"])
@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("dot(q, k) / sqrt(D) - slope[h] * abs(i - j)", "causal"),
        ("dot(q, k) / sqrt(D) - slope[h] * abs(i - j)", "causal and window(4)"),
        ("dot(q, k) / sqrt(D) - slope[h] * abs(i - j)", "i <= j"),
        ("dot(q, k) + slope[h] * (j - 3 * i + 2)", "true"),
        ("dot(q, k) + 0.5 * j + 0.25 * (2 * j - i)", "window(5)"),
    ],
)
def test_slopes_are_the_score(axis: Axis, text: str, condition: str) -> None:
    rest, mask = score(text, condition)
    found = sloped(rest, mask, axis, build.const(0.75))
    assert found is not None
    other: Axis = "i" if axis == "j" else "j"
    assert not dependencies(found.along) & {"i", "j"} and axis not in dependencies(found.across)
    assert OFFS not in postorder(found.across) and START not in postorder(found.along)
    assert other in dependencies(found.across)
    seen = 0
    for start, offs, beside in product((0, 8), range(8), range(N if axis == "j" else M)):
        row, column = (beside, start + offs) if axis == "j" else (start + offs, beside)
        known = {**leaves(row, column), OFFS: offs, START: start, DOT: 1.5}
        if evaluate(mask, known, half):
            seen += 1
            told = 0.75 * evaluate(found.rest, known, half)
            told += evaluate(found.along, known, half) - evaluate(found.across, known, half)
            assert told == pytest.approx(0.75 * evaluate(rest, known, half), rel=1e-12)
    assert seen > 10


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("dot(q, k) - slope[h] * abs(i - j)", "window(4)"),  # either sign
        ("dot(q, k) - sqrt(abs(i - j))", "causal"),
        ("dot(q, k) + pair[i, j]", "causal"),
        ("dot(q, k) * (i - j)", "causal"),  # no uniform factor
        ("slope[h] * (j - i)", "causal"),  # nothing else: a product would have no tile
    ],
)
def test_no_slope(text: str, condition: str) -> None:
    assert sloped(*score(text, condition), "j", build.const(1.0)) is None


def half(tensor: str, *index: object) -> float:
    return 0.5

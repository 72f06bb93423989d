"""Masks and distances told from a tile's start equal those of positions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.codegen import build
from attnc.codegen.lower import lower
from attnc.codegen.relative import OFFS, START, distances, live
from attnc.dsl.frontend import compilable, compile_text
from attnc.dsl.ir import Axis, Expr, Fn, Index, Kind, Load, Side, postorder
from attnc.dsl.source import Source
from tests.codegen.evaluate import evaluate
from tests.codegen.expressions import bools, ints

I, J = build.index("i"), build.index("j")
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

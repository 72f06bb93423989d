"""Vectors whose size is no power of two, taken in two parts, against the reference; and where a plan takes them so."""

from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path

import pytest
import torch

import attnc
from attnc.codegen.lower import lower
from attnc.codegen.plan import SPLITS, plan
from attnc.codegen.planner.tile import padded, parts
from attnc.codegen.planner.work import PASSES, work
from attnc.codegen.program import Program
from attnc.dsl.frontend import compilable, compile_text
from attnc.dsl.source import Source
from attnc.runtime.op import Op
from attnc.testing.call import check, make

EXAMPLES = Path(__file__).parents[2] / "examples" / "zoo"
DIMS = (24, 48, 80, 96, 112, 192)
CUT = {24: (32,), 48: (32, 16), 80: (64, 16), 96: (64, 32), 112: (128,), 192: (128, 64)}
# An op of two maps side by side, of weights that are no exponentials, of classes of rows, of a total over queries.
OPS = ("differential", "relu", "dilated", "heavy_hitters")


def split(op: Op, monkeypatch: pytest.MonkeyPatch) -> Op:
    """The op with small tiles for all parts, whatever the planner says of them."""
    tiles = op._loaded.module._TILES
    for step, (dim, cut) in product(PASSES, CUT.items()):
        monkeypatch.setitem(tiles, (step, sum(cut), 4), (16, 16, 4, 1, 0, False))
        assert op._loaded.module._parts(step, dim, 4) == (*cut, 0)[:2]
    return op


@pytest.mark.parametrize(("dim", "value"), [*pairwise(DIMS), (80, 24), (192, 96)])
def test_equals_the_reference(dim: int, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    op = split(attnc.load(EXAMPLES / "causal.attn"), monkeypatch)
    sizes = {"B": 1, "H": 2, "G": 1, "N": 19, "M": 37, "D": dim, "E": value}
    check(make(op, sizes), "interpret", torch.float32)


@pytest.mark.parametrize("name", OPS)
def test_equals_the_reference_of_other_ops(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op = split(attnc.load(EXAMPLES / f"{name}.attn"), monkeypatch)
    sizes = {"B": 1, "H": 2, "G": 1, "N": 19, "M": 19, "D": 48, "E": 80}
    check(make(op, sizes), "interpret", torch.float32)


def test_two_powers_of_two_at_most() -> None:
    assert {dim: parts(dim) for dim in DIMS} == CUT
    for dim in range(1, 1025):
        cut = parts(dim)
        assert dim <= sum(cut) <= padded(dim) and all(part == padded(part) for part in cut)
        assert parts(sum(cut)) == cut, "a width names its parts"


def causal() -> Program:
    text = "attention causal { score dot(q, k) / sqrt(D)  mask causal  normalize softmax }"
    return lower(compilable(compile_text(Source(name="causal", text=text), {})))


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "gfx942", "generic"])
def test_taken_where_they_are_cheaper(target: str) -> None:
    program = causal()
    found = plan(program, target)
    for step, dim in product(PASSES, SPLITS):
        width = found.width(step, "bf16", dim)
        apart, whole = found.row(step, "bf16", width).choice, found.row(step, "bf16", padded(dim)).choice
        assert found.width(step, "f32", dim) == padded(dim)
        if width == dim and whole is not None:
            assert apart is not None
            item = work(program, step)
            assert apart.price(item, found.gpu) < whole.price(item, found.gpu)
        else:
            assert width in (dim, padded(dim))
    dims = SPLITS if target != "gfx942" else (80, 96)
    assert all(found.width(step, "bf16", dim) == dim for step, dim in product(("forward", "query"), dims))


def test_not_where_descriptors_read_them() -> None:
    """One block of a vector's elements."""
    found = plan(causal(), "sm_100")
    assert not found.split and found.width("forward", "bf16", 96) == 128

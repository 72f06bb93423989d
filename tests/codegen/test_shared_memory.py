"""Shared memory of kernels that are not plain ones, as Triton 3.7.1 allocates it: `allocations` of runtime/aot.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnc.codegen.lower import lower
from attnc.codegen.planner.budget import shared_lines, total
from attnc.codegen.planner.targets import Gpu, targets
from attnc.codegen.planner.tile import Tile
from attnc.codegen.planner.work import of_group, work
from attnc.codegen.program import Program
from attnc.dsl.frontend import compilable, compile_text
from attnc.dsl.source import Source

ZOO = Path(__file__).parents[2] / "examples" / "zoo"


def program(text: str) -> Program:
    return lower(compilable(compile_text(Source(name="<text>", text=text), {})))


def zoo(name: str) -> Program:
    return program((ZOO / f"{name}.attn").read_text(encoding="utf-8"))


def test_shared_memory_of_scores_for_gradients_alone() -> None:
    """Retention's decay has a gradient, its queries' own none of the scores: masks lie in two layouts on gfx942."""
    gpu, tile = targets().find("gfx942"), Tile("query", 128, 64, 4, 2)
    assert isinstance(gpu, Gpu)
    texts = ("input g: f32[H]", "input g: f32[H] nograd")
    text = "attention a {{ {} score dot(q, k) * g[h] ** (i - j) mask causal normalize abs_sum }}"
    with_grad, without = (work(program(text.format(declared)), "query") for declared in texts)
    assert with_grad.apart and not without.apart
    sizes = [total(shared_lines(item, tile, "bf16", 64, gpu)) for item in (with_grad, without)]
    assert sizes == [24576, 16384], "as Triton 3.7.1 allocates them"


@pytest.mark.parametrize(
    ("name", "target", "tile", "bytes"),
    [
        ("pair_bias", "sm_90", Tile("forward", 128, 128, 8, 3), 245760),
        ("pair_bias", "sm_90", Tile("query", 128, 128, 8, 3), 327680),
        ("pair_bias", "sm_90", Tile("query", 128, 64, 8, 2), 131072),
        ("pair_bias", "sm_90", Tile("key", 128, 64, 8, 3), 148480),
        ("pair_bias", "sm_80", Tile("forward", 128, 32, 4, 3), 65536),
        ("t5_bias", "sm_90", Tile("query", 128, 32, 8, 3), 73728),
        ("swin", "sm_80", Tile("forward", 128, 64, 8, 3), 114688),
        ("disentangled", "sm_80", Tile("forward", 128, 32, 8, 3), 81920),
        ("disentangled", "sm_90", Tile("key", 128, 64, 8, 2), 115712),
        ("moba", "sm_80", Tile("query", 64, 32, 4, 3), 34816),
        ("moba", "sm_80", Tile("query", 128, 32, 8, 2), 45056),
        ("moba", "sm_80", Tile("query", 32, 32, 2, 2), 18432),
        ("t5_bias", "sm_90", Tile("key", 128, 64, 4, 2), 74752),
        ("t5_bias", "sm_90", Tile("key", 64, 64, 4, 2), 58368),
    ],
)
def test_shared_memory_of_what_a_pair_reads(name: str, target: str, tile: Tile, bytes: int) -> None:
    """What has four bytes, or lies along keys, is copied ahead, but for what a product begins with; the others pass
    through, one by one. As Triton 3.7.1 allocates them."""
    gpu = targets().find(target)
    assert isinstance(gpu, Gpu)
    assert total(shared_lines(work(zoo(name), tile.step), tile, "bf16", 64, gpu)) == bytes


@pytest.mark.parametrize(
    ("target", "dim", "tile", "bytes"),
    [
        ("sm_80", 64, Tile("forward", 128, 16, 8, 3), 32768),
        ("sm_80", 64, Tile("forward", 64, 16, 4, 2), 16384),
        ("sm_80", 64, Tile("forward", 128, 32, 4, 2), 24576),
        ("sm_80", 128, Tile("forward", 128, 16, 8, 2), 65536),
        ("sm_80", 128, Tile("forward", 64, 16, 4, 2), 26624),
        ("sm_90", 32, Tile("forward", 128, 16, 8, 2), 16384),
    ],
)
def test_shared_memory_of_sums_that_are_stored_in_float32(target: str, dim: int, tile: Tile, bytes: int) -> None:
    """A branch's, which change their layout when all else is free. As Triton 3.7.1 allocates them."""
    gpu, sparse = targets().find(target), zoo("native_sparse")
    assert isinstance(gpu, Gpu)
    local = next(group for group in sparse.groups if group.name == "local")
    assert total(shared_lines(of_group(sparse, local, "forward"), tile, "bf16", dim, gpu)) == bytes


def test_shared_memory_of_a_score_of_two_products() -> None:
    gpu, tile = targets().find("sm_100"), Tile("key", 128, 64, 8, 3)
    assert isinstance(gpu, Gpu)
    model = total(shared_lines(work(zoo("mla"), "key"), tile, "bf16", 64, gpu))
    assert model == 157696, "as Triton 3.7.1 allocates it"


KEYS = program("attention keys { input t: bool[B, M] score dot(q, k) / sqrt(D) mask t[b, j] normalize softmax }")
ROWS = program("attention rows { input t: bool[B, N] score dot(q, k) / sqrt(D) mask t[b, i] normalize softmax }")


@pytest.mark.parametrize(
    ("spec", "dim", "tile", "bytes"),
    [
        (KEYS, 64, Tile("forward", 128, 64, 8, 2), 32768),
        (KEYS, 64, Tile("query", 128, 64, 8, 2), 57344),
        (KEYS, 64, Tile("query", 128, 64, 8, 3), 65536),
        (KEYS, 64, Tile("query", 64, 64, 4, 2), 36864),
        (KEYS, 64, Tile("query", 32, 32, 2, 2), 20480),
        (KEYS, 64, Tile("query", 64, 32, 4, 1), 24576),
        (ROWS, 64, Tile("key", 128, 32, 8, 3), 45568),
        (ROWS, 64, Tile("key", 64, 64, 4, 3), 37888),
        (ROWS, 64, Tile("key", 64, 32, 4, 1), 28672),
        (ROWS, 128, Tile("key", 128, 64, 8, 2), 107008),
        (ROWS, 128, Tile("key", 32, 32, 4, 2), 41216),
    ],
)
def test_shared_memory_where_an_input_says_which_rows_are_read(spec: Program, dim: int, tile: Tile, bytes: int) -> None:
    """On sm_80 vectors wait for it and are not copied ahead, and change their layout for a second product."""
    gpu = targets().find("sm_80")
    assert isinstance(gpu, Gpu)
    model = total(shared_lines(work(spec, tile.step), tile, "bf16", dim, gpu))
    assert bytes <= model <= bytes + 192, "the input's own rows are rounded up"

"""Random predicates against brute force: that their tile maps are sound, and how many of them are exact.

    python tests/codegen/soundness.py --examples 10000

Draws what masks compare (floors, remainders, ``abs min max where``, per-head constants, boolean inputs) under ``and``,
``or``, ``not``, and any lengths, offsets and tiles; evaluates the mask over all pairs with the reference's evaluator;
compares both directions of the map."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from attnc.codegen.tilemap import EMPTY, FULL, PARTIAL, tile_map
from attnc.dsl.ir import Expr
from attnc.runtime.evaluate import Domain, Scope, evaluate
from tests.codegen.expressions import FLAG, LIVE_HEAD, bools, ints, positional

HEADS = 2
COUNTS, LIVE = np.array([3, 6]), np.array([True, False])


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Lengths, offsets and tiles of one map."""

    N: int
    M: int
    block: tuple[int, int]
    q_offset: int
    kv_offset: int


def shapes() -> st.SearchStrategy[Shape]:
    length, side, start = st.integers(1, 24), st.integers(1, 9), st.integers(-9, 9)
    return st.builds(Shape, N=length, M=length, block=st.tuples(side, side), q_offset=start, kv_offset=start)


def predicates() -> st.SearchStrategy[Expr]:
    """Half of them compare what masks compare, half anything."""
    return st.one_of(bools(positional(), FLAG, LIVE_HEAD), bools(ints(), FLAG, LIVE_HEAD))


def inputs(shape: Shape) -> dict[str, NDArray[Any]]:
    flags = np.random.default_rng(shape.N).random((shape.N, shape.M)) < 0.5
    return {"flag": flags, "count": COUNTS, "live": LIVE}


def dense(mask: Expr, shape: Shape) -> NDArray[Any]:
    """bool [1 or heads, N, M]: the reference's word on every pair."""
    scope = Scope(
        dtype=torch.float32,
        device=torch.device("cpu"),
        sizes={"B": 1, "H": HEADS, "N": shape.N, "M": shape.M},
        inputs={name: torch.tensor(value) for name, value in inputs(shape).items()},
        q_offset=torch.tensor([shape.q_offset]),
        kv_offset=shape.kv_offset,
    )
    i = torch.arange(shape.N).reshape(1, 1, -1, 1) + shape.q_offset
    j = torch.arange(shape.M).reshape(1, 1, 1, -1) + shape.kv_offset
    h = torch.arange(HEADS).reshape(1, -1, 1, 1)
    domain = Domain(rank=4, indices={"b": torch.zeros((1, 1, 1, 1), dtype=torch.int64), "h": h, "i": i, "j": j})
    live = evaluate(mask, scope, domain, {})
    return live.expand(1, live.shape[1], shape.N, shape.M)[0].numpy()


def compare(mask: Expr, shape: Shape) -> str:
    """'exact', 'called exact' wrongly never: raises AssertionError; 'partial in excess' or 'not known to be exact'."""
    live = dense(mask, shape)
    rows, columns = (range(0, n, step) for n, step in zip((shape.N, shape.M), shape.block, strict=True))
    tiles = [[live[:, r : r + shape.block[0], c : c + shape.block[1]] for c in columns] for r in rows]
    kinds = [[np.where(t.all((1, 2)), FULL, np.where(t.any((1, 2)), PARTIAL, EMPTY)) for t in line] for line in tiles]
    wanted = np.moveaxis(np.array(kinds), 2, 0)
    worst = "exact"
    for transposed in (False, True):
        made = tile_map(
            mask, shape.N, shape.M, shape.block, H=HEADS, q_offset=shape.q_offset, kv_offset=shape.kv_offset,
            inputs=inputs(shape), transposed=transposed,
        )  # fmt: skip
        found = made.dense()[0].swapaxes(1, 2) if transposed else made.dense()[0]
        assert found.shape == wanted.shape, (found.shape, wanted.shape)
        assert ((found == wanted) | (found == PARTIAL)).all(), "sound"
        same = bool((found == wanted).all())
        assert same or not made.exact, "exact where it says so"
        if not same:
            worst = "partial in excess"
        elif not made.exact and worst == "exact":
            worst = "not known to be exact"
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found: Counter[str] = Counter()

    @settings(
        max_examples=options.examples, deadline=None, database=None, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @seed(options.seed)
    @given(predicates(), shapes())
    def run(mask: Expr, shape: Shape) -> None:
        found[compare(mask, shape)] += 1

    began = time.perf_counter()
    run()
    total = sum(found.values())
    print(f"{total} random predicates, both directions: all sound, in {time.perf_counter() - began:.0f} s")
    for what, count in found.most_common():
        print(f"  {what}: {count} ({100 * count / total:.1f}%)")
    return 0


if __name__ == "__main__":
    sys.exit(main())

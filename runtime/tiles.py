"""The tile map of an op's mask at given lengths, its inputs being tensors. The mask is not evaluated over pairs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from attnc.codegen.arrays import Array
from attnc.codegen.build import any_of
from attnc.codegen.tilemap import TileMap
from attnc.codegen.tilemap import tile_map as map_tiles
from attnc.dsl.construct import Attention
from attnc.runtime.draw import draw
from attnc.runtime.evaluate import size
from attnc.runtime.reference import mask_scope


def tile_map(
    construct: Attention,
    N: int,
    M: int,
    B: int,
    H: int,
    inputs: Mapping[str, Tensor | int | float | bool],
    *,
    block: tuple[int, int] = (128, 64),
    q_offset: int | Tensor | None = None,
    kv_offset: int = 0,
    transposed: bool = False,
) -> TileMap:
    """The map of the pairs that are live in some branch, as ``reference.mask`` says it; its faults are raised too.
    ValueError for tiles that are not two positive numbers, and for branches that see different numbers of keys."""
    scope = mask_scope(construct, N, M, B, H, inputs, q_offset, kv_offset)
    sides = block if isinstance(block, tuple | list) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and side >= 1 for side in sides):
        raise ValueError(f"{construct.name}: block: expected two positive ints (queries, keys), got {block!r}")
    keys = {size(branch.keys, scope.sizes) for branch in construct.branches}
    if len(keys) > 1:
        raise ValueError(f"{construct.name}: its branches see {sorted(keys)} keys: there is no one map of them")
    return map_tiles(
        any_of(branch.mask for branch in construct.branches),
        N,
        keys.pop(),
        block,
        B=B,
        H=H,
        q_offset=scope.q_offset.numpy(force=True),
        kv_offset=kv_offset,
        inputs={name: value.numpy(force=True) for name, value in scope.inputs.items()},
        sizes=scope.sizes,
        draw=drawn,
        transposed=transposed,
    )


def drawn(seed: int, head: Array, row: Array, count: int, blocks: int) -> Array:
    """``runtime.draw`` for arrays: how a tile map draws random blocks."""
    head, row = np.broadcast_arrays(head, row)
    found: Array = draw(seed, torch.tensor(head), torch.tensor(row), count, blocks).numpy()
    return found

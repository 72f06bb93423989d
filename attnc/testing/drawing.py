"""Hypothesis strategies that draw calls of an op."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import strategies as st

from attnc.codegen.ranges import LIMIT
from attnc.runtime.op import Op
from attnc.testing.call import Call
from attnc.testing.kernels import DIMS, DTYPES, LAYOUTS, VALUES, Kernels, Request, arguments, pool

LENGTHS = (1, 2, 3, 5, 8, 16, 17, 31, 33, 64, 65, 127, 130, 257, 515, 1031, 0)
PAIRS = 60_000  # of all heads, at most: the reference holds them in float64, several times over
_FAR = LIMIT - 4000  # near the largest position


@st.composite
def shapes(
    draw: Any, *, heads: int | None = None, lengths: Sequence[int] = LENGTHS, pairs: int = PAIRS
) -> dict[str, int]:
    """Sizes B, G, H, N and M of a call: the last two may be 0, all are small enough for the reference."""
    B = draw(st.sampled_from((1, 2)))
    if heads is None:
        G = draw(st.sampled_from((1, 2, 3)))
        H = G * draw(st.sampled_from((1, 2, 3)))
    else:
        G, H = draw(st.sampled_from([n for n in (1, 2, 3) if heads % n == 0])), heads
    one = draw(st.sampled_from(lengths))
    other = draw(st.sampled_from([n for n in lengths if n * one * B * H <= pairs]))
    N, M = draw(st.sampled_from(((one, other), (other, one))))
    return {"B": B, "G": G, "H": H, "N": N, "M": M}


@st.composite
def requests(draw: Any, kernels: Kernels, *, lengths: Sequence[int] = LENGTHS, pairs: int = PAIRS) -> Request:
    """What a call of these kernels is made from; the simplest first."""
    sizes = draw(shapes(heads=kernels.heads, lengths=lengths, pairs=pairs))
    q_offset: int | tuple[int, ...] | None = None
    kv_offset = 0
    match draw(st.sampled_from(("default", "near", "batch", "far"))):
        case "near":
            q_offset, kv_offset = draw(st.integers(-5, 40)), draw(st.integers(-3, 20))
        case "batch":
            q_offset = tuple(draw(st.integers(-60, 60)) for _ in range(sizes["B"]))
        case "far":
            largest = [] if kernels.traits.near else [(_FAR, _FAR)]
            q_offset, kv_offset = draw(st.sampled_from([(300, 290), (2000, 0), (-2000, 0), (0, 2000), *largest]))
        case _:
            pass
    return Request(
        **sizes,
        q_offset=q_offset,
        kv_offset=kv_offset,
        layout=draw(st.sampled_from(LAYOUTS)),
        values=draw(st.sampled_from(VALUES)),
        seed=draw(st.integers(0, 99)),
    )


def calls(
    op: Op,
    *,
    dtypes: Sequence[torch.dtype] = tuple(DTYPES.values()),
    dims: Sequence[int] = DIMS,
    lengths: Sequence[int] = LENGTHS,
    settings: int = 12,
    seed: int = 0,
) -> st.SearchStrategy[Call]:
    """Calls of ``op``: lengths, heads, offsets, strides, inputs and values of every kind; vectors of ``settings``
    combinations of dtype and dims, for each has kernels of its own to compile. Use them as
    ``assert_matches_reference(op, *call.args, **call.kwargs)``. ValueError where no sizes fit the spec."""
    made = pool(lambda params: op, (), {}, count=settings, seed=seed, dtypes=dtypes, dims=dims)
    return st.sampled_from(made).flatmap(
        lambda kernels: requests(kernels, lengths=lengths).map(lambda request: arguments(kernels, request))
    )

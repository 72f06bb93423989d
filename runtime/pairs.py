"""Products over the live pairs only: what a masked pair holds takes no part, whatever it is.

``pair_dot`` gives one number a live pair, ``pair_sum`` sums rows over live pairs; each is the other's gradient, so
both differentiate any number of times. Where every operand is finite a dense matrix product and a product over
the list of pairs agree (0 times a finite number is 0), and the dense one is taken; NaN or inf take the list.
Live pairs are listed in row-major order of the mask [B, H, N, M].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_CHUNK = 1 << 22  # numbers gathered at a time from a list of pairs


def pair_dot(x: Tensor, y: Tensor, live: Tensor) -> Tensor:
    """x[b, h, i] . y[b, h, j] for each live pair: x [B, H, N, D], y [B, H, M, D], live [B, H, N, M] -> [P]."""
    return _PairDot.apply(x, y, live)  # type: ignore[no-any-return, no-untyped-call]  # torch leaves apply untyped


def pair_sum(weights: Tensor, y: Tensor, live: Tensor, *, transposed: bool = False) -> Tensor:
    """sum over live j of w[b, h, i, j] y[b, h, j]: weights [P], y [B, H, M, D] -> [B, H, N, D].

    ``transposed``: the sum is over i instead, y is [B, H, N, D] and the result [B, H, M, D]."""
    return _PairSum.apply(weights, y, live, transposed)  # type: ignore[no-any-return, no-untyped-call]


def spread(values: Tensor, live: Tensor, fill: float = 0.0) -> Tensor:
    """The list of pairs as a dense tensor, masked pairs holding ``fill``: [P] -> [B, H, N, M]."""
    return torch.full(live.shape, fill, dtype=values.dtype, device=values.device).masked_scatter(live, values)


def _chunks(live: Tensor, width: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Pieces of the list of pairs: (piece, flat row number, flat column number)."""
    b, h, i, j = live.nonzero(as_tuple=True)
    line = b * live.shape[1] + h
    row, column = line * live.shape[2] + i, line * live.shape[3] + j
    step = max(_CHUNK // max(width, 1), 1)
    for start in range(0, row.numel(), step):
        piece = slice(start, start + step)
        yield piece, row[piece], column[piece]


class _PairDot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, live: Tensor) -> Tensor:
        ctx.save_for_backward(x, y, live)
        if x.isfinite().all() and y.isfinite().all():
            return (x @ y.mT).masked_select(live)
        rows, columns = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
        found = x.new_empty(int(live.sum()))
        for piece, row, column in _chunks(live, x.shape[-1]):
            found[piece] = (rows[row] * columns[column]).sum(-1)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, y, live = ctx.saved_tensors
        (grad,) = grads
        dx = pair_sum(grad, y, live) if ctx.needs_input_grad[0] else None
        dy = pair_sum(grad, x, live, transposed=True) if ctx.needs_input_grad[1] else None
        return dx, dy, None


class _PairSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, y: Tensor, live: Tensor, transposed: bool) -> Tensor:
        ctx.save_for_backward(weights, y, live)
        ctx.transposed = transposed
        if y.isfinite().all():
            dense = spread(weights, live)
            return (dense.mT if transposed else dense) @ y
        length = live.shape[3] if transposed else live.shape[2]
        found = y.new_zeros((*live.shape[:2], length, y.shape[-1]))
        flat, rows = found.view(-1, y.shape[-1]), y.reshape(-1, y.shape[-1])
        for piece, row, column in _chunks(live, y.shape[-1]):
            to, of = (column, row) if transposed else (row, column)
            flat.index_add_(0, to, weights[piece, None] * rows[of])
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weights, y, live = ctx.saved_tensors
        (grad,) = grads
        transposed: bool = ctx.transposed
        dweights = dy = None
        if ctx.needs_input_grad[0]:
            dweights = pair_dot(y, grad, live) if transposed else pair_dot(grad, y, live)
        if ctx.needs_input_grad[1]:
            dy = pair_sum(weights, grad, live, transposed=not transposed)
        return dweights, dy, None, None

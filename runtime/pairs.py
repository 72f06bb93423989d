"""Numbers of live pairs, and products over the live pairs only: what a masked pair holds takes no part.

``Pairs.dot`` gives one number a live pair, ``Pairs.sum`` sums rows over live pairs; each is the other's gradient, so
both differentiate any number of times. Where every operand is finite, a dense matrix product and a product over
the list of pairs agree (0 times a finite number is 0), and the dense one is taken; NaN or inf take the list.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

_CHUNK = 1 << 22  # numbers gathered at a time from a list of pairs


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """The live pairs of [B, H, N, M], in row-major order: ``flat`` [P] counts through all pairs."""

    shape: tuple[int, int, int, int]
    flat: Tensor

    @staticmethod
    def of(live: Tensor) -> Pairs:
        """live: bool [B, H, N, M]."""
        B, H, N, M = live.shape
        return Pairs(shape=(B, H, N, M), flat=live.reshape(-1).nonzero()[:, 0])

    @property
    def count(self) -> int:
        return self.flat.numel()

    @cached_property
    def row(self) -> Tensor:
        """Which of the B * H * N rows each pair lies in: [P]."""
        return self.flat // max(self.shape[3], 1)

    @cached_property
    def column(self) -> Tensor:
        """Which of the B * H * M columns: [P]."""
        _, _, N, M = self.shape
        return self.row // max(N, 1) * M + self.flat % max(M, 1)

    def select(self, dense: Tensor) -> Tensor:
        """[B, H, N, M] -> [P]."""
        return dense.reshape(-1).index_select(0, self.flat)

    def select_rows(self, rows: Tensor) -> Tensor:
        """Each pair's row value: [B, H, N] -> [P]."""
        return rows.reshape(-1).index_select(0, self.row)

    def spread(self, values: Tensor, fill: float = 0.0) -> Tensor:
        """The list as a dense tensor, masked pairs holding ``fill``: [P] -> [B, H, N, M]."""
        B, H, N, M = self.shape
        dense = torch.full((B * H * N * M,), fill, dtype=values.dtype, device=values.device)
        return dense.index_copy_(0, self.flat, values).reshape(self.shape)

    def row_max(self, values: Tensor) -> Tensor:
        """The largest value of each row, -inf where it has none, NaN where it has one: [P] -> [B, H, N]."""
        dense = self.spread(values, -torch.inf)
        return torch.nn.functional.pad(dense, (0, 1), value=-torch.inf).amax(-1)  # M may be 0

    def dot(self, x: Tensor, y: Tensor) -> Tensor:
        """x[b, h, i] . y[b, h, j] for each pair: x [B, H, N, D], y [B, H, M, D] -> [P]."""
        return _Dot.apply(x, y, self)  # type: ignore[no-any-return, no-untyped-call]  # torch leaves apply untyped

    def sum(self, weights: Tensor, y: Tensor, *, by_column: bool = False) -> Tensor:
        """The sum over the live j of w[b, h, i, j] y[b, h, j]: weights [P], y [B, H, M, D] -> [B, H, N, D].

        ``by_column``: over i instead, y is [B, H, N, D] and the result [B, H, M, D]."""
        return _Sum.apply(weights, y, self, by_column)  # type: ignore[no-any-return, no-untyped-call]

    def _chunks(self, width: int) -> Iterator[slice]:
        """Pieces of the list that gather a bounded number of numbers."""
        step = max(_CHUNK // max(width, 1), 1)
        for start in range(0, self.count, step):
            yield slice(start, start + step)


class _Dot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, pairs: Pairs) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.pairs = pairs
        if x.isfinite().all() and y.isfinite().all():
            return pairs.select(x @ y.mT)
        rows, columns = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
        found = x.new_empty(pairs.count)
        for piece in pairs._chunks(x.shape[-1]):
            found[piece] = (rows[pairs.row[piece]] * columns[pairs.column[piece]]).sum(-1)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        pairs: Pairs = ctx.pairs
        (grad,) = grads
        dx = pairs.sum(grad, y) if ctx.needs_input_grad[0] else None
        dy = pairs.sum(grad, x, by_column=True) if ctx.needs_input_grad[1] else None
        return dx, dy, None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, y: Tensor, pairs: Pairs, by_column: bool) -> Tensor:
        ctx.save_for_backward(weights, y)
        ctx.pairs, ctx.by_column = pairs, by_column
        if y.isfinite().all():
            dense = pairs.spread(weights)
            return (dense.mT if by_column else dense) @ y
        B, H, N, M = pairs.shape
        found = y.new_zeros((B, H, M if by_column else N, y.shape[-1]))
        flat, given = found.view(-1, y.shape[-1]), y.reshape(-1, y.shape[-1])
        to, of = (pairs.column, pairs.row) if by_column else (pairs.row, pairs.column)
        for piece in pairs._chunks(y.shape[-1]):
            flat.index_add_(0, to[piece], weights[piece, None] * given[of[piece]])
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weights, y = ctx.saved_tensors
        pairs: Pairs = ctx.pairs
        by_column: bool = ctx.by_column
        (grad,) = grads
        dweights = dy = None
        if ctx.needs_input_grad[0]:
            dweights = pairs.dot(y, grad) if by_column else pairs.dot(grad, y)
        if ctx.needs_input_grad[1]:
            dy = pairs.sum(weights, grad, by_column=not by_column)
        return dweights, dy, None, None

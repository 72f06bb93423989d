"""The random block pattern, a pure function of (seed, head, row of blocks, slot).

Every backend draws the same pattern: a chain of 32-bit mixing (lowbias32, Wellons 2018) over a counter, and
Floyd's sampling (Bentley and Floyd, 1987) for distinct numbers. Everything is exact int64 arithmetic that never
leaves 63 bits. ``codegen/templates/draw.py.j2`` holds the same functions for generated modules; a test compares
the two bit for bit.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mix(x: Tensor) -> Tensor:
    """lowbias32: a bijection of 32-bit integers, held in int64. x * c modulo 2**32 is taken in 16-bit halves."""
    x = x ^ (x >> 16)
    x = ((x & 0xFFFF) * 0x7FEB352D + (((x >> 16) * 0x7FEB352D & 0xFFFF) << 16)) & 0xFFFFFFFF
    x = x ^ (x >> 15)
    x = ((x & 0xFFFF) * 0x846CA68B + (((x >> 16) * 0x846CA68B & 0xFFFF) << 16)) & 0xFFFFFFFF
    return x ^ (x >> 16)


def draw(seed: int, head: Tensor, row: Tensor, count: int, blocks: int) -> Tensor:
    """``count`` distinct numbers of range(blocks) for each (head, row): int64 [*broadcast(head, row), count].

    Where count >= blocks, all of them in order, then -1 for each slot left over."""
    head, row = torch.broadcast_tensors(head, row)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    if count >= blocks:
        slots = torch.arange(count, dtype=torch.int64, device=head.device)
        return torch.where(slots < blocks, slots, -1).expand(*head.shape, count)
    state = torch.zeros_like(head, dtype=torch.int64)
    for word in (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF, head & 0xFFFFFFFF, row & 0xFFFFFFFF):
        state = mix(((state ^ word) + 0x9E3779B9) & 0xFFFFFFFF)
    drawn: list[Tensor] = []
    for slot in range(count):
        last = blocks - count + slot
        number = mix(((state ^ slot) + 0x9E3779B9) & 0xFFFFFFFF) * (last + 1) >> 32
        for other in drawn:
            number = torch.where(other == number, last, number)
        drawn.append(number)
    return torch.stack(drawn, dim=-1) if drawn else head.new_zeros((*head.shape, 0), dtype=torch.int64)

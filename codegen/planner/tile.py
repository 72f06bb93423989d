"""A tile: how many queries and keys a block takes at a time, with how many warps and buffers."""

from __future__ import annotations

from typing import NamedTuple

from attnc.codegen.planner.work import Pass

ITEMSIZE = {"f16": 2, "bf16": 2, "f32": 4, "f64": 8}


class Tile(NamedTuple):
    """``held`` rows stay in the block (queries; keys in the pass by keys), ``moved`` rows of the other axis stream
    through it. ``stages``: Triton's num_stages; ``registers``: the most that the compiler may give a thread, so that an
    SM holds as many blocks as planned, 0 for any; ``roles``: whether warps have roles of their own. A tuple, for the
    planner makes thousands."""

    step: Pass
    held: int
    moved: int
    warps: int
    stages: int
    registers: int = 0
    roles: bool = False

    @property
    def block_m(self) -> int:
        return self.moved if self.step == "key" else self.held

    @property
    def block_n(self) -> int:
        return self.held if self.step == "key" else self.moved

    @property
    def entry(self) -> tuple[int, int, int, int, int, bool]:
        """A row of a module's table."""
        return self.block_m, self.block_n, self.warps, self.stages, self.registers, self.roles

    def __str__(self) -> str:
        text = f"{self.block_m} queries x {self.block_n} keys, {self.warps} warps, {self.stages} stages"
        limit = f", at most {self.registers} registers" if self.registers else ""
        return f"{text}{limit}{', warps with roles' if self.roles else ''}"


def padded(dim: int) -> int:
    """The power of two that holds a vector, at least 16: what a kernel computes with."""
    return max(16, 1 << (dim - 1).bit_length())


def parts(dim: int) -> tuple[int, ...]:
    """A head dim as at most two powers of two, of 16 or more, that hold it with the least padding, large ones first. Of
    their sum it gives the same two, so that a width names its parts."""
    whole = padded(dim)
    pair = (whole // 2, padded(dim - whole // 2)) if dim > whole // 2 >= 16 else (whole, 0)
    return pair if sum(pair) < whole else (whole,)

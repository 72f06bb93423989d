"""The choice of a tile: candidates, those that do not fit refused with a reason, the cheapest of the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from attnc.codegen.planner.budget import (
    Budget,
    Line,
    budget,
    more_registers,
    register_lines,
    shared_lines,
    tensor_columns,
    total,
)
from attnc.codegen.planner.calibration import Measured, alike, calibrated, measured
from attnc.codegen.planner.cost import Clocks, clocks, price
from attnc.codegen.planner.targets import Gpu
from attnc.codegen.planner.tile import ITEMSIZE, Tile
from attnc.codegen.planner.work import Pass, Work

# Rows that stay, rows that move, warps: a warp has 16 rows (a wavefront 32), so that warps share none.
SHAPES = (
    (128, 128, 8), (128, 64, 8), (128, 64, 4), (128, 32, 8), (128, 32, 4), (64, 128, 4), (64, 64, 4), (64, 32, 4),
    (128, 16, 8), (64, 16, 4), (32, 32, 4), (32, 32, 2), (32, 16, 2), (16, 16, 1),
)  # fmt: skip
# The same where warps have roles of their own (sm_100); what the calibration knows of them is considered.
ROLES = ((128, 128, 8), (128, 64, 8), (64, 64, 4))
# For vectors of 512 bytes and more, whose sums fill the registers of fewer threads: warps share rows.
LONG = (
    (128, 64, 8), (128, 32, 8), (128, 16, 8), (64, 64, 8), (64, 64, 4), (64, 32, 8), (64, 32, 4), (64, 16, 4),
    (32, 32, 8), (32, 32, 4), (32, 32, 2), (32, 16, 2), (16, 16, 8), (16, 16, 4), (16, 16, 1),
)  # fmt: skip
DOUBT = 64  # registers a thread, by which the estimate may be too high
LARGE = 256  # elements of a vector, beyond which the largest tile that fits is taken, unpriced


class Refusal(NamedTuple):
    """A candidate that was not taken, and why: it takes ``amount`` of ``what``, where ``gpu`` has ``most``, or was
    compiled and spills; ``spill``: it would run, with so many bytes a thread spilled."""

    tile: Tile
    gpu: Gpu
    what: str
    amount: int = 0
    most: int = 0
    spill: int | None = None

    @property
    def reason(self) -> str:
        """One line for people."""
        if not self.most:
            return f"spills in its loops, {self.spill} bytes a thread, as compiled for {self.gpu.architecture}"
        each = " a block" if self.what == "bytes of shared memory" else ""
        about = "about " if self.what == "registers a thread" else ""
        return f"{about}{self.amount:,} {self.what}; {self.gpu.name} has {self.most:,}{each}"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The tile taken. ``refused``: what does not fit, and why; ``next_best``: what comes behind it; ``spill``: bytes of
    stack a thread, of a kernel that spills outside its loops, or where nothing that fits does without."""

    tile: Tile
    dtype: str
    dim: int
    budget: Budget
    clocks: Clocks
    refused: tuple[Refusal, ...]
    next_best: tuple[Tile, ...] = ()
    spill: int | None = None

    def price(self, work: Work, gpu: Gpu) -> float:
        """What the tile costs on ``gpu``, as ``cost.price`` has it."""
        seen = measured(work, self.tile, self.dtype, self.dim, gpu)
        spread = seen is not None and seen.lighter
        blocks, stack = self.budget.blocks, outside(seen)
        return price(work, self.tile, self.dtype, self.dim, self.clocks, blocks, stack, spread=spread)


def limited(tile: Tile, blocks: int, gpu: Gpu) -> Tile:
    """The tile with its registers limited so that an SM holds ``blocks``; as it is where that limits nothing, where
    roles divide registers among them, and on AMD's GPUs, whose compiler takes no limit."""
    most = gpu.registers // (max(1, blocks) * tile.warps * gpu.warp) // 8 * 8
    limits = gpu.warp == 32 and most < gpu.registers_thread and not tile.roles
    return tile._replace(registers=most) if limits else tile


def shapes(dtype: str, dim: int, gpu: Gpu) -> Iterator[tuple[int, int, int]]:
    """Rows that stay, rows that move, warps: every shape that is considered, large ones first."""
    considered = LONG if dim * ITEMSIZE[dtype] >= 512 else SHAPES
    for held, moved, warps in considered if _priced(dtype, dim) else SHAPES[-7:]:
        small = moved == 16 and dim != (dim & -dim) == 16  # a part of 16 by 16: too little for a copy of all threads
        if (gpu.warp == 32 or held >= 32 * warps or held <= 32) and not small:
            yield held, moved, warps


def stages(dtype: str, dim: int, gpu: Gpu) -> tuple[int, ...]:
    """Triton's num_stages, the one preferred first."""
    if gpu.matrix == "fma":
        return (1,)
    return (3, 2) if _priced(dtype, dim) and gpu.matrix != "mfma" else (2, 1)


def outside(seen: Measured | None) -> int:
    """Bytes of stack a thread of a kernel that spills outside its loops alone."""
    return 0 if seen is None or not seen.stack or seen.hot else seen.stack


def doubtful(work: Work, dtype: str, dim: int, gpu: Gpu, taken: Choice) -> Iterator[Tile]:
    """Tiles refused for registers by the estimate alone, that would be cheaper than the one taken: worth compiling."""

    def cheaper(tile: Tile, blocks: int) -> bool:
        cost = clocks(work, tile, dtype, dim, gpu, blocks)
        return price(work, tile, dtype, dim, cost, blocks) < limit

    seen = measured(work, taken.tile, dtype, dim, gpu)
    spread = seen is not None and seen.lighter
    limit = price(work, taken.tile, dtype, dim, taken.clocks, taken.budget.blocks, taken.spill or 0, spread=spread)
    for refusal in taken.refused:
        tile, spill = refusal.tile, refusal.spill
        near = spill is not None and spill <= 4 * DOUBT and measured(work, tile, dtype, dim, gpu) is None
        if near and cheaper(tile, budget(work, tile, dtype, dim, gpu).blocks):
            yield tile
    for tile in (taken.tile, *taken.next_best):
        found = occupied(work, tile, dtype, dim, gpu)
        more = limited(tile, found.blocks + 1, gpu)
        near = found.limits == "registers" and found.registers_thread - more.registers <= DOUBT
        if near and cheaper(more, found.blocks + 1):
            yield more


def with_roles(work: Work, dtype: str, gpu: Gpu) -> Iterator[Tile]:
    """Tiles whose warps may have roles of their own: tensors come by descriptors there, and the kernel is of the kind
    that is calibrated."""
    if gpu.matrix == "tcgen05" and ITEMSIZE[dtype] == 2 and calibrated(work, gpu):
        for held, moved, warps in ROLES:
            yield Tile(work.step, held, moved, warps, 2, roles=True)


def candidates(step: Pass, dtype: str, dim: int, gpu: Gpu) -> Iterator[Tile]:
    """Every tile that may be chosen, but those with roles."""
    for held, moved, warps in shapes(dtype, dim, gpu):
        for count in stages(dtype, dim, gpu):
            yield Tile(step, held, moved, warps, count)


def fault(
    work: Work,
    tile: Tile,
    dtype: str,
    dim: int,
    gpu: Gpu,
    seen: Measured | None,
    shared: tuple[Line, ...],
    registers: tuple[Line, ...] | None = None,
) -> Refusal | None:
    """Why a tile is not taken on a GPU, if it is not. ``seen``: what the calibration says of it; ``shared``,
    ``registers``: its lines of shared memory, and of registers where they are at hand."""
    most = total(shared)
    if seen is not None and seen.shared > most:
        most = seen.shared
    if most > gpu.shared_block:
        return Refusal(tile, gpu, "bytes of shared memory", most, gpu.shared_block)
    known = calibrated(work, gpu)
    columns = seen.columns if seen and known else tensor_columns(work, tile, dtype, dim, gpu)
    if columns > gpu.tensor_columns:
        return Refusal(tile, gpu, "columns of tensor memory", columns, gpu.tensor_columns)
    if seen is not None and seen.stack is not None:
        if seen.hot:
            more = 0 if known else more_registers(work, tile, dtype, dim, gpu)
            return Refusal(tile, gpu, "spills", spill=seen.stack + 4 * more)
        if known:
            return None
    needed = total(registers or register_lines(work, tile, dtype, dim, gpu))
    if seen is not None and seen.registers is not None:  # a plain kernel's, and what this one takes beside it
        needed = max(needed, seen.registers + more_registers(work, tile, dtype, dim, gpu))
    beyond = needed - gpu.registers_thread
    if beyond <= 0:
        return None
    return Refusal(tile, gpu, "registers a thread", needed, gpu.registers_thread, 4 * beyond)


def choose(work: Work, dtype: str, dim: int, gpu: Gpu, members: tuple[Gpu, ...]) -> Choice | None:
    """The cheapest candidate on ``gpu`` that fits every GPU of ``members``; of large vectors the largest. Where all
    that fit spill, the one that spills least; None where none fits."""
    ranked: list[tuple[float, int, Tile, Budget, Clocks]] = []
    refused: list[Refusal] = []
    others = stricter(gpu, members)
    single, own = len(members) == 1, calibrated(work, gpu)
    priced, counts = _priced(dtype, dim), stages(dtype, dim, gpu)

    def rank(tile: Tile, found: Budget, seen: Measured | None) -> int:
        """Among the candidates; its stack."""
        stack = outside(seen)
        cost = clocks(work, tile, dtype, dim, gpu, found.blocks)
        spread = seen is not None and seen.lighter
        value = price(work, tile, dtype, dim, cost, found.blocks, stack, spread=spread) if priced else 0.0
        ranked.append((value, len(ranked), tile, found, cost))
        return stack

    for held, moved, warps in shapes(dtype, dim, gpu):
        most = -1
        registers: tuple[Line, ...] | None = None  # the same for any stages
        for count in counts:
            tile = Tile(work.step, held, moved, warps, count)
            seen = measured(work, tile, dtype, dim, gpu)
            shared = shared_lines(work, tile, dtype, dim, gpu)
            registers = registers or register_lines(work, tile, dtype, dim, gpu)
            reason = fault(work, tile, dtype, dim, gpu, seen, shared, registers)
            if reason is None and not priced:
                reason = _elsewhere(work, tile, dtype, dim, others)
            if reason is not None:
                refused.append(reason)
                continue
            found = _occupied(work, tile, dtype, dim, gpu, seen, shared, registers)
            if found.blocks > most:  # a buffer less pays where an SM holds one more block, or where nothing spills
                most = -1 if rank(tile, found, seen) else found.blocks
                if found.limits == "registers" and single and own:  # fewer pay where they were compiled, and held
                    more = limited(tile, found.blocks + 1, gpu)
                    bound = measured(work, more, dtype, dim, gpu) if more.registers else None
                    if bound is not None and bound.hot == 0:
                        rank(more, _occupied(work, more, dtype, dim, gpu, bound, shared, registers), bound)
            if found.limits != "shared memory" and most > 0:
                break
        if ranked and not priced:
            break
    for tile in with_roles(work, dtype, gpu):
        seen = measured(work, tile, dtype, dim, gpu)
        if seen is None:
            continue
        shared = shared_lines(work, tile, dtype, dim, gpu)
        if (reason := fault(work, tile, dtype, dim, gpu, seen, shared)) is not None:
            refused.append(reason)
        else:
            rank(tile, _occupied(work, tile, dtype, dim, gpu, seen, shared), seen)
    ranked.sort()
    for place, (_, _, tile, found, cost) in enumerate(ranked):
        reason = _elsewhere(work, tile, dtype, dim, others)
        if reason is None:
            if single and own:  # the blocks counted on, for all, where the kernel so limited is known not to spill
                fewer = limited(tile, found.blocks, gpu)
                bound = measured(work, fewer, dtype, dim, gpu)
                tile = fewer if bound is not None and not bound.hot else tile
            return Choice(
                tile=tile,
                dtype=dtype,
                dim=dim,
                budget=found,
                clocks=cost,
                refused=tuple(refused),
                next_best=tuple(item[2] for item in ranked[place + 1 : place + 5]),
                spill=max(outside(measured(work, tile, dtype, dim, member)) for member in (gpu, *others)) or None,
            )
        refused.append(reason)
    for least, _, tile in sorted((item.spill, place, item.tile) for place, item in enumerate(refused) if item.spill):
        grave = _elsewhere(work, tile, dtype, dim, others)
        if grave is None or grave.spill is not None:
            found = budget(work, tile, dtype, dim, gpu)
            cost = clocks(work, tile, dtype, dim, gpu, found.blocks)
            return Choice(
                tile=tile, dtype=dtype, dim=dim, budget=found, clocks=cost, refused=tuple(refused), spill=least
            )
    return None


def occupied(work: Work, tile: Tile, dtype: str, dim: int, gpu: Gpu) -> Budget:
    """The budget, with the blocks of an SM as the compiler's own registers allow them, where they are known."""
    seen, shared = measured(work, tile, dtype, dim, gpu), shared_lines(work, tile, dtype, dim, gpu)
    return _occupied(work, tile, dtype, dim, gpu, seen, shared)


def _occupied(
    work: Work,
    tile: Tile,
    dtype: str,
    dim: int,
    gpu: Gpu,
    seen: Measured | None,
    shared: tuple[Line, ...],
    registers: tuple[Line, ...] | None = None,
) -> Budget:
    compiled = None
    if seen is not None and seen.registers is not None and calibrated(work, gpu):
        compiled = seen.registers, seen.columns
    found = budget(work, tile, dtype, dim, gpu, compiled=compiled, shared=shared, registers=registers)
    if tile.roles:  # the roles' warps beside the tile's take the rest of the registers
        return found._replace(blocks=min(1, found.blocks), limits="registers")
    return found


def _priced(dtype: str, dim: int) -> bool:
    return dim <= LARGE and dtype != "f64"


@cache
def stricter(gpu: Gpu, members: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    """The members that may refuse what ``gpu`` takes: other kernels run there, or a limit is lower. Those with the
    least shared memory, which refuse most, come first."""

    def limits(item: Gpu) -> tuple[int, ...]:
        return item.shared_block, item.registers_thread, item.tensor_columns

    def same(item: Gpu) -> bool:
        return (alike(item.architecture), item.matrix, item.warp) == (alike(gpu.architecture), gpu.matrix, gpu.warp)

    found = [
        item
        for item in members
        if item is not gpu and not (same(item) and all(x >= y for x, y in zip(limits(item), limits(gpu), strict=True)))
    ]
    return tuple(sorted(found, key=lambda item: item.shared_block))


def _elsewhere(work: Work, tile: Tile, dtype: str, dim: int, others: tuple[Gpu, ...]) -> Refusal | None:
    """The gravest fault on another GPU: one that a launch refuses before one that costs time."""
    gravest: Refusal | None = None
    for other in others:
        seen = measured(work, tile, dtype, dim, other)
        found = fault(work, tile, dtype, dim, other, seen, shared_lines(work, tile, dtype, dim, other))
        if found is not None and found.spill is None:
            return found
        if found is not None and (gravest is None or (found.spill or 0) > (gravest.spill or 0)):
            gravest = found
    return gravest

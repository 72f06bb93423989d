"""Tiles, warps and stages of every kernel: a table that a module looks up by head dim and element size, from the
planner's model of the target (codegen/planner)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from attnc.codegen.planner.search import Choice, choose
from attnc.codegen.planner.targets import GENERIC, Cpu, Gpu, Machine, Targets, targets
from attnc.codegen.planner.tile import ITEMSIZE, Tile, padded, parts
from attnc.codegen.planner.work import PASSES, Pass, Work, works
from attnc.codegen.program import Program

DIMS = (16, 32, 64, 128, 256, 512, 1024)
# Sums of two powers of two: vectors of 16-bit elements are taken in two parts where that is cheaper than padding.
SPLITS = (80, 96, 192)
DTYPES = ("bf16", "f32", "f64")  # by element size


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table: for vectors padded to ``dim`` elements of ``itemsize`` bytes, or taken in two parts that
    are ``dim`` together. ``choice`` None: no tile fits the target."""

    step: Pass
    dim: int
    itemsize: int
    choice: Choice | None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The tiles of every pass on one target. ``gpu``: whose rates ranked them; for a processor, generic's."""

    target: str
    machine: Machine
    gpu: Gpu
    rows: tuple[Row, ...]

    @property
    def fitting(self) -> Iterator[tuple[Row, Tile]]:
        """The rows that a module prints."""
        return ((row, row.choice.tile) for row in self.rows if row.choice is not None)

    def row(self, step: Pass, dtype: str, width: int) -> Row:
        """The row that a module takes for vectors of a ``width``."""
        wanted = (step, width, ITEMSIZE[dtype])
        return next(row for row in self.rows if (row.step, row.dim, row.itemsize) == wanted)

    def width(self, step: Pass, dtype: str, *dims: int) -> int:
        """The row that a module takes for vectors of ``dims``: each has its parts' where there is one, else it is
        padded; the largest serves all."""
        known = {row.dim for row in self.rows if (row.step, row.itemsize) == (step, ITEMSIZE[dtype])}
        return max(cut if (cut := sum(parts(dim))) in known else padded(dim) for dim in dims)

    @property
    def split(self) -> bool:
        """Whether vectors of some size are taken in two parts."""
        return any(len(parts(row.dim)) > 1 for row in self.rows)

    @property
    def described(self) -> bool:
        """Whether kernels read tensors of vectors by descriptors where a call's tensors allow it."""
        return isinstance(self.machine, Gpu) and self.machine.matrix == "tcgen05"

    @property
    def digest(self) -> str:
        """What a module's text takes from the plan, beside its program."""
        return f"{self.target} {[(row.dim, *tile) for row, tile in self.fitting]}"

    @property
    def note(self) -> str:
        if self.target == GENERIC or isinstance(self.machine, Cpu):
            return "chosen to run on every GPU from sm_80 on and on gfx942"
        return f"chosen for {self.target}, {self.gpu.shared_block // 1024} KiB of shared memory a block"

    @property
    def precision(self) -> str:
        """How float32 tiles are multiplied, as source text: on tensor cores in three TF32 products where the target
        has them, else in float32 (AMD's matrix cores take float32)."""
        if self.target == GENERIC or isinstance(self.machine, Cpu):
            return '"ieee" if torch.version.hip else "tf32x3"'
        return repr("ieee" if self.gpu.matrix in ("fma", "mfma") else "tf32x3")


def plan(program: Program, target: str, known: Targets | None = None) -> Plan:
    """The plan of a program for a target by name, of ``known`` (the built-in ones and the user's). Raises TargetError,
    a ValueError, for an unknown one and for a faulty table of targets."""
    known = known or targets()
    machine = known.find(target)
    members = known.members(GENERIC if isinstance(machine, Cpu) else target)
    counted = works(program)
    rows = [row for step in PASSES for row in rows_for(counted[step], members)]
    return Plan(target=target, machine=machine, gpu=members[0], rows=tuple(rows))


@cache
def rows_for(item: Work, members: tuple[Gpu, ...]) -> tuple[Row, ...]:
    """The rows of one pass, ranked on the first of ``members``; made once a process."""
    ranked_by = members[0]
    rows = []
    for dtype in DTYPES:
        element = "f16" if dtype == "bf16" and ranked_by.matrix == "fma" else dtype
        found = {dim: choose(item, element, dim, ranked_by, members) for dim in DIMS}
        if dtype == "bf16" and ranked_by.matrix != "tcgen05":  # descriptors read a vector as one block
            for dim in SPLITS:
                if ranked_by.matrix == "mfma" and dim > 128:  # by keys it was seen to spill, and nothing is calibrated
                    continue
                apart = choose(item, element, dim, ranked_by, members)
                if apart is not None and _cheaper(apart, found[padded(dim)], item, ranked_by):
                    found[dim] = apart
        rows += [Row(step=item.step, dim=dim, itemsize=ITEMSIZE[dtype], choice=found[dim]) for dim in sorted(found)]
    return tuple(rows)


def _cheaper(one: Choice, other: Choice | None, item: Work, gpu: Gpu) -> bool:
    return other is None or one.price(item, gpu) < other.price(item, gpu)


__all__ = ["DIMS", "Pass", "Plan", "Row", "Tile", "plan"]

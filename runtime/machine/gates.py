"""Limits that a good kernel's hot loops keep to, from reading FlexAttention's, Triton's tutorial's and
flash-linear-attention's machine code: docs/performance.md says what each costs where it is passed."""

from __future__ import annotations

from dataclasses import dataclass

from attnc.runtime.machine.facts import KernelFacts, LoopFacts

FORWARD_FP32, BACKWARD_FP32 = 2.3, 3.3  # scale and sum; scale, minus delta, times p; and what a row costs
INTEGER_FULL, INTEGER_PARTIAL = 2.0, 4.5  # a compare and a select a score, and what addresses take
WITH_DESCRIPTORS, WITH_POINTERS = 9.0, 12.0  # instructions a score


@dataclass(frozen=True, kw_only=True)
class Miss:
    """A limit that a loop passes."""

    tiles: str
    gate: str
    figure: float
    most: float

    def __str__(self) -> str:
        return f"{self.tiles} tiles: {self.figure:.2f} {self.gate}, at most {self.most:.2f}"


def misses(facts: KernelFacts) -> tuple[Miss, ...]:
    """The limits that a kernel's loops pass; none for a kernel whose code is not modelled."""
    return tuple(
        Miss(tiles=loop.tiles, gate=gate, figure=figure, most=most)
        for loop in facts.loops
        for gate, figure, most in _gates(facts, loop)
        if figure > most
    )


def _gates(facts: KernelFacts, loop: LoopFacts) -> list[tuple[str, float, float]]:
    """(what is counted, its figure, the most it may be) of one loop. The forward rescales D columns of its sums once
    for BLOCK_N scores."""
    partial = loop.tiles == "partial"
    fp32 = FORWARD_FP32 + facts.dim / facts.block_n if facts.step == "forward" else BACKWARD_FP32
    found = [
        ("spills in an iteration", float(loop.spills), 0.0),
        ("waits for wgmma", float(loop.waits), max(1.0, loop.products)),
        ("fp32 instructions a score", loop.fp32_per_score, fp32),
        ("integer instructions a score", loop.integer_per_score, INTEGER_PARTIAL if partial else INTEGER_FULL),
    ]
    if not partial:
        most = WITH_DESCRIPTORS if loop.descriptors else WITH_POINTERS
        found.append(("instructions a score", loop.instructions_per_score, most))
    return found

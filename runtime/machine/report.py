"""Facts of kernels for people and for programs, with the caveat that they are static."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from attnc.runtime.machine.facts import CAVEAT, KernelFacts
from attnc.runtime.machine.gates import misses


def as_json(facts: Sequence[KernelFacts]) -> dict[str, object]:
    """All of it, with the caveat, for ``json.dumps``."""
    kernels = [asdict(item) | {"misses": [asdict(miss) for miss in misses(item)]} for item in facts]
    return {"caveat": CAVEAT, "kernels": kernels}


def as_text(facts: Sequence[KernelFacts]) -> str:
    """For people, the caveat last."""
    return "\n".join([*(line for item in facts for line in _kernel(item)), CAVEAT])


def _kernel(facts: KernelFacts) -> list[str]:
    lines = [
        f"{facts.kernel} for {facts.target}, {facts.dtype}, head dim {facts.dim}",
        f"  tile       {facts.block_m} queries x {facts.block_n} keys, {facts.warps} warps, {facts.stages} stages",
        f"  registers  {facts.registers} a thread, {facts.stack} bytes of stack, {facts.spills} spills and reloads "
        f"({facts.hot_spills} in hot loops)",
        f"  shared     {facts.shared} bytes a block"
        + (f", {facts.tensor_columns} columns of tensor memory" if facts.tensor_columns else ""),
    ]
    if facts.occupancy is not None:
        held = facts.occupancy
        text = f"{held.blocks} blocks, {held.warps} warps an SM (limit: {held.limit})"
        lines.append(f"  occupancy  {text if held.blocks else f'it cannot be launched: {held.limit}'}")
    if facts.note:
        lines.append(f"  note       {facts.note}")
    for loop in facts.loops:
        lines += [
            f"  {loop.tiles} tiles, loop at {loop.address:#x}: est {loop.est:.0f}% of the bf16 peak, at most "
            f"{loop.limit:.0f}% ({loop.bound}); {loop.clocks:.0f} clocks for 1024 scores",
            f"    a score    {loop.instructions_per_score:.1f} instructions: fp32 {loop.fp32_per_score:.2f}, "
            f"integer {loop.integer_per_score:.2f}, special {loop.special_per_score:.2f}, "
            f"memory {loop.memory_per_score:.2f}",
            f"    iteration  {loop.instructions} instructions, {loop.spills} spills, {loop.waits} waits for wgmma",
            "    clocks     " + ", ".join(f"{name} {value:.0f}" for name, value in loop.pipes.items()),
        ]
    lines += [f"  misses     {miss}" for miss in misses(facts)]
    return lines

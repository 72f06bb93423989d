"""Calls timed beside each other: in one process, in turns, so that a machine that slows down slows all of them.

A ratio is the median over the rounds of the ratio of two times of one round, which stand milliseconds apart.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor

from attnc.dsl.construct import Attention
from attnc.runtime.evaluate import size
from attnc.runtime.op import Op
from attnc.runtime.peers import PEERS, NoPeer

Call = Callable[[], object]
_LEAST = 1e-3  # seconds of one sample: faster calls are repeated within it


def interleave(
    calls: Mapping[str, Call], seconds: float, least: int = 5, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds a call, one sample a round, of each: at least ``least`` rounds and no more than fit into ``seconds``.
    The order turns by one every round. One untimed call of each comes first. ``clock``: of the samples; with one
    thread, ``time.process_time`` tells calls apart on a machine that is busy with other work."""
    repeats, names = {}, list(calls)
    for name, call in calls.items():
        call()
        began = time.perf_counter()
        call()
        repeats[name] = max(1, round(_LEAST / max(time.perf_counter() - began, 1e-9)))
    times: dict[str, list[float]] = {name: [] for name in names}
    collects, last = gc.isenabled(), time.perf_counter() + seconds
    gc.disable()
    try:
        while len(times[names[0]]) < least or time.perf_counter() < last:
            for name in names:
                call, repeat = calls[name], range(repeats[name])
                began = clock()
                for _ in repeat:
                    call()
                times[name].append(max(clock() - began, 1e-9) / len(repeat))
            names = [*names[1:], names[0]]
    finally:
        if collects:
            gc.enable()
    return times


def ratio(theirs: list[float], ours: list[float]) -> tuple[float, float, float]:
    """Theirs over ours: the median over rounds, and the quartiles."""
    found = [a / b for a, b in zip(theirs, ours, strict=True)]
    low, _, high = quantiles(found, n=4) if len(found) > 1 else (found[0],) * 3
    return median(found), low, high


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is known of one contender: its times, or why there are none; how far its result lies from the first's."""

    times: list[float] = field(default_factory=list)
    why: str = ""
    off: float = 0.0

    @property
    def milliseconds(self) -> float:
        return median(self.times) * 1e3


def make_vectors(op: Op, sizes: Mapping[str, int], dtype: torch.dtype, seed: int = 0) -> dict[str, Tensor]:
    """Vectors of a call of these sizes (B, H, G, N, M, D, E), drawn from the standard normal distribution."""
    generator = torch.Generator().manual_seed(seed)
    lead = {"query": ("B", "H", "N"), "key": ("B", "G", "M"), "value": ("B", "G", "M")}
    return {
        item.name: torch.randn(
            *(sizes[axis] for axis in lead[item.role]), size(item.dim, sizes), generator=generator
        ).to(dtype)
        for item in op.construct.vectors
    }


def make_inputs(construct: Attention, sizes: Mapping[str, int], given: Mapping[str, Any]) -> dict[str, Any]:
    """A call's inputs: as given, floats else drawn. ValueError for a name that is no input, for another that is not
    given, and for a size that is not known."""
    generator = torch.Generator().manual_seed(1)
    made = dict(given)
    for name in made:
        if name not in {item.name for item in construct.inputs}:
            raise ValueError(f"`{construct.name}` has no input `{name}`")
    for item in construct.inputs:
        if item.name in made:
            continue
        if item.kind != "float":
            raise ValueError(f"the input {item.name} ({item.dtype}) cannot be drawn: give it")
        try:
            shape = [size(axis, sizes) for axis in item.axes]
        except KeyError as error:
            raise ValueError(f"the input {item.name} has a size {error} that is not known: give it") from error
        made[item.name] = torch.randn(shape, generator=generator) / 4
    return made


def contend(
    op: Op,
    sizes: Mapping[str, int],
    dtype: torch.dtype,
    names: tuple[str, ...],
    *,
    inputs: Mapping[str, Any],
    backward: bool = False,
    seconds: float = 2.0,
    clock: Callable[[], float] = time.perf_counter,
    told: Callable[[str], None] = lambda name: None,
) -> dict[str, Cell]:
    """Time the contenders ``names`` at one call: backends of the op, ``sdpa``, ``flex``. The first is ours: the others'
    results are compared with its, and without it none is timed. ``backward``: the gradients of all vectors alone.
    ``told`` hears who is prepared, and when ``all`` are timed."""
    vectors = {name: x.requires_grad_(backward) for name, x in make_vectors(op, sizes, dtype).items()}
    calls: dict[str, Call] = {}
    cells: dict[str, Cell] = {}
    results: dict[str, Tensor] = {}
    for name in names:
        told(name)
        try:
            forward = _forward(op, name, vectors, inputs)
            result = forward()
            calls[name] = forward
            if backward:
                calls[name] = _backward(name, result, list(vectors.values()))
            results[name] = result.detach()
        except (RuntimeError, ValueError, NotImplementedError) as error:
            cells[name] = Cell(why=str(error).strip().splitlines()[0])
        if names[0] in cells:
            return {name: cells.get(name, Cell(why=f"not timed without {names[0]}")) for name in names}
    told("all")
    with torch.set_grad_enabled(backward):
        times = interleave(calls, seconds, clock=clock) if calls else {}
    for name, found in times.items():
        cells[name] = Cell(times=found, off=_off(results[name], results[next(iter(results))]))
    return {name: cells[name] for name in names}


def _forward(op: Op, name: str, vectors: Mapping[str, Tensor], inputs: Mapping[str, Any]) -> Callable[[], Tensor]:
    if name in PEERS:
        return PEERS[name](op.construct, vectors, inputs)

    def run() -> Tensor:
        result = op(*vectors.values(), backend=name, **inputs)
        out: Tensor = result if isinstance(result, Tensor) else result.out
        return out

    return run


def _backward(name: str, out: Tensor, leaves: list[Tensor]) -> Call:
    if not out.requires_grad:
        raise NoPeer("no gradients on a CPU")
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out.dtype)
    return partial(torch.autograd.grad, out, leaves, cotangent, retain_graph=True)


def _off(x: Tensor, y: Tensor) -> float:
    """The largest difference, in units of the dtype's rounding at the result's size."""
    top = max(float(y.abs().max()), 1e-30) if y.numel() else 1.0
    return float((x.double() - y.double()).abs().max()) / (top * torch.finfo(y.dtype).eps) if y.numel() else 0.0

"""Tiles that are measured: the planner's best few of a kernel, launched at the lengths at hand; the fastest is kept.

The planner's model ranks tiles without a GPU and without a shape. Where there is a GPU, ``attnc.load(..., tune=True)``
lets it decide. What was measured lies in the store, a file for each pass, spec, device, dtype, head dims and class of
lengths: the next process reads it. The search, the store and what happens to damaged or late files are tested with
kernels launched on the CPU; it has not been run on a GPU.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from threading import RLock
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from attnc.dsl import store
from attnc.runtime import cache

if TYPE_CHECKING:  # a module that is warm in the cache needs nothing of the compiler
    from attnc.codegen.planner.work import Pass

MOST = 4  # tiles of a pass that are measured
Entry = tuple[int, ...]
"""A tile as a module's table has it: BLOCK_M, BLOCK_N, warps, stages, most registers of a thread, roles of warps."""
Run = Callable[[], object]
Measure = Callable[[Run], float]
"""Milliseconds of a run. Raises what Triton raises for a tile that it or the GPU refuses."""

_MEASURING = RLock()  # a run beside another would disturb both


class Place(NamedTuple):
    """What a measured tile is for. ``dims`` of the queries and of the values; ``rows`` and ``columns``: the lengths of
    queries and keys, as the power of two that holds them."""

    step: Pass
    device: str
    dtype: str
    dims: tuple[int, ...]
    rows: int
    columns: int


class Timing(NamedTuple):
    """Milliseconds of every tile that was measured for a place, the fastest first; None: refused."""

    place: Place
    times: tuple[tuple[Entry, float | None], ...]

    @property
    def entry(self) -> Entry:
        return self.times[0][0]


class Tuner:
    """In place of a module's ``_tile``: the tile measured for a place; where there is none, the module's own."""

    def __init__(
        self, identity: str, own: Callable[..., Entry], planned: Callable[[Pass, str, tuple[int, ...]], Iterable[Entry]]
    ) -> None:
        """``identity`` names the module; ``planned(pass, dtype, dims)``: the planner's tiles, its best first."""
        self._identity, self._own, self._planned = identity, own, planned
        self._known: dict[Place, Timing | None] = {}
        self._tried: dict[Place, Entry] = {}
        self._asked: dict[Place, Entry] | None = None
        self._done: set[tuple[object, ...]] = set()  # kinds of calls of which nothing is lacking

    def __call__(self, step: Pass, *vectors: Tensor) -> Entry:
        place = place_of(step, vectors)
        if place in self._tried:
            return self._tried[place]
        found = self.find(place)
        entry = self._own(step, *vectors) if found is None else found.entry
        if self._asked is not None:
            self._asked[place] = entry
        return entry

    def find(self, place: Place) -> Timing | None:
        """What was measured, here or by another process before."""
        if place not in self._known:
            body = store.load(self._name(place))
            times = None if body is None else tuple((tuple(entry), time) for entry, time in json.loads(body))
            self._known[place] = None if times is None else Timing(place, times)
        return self._known[place]

    def tune(
        self, call: Callable[[], Any], vectors: Sequence[Tensor], inputs: Iterable[object], measure: Measure
    ) -> list[Timing]:
        """Measure the tiles of every pass of ``call``, an op applied to these vectors and inputs, for which nothing is
        known; of the backward's too where one of them requires a gradient. What was measured now. A tile that Triton
        or the GPU refuses is passed over. Raises RuntimeError where all of them are."""
        tensors = [item for item in (*vectors, *inputs) if isinstance(item, Tensor)]
        leaves = [item for item in tensors if item.requires_grad] if torch.is_grad_enabled() else []
        kind = (bool(leaves), *((item.device, item.dtype, item.shape[3], _length(item)) for item in vectors))
        with _MEASURING:
            if kind in self._done:
                return []
            found = []
            if leaves:
                result = call()
                out = result[0] if isinstance(result, tuple) else result
                found = self._passes(
                    lambda: torch.autograd.grad(out, leaves, out.detach(), retain_graph=True, allow_unused=True),
                    measure,
                )
            with torch.no_grad():
                found += self._passes(call, measure)
            self._done.add(kind)
            return found

    def _passes(self, run: Run, measure: Measure) -> list[Timing]:
        """Measure the tiles of every pass that ``run`` launches."""
        self._asked = {}
        try:
            run()
            asked = self._asked
        finally:
            self._asked = None
        return [self._search(place, own, run, measure) for place, own in asked.items() if self._lacking(place)]

    def _lacking(self, place: Place) -> bool:
        if self._known.get(place) is None:
            self._known.pop(place, None)  # another process may have kept it by now
        return self.find(place) is None

    def _search(self, place: Place, own: Entry, run: Run, measure: Measure) -> Timing:
        entries = list(dict.fromkeys((own, *self._planned(place.step, place.dtype, place.dims))))[:MOST]
        times: dict[Entry, float | None] = {}
        try:
            for entry in entries:
                self._tried[place] = entry
                times[entry] = _time(run, measure)
        finally:
            self._tried.pop(place, None)
        if all(time is None for time in times.values()):
            raise RuntimeError(f"tune: none of the tiles {entries} of the {place.step} kernel runs on {place.device}")
        ranked = sorted(times.items(), key=lambda item: float("inf") if item[1] is None else item[1])
        found = self._known[place] = Timing(place, tuple(ranked))
        if not store.keep(self._name(place), json.dumps(found.times).encode()):
            warnings.warn("attnc: the cache cannot be written; tiles are measured again next time", stacklevel=3)
        return found

    def _name(self, place: Place) -> str:
        return f"{cache.key(self._identity, *place)}.tile"


def place_of(step: Pass, vectors: Sequence[Tensor]) -> Place:
    """The place of a call: its queries and, last, its values."""
    value = vectors[-1]
    dims = tuple(vector.shape[3] for vector in vectors)
    return Place(step, _device(value.device), _dtype(value), dims, _length(vectors[0]), _length(value))


def on_gpu(run: Run) -> float:
    """Median milliseconds, as Triton measures: after a warm-up, the L2 cache emptied before each run."""
    from triton.testing import do_bench

    time: float = do_bench(run, return_mode="median")
    return time


def _time(run: Run, measure: Measure) -> float | None:
    from triton.runtime.errors import OutOfResources, PTXASError

    try:
        return measure(run)
    except (OutOfResources, PTXASError):
        return None


def _length(vector: Tensor) -> int:
    return 1 << max(0, vector.shape[2] - 1).bit_length()


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _dtype(vector: Tensor) -> str:
    """The dtype as specs spell it."""
    return str(vector.dtype).removeprefix("torch.").replace("float", "f")

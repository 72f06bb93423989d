"""Calls of one spec on one backend, by the hundred, against the reference; the first that fails is made smaller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from attnc.testing.call import Call, compare, computable, outcome, poisoned_outcome
from attnc.testing.drawing import LENGTHS, PAIRS, requests
from attnc.testing.kernels import Kernels, Request, arguments
from attnc.testing.process import Hung, Process

_SMALLER = 150  # calls at most, to make one that fails smaller


@dataclass(frozen=True, kw_only=True)
class Failure:
    call: Call
    message: str
    after: int  # calls, this one included
    hung: bool = False  # it was not made smaller


@dataclass(kw_only=True)
class Run:
    """What became of a backend. ``undetermined``: calls that differ, but whose results the rounding of an argument in
    its own dtype moves as far: a score next to a kink."""

    backend: str
    examples: int = 0
    undetermined: int = 0
    failure: Failure | None = None
    stopped: bool = False  # by the time limit


class _Enough(BaseException):
    """Ends a run from within: no Exception, so that it is not taken for a failure."""


class _Wrong(Exception):
    """A call that fails."""


@dataclass(kw_only=True)
class Fuzz:
    """A run of ``examples`` calls through kernels of a pool. ``until``: of ``time.monotonic``; ``told`` hears, before
    every call, how many were made and whether one is being made smaller."""

    backend: str
    kernels: Sequence[Kernels]
    examples: int
    seed: int
    until: float = float("inf")
    told: Callable[[int, bool], None] = lambda done, shrinking: None
    limit: float | None = None  # seconds that a call may take, compiling included
    process: Process | None = None  # where the backend runs, and left open; one of its own, else

    def run(self) -> Run:
        """The same run for the same arguments, unless the time is over."""
        made = Run(backend=self.backend)
        interpreted = self.backend == "interpret"
        process = self.process or Process(interpreted=interpreted, limit=self.limit)
        tried = 0

        @settings(
            max_examples=self.examples, deadline=None, database=None, phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
        )  # fmt: skip
        @seeded(self.seed)
        @given(_drawn(self.kernels, interpreted))
        def every(drawn: tuple[Kernels, Request]) -> None:
            nonlocal tried
            if monotonic() > self.until:
                made.stopped = True
                raise _Enough
            if made.failure is not None:
                tried += 1
                if tried > _SMALLER:
                    raise _Enough
            self.told(made.examples, made.failure is not None)
            if made.failure is None:
                made.examples += 1
            self._one(process, *drawn, made)

        try:
            every()
        except (_Wrong, _Enough):
            pass
        finally:
            if self.process is None:
                process.close()
        return made

    def _one(self, process: Process, kernels: Kernels, request: Request, made: Run) -> None:
        call = arguments(kernels, request)
        after = made.failure.after if made.failure is not None else made.examples
        try:
            message = wrong(call, self.backend, process)
            if not message:
                return
            if "differ" in message and undetermined(call, self.backend, process):
                made.undetermined += 1
                return
        except Hung as error:  # smaller ones would each wait as long
            made.failure = Failure(call=call, message=f"{self.backend}: {error}", after=after, hung=True)
            raise _Enough from error
        made.failure = Failure(call=call, message=message, after=after)
        raise _Wrong


@st.composite
def _drawn(draw: Any, pool: Sequence[Kernels], interpreted: bool) -> tuple[Kernels, Request]:
    """Short calls where kernels are interpreted: that takes seconds for what takes a compiled one milliseconds."""
    kernels = draw(st.sampled_from(pool))
    lengths, pairs = ([n for n in LENGTHS if n < 40], 3_000) if interpreted else (LENGTHS, PAIRS)
    return kernels, draw(requests(kernels, lengths=lengths, pairs=pairs))


def wrong(call: Call, backend: str, process: Process) -> str:
    """What is wrong with a call; nothing where all is well. Raises Hung."""
    try:
        compare(call, process.call(poisoned_outcome, call, backend), what=f"{backend} ")
    except AssertionError as error:
        return str(error)
    except Hung:
        raise
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def undetermined(call: Call, backend: str, process: Process) -> bool:
    """Whether the reference settles nothing: it is NaN somewhere, or another in the precision that the call is computed
    in; or what was found lies within its results for arguments that are moved by a rounding of their dtype, for
    derivatives jump at a kink (relu, max, clamp), and no rounding tells the sides of one apart."""
    step = torch.finfo(call.dtype).eps / 2
    exact = call.exact()
    expected = outcome(exact, "reference")
    if any(x.isnan().any() for x in expected.values()) or not computable(call):
        return True
    found = process.call(poisoned_outcome, call, backend)
    low, high = dict(expected), dict(expected)
    for seed in range(8):
        moved = outcome(exact.disturbed(step, torch.Generator().manual_seed(seed)), "reference")
        for name, x in moved.items():
            low[name], high[name] = torch.minimum(low[name], x), torch.maximum(high[name], x)
    for name, x in expected.items():
        room = 2 * (high[name] - low[name]) + 16 * step * x.abs().nan_to_num(0, 0, 0).max() if x.numel() else x
        a = found[name].double()
        if not ((a == x) | (a.isnan() & x.isnan()) | ((a - x).abs() <= room)).all():
            return False
    return True

"""GPU kernels of drawn specs, run natively on the CPU, against the reference: results and every gradient. The same of
``--backend eager`` or ``native``.

    CXXFLAGS=-Og python -m tests.backends.fuzz --examples 2000

An example is a call. Kernels are compiled for a spec, and several calls of it run through them: lengths to 2,047,
offsets, all dtypes, scores of hundreds, ties, rows without a key, inf and NaN where they must not matter. Memory that
is allocated empty holds NaN, so that what no kernel wrote is seen. A call that fails is made smaller and printed as
Python that fails alike."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from attnc.testing.call import Call, check, poisoned_outcome
from attnc.testing.family import Family, Shape, families, shapes
from attnc.testing.script import as_python

# Triton specializes on strides that 16 divides: lengths of a family are all odd or all aligned, its kernels the same.
LENGTHS = ((1, 3, 7, 33, 137, 299, 515, 1031, 2047), (16, 48, 128, 512, 1024))
DIMS = (1, 8, 16, 17, 32, 64, 80, 128)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Calls that share kernels."""

    family: Family
    dtype: torch.dtype
    shapes: tuple[Shape, ...]


@st.composite
def batches(draw: Any, *, calls: int) -> Batch:
    family = draw(families(dims=DIMS, groups=(1, 3)))
    lengths = LENGTHS[draw(st.sampled_from((0, 0, 0, 1)))]
    return Batch(
        family=family,
        dtype=draw(st.sampled_from(DTYPES)),
        shapes=tuple(draw(shapes(family, lengths)) for _ in range(calls)),
    )


def smaller(family: Family, shape: Shape) -> Iterator[Shape]:
    """Calls of the same kernels with fewer queries and keys, from the smallest."""
    lengths = sorted(n for group in LENGTHS for n in group)
    pairs = [(n, m) for n in lengths if n <= shape.N for m in lengths if m <= shape.M]
    for n, m in sorted(pairs, key=lambda pair: pair[0] * pair[1]):
        yield replace(shape, N=n, M=m)


def reduced(family: Family, backend: str, dtype: torch.dtype, shape: Shape, seconds: float = 60) -> Call:
    """The smallest call found to fail."""
    until = time.perf_counter() + seconds
    plain = [replace(shape, values="plain")] if shape.values != "plain" else []
    for candidate in (*smaller(family, shape), *plain):
        if time.perf_counter() > until:
            break
        if failure(family.call(candidate), backend, dtype):
            return family.call(candidate)
    return family.call(shape)


def failure(call: Call, backend: str, dtype: torch.dtype) -> str:
    """What is wrong with the call; nothing where all is well."""
    try:
        check(call, backend, dtype, run=poisoned_outcome)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


@dataclass(kw_only=True)
class Tally:
    calls: int = 0
    specs: int = 0
    failed: list[str] = field(default_factory=list)
    dtypes: Counter[str] = field(default_factory=Counter)
    values: Counter[str] = field(default_factory=Counter)
    pairs: int = 0

    def __str__(self) -> str:
        kinds = ", ".join(f"{name} {count}" for name, count in (*self.dtypes.items(), *self.values.items()))
        return f"{self.calls} calls of {self.specs} specs, {self.pairs:,} pairs: {len(self.failed)} failed ({kinds})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=200, help="calls")
    parser.add_argument("--backend", choices=("ttir", "eager", "native"), default="ttir")
    parser.add_argument("--calls", type=int, default=10, help="calls of each spec")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tally = Tally()
    began = time.perf_counter()

    @settings(
        max_examples=-(-options.examples // options.calls), deadline=None, database=None, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @seed(options.seed)
    @given(batches(calls=options.calls))
    def run(batch: Batch) -> None:
        tally.specs += 1
        for shape in batch.shapes:
            call = batch.family.call(shape)
            tally.calls += 1
            tally.pairs += batch.family.B * batch.family.H * shape.N * shape.M
            tally.dtypes[str(batch.dtype).removeprefix("torch.")] += 1
            tally.values[shape.values] += 1
            if what := failure(call, options.backend, batch.dtype):
                tally.failed.append(what)
                small = reduced(batch.family, options.backend, batch.dtype, shape)
                print(as_python(small.prepared(batch.dtype), options.backend, what), flush=True)
                break  # other calls of these kernels would likely say the same
        print(f"{time.perf_counter() - began:.0f} s: {tally}", file=sys.stderr, flush=True)

    run()
    print(tally)
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())

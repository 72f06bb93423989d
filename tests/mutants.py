"""Mutants of the zoo: refused with a code, or equal to the reference on every backend asked for.

    CXXFLAGS=-Og nice python -P -m tests.mutants --examples 500 --backend eager,native

A mutant that checks is compiled for one dtype and one set of sizes, and a few calls run through it. Prints every
failure as a program, at last the counts."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from attnc.dsl.diagnostics import SpecError
from attnc.dsl.frontend import compilable
from attnc.dsl.source import Source
from attnc.runtime.op import Op
from attnc.testing.fuzz import Fuzz, Run
from attnc.testing.kernels import DTYPES, Kernels, pool
from attnc.testing.mutation import mutants
from attnc.testing.process import Process
from attnc.testing.script import as_python

ZOO = Path(__file__).resolve().parents[1] / "examples" / "zoo"


def texts(folder: Path = ZOO) -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.attn"))]


@dataclass(kw_only=True)
class Tally:
    """What became of mutants: by code those refused, those no sizes or values were found for, those called."""

    refused: Counter[str] = field(default_factory=Counter)
    uncallable: int = 0
    called: int = 0
    calls: int = 0
    undetermined: int = 0
    failed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        codes = ", ".join(f"{code} {count}" for code, count in sorted(self.refused.items()))
        refused, failed = sum(self.refused.values()), len(self.failed)
        total = refused + self.uncallable + self.called
        return (
            f"{total} mutants: {refused} refused ({codes}), {self.uncallable} fit no sizes, {self.called} called; "
            f"{self.calls} calls, {self.undetermined} not judged, {failed} failed"
        )


def kernels(text: str, number: int, tally: Tally) -> Kernels | None:
    """Kernels of a mutant at some params and sizes, if it can be called. What is no SpecError escapes."""
    source = Source(name="<text>", text=text)

    def load(params: Mapping[str, object]) -> Op:
        op = Op(source, name=None, params=params, target=None)
        compilable(op.construct)
        return op

    try:
        declared = load({}).construct.params
        dtype = list(DTYPES.values())[number % len(DTYPES)]
        (made,) = pool(load, declared, {}, count=1, seed=number, dtypes=[dtype], dims=(1, 3, 8, 16, 24))
    except SpecError as error:
        tally.refused[error.diagnostics[0].code] += 1
    except ValueError:
        tally.uncallable += 1
    else:
        return made
    return None


def held(
    text: str, number: int, tally: Tally, *, backends: Sequence[str], calls: int, process: Process | None = None
) -> list[Run]:
    """Hold one mutant to the reference; its runs."""
    made = kernels(text, number, tally)
    if made is None:
        return []
    tally.called += 1
    runs = []
    for backend in backends:
        run = Fuzz(backend=backend, kernels=[made], examples=calls, seed=number, process=process).run()
        tally.calls += run.examples
        tally.undetermined += run.undetermined
        if run.failure is not None:
            tally.failed.append(as_python(run.failure.call, backend, run.failure.message))
        runs.append(run)
    return runs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=200, help="mutants")
    parser.add_argument("--backend", default="eager,native", help="a list")
    parser.add_argument("--calls", type=int, default=5, help="calls of each mutant")
    parser.add_argument("--edits", type=int, default=3, help="edits of each, at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tally, began, number = Tally(), monotonic(), 0
    process = Process()

    @settings(
        max_examples=options.examples, deadline=None, database=None, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @seed(options.seed)
    @given(st.sampled_from(texts()).flatmap(lambda text: mutants(text, edits=options.edits)))
    def every(text: str) -> None:
        nonlocal number
        number += 1
        failed = len(tally.failed)
        try:
            held(text, number, tally, backends=options.backend.split(","), calls=options.calls, process=process)
        except Exception:
            tally.failed.append(f"{text}\n{traceback.format_exc(limit=-4)}")
        for failure in tally.failed[failed:]:
            print(failure, flush=True)
        if number % 10 == 0:
            print(f"{monotonic() - began:.0f} s: {tally}", file=sys.stderr, flush=True)

    every()
    process.close()
    print(tally)
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())

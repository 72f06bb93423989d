"""Which branches of the templates are executed, not rendered alone.

    nice python -P -m tests.execution_templates [causal longformer ...]

The marks of ``tests.coverage_templates`` print a character of no language at both ends of every branch. They are taken
out of a module before it runs, and out of its C++ text by a compiler that stands before the real one; what they enclose
is known as lines from then on. Calls of specs (those that render every branch, if none is named), forward and
backward, run on ``eager`` and ``native``, and ``interpret`` for kernels of GPUs; a tracer counts lines of Python, gcov
those of C++. A branch is executed if a line within it is. One that holds no line with code (nothing, a part of a
statement, a declaration) is executed with the line before or behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from jinja2 import Environment, nodes
from torch import Tensor

from attnc.codegen import pipeline
from attnc.codegen.environment import environment
from attnc.dsl.frontend import compilable
from attnc.dsl.source import Source
from attnc.runtime.op import Op
from attnc.testing.call import Call, outcome
from attnc.testing.kernels import DTYPES, Kernels, Request, arguments, pool
from tests.coverage_templates import CHOSEN, Branch, Coverage, Job, covering
from tests.execution_marks import Span, counted, executed, stripped

SEED = 4  # with 0 lengths of padded rows are drawn as 0
BACKENDS = ("eager,native", "interpret")  # a process for each: Triton's interpreter is chosen when it is imported
_CPP = re.compile('r"""(.*?)"""', re.DOTALL)


def lines(code: CodeType) -> set[int]:
    """The lines that have code, but for those of definitions alone."""
    found = {line for _, _, line in code.co_lines() if line}
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            found |= lines(inner) - {inner.co_firstlineno}
    return found


class Nothing(str):
    """Marks about an empty text, which a template may ask for being one."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False


class Marking(Coverage):
    """Numbers branches, and prints a mark where one begins and one where it ends. A choice ``{{ x if y else z }}`` has
    both in its text, wherever that is printed; of a value that is no text, or an empty one that is not printed, no
    more is known than that it was rendered. ``silent``: no marks."""

    def __init__(self, made: Environment) -> None:
        self.numbers: dict[Branch, int] = {}
        self.unknown: set[Branch] = set()
        self.silent = False
        made.globals |= {"_begin": self._begin, "_end": self._end, "_whole": self._whole}
        super().__init__(made)

    def _number(self, *branch: Any) -> int:
        return self.numbers.setdefault(branch, len(self.numbers))

    def _begin(self, *branch: Any) -> str:
        return "" if self.silent else f"\ue000{self._number(*branch)}\ue001"

    def _end(self, *branch: Any) -> str:
        return "" if self.silent else f"\ue002{self._number(*branch)}\ue003"

    def _whole(self, *branch: Any) -> Any:
        *branch, value = branch
        if not (isinstance(value, str) and value):
            self.unknown.add(tuple(branch))
        if self.silent or not isinstance(value, str):
            return value
        return (str if value else Nothing)(f"{self._begin(*branch)}{value}{self._end(*branch)}")

    def _enclose(self, body: list[nodes.Node], mark: nodes.Call) -> None:
        super()._enclose(body, mark)
        body.insert(1, nodes.Output([_renamed(mark, "_begin")]))
        body.append(nodes.Output([_renamed(mark, "_end")]))

    def _marked(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._marked(source, name, filename)
        for choice in list(tree.find_all(nodes.CondExpr)):
            for side in ("expr1", "expr2"):
                mark = getattr(choice, side)
                whole = _renamed(mark, "_whole")
                whole.args = [*mark.args[:3], mark]
                setattr(choice, side, whole)
        made = tree.set_environment(self.environment)
        assert isinstance(made, nodes.Template)
        return made


def _renamed(mark: nodes.Call, name: str) -> nodes.Call:
    made = nodes.Call(nodes.Name(name, "load"), list(mark.args), [], None, None)
    return made.set_lineno(mark.lineno, override=True)  # type: ignore[return-value]


# --- one process: what it renders and runs --------------------------------------------------------


class Execution:
    """Marks of the modules of this process, and the lines of them that run."""

    def __init__(self) -> None:
        self.marking = Marking(environment())
        self.spans: dict[str, list[Span]] = {}  # by a module's text
        self.run: dict[str, set[int]] = defaultdict(set)  # by file
        self.files: dict[str, str] = {}  # texts by file
        self._plain = pipeline.compile
        pipeline.compile = self._compile  # type: ignore[assignment]
        sys.settrace(self._called)
        threading.settrace(self._called)

    def _compile(self, *args: Any, **options: Any) -> str:
        """The module without the marks of its Python, with those in its C++ text."""
        self.marking.silent = True
        plain = self._plain(*args, **options)
        self.marking.silent = False
        made = self._plain(*args, **options)
        kept: list[str] = []

        def aside(match: re.Match[str]) -> str:
            kept.append(match[0])
            return f"\ue004{len(kept) - 1}\ue005" + "\n" * match[0].count("\n")

        text, spans = stripped(_CPP.sub(aside, made.rstrip("\n")))
        text = text.rstrip("\n") + "\n"  # a mark at the end kept what the emitter takes off
        for number, whole in enumerate(kept):
            text = text.replace(f"\ue004{number}\ue005" + "\n" * whole.count("\n"), whole)
        assert stripped(text)[0] == plain, "marks changed a module"
        self.spans[text] = spans
        return text

    def _called(self, frame: FrameType, event: str, argument: object) -> Any:
        name = frame.f_code.co_filename
        if name not in self.files:
            entry = getattr(frame.f_globals.get("__loader__"), "entry", None)
            self.files[name] = entry.text if entry is not None and entry.filename == name else ""
        if self.files[name] not in self.spans:
            return None
        run = self.run[name]

        def traced(frame: FrameType, event: str, argument: object) -> Any:
            run.add(frame.f_lineno)
            return traced

        return traced

    def found(self) -> set[int]:
        made: set[int] = set()
        for name, run in self.run.items():
            text = self.files[name]
            made |= set(executed(self.spans[text], lines(compile(text, name, "exec")), run))
        return made


@dataclass(frozen=True)
class Called(Job):
    """Calls of a spec, with vectors of one of these sizes."""

    dims: tuple[int, ...] = (8, 16)
    dtype: str = "f32"


def kernels(job: Called) -> Kernels:
    """Its op with drawn params, and sizes that it can be called with. ValueError if none were found, or none at which
    the formula has a value: log(length) divides, and a length of 1 is drawn."""
    source = Source(name="<text>", text=job.text)

    def load(params: Any) -> Op:
        op = Op(source, name=None, params=params, target=job.target)
        compilable(op.construct)
        return op

    for seed in range(8):
        drawn = pool(load, load({}).construct.params, {}, count=1, seed=seed, dtypes=[DTYPES[job.dtype]], dims=job.dims)
        (made,) = drawn
        call = arguments(made, Request(B=1, G=1, H=made.heads or 1, N=2, M=3))
        found = made.op.reference(*call.args, **call.kwargs)
        if (found if isinstance(found, Tensor) else found[0]).isfinite().all():
            return made
    raise ValueError(f"{job}: no value at 8 draws of its params")


ALWAYS = [  # what a kernel does where vectors are whole tiles of the copy engine's, in parts, of 16 bits
    Called("causal", "sm_100", dims=(16,), dtype="f16"),  # bf16 is interpreted in float32
    Called("causal", "sm_80", dims=(96,), dtype="f16"),
    *(Called("alibi", dtype=dtype) for dtype in ("f32", "f16")),  # slopes are added in two ways
    *(Called(f"rare{number}") for number in (22, 23)),  # where all runs, only some calls run it
]
KERNELS = ("helpers.py.j2", "host.py.j2", "kernel")  # templates that an interpreter executes, the others need none


def cover(names: Sequence[str]) -> dict[str, list[Called]]:
    """By backends: jobs that render, together, what all of them render of the backends' templates."""
    jobs = [Called(**vars(Job.named(name))) for name in names or CHOSEN.split()] + ([] if names else ALWAYS)
    coverage = Coverage(environment())
    rendered = {job: coverage.rendered(job) for job in jobs}
    made = {}
    for backends in BACKENDS:
        always = ALWAYS if backends == "interpret" and not names else []
        known = set[Branch]().union(*(rendered[job] for job in always))
        new = {
            job: {x for x in branches - known if x[0].startswith(KERNELS) == (backends == "interpret")}
            for job, branches in rendered.items()
        }
        made[backends] = [*always, *covering(new)]
    return made


def shapeless(call: Call) -> None:
    """The call with tensors that have shapes alone, and its gradients: what torch.compile asks for."""

    def bare(x: Any, *, differentiable: bool = True) -> Any:
        if not isinstance(x, Tensor):
            return x
        return x.detach().to("meta").requires_grad_(differentiable and x.is_floating_point())

    declared = {item.name: item.differentiable for item in call.op.construct.inputs}
    inputs = {name: bare(x, differentiable=declared[name]) for name, x in call.inputs.items()}
    made = call.op(*map(bare, call.args), **inputs)
    results = [made] if isinstance(made, Tensor) else made
    sum(x.sum() for x in results if x.requires_grad).backward()


def work(backends: Sequence[str], jobs: Sequence[Called], folder: Path) -> None:
    """Make calls, and write down what they executed of Python, and the names of branches."""
    execution = Execution()
    for job in jobs:
        made = kernels(job)
        heads = made.heads or 2
        for backend in backends:
            small = backend == "interpret"
            for request in (
                Request(B=1, G=1, H=heads, N=20 if small else 90, M=24 if small else 150, seed=SEED),
                Request(B=2, G=1, H=heads, N=3, M=150 if small else 300, q_offset=(140, 149), layout="BNHD", seed=SEED),
            ):
                outcome(arguments(made, request), backend)
        if "eager" in backends:
            call = arguments(made, Request(B=1, G=1, H=heads, N=90, M=150))
            shapeless(call)
            with suppress(RuntimeError):  # no GPU, or no kernels
                outcome(call, "triton")
        print(f"{'+'.join(backends)}: {job}", file=sys.stderr, flush=True)
    sys.settrace(None)
    marking = execution.marking
    marking.report()  # asks for the templates that no module needed
    said = {"numbers": [list(x) for x in marking.numbers], "executed": sorted(execution.found())}
    said["all"] = [list(x) for x in marking.hits]
    said["rendered"] = [list(x) for x, count in marking.hits.items() if count]
    said["unknown"] = [list(x) for x in marking.unknown]
    (folder / f"{'-'.join(backends)}.json").write_text(json.dumps(said))


def main() -> int:
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[3].split(","), [Called(**item) for item in json.loads(sys.argv[4])], Path(sys.argv[2]))
        return 0
    chosen = cover(sys.argv[1:])
    every: set[Branch] = set()
    rendered: set[Branch] = set()
    total: set[Branch] = set()
    unknown: set[Branch] = set()
    for backends, jobs in chosen.items():
        print(f"{backends}: {', '.join(map(str, jobs))}", flush=True)
        with tempfile.TemporaryDirectory() as room:
            folder = Path(room)
            stand_in = folder / "cxx"
            stand_in.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m tests.execution_marks "$@"\n')
            stand_in.chmod(0o755)
            variables = os.environ | {
                "CXX": str(stand_in), "ATTNC_COVERAGE": room, "ATTNC_CACHE_DIR": str(folder / "cache"),
                "TRITON_INTERPRET": "1" if backends == "interpret" else "0",
            }  # fmt: skip
            command = [sys.executable, "-P", "-m", "tests.execution_templates", "--work", room, backends]
            command.append(json.dumps([asdict(job) for job in jobs]))
            subprocess.run(command, env=variables, check=True)
            said = json.loads((folder / f"{backends.replace(',', '-')}.json").read_text())
            numbers = [tuple(x) for x in said["numbers"]]
            total |= {numbers[n] for n in {*said["executed"], *counted(folder)}}
            every |= {tuple(x) for x in said["all"]}
            rendered |= {tuple(x) for x in said["rendered"]}
            unknown |= {tuple(x) for x in said["unknown"]}
    for what, missing in (
        ("not rendered", every - rendered),
        ("not executed", rendered - total - unknown),
        ("rendered, but no text", unknown - total),
    ):
        for branch in sorted(missing):
            print(f"{branch[0]} line {branch[1]}: {branch[2]}: {what}")
    print(f"{len(every)} branches: {len(rendered)} rendered, {len(total)} executed")
    return 0


if __name__ == "__main__":
    sys.exit(main())

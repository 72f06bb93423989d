"""``attnc fuzz``: calls of a spec by the hundred, on backends beside the reference."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from attnc.commands import assigned, literal
from attnc.dsl.diagnostics import SpecError
from attnc.files import read
from attnc.session import CLEAN, FAULTS, Inputs, Refused, count, draw_bar

if TYPE_CHECKING:
    from attnc.runtime.op import Op
    from attnc.testing.fuzz import Run
    from attnc.testing.kernels import Kernels

BACKENDS = ("native", "eager", "ttir", "interpret", "triton")


def fuzz(options: argparse.Namespace, inputs: Inputs) -> int:
    if (options.file is None) == (options.replay is None):
        raise Refused("fuzz takes a spec, or --replay and a file of saved calls")
    asked = ("native" if options.replay is None else "") if options.backend is None else options.backend
    names = list(dict.fromkeys(name.strip() for name in asked.split(",") if name.strip()))
    for name in names:
        if name not in BACKENDS:
            raise Refused(f"--backend: `{name}` is none of {', '.join(BACKENDS)}")
    if options.backend is not None and not names:
        raise Refused(f"--backend names none of {', '.join(BACKENDS)}")
    try:
        import hypothesis  # noqa: F401
        import torch
    except ModuleNotFoundError as error:
        raise Refused(f"fuzz draws calls with {error.name}: pip install 'attnc[fuzz]'") from error
    if "triton" in names and not torch.cuda.is_available():
        raise Refused("--backend triton needs a GPU, and torch finds none; ttir and interpret run the same kernels")
    if options.replay is not None:
        return _replay(options, names)
    until = monotonic() + options.seconds if options.seconds is not None else float("inf")
    pool = _pool(options, inputs)
    runs = []
    for name in names:
        run = _run(options, name, pool, until)
        runs.append(run)
        if options.format == "full":
            print(_said(run), flush=True)
        if run.failure is not None and options.save is not None:
            print(f"saved in {_save(run, options.save)}", file=sys.stderr)
    if options.format == "json":
        json.dump({"seed": options.seed, "runs": [_described(run) for run in runs]}, sys.stdout, indent=2)
        print()
    return FAULTS if any(run.failure is not None for run in runs) else CLEAN


def _pool(options: argparse.Namespace, inputs: Inputs) -> list[Kernels]:
    from attnc.dsl.check import check
    from attnc.dsl.frontend import choose, compilable
    from attnc.dsl.parse import parse
    from attnc.runtime.op import Op
    from attnc.testing.kernels import DTYPES, pool

    given = {name: literal(value) for name, value in assigned(options.param, "--param").items()}
    source = inputs.source(options.file)
    declared = choose(source, check(parse(source)).constructs, options.name).params

    def load(params: Mapping[str, object]) -> Op:
        op = Op(source, name=options.name, params=params, target=None)
        compilable(op.construct)
        return op

    for name in given:
        if name not in {item.name for item in declared}:
            load(given)  # says which there are
    dtypes = [DTYPES[name] for name in options.dtype.split(",") if name in DTYPES]
    if len(dtypes) != len(options.dtype.split(",")):
        raise Refused(f"--dtype: `{options.dtype}` is no list of {', '.join(DTYPES)}")
    try:
        return pool(load, declared, given, count=options.kernels, seed=options.seed, dtypes=dtypes)
    except SpecError:
        raise
    except ValueError as error:
        raise Refused(f"{error}") from error


def _run(options: argparse.Namespace, backend: str, pool: list[Kernels], until: float) -> Run:
    from attnc.testing.fuzz import Fuzz

    told = _bar(backend, options.examples)
    settings: dict[str, Any] = {"examples": options.examples, "seed": options.seed, "until": until, "told": told}
    run = Fuzz(backend=backend, kernels=pool, limit=options.limit, **settings).run()
    told(-1, False)
    return run


def _said(run: Run) -> str:
    from attnc.testing.script import as_python

    calls = count(run.examples, "call") + (", then the time was over" if run.stopped else "")
    if run.undetermined:
        calls += f", {run.undetermined} at a kink and not judged"
    if run.failure is None:
        return f"{run.backend}: {calls}, all equal to the reference"
    failure = run.failure
    if failure.hung:
        head = f"{run.backend}: call {failure.after} hangs, or takes longer than --limit allows:"
    else:
        head = f"{run.backend}: call {failure.after} differs from the reference; made smaller:"
    return f"{head}\n\n{as_python(failure.call, run.backend, failure.message)}"


def _described(run: Run) -> dict[str, object]:
    from attnc.testing.script import as_python, saved

    made: dict[str, object] = {
        "backend": run.backend,
        "examples": run.examples,
        "undetermined": run.undetermined,
        "stopped": run.stopped,
        "failure": None,
    }
    if run.failure is not None:
        failure = run.failure
        made["failure"] = {
            "message": failure.message,
            "after": failure.after,
            "python": as_python(failure.call, run.backend, failure.message),
            "call": saved(failure.call, run.backend),
        }
    return made


def _save(run: Run, folder: str) -> Path:
    """Keep a failure in a file of its own, named by what it holds: the same failure is the same file."""
    from attnc.testing.script import saved

    assert run.failure is not None
    described = {"was": run.failure.message.splitlines()[0], **saved(run.failure.call, run.backend)}
    text = json.dumps(described, indent=2) + "\n"
    name = f"{run.failure.call.op.name}-{run.backend}-{sha256(text.encode()).hexdigest()[:8]}.json"
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _replay(options: argparse.Namespace, backends: list[str]) -> int:
    """Make saved calls again, each on its own backend or on those asked for: what ``--format json`` printed, a file
    that ``--save`` wrote, or a folder of them."""
    from attnc.testing.fuzz import wrong
    from attnc.testing.process import Hung, Process
    from attnc.testing.script import restored

    root = Path(options.replay)
    paths = sorted(root.glob("*.json")) if root.is_dir() else [root]
    if not paths:
        raise Refused(f"{root} holds no saved call: no *.json")
    calls = []
    for path in paths:
        try:
            held = json.loads(read(str(path)))
            saved = [run["failure"]["call"] for run in held["runs"] if run["failure"]] if "runs" in held else [held]
            calls += [(path.stem, *restored(item)) for item in saved]
        except (KeyError, TypeError, ValueError) as error:
            raise Refused(f"{path} is nothing that `attnc fuzz` saved: {error}") from error
    processes = {interpreted: Process(interpreted=interpreted, limit=options.limit) for interpreted in (False, True)}
    said = []
    for name, call, own in calls:
        for backend in backends or [own]:
            try:
                message = wrong(call, backend, processes[backend == "interpret"])
            except Hung as error:
                message = str(error)
            said.append({"name": name, "backend": backend, "message": message})
            if options.format == "full":
                print(f"{name}, {backend}: {message or 'equal to the reference'}", flush=True)
    for process in processes.values():
        process.close()
    if options.format == "json":
        json.dump({"replayed": said}, sys.stdout, indent=2)
        print()
    failed = sum(bool(item["message"]) for item in said)
    print(f"{count(len(said), 'call')}, {failed} of them wrong", file=sys.stderr)
    return FAULTS if failed else CLEAN


def _bar(backend: str, examples: int) -> Callable[[int, bool], None]:
    """A progress bar on standard error, where that is a terminal; a negative number ends it."""
    if not sys.stderr.isatty():
        return lambda done, shrinking: None

    def told(done: int, shrinking: bool) -> None:
        text = f"{backend} {done}/{examples}{', making it smaller' * shrinking}"
        draw_bar(done, examples, text if done >= 0 else "")

    return told

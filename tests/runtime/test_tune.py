"""Measured tiles: the search over real launches of kernels (in Triton's interpreter), the store, damage, many at once.
No GPU here: what is not tested is that Triton's timer and a GPU's refusals are as they are taken to be."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from triton.runtime.errors import OutOfResources

import attnc
from attnc.dsl import store
from attnc.dsl.source import Source
from attnc.runtime.op import Op
from attnc.runtime.tune import MOST, Entry, Run, Tuner

SPEC = "attention tuned_{} {{\n  score dot(q, k) / sqrt(D)\n  mask j <= i\n  normalize softmax\n}}\n"
N, M, D = 24, 40, 16


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def op(request: pytest.FixtureRequest) -> Op:
    """A spec of each test's own: a module, and what was measured for it, lasts as long as the process."""
    name = "".join(letter if letter.isalnum() else "_" for letter in request.node.name)
    return Op(Source(name="<text>", text=SPEC.format(name)), name=None, params={}, target="sm_90", tune=True)


def vectors(*, grad: bool = False) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    sizes = ((1, 2, N, D), (1, 1, M, D), (1, 1, M, D))
    return tuple(torch.randn(size, generator=generator).requires_grad_(grad) for size in sizes)


def tuner(op: Op) -> Tuner:
    found = vars(op._module)["_tile"]
    assert isinstance(found, Tuner)
    return found


def again(op: Op) -> Tuner:
    """As another process has it: nothing known but what the store holds."""
    old = tuner(op)
    vars(op._module)["_tile"] = Tuner(old._identity, old._own, old._planned)
    return tuner(op)


def measure(op: Op, given: tuple[Tensor, ...], timer: Callable[[Run], float]) -> list[Any]:
    return tuner(op).tune(lambda: op._function(*given, backend="interpret"), given, (), timer)


def clock(run: Run) -> float:
    began = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - began)


@pytest.fixture
def launched(op: Op, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Entry]]:
    """The tiles that kernels are launched with, by pass."""
    seen: dict[str, list[Entry]] = {}

    def watch(kernel: Any, tiles: list[Entry]) -> Callable[..., object]:
        launch, names = kernel.run, kernel.arg_names

        def run(*args: Any, num_warps: int, num_stages: int, **options: Any) -> object:
            blocks = (args[names.index("BLOCK_M")], args[names.index("BLOCK_N")])
            roles = "ROLES" in names and args[names.index("ROLES")]
            tiles.append((*blocks, num_warps, num_stages, options.get("maxnreg", 0), roles))
            return launch(*args, num_warps=num_warps, num_stages=num_stages, **options)

        return run

    for name, kernel in vars(op._module).items():
        if name.endswith("_kernel"):
            monkeypatch.setattr(kernel, "run", watch(kernel, seen.setdefault(name.split("_")[-2], [])))
    return seen


def test_the_fastest_of_real_launches_is_taken(op: Op, launched: dict[str, list[Entry]]) -> None:
    given = vectors(grad=True)
    found = {timing.place.step: timing for timing in measure(op, given, clock)}
    assert sorted(found) == ["forward", "key", "query"]
    for step, timing in found.items():
        times = dict(timing.times)
        assert timing.entry == min(times, key=lambda entry: times[entry] or 0) and 2 <= len(times) <= MOST
        planned = op._planned(step, "f32", (D,))
        assert set(times) <= set(planned) and next(iter(op._planned(step, "f32", (D,)))) in times
        assert set(times) <= set(launched[step]), "what is timed is what is launched"
        assert timing.place[1:] == ("cpu", "f32", (D, D), 32, 64)
        launched[step].clear()
    out = op._function(*given, backend="interpret")
    torch.testing.assert_close(out, op.reference(*given))
    out.sum().backward()
    assert {step: set(seen) for step, seen in launched.items()} == {step: {found[step].entry} for step in found}
    assert measure(op, given, never) == []


def never(run: Run) -> float:
    raise AssertionError("nothing is left to measure")


def test_the_slowest_by_the_clock_is_not_taken(op: Op) -> None:
    """The planner's best, made slow: a run of it waits."""

    def slow(run: Run) -> float:
        entry = next(iter(tuner(op)._tried.values()))
        began = time.perf_counter()
        run()
        time.sleep(1.0 if entry == first else 0.0)
        return time.perf_counter() - began

    first = next(iter(op._planned("forward", "f32", (D,))))
    (timing,) = measure(op, vectors(), slow)
    assert timing.entry != first and dict(timing.times)[first] == max(dict(timing.times).values())


def test_only_what_is_asked_for(op: Op) -> None:
    """Without gradients the forward; then only the backward; of another class of lengths all again."""
    assert [timing.place.step for timing in measure(op, vectors(), clock)] == ["forward"]
    assert sorted(timing.place.step for timing in measure(op, vectors(grad=True), clock)) == ["key", "query"]
    with torch.no_grad():
        assert measure(op, vectors(grad=True), never) == []
    longer = tuple(x.repeat(1, 1, 2, 1) for x in vectors())
    assert [timing.place[4:] for timing in measure(op, longer, clock)] == [(64, 128)]


def test_kept_for_other_processes(op: Op, folder: Path) -> None:
    (timing,) = measure(op, vectors(), clock)
    assert len(list(folder.glob("*.tile"))) == 1 and set(folder.glob("*.tile")) <= set(store.kept())
    assert again(op).find(timing.place) == timing
    assert measure(op, vectors(), never) == []


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-1], lambda data: data.replace(b",", b";", 1)])
def test_a_damaged_file_is_measured_again(op: Op, folder: Path, damage: Callable[[bytes], bytes]) -> None:
    (timing,) = measure(op, vectors(), clock)
    (path,) = folder.glob("*.tile")
    path.write_bytes(damage(path.read_bytes()))
    assert again(op).find(timing.place) is None
    (other,) = measure(op, vectors(), clock)
    assert again(op).find(timing.place) == other


def test_a_refused_tile_is_passed_over(op: Op) -> None:
    first, *others = list(op._planned("forward", "f32", (D,)))[:MOST]

    def small(run: Run) -> float:
        if first in tuner(op)._tried.values():
            raise OutOfResources(300000, 232448, "shared memory")
        return clock(run)

    (timing,) = measure(op, vectors(), small)
    assert timing.times[-1] == (first, None) and timing.entry in others
    assert again(op).find(timing.place) == timing


def test_nothing_runs(op: Op) -> None:
    def none(run: Run) -> float:
        raise OutOfResources(300000, 232448, "shared memory")

    with pytest.raises(RuntimeError, match=r"none of the tiles .* of the forward kernel runs on cpu"):
        measure(op, vectors(), none)
    assert measure(op, vectors(), clock), "and nothing is kept"


def test_an_error_of_the_call_is_the_callers(op: Op) -> None:
    def broken(run: Run) -> float:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measure(op, vectors(), broken)
    assert tuner(op)._tried == {} and measure(op, vectors(), clock)


def test_a_store_that_cannot_be_written(op: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNC_CACHE_DIR", "/proc/none")
    with pytest.warns(UserWarning, match="tiles are measured again next time"):
        (timing,) = measure(op, vectors(), clock)
    assert tuner(op).find(timing.place) == timing


def test_another_op_of_the_spec_keeps_the_planners_tiles(op: Op) -> None:
    plain = attnc.loads(op._source.text, target="sm_90")
    measure(op, vectors(), clock)
    assert plain != op and hash(plain) != hash(op)
    assert not isinstance(vars(plain._module)["_tile"], Tuner)
    assert Op(op._source, name=None, params={}, target="sm_90", tune=True) == op


MANY = """
import sys
import torch
from tests.runtime.test_tune import SPEC, clock, measure, vectors
from attnc.dsl.source import Source
from attnc.runtime.op import Op
op = Op(Source(name="<text>", text=SPEC.format("many")), name=None, params={}, target="sm_90", tune=True)
print(len(measure(op, vectors(), clock)))
"""


def test_many_processes_at_once(folder: Path) -> None:
    """Each finds a whole file or measures; what is left is whole."""
    command = [sys.executable, "-P", "-c", "import os; os.environ['TRITON_INTERPRET'] = '1'\n" + MANY]
    root = Path(__file__).parents[2]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(root / "tests" / "_typing"), str(root)])}
    running = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    counts = [int(process.communicate(timeout=300)[0]) for process in running]
    assert set(counts) <= {0, 1} and 1 in counts
    op = Op(Source(name="<text>", text=SPEC.format("many")), name=None, params={}, target="sm_90", tune=True)
    assert measure(op, vectors(), never) == []
    assert len(list(folder.glob("*.tile"))) == 1


# --- without a GPU ----------------------------------------------------------------------------


def test_without_a_gpu_it_cannot_be_asked_for() -> None:
    for load in (lambda: attnc.loads(SPEC.format("x"), tune=True), lambda: attnc.load("x.attn", tune=True)):
        with pytest.raises(RuntimeError, match="tune=True measures tiles on a GPU, and torch finds none here"):
            load()


def test_tensors_on_no_gpu(op: Op) -> None:
    with pytest.raises(RuntimeError, match="tune=True measures tiles on GPU tensors; these are on cpu"):
        op(*vectors())
    torch.testing.assert_close(op(*vectors(), backend="eager"), op.reference(*vectors()))


def test_an_op_that_was_loaded_without_it() -> None:
    with pytest.raises(ValueError, match="x: tiles are measured for an op loaded with tune=True"):
        attnc.loads(SPEC.format("x")).tune(*vectors())


def test_a_pickle_is_an_op_that_tunes(op: Op) -> None:
    assert pickle.loads(pickle.dumps(op)) == op

"""``attnc fuzz``: draws calls, finds what differs, makes it smaller, prints it as a program, runs it again."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import attnc
from attnc.cli import main
from attnc.fuzzing import _said
from attnc.testing.call import Call, assert_matches_reference, outcome
from attnc.testing.fuzz import Fuzz, Run
from attnc.testing.kernels import LAYOUTS, VALUES, Kernels, Request, arguments, pool
from attnc.testing.process import Ended, Process
from attnc.testing.script import as_python, restored, saved

SPEC = """attention fuzzed {
  param w: int = 4
  input bias: f32[B, H, N, M]
  input len: i32[B]

  score     dot(q, k) / sqrt(D) + bias[b, h, i, j]
  mask      window(w) and j < len[b]
  normalize softmax
  emit      lse
}
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "fuzzed.attn"
    path.write_text(SPEC)
    return str(path)


def drawn(count: int = 3, dtypes: tuple[torch.dtype, ...] = (torch.float32,)) -> list[Kernels]:
    op = attnc.loads(SPEC)
    return pool(lambda params: op, (), {}, count=count, seed=0, dtypes=dtypes, dims=(1, 3, 8))


class Broken:
    """In place of the process: the reference, wrong in the last key's gradient where there are five keys or more."""

    def call(self, function: Any, call: Call, backend: str) -> dict[str, Tensor]:
        found = {name: x.float() for name, x in outcome(call, "reference").items()}
        if call.args[1].shape[2] >= 5:
            found["d_k"][:, :, -1] += 1
        return found

    def close(self) -> None: ...


def broken_run() -> Run:
    return Fuzz(backend="eager", kernels=drawn(), examples=60, seed=3, process=Broken()).run()  # type: ignore[arg-type]


def test_a_failing_call_is_made_smaller_the_same_way_every_time() -> None:
    run = broken_run()
    assert run.failure is not None
    assert run.examples == run.failure.after < 60
    assert "eager d_k:" in run.failure.message and "worst at" in run.failure.message
    q, k, _ = run.failure.call.args
    assert (q.shape[:3], k.shape[:3]) == ((1, 1, 1), (1, 1, 5))
    assert as_python(run.failure.call, "eager", "") == as_python(broken_run().failure.call, "eager", "")  # type: ignore[union-attr]


def test_what_a_backend_raises_is_a_failure() -> None:
    class Raising(Broken):
        def call(self, function: Any, call: Call, backend: str) -> dict[str, Tensor]:
            raise RuntimeError("no such kernel")

    run = Fuzz(backend="eager", kernels=drawn(1), examples=5, seed=0, process=Raising()).run()  # type: ignore[arg-type]
    assert run.failure is not None and run.failure.message == "RuntimeError: no such kernel"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_call_survives_as_a_program_and_as_json(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (kernels,) = drawn(1)
    seen: list[Call] = []

    def see(op: attnc.Op, /, *vectors: Tensor, backend: str, **rest: Any) -> None:
        options = {"q_offset": rest.pop("q_offset")}
        seen.append(Call(op=op, vectors=dict(zip("qkv", vectors, strict=True)), inputs=rest, options=options))

    monkeypatch.setattr("attnc.testing.call.assert_matches_reference", see)
    for number, values in enumerate(VALUES):
        request = Request(B=2, G=1, H=2, N=3, M=40 * (number % 2) + 4, q_offset=(1, -2), layout=layout, values=values)
        call = arguments(kernels, request)
        exec(as_python(call, "eager", "what was wrong"), {})
        again, backend = restored(json.loads(json.dumps(saved(call, "eager"))))
        assert backend == "eager"
        for other in (seen.pop(), again):
            assert str(other.op).strip() == str(call.op).strip()
            for (name, x), (theirs, y) in zip(
                {**call.vectors, **call.kwargs}.items(), {**other.vectors, **other.kwargs}.items(), strict=True
            ):
                assert (name, x.dtype, x.shape, x.stride()) == (theirs, y.dtype, y.shape, y.stride())
                assert torch.equal(x.nan_to_num(7), y.nan_to_num(7))


def test_garbage_lies_where_it_does_not_matter() -> None:
    """In pairs that are masked, in keys behind ``len``: the reference has neither inf nor NaN."""
    (kernels,) = drawn(1)
    call = arguments(kernels, Request(B=2, G=1, H=2, N=9, M=12, values="garbage", seed=1))
    assert not call.inputs["bias"].isfinite().all()
    assert not call.vectors["k"].isfinite().all() and not call.vectors["v"].isfinite().all()
    assert all(not x.isnan().any() for x in outcome(call.exact(), "reference").values())


def test_equal(spec: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A real run, in a process of its own."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert main(["fuzz", spec, "--backend", "eager", "--examples", "12", "--kernels", "2", "--dtype", "f32,bf16"]) == 0
    told = capsys.readouterr()
    assert told.out == "eager: 12 calls, all equal to the reference\n"
    assert "█" in told.err and "eager 11/12" in told.err


def test_replay(spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What another attnc found wrong is right in this one."""
    run = broken_run()
    assert run.failure is not None
    kept = tmp_path / "failures.json"
    kept.write_text(json.dumps({"runs": [{"failure": None}, {"failure": {"call": saved(run.failure.call, "eager")}}]}))
    assert main(["fuzz", "--replay", str(kept)]) == 0
    assert capsys.readouterr().out == "failures, eager: equal to the reference\n"


def test_what_is_saved_is_replayed(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """A file for each failure, the same for the same one; a folder of them is made again, as long as it fails."""
    monkeypatch.setattr("attnc.testing.process.Process", lambda **options: Broken())
    monkeypatch.setattr("attnc.testing.fuzz.Process", lambda **options: Broken())
    monkeypatch.setattr("attnc.testing.fuzz._SMALLER", 3)
    folder = tmp_path / "kept" / "here"
    command = ["fuzz", spec, "--backend", "eager,ttir", "--kernels", "1", "--dtype", "f32", "--save", str(folder)]
    assert main(command) == main(command) == 1
    one, other = sorted(folder.iterdir())
    assert (one.name[:13], other.name[:12]) == ("fuzzed-eager-", "fuzzed-ttir-")
    assert json.loads(one.read_text())["was"].startswith("eager d_k: ")
    capsys.readouterr()
    assert main(["fuzz", "--replay", str(folder)]) == 1
    told = [line.split(": ")[:2] for line in capsys.readouterr().out.splitlines()]
    assert told == [[f"{one.stem}, eager", "eager d_k"], [f"{other.stem}, ttir", "ttir d_k"]]
    assert main(["fuzz", "--replay", str(one), "--backend", "ttir", "--format", "json"]) == 1
    (said,) = json.loads(capsys.readouterr().out)["replayed"]
    assert (said["name"], said["backend"]) == (one.stem, "ttir")


def sleeps(call: Call, backend: str) -> None:
    time.sleep(60)


def test_a_backend_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails, is not made smaller, and the next call has a process again."""
    monkeypatch.setattr("attnc.testing.fuzz.poisoned_outcome", sleeps)
    process = Process(limit=0.2)
    run = Fuzz(backend="eager", kernels=drawn(1), examples=5, seed=0, process=process).run()
    assert run.failure is not None and run.failure.hung
    assert (run.failure.after, run.failure.message) == (1, "eager: no answer within 0.2 s")
    assert "call 1 hangs, or takes longer than --limit allows" in _said(run)
    process.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "fuzz takes a spec, or --replay and a file of saved calls"),
        (["--replay", "{folder}"], "holds no saved call: no *.json"),
        (["{spec}", "--replay", "x"], "fuzz takes a spec, or --replay"),
        (["{spec}", "--backend", "cuda"], "--backend: `cuda` is none of native, eager, ttir, interpret, triton"),
        (["{spec}", "--backend", ","], "--backend names none of native"),
        (["{spec}", "--dtype", "f8"], "--dtype: `f8` is no list of f32"),
        (["--replay", "{spec}"], "nothing that `attnc fuzz` saved"),
        (["missing.attn"], "missing.attn: No such file"),
    ],
)
def test_bad_use(arguments: list[str], said: str, spec: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(spec).parent
    assert main(["fuzz", *(text.format(spec=spec, folder=folder) for text in arguments)]) == 2
    assert said in capsys.readouterr().err


def test_triton_needs_a_gpu(spec: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["fuzz", spec, "--backend", "eager,triton"]) == 2
    assert "--backend triton needs a GPU, and torch finds none" in capsys.readouterr().err


def test_needs_hypothesis(spec: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    assert main(["fuzz", spec]) == 2
    assert "fuzz draws calls with hypothesis: pip install 'attnc[fuzz]'" in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, "attnc.testing.drawing", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"attnc.testing.calls draws with hypothesis: pip install"):
        _ = attnc.testing.calls  # type: ignore[attr-defined]


def test_faults_of_the_spec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wrong.attn"
    path.write_text("attention wrong { score dot(q, x)  normalize softmax }")
    assert main(["fuzz", str(path)]) == 1
    assert "nothing is called `x` here" in capsys.readouterr().err


def test_an_assertion_says_where_and_what(monkeypatch: pytest.MonkeyPatch) -> None:
    op = attnc.loads("attention plain { score dot(q, k)  normalize softmax }")
    q, k, v = (torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(n)) for n in range(3))
    assert_matches_reference(op, q, k, v, backend="eager")

    def wrong(call: Call, backend: str) -> dict[str, Tensor]:
        found = outcome(call, backend)
        found["out"][0, 1, 2, 3] += 1
        return found

    monkeypatch.setattr("attnc.testing.call.poisoned_outcome", wrong)
    with pytest.raises(AssertionError, match=r"eager out: 1 of 24 elements differ; worst at \[0, 1, 2, 3\]: expected"):
        assert_matches_reference(op, q, k, v, backend="eager")
    with pytest.raises(TypeError, match="expected 3 tensors"):
        assert_matches_reference(op, q, k)


def test_an_input_may_have_fewer_digits_than_the_vectors() -> None:
    """What its gradient may lie off follows from its own dtype."""
    op = attnc.loads(
        "attention biased { input bias: f32[H, N, M]  score dot(q, k) + bias[h, i, j]  normalize softmax }"
    )
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 2, n, 4, generator=draw, dtype=torch.float64) for n in (5, 7, 7))
    assert_matches_reference(op, q, k, v, bias=torch.randn(2, 5, 7, generator=draw), backend="eager")


def test_an_interrupted_process_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Ended, match="status -2"):
        Process().call(signal.raise_signal, signal.SIGINT)
    assert capfd.readouterr().err == ""

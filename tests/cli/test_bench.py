"""attnc bench: the table, the plot, what it refuses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from attnc import benching
from attnc.cli import main
from attnc.runtime.bench import Cell

Capture = pytest.CaptureFixture[str]
SPEC = "attention local { score dot(q, k) / sqrt(D)  mask causal and window(20)  normalize softmax }"
SHAPE = ["--shape", "H=2,D=16", "--seconds", "0.001"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "local.attn").write_text(SPEC)
    (tmp_path / "ids.attn").write_text(SPEC.replace("{", "{ input ids: i32[B, M]").replace("causal", "document(ids)"))
    (tmp_path / "cap.attn").write_text(SPEC.replace("dot", "9 * tanh(dot").replace("k)", "k))"))
    return tmp_path


def test_a_table(capsys: Capture) -> None:
    arguments = [*SHAPE, "--lengths", "40,8", "--against", "sdpa,eager", "--backend", "eager", "--dtype", "f64"]
    assert main(["bench", "local.attn", *arguments]) == 0
    head, names, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("local, f64, forward, B=1 H=2 G=2 D=16 E=16; torch ")
    assert names.split() == ["N", "attnc", "eager", "ms", "sdpa", "ms"]
    assert [row.split()[0] for row in rows] == ["8", "40"]
    for row in rows:
        _, ours, theirs, over = row.split()
        assert float(ours) > 0 and float(theirs) > 0 and float(over.removeprefix("(").removesuffix(")")) > 0


def test_what_has_no_time_says_why(capsys: Capture) -> None:
    assert main(["bench", "cap.attn", *SHAPE, "--lengths", "8,16", "--against", "sdpa,interpret"]) == 0
    out = capsys.readouterr().out
    assert out.count("sdpa: its score is no multiple of the dot product plus a bias") == 1, "said once"
    assert main(["bench", "local.attn", *SHAPE, "--lengths", "8", "--backend", "triton"]) == 0
    out = capsys.readouterr().out
    assert "attnc triton: local: backend 'triton' needs GPU tensors" in out and "sdpa: not timed without triton" in out


def test_another_functions_result_is_said() -> None:
    ours, theirs = Cell(times=[1.0, 1.0]), Cell(times=[2.0, 3.0], off=1e5)
    table = benching._table([(64, {"auto": ours, "sdpa": theirs})], ("auto", "sdpa"))
    assert "2500.000 (2.50)" in table
    assert "sdpa: its result differs from attnc's by 100000 roundings at N 64" in table


def test_a_much_faster_peer_has_a_ratio() -> None:
    row = (64, {"auto": Cell(times=[2.5, 2.5]), "sdpa": Cell(times=[0.002, 0.002])})
    assert "2.000 (0.0008)" in benching._table([row], ("auto", "sdpa"))


def test_backward_and_inputs(capsys: Capture) -> None:
    ids = f"ids={[[n // 3 for n in range(12)]]}"
    assert (
        main(["bench", "ids.attn", "--shape", "H=2,N=12,D=16", "--seconds", "1e-3", "--backward", "--input", ids]) == 0
    )
    head, _, row = capsys.readouterr().out.splitlines()
    assert ", backward, " in head and len(row.split()) == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["local.attn", "--against", "sdpa,cudnn"], "--against: `cudnn` is none of sdpa, flex"),
        (["local.attn", "--shape", "N=8", "--lengths", "8"], "--lengths says N and M"),
        (["local.attn", "--shape", "H=6,G=4"], "H=6 query heads cannot share G=4 key heads evenly"),
        (["local.attn", "--shape", "Q=6"], "--shape: `Q=6` is no size"),
        (["ids.attn", "--shape", "N=8"], r"the input ids (i32) cannot be drawn: give it"),
        (["local.attn", "--input", "x=1"], "`local` has no input `x`"),
    ],
)
def test_refusals(arguments: list[str], said: str, capsys: Capture) -> None:
    assert main(["bench", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_plot_needs_matplotlib(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["bench", "local.attn", "--png", "x.png"]) == 2
    assert "--png is drawn with matplotlib" in capsys.readouterr().err and not Path("x.png").exists()


class Drawn:
    """Takes the calls of a figure and its axes."""

    def __init__(self, calls: list[tuple[str, tuple[Any, ...]]]) -> None:
        self.calls = calls

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def called(*given: Any, **options: Any) -> Any:
            self.calls.append((name, given))
            if name == "savefig":
                given[0].write(b"a picture")
            return self

        return called


def test_the_plots_lines(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """One for each contender that has times."""
    calls: list[tuple[str, tuple[Any, ...]]] = []
    stand_in = ModuleType("matplotlib.figure")
    stand_in.Figure = lambda **options: Drawn(calls)  # type: ignore[attr-defined]  # as the package has it
    monkeypatch.setitem(sys.modules, "matplotlib.figure", stand_in)
    monkeypatch.setitem(sys.modules, "matplotlib", ModuleType("matplotlib"))
    arguments = [*SHAPE, "--lengths", "8,16", "--against", "sdpa,triton", "--png", "x.png"]
    assert main(["bench", "local.attn", *arguments]) == 0
    lines = [given for name, given in calls if name == "plot"]
    assert [x for x, _ in lines] == [(8, 16)] * 2 and (folder / "x.png").read_bytes() == b"a picture"


def test_a_real_plot(folder: Path) -> None:
    assert main(["bench", "local.attn", *SHAPE, "--lengths", "8,16", "--png", "x.png"]) == 0
    assert (folder / "x.png").read_bytes().startswith(b"\x89PNG")


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    told = benching._bar(2)
    told("N 8", "sdpa")
    told("N 8", "all")
    told("", "")
    assert capsys.readouterr().err == (f"\r{'░' * 30} N 8 sdpa\x1b[K\r{'█' * 15}{'░' * 15} N 8 all\x1b[K\r\x1b[K")

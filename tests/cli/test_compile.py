"""compile, plan and show: stages, params, several constructs, output files, pictures."""

from __future__ import annotations

import ast
import os
import re
import sys
from pathlib import Path

import pytest

from attnc.cli import main

LOCAL = """\
attention local {
  param w: int

  score     dot(q, k) / sqrt(D)
  mask      window(w)
  normalize softmax
}
"""
TWO = (
    LOCAL
    + """
attention alibi {
  input slope: f32[H]

  score     dot(q, k) / sqrt(D) - slope[h] * abs(i - j)
  mask      causal
  normalize softmax
}
"""
)
PER_HEAD = """\
attention heads {
  param w: int[H]

  score     dot(q, k)
  mask      abs(i - j) <= w[h]
  normalize softmax
}
"""
DOCUMENTS = """\
attention documents {
  input ids: i64[B, M]

  score     dot(q, k)
  mask      document(ids)
  normalize softmax
}
"""
RECURRENCE = """\
recurrence mamba2 {
  input a: f32[B, H, N]

  state S[D, E]
  step  exp(a) * S + outer(k, v)
  read  q @ S
}
"""

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    texts = {"local": LOCAL, "two": TWO, "heads": PER_HEAD, "documents": DOCUMENTS, "mamba2": RECURRENCE}
    for name, text in texts.items():
        (tmp_path / f"{name}.attn").write_text(text)
    return tmp_path


# --- compile ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["ast", "ir", "plan", "py"])
def test_every_stage_is_text(stage: str, capsys: Capture) -> None:
    params = [] if stage == "ast" else ["--param", "w=4"]
    assert main(["compile", "local.attn", "--emit", stage, *params]) == 0
    out, err = capsys.readouterr()
    assert out.endswith("\n") and "local" in out
    assert err == ""


@pytest.mark.parametrize("target", ["generic", "sm_80", "sm_90", "sm_100", "gfx942"])
def test_every_target(target: str, capsys: Capture) -> None:
    assert main(["compile", "local.attn", "--param", "w=4", "--target", target]) == 0
    ast.parse(capsys.readouterr().out)


def test_an_unknown_target_is_refused(capsys: Capture) -> None:
    assert main(["compile", "local.attn", "--param", "w=4", "--target", "sm_9000"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "sm_9000" in err and "sm_90" in err


def test_output_file(folder: Path, capsys: Capture) -> None:
    assert main(["compile", "local.attn", "--param", "w=4", "-o", "out.py"]) == 0
    assert capsys.readouterr().out == ""
    written = (folder / "out.py").read_text()
    assert main(["compile", "local.attn", "--param", "w=4"]) == 0
    assert capsys.readouterr().out == written


def test_a_fault_leaves_the_output_as_it_was(folder: Path, capsys: Capture) -> None:
    (folder / "out.py").write_text("old")
    assert main(["compile", "local.attn", "-o", "out.py"]) == 1
    out, err = capsys.readouterr()
    assert (out, (folder / "out.py").read_text()) == ("", "old")
    assert "`w`" in err


def test_an_output_that_cannot_be_written(capsys: Capture) -> None:
    assert main(["compile", "local.attn", "--param", "w=4", "-o", "missing/out.py"]) == 2
    assert "No such file or directory" in capsys.readouterr().err


def test_several_constructs_need_a_name(capsys: Capture) -> None:
    assert main(["compile", "two.attn", "--emit", "ir"]) == 1
    err = capsys.readouterr().err
    assert "local" in err and "alibi" in err
    assert main(["compile", "two.attn", "--emit", "ir", "--name", "alibi"]) == 0
    assert "alibi" in capsys.readouterr().out
    assert main(["compile", "two.attn", "--emit", "ir", "--name", "alibo"]) == 1


@pytest.mark.parametrize(
    "command", ["compile", "compile --emit ptx --target sm_90", "inspect --target sm_90", "plan", "fuzz"]
)
def test_a_recurrence_is_refused_by_its_own_code(command: str, capsys: Capture) -> None:
    assert main([*command.split(), "mamba2.attn"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error[A5")


# --- params -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "written"),
    [
        ("int", "512"),
        ("int", "-3"),
        ("float", "0.5"),
        ("float", "1e-6"),
        ("float", "2"),
        ("bool", "true"),
        ("bool", "false"),
        ("int[H]", "[1, 2, 4]"),
        ("float[H]", "[0.5,1]"),
    ],
)
def test_params_are_read_as_the_language_writes_them(declared: str, written: str, folder: Path) -> None:
    use = {"int": "p", "float": "p", "bool": "where(p, 1, 2)"}.get(declared, "p[h]")
    spec = f"attention a {{ param p: {declared} score dot(q, k) * {use} normalize softmax }}"
    (folder / "a.attn").write_text(spec)
    assert main(["compile", "a.attn", "--emit", "ir", "--param", f"p={written}"]) == 0


@pytest.mark.parametrize("written", ["x", "1 2", "[1, x]", "", "True"])
def test_what_is_no_literal_is_refused(written: str, capsys: Capture) -> None:
    assert main(["compile", "local.attn", "--emit", "ir", "--param", f"w={written}"]) == 2
    assert "a param is a number, true, false or a list of them: `" in capsys.readouterr().err


@pytest.mark.parametrize("params", [["w"], ["w=1", "w=2"]])
def test_params_are_pairs_given_once(params: list[str], capsys: Capture) -> None:
    arguments = [word for item in params for word in ("--param", item)]
    assert main(["compile", "local.attn", "--emit", "ir", *arguments]) == 2
    assert "--param" in capsys.readouterr().err


@pytest.mark.parametrize("params", ["w=0.5", "w=true", "w=-1", "v=1", "w=inf"])
def test_a_param_that_does_not_fit_is_a_fault(params: str, capsys: Capture) -> None:
    assert main(["compile", "local.attn", "--emit", "ir", "--param", params]) == 1
    assert "error[A3" in capsys.readouterr().err


def test_emit_ast_takes_no_params(capsys: Capture) -> None:
    assert main(["compile", "local.attn", "--emit", "ast", "--param", "w=4"]) == 2


# --- plan and show ----------------------------------------------------------------------------


def test_plan_is_the_plan_stage(capsys: Capture) -> None:
    assert main(["plan", "local.attn", "--param", "w=4", "--target", "sm_90"]) == 0
    plan = capsys.readouterr().out
    assert main(["compile", "local.attn", "--param", "w=4", "--target", "sm_90", "--emit", "plan"]) == 0
    assert capsys.readouterr().out == plan


def test_show_draws_the_mask(capsys: Capture) -> None:
    assert main(["show", "local.attn", "--param", "w=1", "-n", "4"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "local: N = 4, M = 4, 62.5% live",
        "┌────┐",
        "│██▄ │",
        "│ ▀██│",
        "└────┘",
    ]


def test_show_draws_the_last_queries_against_all_keys(capsys: Capture) -> None:
    assert main(["show", "two.attn", "--name", "alibi", "-n", "2", "-m", "4"]) == 0
    assert "│███▄│" in capsys.readouterr().out


def test_show_draws_each_head_that_differs(capsys: Capture, folder: Path) -> None:
    assert main(["show", "heads.attn", "--param", "w=[0, 1]", "-n", "4", "--heads", "2"]) == 0
    out = capsys.readouterr().out
    assert "heads, head 0: N = 4, M = 4, 25.0% live" in out
    assert "heads, head 1: N = 4, M = 4, 62.5% live" in out
    command = ["show", "heads.attn", "--param", "w=[0, 1]", "-n", "4", "--heads", "2"]
    assert main([*command, "--png", "m.png", "--svg", "m.svg"]) == 0
    assert capsys.readouterr().out == ""
    assert {"m.0.png", "m.1.png", "m.0.svg", "m.1.svg"} <= set(os.listdir(folder))


def test_show_takes_inputs(capsys: Capture) -> None:
    assert main(["show", "documents.attn", "-n", "4", "--input", "ids=[[0, 0, 1, 1]]"]) == 0
    assert capsys.readouterr().out.splitlines()[2:4] == ["│██  │", "│  ██│"]


def test_show_draws_tiles(capsys: Capture) -> None:
    assert main(["show", "local.attn", "--param", "w=4", "-n", "12", "--tiles", "4"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "local: N = 12, M = 12, tiles of 4 x 4",
        "┌──────┐",
        "│██▒▒  │",
        "│▒▒██▒▒│",
        "│  ▒▒██│",
        "└──────┘",
        "9 tiles: 2 empty, 4 partial, 3 full",
        "7 hold live pairs: 77.8% of the cost of dense; 61.1% of the pairs are live",
    ]


def test_show_draws_tiles_of_two_sides_and_each_head(capsys: Capture, folder: Path) -> None:
    command = ["show", "heads.attn", "--param", "w=[0, 9]", "-n", "8", "--heads", "2", "--tiles", "4x2"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "heads, head 0: N = 8, M = 8, tiles of 4 x 2\n┌────┐\n│▒▒  │\n│  ▒▒│\n└────┘\n8 tiles: 4 empty" in out
    assert "heads, head 1: N = 8, M = 8, tiles of 4 x 2\n┌────┐\n│████│" in out
    assert main([*command, "--png", "t.png", "--svg", "t.svg"]) == 0
    assert capsys.readouterr().out == ""
    assert {"t.0.png", "t.1.png", "t.0.svg", "t.1.svg"} <= set(os.listdir(folder))


def test_show_draws_what_the_documentation_shows(capsys: Capture) -> None:
    root = Path(__file__).resolve().parents[2]
    page = (root / "docs" / "tiles.md").read_text(encoding="utf-8")
    ((arguments, picture),) = re.findall(r"^\$ attnc (show .*)\n((?:.+\n)+)```$", page, flags=re.M)
    show, path, *rest = arguments.split()
    assert main([show, str(root / path), *rest]) == 0
    assert capsys.readouterr().out == picture


def test_show_scales_down_what_does_not_fit(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["show", "local.attn", "--param", "w=1000", "-n", "100000", "--tiles", "64"]) == 0
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == "local: N = 100000, M = 100000, tiles of 64 x 64, each cell 84 x 42 of them"
    assert max(map(len, lines[:-2])) == 40
    assert lines[-1] == "51,307 hold live pairs: 2.1% of the cost of dense"  # more pairs than are counted


def test_show_tells_what_matters_at_no_pair_of_the_picture(capsys: Capture) -> None:
    assert main(["show", "two.attn", "--name", "alibi", "-n", "1", "-m", "4"]) == 0
    err = capsys.readouterr().err
    assert "the mask is always full" in err and "holds for every pair, at N = 1, M = 4" in err
    assert main(["show", "two.attn", "--name", "alibi", "-n", "2", "-m", "4"]) == 0
    assert capsys.readouterr().err == ""


def test_show_takes_inputs_for_tiles(capsys: Capture) -> None:
    assert main(["show", "documents.attn", "-n", "4", "--tiles", "2", "--input", "ids=[[0, 0, 1, 1]]"]) == 0
    assert capsys.readouterr().out.splitlines()[2:4] == ["│██  │", "│  ██│"]


@pytest.mark.parametrize("written", ["0", "64x", "x", "1x2x3", "big"])
def test_show_refuses_what_is_no_tile(written: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["show", "local.attn", "--param", "w=1", "--tiles", written])
    assert stop.value.code == 2
    assert "--tiles" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["documents.attn"], "reads the input `ids`"),
        (["documents.attn", "--input", "ids=[[0, 0]]"], "axis 1 is M = 64, but the tensor has 2 there"),
        (["documents.attn", "--input", "ids=[0, 0]"], "expected [B, M], got 1 axes"),
        (["documents.attn", "--input", "ids=[[0, 0], [1]]"], "--input: `ids` is no number, true, false or array"),
        (["documents.attn", "--input", "ids=null"], "--input: `ids` is no number, true, false or array"),
        (["documents.attn", "--input", 'ids={"a": 1}'], "--input: `ids` is no number, true, false or array"),
        (["local.attn", "--param", "w=1", "-n", "100000"], "at most 16,777,216 pairs one by one: give --tiles"),
        (["documents.attn", "--input", "ids=[0"], "is no JSON"),
        (["documents.attn", "--input", "idz=[0]"], "has no input `idz`"),
    ],
)
def test_show_refuses(arguments: list[str], says: str, capsys: Capture) -> None:
    assert main(["show", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_show_without_torch_says_what_to_install(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # what Python itself does for a module that is not there
    assert main(["show", "local.attn", "--param", "w=1"]) == 2
    assert "pip install 'attnc[torch]'" in capsys.readouterr().err


# --- the cache --------------------------------------------------------------------------------


def test_env_and_clean(folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(folder / "cache"))
    assert main(["env"]) == 0
    assert str(folder / "cache") in capsys.readouterr().out
    assert main(["clean"]) == 0
    assert capsys.readouterr().out.startswith("removed 0 ")

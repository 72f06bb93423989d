"""The command line as a whole: exit statuses, what goes to which stream, files, faults in attnc itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from attnc.cli import main
from attnc.dsl.codes import CODES, explain

GOOD = """\
# A window.
attention local {
  param w: int = 4

  score     dot(q, k) / sqrt(D)
  mask      window(w)
  normalize softmax
}
"""
UGLY = "attention local {param w: int = 4 score dot(q, k)/sqrt(D) mask window(w) normalize softmax}"
TIDY = GOOD.removeprefix("# A window.\n").replace("\n\n", "\n")  # what UGLY becomes
WRONG = GOOD.replace("window(w)", "windwo(w)")
UNUSED = GOOD.replace("window(w)", "window(4)")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def attnc(*arguments: str, stdin: str | bytes = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [sys.executable, "-m", "attnc", *arguments],
        input=data,
        capture_output=True,
        env=os.environ | environment,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


# --- check ------------------------------------------------------------------------------------


def test_check_clean(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.attn").write_text(GOOD)
    assert main(["check", "a.attn"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "0 faults, 0 warnings in 1 file\n"


def test_check_goes_through_directories(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "a.attn").write_text(GOOD)
    (folder / "b.attn").write_text(WRONG)
    assert main(["check", "--format", "concise"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("b.attn:6:13: error[")
    assert err == "1 fault, 0 warnings in 2 files\n"


def test_check_without_files_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    assert "no .attn files under ." in capsys.readouterr().err


def test_check_json_is_one_array(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--format", "json", "."]) == 0
    assert json.loads(capsys.readouterr().out) == []
    for name in ("a.attn", "b.attn"):
        (folder / name).write_text(WRONG)
    assert main(["check", "--format", "json", "."]) == 1
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 2
    assert {item["code"] for item in found} <= set(CODES)


def test_check_github(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.attn").write_text(WRONG)
    assert main(["check", "--format", "github", "a.attn"]) == 1
    assert capsys.readouterr().out.startswith("::error ")


def test_warnings_pass_unless_denied(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.attn").write_text(UNUSED)
    assert main(["check", "a.attn"]) == 0
    out, err = capsys.readouterr()
    assert "warning[W" in out
    assert err == "0 faults, 1 warning in 1 file\n"
    assert main(["check", "--deny", "warnings", "a.attn"]) == 1
    out, err = capsys.readouterr()
    assert "error[W" in out
    assert main(["compile", "--emit", "ir", "--deny", "warnings", "a.attn"]) == 1
    assert capsys.readouterr().out == ""


def test_masks_are_linted_for_all_params_or_at_their_values(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.attn").write_text(GOOD.replace("window(w)", "window(w) or window(9) or window(5)"))
    assert main(["check", "--format", "concise", "a.attn"]) == 0
    assert capsys.readouterr().out == "a.attn:6:39: warning[W004]: `window(5)` can never matter (help: leave it out)\n"
    assert main(["plan", "--param", "w=3", "a.attn"]) == 0
    err = capsys.readouterr().err
    assert "`window(9)` lets these pairs through already, at w = 3\n" in err
    assert "`window(9)` lets these pairs through already\n" in err
    assert main(["compile", "--deny", "warnings", "--emit", "ir", "a.attn"]) == 1
    assert "error[W004]" in capsys.readouterr().err


def test_a_missing_file_does_not_hide_the_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.attn").write_text(WRONG)
    assert main(["check", "missing.attn", "a.attn"]) == 2
    out, err = capsys.readouterr()
    assert "error[" in out
    assert err.startswith("attnc: missing.attn: No such file or directory\n")


def test_a_file_without_an_end_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open(folder / "large.attn", "wb") as stream:
        stream.truncate(2**24 + 1)  # /dev/zero has more
    assert main(["check", "large.attn"]) == 2
    assert "attnc: large.attn: more than 16 MiB, which no spec has" in capsys.readouterr().err


def test_check_reads_standard_input() -> None:
    done = attnc("check", "-", "--format", "concise", stdin=WRONG)
    assert done.returncode == 1
    assert done.stdout.startswith("-:6:13: error[")
    assert attnc("check", "-", stdin=GOOD).returncode == 0


def test_bytes_that_are_no_text_are_a_fault_of_the_spec() -> None:
    done = attnc("check", "-", stdin=b"attention \xff\x00 {")
    assert done.returncode == 1
    assert "error[" in done.stdout


def test_color(folder: Path) -> None:
    (folder / "a.attn").write_text(WRONG)
    assert "\x1b[" not in attnc("check", "a.attn").stdout
    assert "\x1b[" in attnc("check", "a.attn", "--color", "always").stdout
    assert "\x1b[" not in attnc("check", "a.attn", "--color", "never").stdout


# --- fmt --------------------------------------------------------------------------------------


def test_fmt_rewrites_in_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.attn").write_text(UGLY)
    (folder / "b.attn").write_text(GOOD)
    assert main(["fmt"]) == 0
    assert capsys.readouterr().err == "1 file of 2 reformatted\n"
    assert (folder / "a.attn").read_text() == TIDY
    assert (folder / "b.attn").read_text() == GOOD
    assert main(["fmt", "--check"]) == 0


def test_fmt_check_changes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.attn").write_text(UGLY)
    assert main(["fmt", "--check", "a.attn"]) == 1
    assert capsys.readouterr().out == "would reformat a.attn\n"
    assert (folder / "a.attn").read_text() == UGLY
    assert main(["fmt", "--diff", "a.attn"]) == 1
    assert "+  score     dot(q, k) / sqrt(D)\n" in capsys.readouterr().out
    assert (folder / "a.attn").read_text() == UGLY


def test_fmt_mends_line_ends(folder: Path) -> None:
    (folder / "a.attn").write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert main(["fmt", "a.attn"]) == 0
    assert (folder / "a.attn").read_bytes() == GOOD.encode()


def test_fmt_leaves_a_wrong_file_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.attn").write_text("attention {")
    assert main(["fmt", "a.attn"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "error[" in err
    assert (folder / "a.attn").read_text() == "attention {"


def test_fmt_of_standard_input() -> None:
    done = attnc("fmt", "-", stdin=UGLY)
    assert (done.returncode, done.stdout) == (0, TIDY)
    assert attnc("fmt", "--check", "-", stdin=UGLY).returncode == 1


# --- explain, version -------------------------------------------------------------------------


@pytest.mark.parametrize("code", CODES)
def test_explain(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", code]) == 0
    out = capsys.readouterr().out
    assert out == explain(CODES[code])
    assert out.startswith(f"{code}: {CODES[code].title}\n") and len(out) < 4_000
    assert CODES[code].good.strip().encode(errors="backslashreplace").decode() in out
    assert main(["explain", code.lower(), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == asdict(CODES[code])


def test_explain_lists_all_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(CODES)
    assert main(["explain", "--format", "json"]) == 0
    assert [code["code"] for code in json.loads(capsys.readouterr().out)] == list(CODES)


def test_explain_of_an_unknown_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "A999"]) == 2
    assert "no code `A999`" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith("attnc 0.")


# --- the process ------------------------------------------------------------------------------


SECONDS = [
    [*words, text]
    for words in (["bench", "a.attn", "--seconds"], ["fuzz", "a.attn", "--limit"])
    for text in ("0", "-1", "nan", "inf", "x")
]


@pytest.mark.parametrize(
    "arguments", [[], ["chekc"], ["compile"], ["show", "-n", "0", "a.attn"], ["fmt", "--emit"], *SECONDS]
)
def test_a_wrong_command_line_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert exit.value.code == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["chekc"], "check"),
        (["check", "--formt", "json", "a.attn"], "--format"),
        (["check", "--format", "jsn"], "json"),
        (["compile", "--parm", "w=2", "--targt", "cpu"], "--param, --target"),
    ],
)
def test_a_misspelt_word_is_told_the_near_one(
    arguments: list[str], near: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert capsys.readouterr().err.endswith(f"; did you mean {near}?\n")


def test_closed_streams(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["check", "-"]) == 2
    assert capsys.readouterr().err.startswith("attnc: -: standard input is closed\n")
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["version"]) == 2
    assert capsys.readouterr().err == "attnc: standard output is closed\n"
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["version"]) == 2


def test_what_needs_no_torch_does_not_import_it(folder: Path) -> None:
    """Nor sympy or anything else that a user would wait for."""
    (folder / "a.attn").write_text(GOOD)
    commands = [
        ["check", "a.attn"],
        ["fmt", "a.attn"],
        ["compile", "a.attn", "-o", "a.py"],
        ["plan", "a.attn"],
        ["explain"],
        ["version"],
    ]
    program = f"""
import sys
from attnc.cli import main
for command in {commands!r}:
    assert main(command) == 0, command
    assert not {{"torch", "triton", "numpy", "sympy"}} & sys.modules.keys(), command
"""
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_an_internal_error_saves_what_it_failed_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A grammar that is not the language's own: the compiler itself is broken."""
    (folder / "a.attn").write_text(GOOD)
    program = """
import sys
import attnc.dsl.check
del attnc.dsl.check.check
from attnc.cli import main
sys.exit(main(["check", "a.attn"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | {"TMPDIR": str(folder)}
    )
    assert done.returncode == 101
    assert "internal error: ImportError" in done.stderr
    (repro,) = folder.glob("attnc-repro-*")
    assert str(repro) in done.stderr
    assert "Traceback" in (repro / "report.txt").read_text()
    assert (repro / "input.attn").exists()


def test_a_reader_that_leaves_is_no_fault(folder: Path) -> None:
    (folder / "a.attn").write_text(GOOD)
    command = f"{sys.executable} -m attnc explain | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_output_is_utf8_in_every_locale() -> None:
    spec = GOOD.replace("A window.", "Größe ≤ 4")
    done = attnc("fmt", "-", stdin=spec, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert (done.returncode, done.stdout) == (0, spec)

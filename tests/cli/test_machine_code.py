"""compile --emit of machine code, and inspect. What compiles does so in a process without TRITON_INTERPRET."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from attnc import machine_code
from attnc.cli import main
from attnc.files import write_folder
from attnc.runtime.aot import AMD, NVIDIA

ROOT = Path(__file__).parents[2]
SPEC = "attention local { score dot(q, k) / sqrt(D)  mask causal  normalize softmax }"
KERNELS = ("_out_forward_kernel", "_out_key_kernel", "_out_query_kernel")

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "local.attn").write_text(SPEC)
    return tmp_path


def run(folder: Path, *commands: list[str]) -> list[tuple[int, str, str]]:
    """Status, output and errors of commands, one after another in one process."""
    script = (
        "import contextlib, io, json, sys\nfrom attnc.cli import main\nfound = []\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    out, err = io.StringIO(), io.StringIO()\n"
        "    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):\n"
        "        status = main(command)\n"
        "    found.append((status, out.getvalue(), err.getvalue()))\n"
        "print(json.dumps(found))\n"
    )
    env = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    env |= {"PYTHONPATH": str(ROOT / "tests" / "_typing"), "TRITON_CACHE_DIR": str(folder / "triton")}
    command = [sys.executable, "-c", script, json.dumps(commands)]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return [(status, out, err) for status, out, err in json.loads(done.stdout)]


def test_the_kinds_are_those_of_the_compiler() -> None:
    assert set(machine_code.KINDS) == {*NVIDIA, *AMD}


def test_kernels_as_files_and_text(folder: Path) -> None:
    compile = ["compile", "local.attn", "--dim", "16", "--target"]
    (folder / "empty").mkdir()
    cubin, hsaco, ptx, sass, again, facts = run(
        folder,
        [*compile, "sm_80", "--emit", "cubin", "-o", "new"],
        [*compile, "gfx942", "--emit", "hsaco", "--dtype", "f16", "-o", "empty"],
        [*compile, "sm_80", "--emit", "ptx"],
        [*compile, "sm_80", "--emit", "sass"],
        [*compile, "sm_80", "--emit", "ttir", "-o", "new"],
        ["inspect", "local.attn", "--dim", "16", "--target", "sm_80", "--format", "json"],
    )
    for made, name, kind in ((cubin, "new", "cubin"), (hsaco, "empty", "hsaco")):
        assert made == (0, "", "")
        written = {path.name: path.read_bytes() for path in (folder / name).iterdir()}
        launches = json.loads(written.pop("kernels.json"))
        assert sorted(written) == sorted(item["file"] for item in launches) == [f"{name}.{kind}" for name in KERNELS]
        assert all(content.startswith(b"\x7fELF") for content in written.values())
        assert {item["dim"] for item in launches} == {16}
        assert launches[0]["arguments"]["q_ptr"] == {"cubin": "*bf16", "hsaco": "*fp16"}[kind]
    assert ptx[1].count(".visible .entry") == 3
    assert all(f"// {name}\n" in ptx[1] and f"// {name}\n" in sass[1] for name in KERNELS)
    assert "HMMA" in sass[1]
    assert again[0] == 2 and "new is there already" in again[2]
    assert json.loads(facts[1])["kernels"][0]["loops"] and "overstates" in json.loads(facts[1])["caveat"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--emit", "hsaco", "--target", "sm_90", "-o", "x"], "sm_90 has none; it has ttir, ttgir, llir, ptx"),
        (["--emit", "ptx", "--target", "gfx942"], "gfx942 has none; it has ttir, ttgir, llir, amdgcn, hsaco"),
        (["--emit", "cubin", "--target", "sm_90"], "give -o FOLDER"),
        (["--emit", "ptx"], "no machine code is made for 'generic'"),
        (["--emit", "ptx", "--target", "sm_9000"], "unknown target"),
        (["--emit", "ptx", "--target", "sm_90"], "TRITON_INTERPRET=1 is set"),  # as it is for these tests
        (["--dim", "64"], "--dim has no part in it"),
        (["--emit", "plan", "--dtype", "f16"], "--dtype has no part in it"),
    ],
)
def test_refusals(arguments: list[str], says: str, folder: Path, capsys: Capture) -> None:
    assert main(["compile", "local.attn", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and says in err
    assert os.listdir(folder) == ["local.attn"]


def test_without_triton(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)  # what Python itself does for a module that is not there
    for command in (["compile", "local.attn", "--emit", "ptx"], ["inspect", "local.attn"]):
        assert main([*command, "--target", "sm_90"]) == 2
        assert "pip install 'attnc[torch]'" in capsys.readouterr().err


def test_a_folder_is_written_whole_or_not_at_all(folder: Path) -> None:
    with pytest.raises(OSError):
        write_folder("out", {"a": b"1", "missing/b": b"2"})
    assert os.listdir(folder) == ["local.attn"]
    write_folder("out", {"a": b"1"})
    assert sorted(os.listdir(folder)) == ["local.attn", "out"] and Path("out/a").read_bytes() == b"1"
    with pytest.raises(OSError):  # not empty: nothing is lost
        write_folder("out", {"b": b"2"})
    assert os.listdir("out") == ["a"] and sorted(os.listdir(folder)) == ["local.attn", "out"]
    with pytest.raises(FileNotFoundError) as caught:
        write_folder("none/out", {"a": b"1"})
    assert caught.value.filename == "none/out"

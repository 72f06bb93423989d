"""Modules for processors, and compile --emit of C++ and of libraries."""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from attnc.cli import main
from attnc.codegen import pipeline
from attnc.codegen.native import build
from attnc.codegen.native.texts import native_texts
from attnc.dsl.frontend import compile_text
from attnc.dsl.source import Source

ROOT = Path(__file__).parents[2]
SPEC = "attention local { score dot(q, k) / sqrt(D)  mask causal  normalize softmax }"

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "local.attn").write_text(SPEC)
    return tmp_path


USE = """
import sys, warnings
import torch
from op import local
q = torch.randn(2, 3, 40, 16, requires_grad=True)
expected = torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)
for backend in ("native", "eager", "auto"):
    assert torch.allclose(local(q, q, q, backend=backend), expected, atol=1e-5), backend
for backend in ("triton", "interpret"):
    try:
        local(q, q, q, backend=backend)
    except RuntimeError as error:
        assert "this module is compiled for cpu" in str(error), error
local(q, q, q).sum().backward()
grad, q.grad = q.grad, None
expected.sum().backward()
assert torch.allclose(grad, q.grad, atol=1e-5)
del sys.modules["op"]
from op import local as second  # another module of the spec has operators of its own
assert second is not local and torch.equal(second(q, q, q), local(q, q, q))
assert "torch._dynamo" not in sys.modules, "its import takes longer than all the rest"
assert not {name.partition(".")[0] for name in sys.modules} & {"attnc", "lark"}
print("fine")
"""


def test_a_module_for_the_cpu_needs_torch_and_a_compiler_alone(folder: Path) -> None:
    assert main(["compile", "local.attn", "--target", "cpu", "-o", "op.py"]) == 0
    assert "triton" not in "".join(line for line in (folder / "op.py").read_text().splitlines() if "import" in line)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "TRITON_INTERPRET")}
    command = [sys.executable, "-c", USE]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
    assert list((folder / "cache").glob("*.so"))


def test_a_module_is_built_at_import_for_what_it_was_compiled_for(folder: Path) -> None:
    """No call of that dtype and head dim starts the compiler again; without a compiler the import says so."""
    assert main(["compile", "local.attn", "--target", "cpu", "--dim", "8", "--dtype", "f64", "-o", "op.py"]) == 0
    calls = """
import torch
from op import local
for N in (2, 40):  # few queries have code of their own
    q = torch.randn(1, 1, N, 8, dtype=torch.float64, requires_grad=True)
    local(q, q, q).sum().backward()
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "TRITON_INTERPRET")}

    def run(program: str) -> str:
        command = [sys.executable, "-W", "always", "-c", program]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        return done.stderr

    run("import op")
    made = {path.name for path in (folder / "cache").glob("*.so")}
    run(calls)
    assert made and made == {path.name for path in (folder / "cache").glob("*.so")}
    environment["CXX"] = "/no/such/compiler"
    assert "CXX=/no/such/compiler is none that can be run; running blocked PyTorch operations" in run("import op")


@pytest.mark.parametrize("target", ["cpu", "generic"])
def test_no_module_names_what_it_has_not(folder: Path, target: str) -> None:
    """Every example as a module: no undefined name, whatever parts are left out."""
    for path in sorted((ROOT / "examples" / "zoo").glob("*.attn")):
        assert main(["compile", str(path), "--target", target, "-o", f"{path.stem}_{target}.py"]) == 0
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821,F811,E9", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_cpp_builds_with_the_command_at_its_head(folder: Path, capsys: Capture) -> None:
    assert main(["compile", "local.attn", "--target", "cpu", "--emit", "cpp", "--dim", "16"]) == 0
    printed = capsys.readouterr().out
    assert main(["compile", "local.attn", "--target", "cpu", "--emit", "cpp", "--dim", "16", "-o", "made"]) == 0
    facts = json.loads((folder / "made" / "kernels.json").read_text())
    texts = [(folder / "made" / item["file"]).read_text() for item in facts]
    assert "\n".join(texts) == printed
    assert facts[0]["kernel"] == "out_forward"
    command = shlex.split(texts[0].splitlines()[0].removeprefix("// "))
    assert "-DATTNC_D=16" in command and "-DATTNC_EL=0" in command
    subprocess.run(command, cwd=folder / "made", check=True)
    assert hasattr(ctypes.CDLL(str(folder / "made" / "out_forward.so")), "forward_out")


def test_libraries(folder: Path) -> None:
    options = ["--emit", "so", "--dtype", "bf16", "--dim", "16", "-o", "made"]
    assert main(["compile", "local.attn", "--target", "cpu", *options]) == 0
    (item, *_) = json.loads((folder / "made" / "kernels.json").read_text())
    assert (item["dtype"], item["dim"], item["target"]) == ("bf16", 16, "cpu") and "-DATTNC_EL=1" in item["command"]
    assert hasattr(ctypes.CDLL(str(folder / "made" / item["file"])), "forward_out")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--emit", "cpp"], "--emit cpp: generic has none: give --target cpu"),
        (["--emit", "so", "--target", "h100"], "--emit so: h100 has none: give --target cpu"),
        (["--emit", "so", "--target", "cpu"], "--emit so is binary, one file a kernel: give -o FOLDER"),
        (["--emit", "cpp", "--target", "cpu", "-o", "local.attn"], "-o local.attn is there already"),
        (["--emit", "ptx", "--target", "cpu"], "no machine code is made for 'cpu'"),
        (["--dim", "16", "--target", "h100"], "--dim has no part in it"),
        (["--dim", "16", "--target", "cpu", "--emit", "plan"], "--dim has no part in it"),
    ],
)
def test_refusals(arguments: list[str], said: str, capsys: Capture) -> None:
    assert main(["compile", "local.attn", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_no_compiler_is_no_fault_of_attnc(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("CXX", "/no/such/compiler")
    assert main(["compile", "local.attn", "--target", "cpu", "--emit", "so", "-o", "made"]) == 2
    assert "native code needs a C++ compiler; CXX=/no/such/compiler" in capsys.readouterr().err
    assert main(["compile", "local.attn", "--target", "cpu", "-o", "op.py"]) == 0


def texts(spec: str) -> dict[str, str]:
    return native_texts(pipeline.compile(compile_text(Source(name="a.attn", text=spec), {}), "cpu"))


def test_no_text_of_the_users_reaches_the_compiler() -> None:
    """Comments are in the module's head alone; names are the printer's own."""
    hostile = '# """ */ #include "/etc/passwd"\n# \\\n#error\n' + SPEC
    assert texts(hostile) == texts(SPEC) != {}


@pytest.mark.parametrize("name", ["template", "asm", "INF", "real", "vf", "main", "EL", "ATTNC_D", "linux"])
def test_a_spec_may_call_its_tensors_what_cpp_has_already(folder: Path, name: str) -> None:
    vectors = f"query {name} key k value v input {name}2: f32[H]"
    spec = f"attention a {{ {vectors} score dot({name}, k) + {name}2[h] mask causal normalize softmax }}"
    (folder / "a.cpp").write_text(texts(spec)["out_forward"])
    command = [*build._compiler(), "-std=c++17", "-fsyntax-only", "-w", "-DATTNC_EL=0", "-DATTNC_D=16", "-DATTNC_E=16"]
    done = subprocess.run([*command, "a.cpp"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

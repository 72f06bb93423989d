"""The wheel: what is inside, and that it compiles specs where nothing but its declared needs is installed."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distribution, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {"attnc": "attnc", "dsl": "attnc/dsl", "codegen": "attnc/codegen", "runtime": "attnc/runtime"}

SPEC = """\
attention longformer {
  param w: int = 256
  param g: int = 1

  score     dot(q, k) / sqrt(D)
  mask      window(w) or global(g)
  normalize softmax
}
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build leaves folders behind, and reads what an older one left."""
    source = tmp_path_factory.mktemp("source") / "attnc"
    leftovers = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "tests")
    shutil.copytree(ROOT, source, ignore=leftovers)
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "-w", out, source, cwd=out)
    (found,) = out.glob("attnc-*.whl")
    return found


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel and, copied from this one, what the wheel declares that it needs."""
    home = tmp_path_factory.mktemp("empty")
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=home)
    python = home / "bin" / "python"
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).strip())
    for name in needs("attnc"):
        for path in distribution(name).files or ():
            if ".." not in path.parts and "__pycache__" not in path.parts:
                target = packages / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path.locate(), target)
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=home)
    return home


def needs(name: str) -> list[str]:
    """The distributions that one needs without extras, and those they need."""
    found: list[str] = []
    queue = [name]
    while queue:
        for text in requires(queue.pop()) or ():
            requirement = Requirement(text)
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if wanted and requirement.name not in found:
                found.append(requirement.name)
                queue.append(requirement.name)
    return found


def test_holds_every_room_and_nothing_else(wheel: Path) -> None:
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {
        f"{package}/{path.relative_to(ROOT / room)}"
        for room, package in ROOMS.items()
        for path in (ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == files
    assert {"attnc/dsl/grammar.lark", "attnc/dsl/std.attn", "attnc/py.typed"} <= packed
    assert any(name.startswith("attnc/codegen/templates/") for name in packed)


def test_carries_its_licence(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_compiles_without_torch(environment: Path, tmp_path: Path) -> None:
    missing = "import importlib.util as u; print([n for n in ('torch', 'triton') if u.find_spec(n)])"
    assert run(environment / "bin" / "python", "-c", missing, cwd=tmp_path) == "[]\n"

    (tmp_path / "longformer.attn").write_text(SPEC)
    attnc = environment / "bin" / "attnc"
    run(attnc, "check", "longformer.attn", cwd=tmp_path)
    run(attnc, "fmt", "--check", "longformer.attn", cwd=tmp_path)
    run(attnc, "compile", "longformer.attn", "--param", "w=4", "-o", "longformer_op.py", cwd=tmp_path)
    module = ast.parse((tmp_path / "longformer_op.py").read_text())
    assert "longformer" in {node.name for node in module.body if isinstance(node, ast.FunctionDef)}


def test_compiled_module_needs_no_attnc(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "longformer.attn").write_text(SPEC)
    attnc = environment / "bin" / "attnc"
    run(attnc, "compile", "longformer.attn", "--param", "w=4", "-o", "longformer_op.py", cwd=tmp_path)
    program = """
import sys
sys.modules["attnc"] = None  # importing it, or anything below it, fails
import torch
from longformer_op import longformer

torch.manual_seed(0)
q, k, v = (torch.randn(1, 2, 40, 16, requires_grad=True) for _ in range(3))
out = longformer(q, k, v)
i, j = torch.arange(40)[:, None], torch.arange(40)
mask = ((i - j).abs() <= 4) | (i < 1) | (j < 1)
expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
torch.testing.assert_close(out, expected)
cotangent = torch.randn_like(out)
got = torch.autograd.grad(out, (q, k, v), cotangent)
torch.testing.assert_close(got, torch.autograd.grad(expected, (q, k, v), cotangent))
"""
    run(sys.executable, "-c", program, cwd=tmp_path)

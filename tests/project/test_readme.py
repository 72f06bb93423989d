"""What the README shows is so: its blocks run, its links lead somewhere, its pictures are what the commands print."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
"""``(language, text)`` of each fenced block, in order."""


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A copy of the checkout, where the blocks may leave what they write."""
    copy = tmp_path / "attnc"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "tests"))
    # This environment, in the place and state where make would leave it: it must not install anything into it.
    environment = copy / ".venv"
    environment.mkdir()
    for part in Path(sys.prefix).iterdir():
        (environment / part.name).symlink_to(part)
    (environment / ".ready").unlink(missing_ok=True)
    (environment / ".ready").touch()
    return copy


def run(*command: str, cwd: Path) -> str:
    """Run in this environment: its programs first."""
    environment = os.environ | {
        "PATH": f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}",
        "ATTNC_CACHE_DIR": str(cwd / "cache"),
    }
    for name in ("TRITON_INTERPRET", "MAKELEVEL", "MAKEFLAGS", "MFLAGS", "VENV"):  # as in a reader's shell
        environment.pop(name, None)
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_language_is_on_screen() -> None:
    assert "```attn" in README.splitlines()[:15]


def test_every_block_is_of_a_kind_that_is_run() -> None:
    assert {language for language, _ in BLOCKS} <= {"attn", "bash", "python", "text"}


def test_blocks_run(scratch: Path) -> None:
    """Specs are saved under their names; then the commands run in order, those that a picture follows print it;
    then the Python blocks as one program."""
    for language, text in BLOCKS:
        if language == "attn":
            name = re.findall(r"^(?:attention|recurrence) (\w+)", text, flags=re.MULTILINE)[0]
            (scratch / f"{name}.attn").write_text(text, encoding="utf-8")
            run("attnc", "check", "--deny", "warnings", f"{name}.attn", cwd=scratch)
            run("attnc", "compile", f"{name}.attn", "-o", "compiled.py", cwd=scratch)
    for (language, text), (following, picture) in pairwise([*BLOCKS, ("", "")]):
        if language == "bash":
            lines = [line for line in text.splitlines() if not line.startswith("make test")]  # it runs this very test
            printed = run("bash", "-euc", "\n".join(lines), cwd=scratch)
            if following == "text":
                assert printed == picture
    program = "\n".join(text for language, text in BLOCKS if language == "python")
    run(sys.executable, "-c", program, cwd=scratch)


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", README)
    assert targets
    assert [target for target in targets if "://" not in target and not (ROOT / target).exists()] == []

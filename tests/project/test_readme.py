"""What the README shows is so: its blocks run, its links lead somewhere, its pictures are what the commands print."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.project.pages import ROOT, blocks, broken_links, run_blocks

README = ROOT / "README.md"
BLOCKS = blocks(README)


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


def test_the_language_is_on_screen() -> None:
    assert "```attn" in README.read_text(encoding="utf-8").splitlines()[:15]


def test_every_block_is_of_a_kind_that_is_run() -> None:
    assert {language for language, _ in BLOCKS} <= {"attn", "bash", "python", "text"}


def test_blocks_run(scratch: Path) -> None:
    run_blocks(BLOCKS, scratch)


def test_links_lead_somewhere() -> None:
    assert broken_links(README) == []

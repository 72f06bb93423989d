"""The pages of docs/: the tutorial's blocks run, and links lead somewhere."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.project.pages import ROOT, blocks, broken_links, run, run_blocks

TUTORIAL = ROOT / "docs" / "tutorial.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))


def test_the_tutorial_runs(tmp_path: Path) -> None:
    assert {language for language, _ in blocks(TUTORIAL)} == {"attn", "bash", "python", "text"}
    run_blocks(blocks(TUTORIAL), tmp_path)


@pytest.mark.parametrize("page", ["flex", "fuzzing"])
def test_a_page_runs(page: str, tmp_path: Path) -> None:
    run_blocks(blocks(ROOT / "docs" / f"{page}.md"), tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_the_site_is_built_of_all_pages_without_a_warning(tmp_path: Path) -> None:
    run(sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path), cwd=ROOT)
    for page in PAGES:
        assert (tmp_path / page.stem / "index.html").is_file()
    (shown,) = re.findall(
        r'id="attnc.runtime.op.Op.__call__".*?</p>', (tmp_path / "api" / "index.html").read_text(), re.DOTALL
    )
    assert "The result: a tensor [B, H, N, E]" in shown

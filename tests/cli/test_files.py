"""Which files are meant, and writing them whole or not at all."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from attnc.files import specs, write


def test_directories_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.attn", "a.attn", "sub/c.attn", ".venv/d.attn", "sub/.git/e.attn", "f.py"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert list(specs(["."])) == ["a.attn", "b.attn", "sub/c.attn"]
    assert list(specs(["sub", "a.attn", "f.py", "-", "sub/c.attn"])) == ["sub/c.attn", "a.attn", "f.py", "-"]
    assert list(specs(["missing.attn"])) == ["missing.attn"]


def test_write_replaces_and_keeps_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "out.py"
    path.write_text("old")
    path.chmod(0o640)
    write(str(path), b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["out.py"]


def test_a_new_file_has_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    write(str(tmp_path / "out.py"), b"new")
    assert (tmp_path / "out.py").stat().st_mode == plain.stat().st_mode


def test_write_follows_links(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write(str(tmp_path / "link"), b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    """The system refuses to let the file grow, as a full disk does."""
    path = tmp_path / "out.py"
    path.write_text("old")
    program = f"""
import resource
from attnc.files import write
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
write({str(path)!r}, b"x" * 1000)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "OSError" in done.stderr
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.py"]


def test_a_device_is_written_to() -> None:
    write(os.devnull, b"gone")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_a_failure_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as failure:
        write(str(tmp_path / "missing" / "out.py"), b"new")
    assert failure.value.filename == str(tmp_path / "missing" / "out.py")

"""The store: whole files or none, damage is absence, directories that cannot be written cost nothing; the tools'
tables kept in it give what tables made afresh give."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from attnc.dsl import store

ROOT = Path(__file__).parents[2]
# Texts with and without faults, through every stage: what is printed must not depend on the store.
PROGRAM = """
import sys
from pathlib import Path
from attnc.codegen.pipeline import compile
from attnc.dsl.diagnostics import SpecError
from attnc.dsl.frontend import compile_text
from attnc.dsl.source import Source
texts = [Path(name).read_text() for name in sys.argv[1:]]
for text in [*texts, "attention a {", "attention a { scor dot(q, k) mask (i normalize softmax }", "attention a { score 1 ≤ 2 }"]:
    try:
        print(compile(compile_text(Source(name="a.attn", text=text), {})))
    except SpecError as error:
        print(error)
"""  # noqa: E501


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def name(kind: str = "lalr") -> str:
    return f"{store.key('grammar', '1.0')}.{kind}"


def test_what_is_kept_is_loaded(folder: Path) -> None:
    assert store.load(name()) is None
    store.keep(name(), b"tables")
    assert store.load(name()) == b"tables"
    store.keep(name(), b"")
    assert store.load(name()) == b""
    assert store.load(name("j2")) is None and store.load(name(), b"salt") is None
    assert [path.name for path in folder.iterdir()] == [name()]


def test_keys_tell_apart_what_python_calls_equal() -> None:
    keys = {store.key(*parts) for parts in ((1,), (1.0,), (True,), ("1",), ((1,),), (1, 1), ("\ud800",))}
    assert len(keys) == 7


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"", id="emptied"),
        pytest.param(lambda data: data[:20], id="cut in the seal"),
        pytest.param(lambda data: data[:-1], id="cut by one byte"),
        pytest.param(lambda data: data + b"?", id="lengthened"),
        pytest.param(lambda data: b"?" + data[1:], id="another seal"),
        pytest.param(lambda data: data[:-1] + b"?", id="another body"),
    ],
)
def test_damage_is_absence(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    store.keep(name(), b"tables", b"salt")
    path = folder / name()
    path.write_bytes(damage(path.read_bytes()))
    assert store.load(name(), b"salt") is None


def test_a_file_under_another_name_is_absent(folder: Path) -> None:
    store.keep(name(), b"tables")
    (folder / name()).rename(folder / name("j2"))
    assert store.load(name("j2")) is None


def test_a_directory_that_cannot_be_made_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path / "file" / "cache"))
    store.keep(name(), b"tables")
    assert store.load(name()) is None and store.kept() == []
    with pytest.raises(OSError):
        store.write(store.directory() / "notes", b"kept or told")


def test_a_user_without_a_home_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("ATTNC_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as it does for such a user
    monkeypatch.setattr(sys, "platform", "linux")
    store.keep(name(), b"tables")
    assert store.load(name()) is None
    with pytest.raises(OSError, match="ATTNC_CACHE_DIR"):
        store.directory()


def test_no_temporary_file_of_a_write_that_fails(folder: Path) -> None:
    (folder / name()).mkdir(parents=True)
    with pytest.raises(OSError):
        store.write(folder / name(), b"tables")
    assert [path.name for path in folder.iterdir()] == [name()]


def test_the_default_lies_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ATTNC_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    assert store.directory() == tmp_path / "attnc"


def test_the_tools_tables_change_nothing(folder: Path) -> None:
    """Cold in several processes at once, warm, with every file damaged, and without a directory: the same texts."""
    zoo = ROOT / "examples" / "zoo"
    examples = [str(zoo / f"{example}.attn") for example in ("longformer", "differential", "rope")]

    def start(directory: Path) -> subprocess.Popen[str]:
        environment = {**os.environ, "ATTNC_CACHE_DIR": str(directory), "PYTHONIOENCODING": "utf-8"}
        command = [sys.executable, "-c", PROGRAM, *examples]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, encoding="utf-8")

    def result(process: subprocess.Popen[str]) -> str:
        out, told = process.communicate(timeout=120)
        assert (process.returncode, told) == (0, "")
        return out

    at_once = [start(folder) for _ in range(3)]
    cold, *others = map(result, at_once)
    assert others == [cold, cold]
    files = {path: path.read_bytes() for path in store.kept()}
    assert {path.suffix for path in files} == {".lalr", ".j2"}
    assert result(start(folder)) == cold
    assert {path: path.read_bytes() for path in store.kept()} == files
    for path, data in files.items():
        path.write_bytes(data[:-1])
    assert result(start(folder)) == cold
    assert store.kept() == list(files) and all(store.load(path.name) for path in files)
    in_the_way = folder / "file"
    in_the_way.write_text("")
    assert result(start(in_the_way / "cache")) == cold

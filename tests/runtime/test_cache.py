"""The disk cache: whole entries or none, damage rebuilt, many processes, directories that cannot be written."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

from attnc.dsl import store
from attnc.runtime import cache
from attnc.runtime.load import GeneratedLoader

TEXT = "def answer():\n    return 42\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _counting(calls: list[int]) -> Callable[[], tuple[str, str]]:
    def make() -> tuple[str, str]:
        calls.append(1)
        return "answer", TEXT

    return make


def test_made_once_then_read(folder: Path) -> None:
    calls: list[int] = []
    key = cache.key("spec", None, (), "generic")
    first = cache.fetch(key, _counting(calls))
    second = cache.fetch(key, _counting(calls))
    assert first == second and len(calls) == 1
    assert first.name == "answer" and first.text == TEXT and first.path == folder / f"{key}.py"


def test_keys_tell_apart_what_python_calls_equal() -> None:
    keys = {cache.key("spec", None, [("w", value)], "generic") for value in (1, 1.0, True, "1")}
    assert len(keys) == 4
    assert cache.key("a", None) == cache.key("a", None) != cache.key("a", "None")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"", id="emptied"),
        pytest.param(lambda data: data[: len(data) // 2], id="cut"),
        pytest.param(lambda data: data[:-1], id="cut by one byte"),
        pytest.param(lambda data: data.replace(b"42", b"43"), id="changed"),
        pytest.param(lambda data: data.replace(b"# attnc cache: answer", b"# attnc cache: reply"), id="renamed"),
        pytest.param(lambda data: data + b"import os\n", id="lengthened"),
        pytest.param(lambda data: b"\xff\xfe\x00", id="no text"),
    ],
)
def test_damage_is_rebuilt(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    calls: list[int] = []
    entry = cache.fetch("0" * 32, _counting(calls))
    assert entry.path is not None
    whole = entry.path.read_bytes()
    entry.path.write_bytes(damage(whole))
    assert cache.fetch("0" * 32, _counting(calls)) == entry
    assert len(calls) == 2 and entry.path.read_bytes() == whole


def test_bytecode_is_kept_and_damage_compiled_again(folder: Path) -> None:
    entry = cache.fetch("0" * 32, _counting([]))
    assert entry.path is not None
    code = cache.bytecode(entry)
    kept = entry.path.with_suffix(".code")
    whole = kept.read_bytes()
    assert cache.bytecode(entry) == code and code.co_filename == str(entry.path)
    for damaged in (b"", whole[:-1], whole[:40] + b"?" + whole[41:], b"?" + whole[1:]):
        kept.write_bytes(damaged)
        assert cache.bytecode(entry) == code and kept.read_bytes() == whole
    other = cache.Entry(name=entry.name, text=TEXT.replace("42", "43"), path=entry.path)
    assert cache.bytecode(other) != code


def test_no_entry_and_no_temporary_file_of_a_compile_that_fails(folder: Path) -> None:
    def fail() -> tuple[str, str]:
        raise ValueError("a fault in the spec")

    with pytest.raises(ValueError, match="a fault"):
        cache.fetch("0" * 32, fail)
    assert not folder.exists()


def test_a_directory_that_cannot_be_made_costs_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="cannot be written"):
        entry = cache.fetch("0" * 32, _counting([]))
    assert entry.text == TEXT and entry.path is None


def test_a_module_without_a_file_still_shows_its_source(tmp_path: Path) -> None:
    """inspect.getsource is what triton.jit reads a kernel with."""
    loader = GeneratedLoader(cache.Entry(name="answer", text=TEXT, path=None))
    spec = spec_from_loader("attnc_generated_without_file", loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        loader.exec_module(module)
        assert module.answer() == 42
        assert inspect.getsource(module.answer) == TEXT
    finally:
        del sys.modules[spec.name]


def test_processes_that_compile_at_once_agree(folder: Path) -> None:
    program = (
        "import sys; from attnc.runtime import cache\n"
        "text = 'x = 1\\n' * 200_000\n"
        "for number in range(20):\n"
        "    entry = cache.fetch('%032x' % (number % 2), lambda: ('x', text))\n"
        "    assert entry.name == 'x' and entry.text == text\n"
        "    if number % 5 == 4 and sys.argv[1] == '0': cache.clean()\n"
    )
    environment = {**os.environ, "ATTNC_CACHE_DIR": str(folder)}
    running = [subprocess.Popen([sys.executable, "-c", program, str(n)], env=environment) for n in range(4)]
    assert [process.wait(timeout=60) for process in running] == [0] * 4
    assert not list(folder.glob("*.tmp"))


def test_clean_removes_entries_and_leaves_the_rest(folder: Path) -> None:
    cache.fetch("0" * 32, _counting([]))
    cache.fetch("1" * 32, _counting([]))
    store.keep(store.key("grammar") + ".lalr", b"tables")
    store.keep(store.key("template") + ".j2", b"bytecode")
    (folder / ".attnc-killed.tmp").write_text("left by a killed process")
    (folder / "notes.txt").write_text("mine")
    assert cache.env()["cache"] == str(folder) and cache.env()["cached"].startswith("5 files")
    assert cache.clean() == 5
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert cache.clean() == 0


def test_the_cache_needs_no_torch() -> None:
    program = "import attnc, attnc.runtime.cache as c, sys; c.env(); c.key(); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0

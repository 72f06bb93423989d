"""How native code is built, kept, loaded and spread over threads: the text that generated modules hold, run alone."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from attnc.codegen.environment import environment
from attnc.codegen.native import build
from attnc.codegen.native.build import _BuildFault, _library, _NoCompiler
from attnc.codegen.native.embed import builder

ANSWER = 'extern "C" int answer() { return %d; }'
IMPORTS = """from __future__ import annotations
import ctypes, errno, importlib.util, os, platform, shlex, shutil, subprocess, sys, tempfile, time, warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
import torch
"""
SQUARES = """
extern "C" void squares(int64_t* out, int64_t* claimed, int64_t n, const Team* team) {
  parallel(*team, n, [&](int64_t item, int32_t worker) {
    out[item] += item * item;
    __atomic_fetch_add(&claimed[worker], 1, __ATOMIC_RELAXED);
  });
}
extern "C" void in_turn(int64_t* turn, int64_t n, const Team* team) {  // every item waits for the one before
  parallel(*team, n, [&](int64_t item, int32_t) {
    while (__atomic_load_n(turn, __ATOMIC_ACQUIRE) != item);
    __atomic_store_n(turn, item + 1, __ATOMIC_RELEASE);
  });
}
extern "C" void nested(int64_t* out, int64_t n, const Team* team) {
  parallel(*team, n, [&](int64_t item, int32_t) {
    parallel(*team, n, [&](int64_t inner, int32_t) { __atomic_fetch_add(out, 1, __ATOMIC_RELAXED); });
  });
}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "made"))
    (tmp_path / "made").mkdir()
    return tmp_path / "cache"


def made(folder: Path) -> list[str]:
    """What builds have left in the temporary directory."""
    return sorted(path.name for path in (folder.parent / "made").iterdir())


def compiler(path: Path, text: str) -> str:
    """A compiler that is a shell script."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


# --- build, keep, load ------------------------------------------------------------------------


def test_built_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _library(ANSWER % 1).answer() == 1
    assert [path.suffix for path in folder.iterdir()] == [".so"] and made(folder) == []
    monkeypatch.setattr(build, "_compiled", None)
    assert _library(ANSWER % 1).answer() == 1


def test_everything_that_the_code_depends_on_names_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _library(ANSWER % 1)
    _library(ANSWER % 2)
    _library(ANSWER % 1, "-DATTNC_D=64")
    assert len(list(folder.iterdir())) == 3
    script, (real, *_) = tmp_path / "my compiler", build._compiler()
    monkeypatch.setenv("CXX", compiler(script, f'exec {real} "$@"'))
    _library(ANSWER % 1)
    assert len(list(folder.iterdir())) == 4
    compiler(script, f'exec {real} "$@" # another version')
    monkeypatch.setenv("CXX", f"'{script}' -O1")
    _library(ANSWER % 1)
    monkeypatch.setattr(build, "_processor", lambda: "another processor")
    _library(ANSWER % 1)
    assert len(list(folder.iterdir())) == 6


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied"])
def test_a_damaged_library_is_built_again(folder: Path, damage: str) -> None:
    _library(ANSWER % 1)
    (path,) = folder.iterdir()
    data = bytearray(path.read_bytes())
    path.unlink()  # the one that is loaded stays as it is
    data[len(data) // 2] ^= 0xFF
    path.write_bytes({"cut": data[:-1], "flipped": data, "emptied": b""}[damage])
    assert _library(ANSWER % 1).answer() == 1
    assert build._kept(path) is not None


@pytest.mark.parametrize("name", ["with space", "quo'te", "ünï"])
def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path / name / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / name))
    assert _library(ANSWER % 1).answer() == 1
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATTNC_CACHE_DIR", ".")  # a name without a folder would be looked for among the system's
    assert _library(ANSWER % 1).answer() == 1


def test_a_cache_that_cannot_be_written_is_done_without(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="cannot be kept .*; every process builds it"):
        assert _library(ANSWER % 1).answer() == 1
    assert made(folder) == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="modes bind no superuser")
def test_a_read_only_cache(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o500)
    with pytest.warns(UserWarning, match="Permission denied.*; every process builds it"):
        assert _library(ANSWER % 1).answer() == 1
    folder.chmod(0o700)


def test_a_full_cache_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(build, "_write_whole", full)
    with pytest.warns(UserWarning, match="No space left on device.*; every process builds it"):
        assert _library(ANSWER % 1).answer() == 1


def test_no_room_to_build(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "CXX", compiler(tmp_path / "cc", "echo 'ld: final link failed: No space left on device' >&2; exit 1")
    )
    with pytest.raises(OSError, match=r"no space left to build native code in .*TMPDIR") as caught:
        _library(ANSWER % 1)
    assert caught.value.errno == errno.ENOSPC and made(folder) == [] and list(folder.iterdir()) == []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(OSError, match=r"no folder to build native code in .*; set TMPDIR"):
        _library(ANSWER % 1)


def test_a_compilers_fault_is_kept(folder: Path) -> None:
    with pytest.raises(_BuildFault, match=r"internal error.*kept in") as caught:
        _library("int answer( { return 1; }")
    (kept,) = (folder.parent / "made").iterdir()
    assert str(kept) in str(caught.value) and "error:" in str(caught.value)
    assert (kept / "kernel.cpp").read_text() == "int answer( { return 1; }"
    assert build._compiler()[0] in (kept / "command.txt").read_text()
    assert list(folder.iterdir()) == []


def test_the_compilers_own_files_are_in_the_private_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that nothing is left of it, and a full disk is the one that the message names."""
    told = tmp_path / "told"
    monkeypatch.setenv("CXX", compiler(tmp_path / "cc", f'echo "$TMPDIR" > "{told}"; exec {build._compiler()[0]} "$@"'))
    _library(ANSWER % 1)
    assert Path(told.read_text().strip()).parent == folder.parent / "made"


WORKER = "sys.stdin.readline(); print(_library(sys.argv[1]).answer())"


def start(text: str) -> subprocess.Popen[str]:
    """A process that builds when it is told to, from the text that generated modules hold."""
    program = f"{IMPORTS.replace('import torch', '')}{builder()}\n{WORKER}"
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", program, text], stdin=pipe, stdout=pipe, text=True)


def counting(tmp_path: Path, first: str = "") -> str:
    """A compiler that notes each time it is started, and does something before."""
    return compiler(tmp_path / "cc", f'echo >> "{tmp_path}/starts"; {first}\nexec {build._compiler()[0]} "$@"')


def test_eight_processes_at_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", counting(tmp_path, "sleep 0.3"))
    processes = [start(ANSWER % 7) for _ in range(8)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=100)[0] for process in processes] == ["7\n"] * 8
    assert (tmp_path / "starts").read_text().count("\n") == 1
    assert [path.suffix for path in folder.iterdir()] == [".so"]


def test_a_killed_process_leaves_nothing_that_matters(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", counting(tmp_path, f'test -e "{tmp_path}/go" || sleep 100'))
    process = start(ANSWER % 7)
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    while not (tmp_path / "starts").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (tmp_path / "go").touch()
    began = time.monotonic()
    assert _library(ANSWER % 7).answer() == 7
    assert time.monotonic() - began < build._PATIENCE / 2, "waited for the dead"
    assert [path.suffix for path in folder.iterdir()] == [".so"]


def test_who_takes_too_long_is_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_PATIENCE", 0.05)
    lock = folder / ".attnc-x.tmp"
    with build._alone(lock), build._alone(lock):
        pass
    assert not lock.exists()


# --- which compiler, which instructions -------------------------------------------------------


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(_NoCompiler, match=r"install g\+\+ or clang\+\+, set CXX, or pip install ziglang"):
        _library(ANSWER % 1)
    monkeypatch.setenv("CXX", "/no/such/compiler -O1")
    with pytest.raises(_NoCompiler, match="CXX=/no/such/compiler -O1 is none that can be run"):
        _library(ANSWER % 1)


def test_zig_without_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if name == "ziglang" else None)
    command = build._compiler()
    assert command == (sys.executable, "-m", "ziglang", "cc", "-x", "c++", "-nostdlib++")
    (march, *_) = build._architecture(command, "avx512")
    assert march == "-march=skylake_avx512", "zig's spelling"


ISA = """
extern "C" int answer() {
#if defined(__AVX512F__)
  return 512;
#elif defined(__AVX2__)
  return 256;
#else
  return 128;
#endif
}
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names of x86")
@pytest.mark.parametrize(("isa", "bits"), [("avx512", 512), ("avx2", 256), ("baseline", 128)])
def test_instruction_sets(isa: str, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNC_ISA", isa)
    if build._ISA[isa][1] <= set(build._processor().split()):
        assert _library(ISA).answer() == bits
    monkeypatch.setattr(build, "_processor", lambda: "flags : sse sse2 fma")
    if isa == "baseline":
        return
    with pytest.raises(ValueError, match=f"ATTNC_ISA={isa}: this processor has no .*avx2"):
        _library(ISA)


def test_no_such_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTNC_ISA", "sse9")
    with pytest.raises(ValueError, match="ATTNC_ISA: expected native, avx512, avx2, baseline, got 'sse9'"):
        _library(ANSWER % 1)


# --- the text in a generated module, and its threads ------------------------------------------


@pytest.fixture(scope="module")
def module() -> dict[str, Any]:
    """A module of nothing but the builder."""
    space: dict[str, Any] = {"__name__": "alone"}
    text = environment().get_template("native/build.py.j2").render(builder=builder())
    assert "attnc." not in text.replace("attnc.load", ""), "self-contained"
    exec(compile(IMPORTS + text, "alone", "exec", dont_inherit=True), space)
    return space


@pytest.fixture
def threads(module: dict[str, Any]) -> ctypes.CDLL:
    source = environment().get_template("native/threads.cpp.j2").render() + SQUARES
    found: ctypes.CDLL = module["_library"](source)
    return found


def teams(module: dict[str, Any]) -> list[Any]:
    pool = module["_team"]().pool
    return [module["_Team"](*given) for given in ((pool, 1), (pool, 2), (pool, 5), (None, 1), (None, 2), (None, 300))]


def squares(threads: ctypes.CDLL, team: Any, n: int) -> tuple[list[int], list[int]]:
    out, claimed = (ctypes.c_int64 * max(n, 1))(), (ctypes.c_int64 * 300)()
    threads.squares(out, claimed, ctypes.c_int64(n), ctypes.byref(team))
    return list(out)[:n], list(claimed)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch may run on another OpenMP")
def test_the_pool_is_torchs(module: dict[str, Any]) -> None:
    """GOMP_parallel of the very library that torch has loaded."""
    address = module["_team"]().pool
    mapped = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if "omp" in line]
    assert any(int(span.split("-")[0], 16) <= address < int(span.split("-")[1], 16) for span, *_ in mapped)


def test_as_many_as_torch_has(module: dict[str, Any]) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert module["_team"]().threads == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("n", [0, 1, 2, 7, 1000])
def test_every_item_once(module: dict[str, Any], threads: ctypes.CDLL, n: int) -> None:
    for team in teams(module):
        out, claimed = squares(threads, team, n)
        assert out == [item * item for item in range(n)]
        assert sum(claimed) == n and not any(claimed[max(team.threads, 1) :])


def test_items_are_claimed_in_order(module: dict[str, Any], threads: ctypes.CDLL) -> None:
    for team in teams(module)[:-1]:
        turn = ctypes.c_int64(0)
        threads.in_turn(ctypes.byref(turn), ctypes.c_int64(50), ctypes.byref(team))
        assert turn.value == 50


def test_nested(module: dict[str, Any], threads: ctypes.CDLL) -> None:
    for team in teams(module)[:-1]:
        count = ctypes.c_int64(0)
        threads.nested(ctypes.byref(count), ctypes.c_int64(10), ctypes.byref(team))
        assert count.value == 100


def test_concurrent_calls(module: dict[str, Any], threads: ctypes.CDLL) -> None:
    results: list[bool] = []

    def work() -> None:
        for _ in range(20):
            results.append(squares(threads, module["_team"](), 100)[0] == [item * item for item in range(100)])

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == [True] * 80


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_does_not_hang(module: dict[str, Any], threads: ctypes.CDLL) -> None:
    """The parent's pool has threads, which no child has."""
    two = module["_Team"](module["_team"]().pool, 2)
    squares(threads, two, 100)
    if (child := os.fork()) == 0:
        signal.alarm(20)
        team = module["_Team"](module["_team"]().pool, 2)
        os._exit(0 if squares(threads, team, 100)[0][99] == 99 * 99 and team.pool is None else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_auto_takes_eager_without_a_compiler_and_says_so_once(
    module: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    choose, remembered = module["_native_or_eager"], module["_native_or_eager_once"]
    remembered.cache_clear()
    try:
        monkeypatch.setenv("CXX", "/no/such/compiler")
        with pytest.warns(UserWarning, match="CXX=/no/such/compiler is none that can be run; running blocked") as said:
            assert choose() == choose() == "eager"
        assert len(said) == 1
        monkeypatch.delenv("CXX")
        remembered.cache_clear()
        assert choose() == "native"
    finally:
        remembered.cache_clear()


def test_the_choice_breaks_no_graph(module: dict[str, Any]) -> None:
    choose = module["_native_or_eager"]

    def function(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if choose() == "native" else x - 1

    compiled = torch.compile(function, backend="eager", fullgraph=True)
    assert compiled(torch.zeros(1)).item() == 1

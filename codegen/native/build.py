"""C++ text -> a loaded library: compiled once a machine, kept on disk, shared by processes.

The text below the line is printed into generated modules too, below that of ``dsl/place.py``: hence names that no spec
can have, and nothing of attnc."""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path

from attnc.dsl.place import _cache_directory, _write_whole

# --- from here on: printed into generated modules -------------------------------------------------

# Integers wrap and nothing traps, as on a GPU; the order of sums is the source's, infinities and NaNs are kept.
_COMPILE = (
    *("-std=c++17", "-O3", "-fwrapv", "-fno-strict-aliasing", "-ffp-contract=fast", "-fno-math-errno"),
    *("-fno-trapping-math", "-fno-exceptions", "-fno-rtti", "-shared", "-fPIC", "-pthread", "-w"),
)
# ATTNC_ISA: what the compiler is told, and what the processor must have.
_AVX2 = frozenset(["avx2", "fma", "f16c", "bmi1", "bmi2", "abm", "movbe"])
_ISA = {
    "native": ("native", frozenset[str]()),
    "avx512": ("skylake-avx512", _AVX2 | frozenset(["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"])),
    "avx2": ("haswell", _AVX2),
    "baseline": (
        {"x86_64": "x86-64", "AMD64": "x86-64", "aarch64": "armv8-a"}.get(platform.machine()),
        frozenset[str](),
    ),
}
_SEAL = 32  # bytes of SHA-256 behind the library, where a loader does not look
_PATIENCE = 60.0  # seconds to wait for another process that builds the same


class _NoCompiler(RuntimeError):
    """There is no C++ compiler to be found."""


class _BuildFault(RuntimeError):
    """The compiler failed on a printed text, which is kept with the command."""


def _library(source: str, *flags: str) -> ctypes.CDLL:
    """The library of a C++ text, from the cache or built now. Raises _NoCompiler; _BuildFault with the compiler's
    words; OSError where there is no room or nothing can be loaded; ValueError for a bad ATTNC_ISA."""
    command = _command(*flags)
    name = sha256(repr((source, command, _identity(command), _processor())).encode()).hexdigest()[:32]
    try:
        path = _cache_directory().absolute() / f"{name}.so"
    except OSError as error:  # a user without a home
        return _made(source, command, error)
    if (found := _kept(path)) is not None:
        return found
    with _alone(path.with_name(f".attnc-{name}.tmp")):
        return _kept(path) or _made(source, command, path)


def _command(*flags: str, isa: str | None = None) -> tuple[str, ...]:
    """How a text is compiled: all but the file and -o. ``isa``: ATTNC_ISA if it is not given."""
    compiler = _compiler()
    return (*compiler, *_COMPILE, *_architecture(compiler, isa or os.environ.get("ATTNC_ISA") or "native"), *flags)


def _kept(path: Path) -> ctypes.CDLL | None:
    """The library of a file, where it is there, undamaged, and where its folder may hold programs."""
    with suppress(OSError):
        data = path.read_bytes()
        if sha256(data[:-_SEAL]).digest() == data[-_SEAL:]:
            return ctypes.CDLL(str(path))
    return None


def _made(source: str, command: tuple[str, ...], path: Path | OSError) -> ctypes.CDLL:
    """Build in a private folder, put the library in place in one step. Where it cannot be, only this process has it."""
    try:
        private = tempfile.TemporaryDirectory(prefix="attnc-", ignore_cleanup_errors=True)
    except OSError as error:
        raise OSError(error.errno, f"attnc: no folder to build native code in ({error}); set TMPDIR") from error
    with private as folder:
        made = _compiled(source, command, Path(folder))
        try:
            if isinstance(path, OSError):
                raise path
            data = made.read_bytes()
            _write_whole(path, data + sha256(data).digest())
            return ctypes.CDLL(str(path))
        except OSError as error:
            warnings.warn(f"attnc: native code cannot be kept ({error}); every process builds it", stacklevel=2)
        return ctypes.CDLL(str(made))


def _compiled(source: str, command: tuple[str, ...], folder: Path) -> Path:
    text, made = folder / "kernel.cpp", folder / "kernel.so"
    words = [*command, "-o", str(made), str(text)]
    try:
        text.write_text(source, encoding="utf-8")
        environment = {**os.environ, "LC_ALL": "C", "TMPDIR": str(folder)}
        done = subprocess.run(words, capture_output=True, env=environment, check=False)
    except OSError as error:
        raise OSError(error.errno, f"attnc: native code cannot be built in {folder} ({error}); see TMPDIR") from error
    said = done.stderr.decode(errors="replace")
    if done.returncode == 0 and made.exists():
        return made
    if "No space left on device" in said:
        raise OSError(errno.ENOSPC, f"attnc: no space left to build native code in {folder}; see TMPDIR")
    evidence = Path(tempfile.mkdtemp(prefix="attnc-fault-"))
    (evidence / "kernel.cpp").write_text(source, encoding="utf-8")
    (evidence / "command.txt").write_text(f"{shlex.join(words)}\n\n{said}", encoding="utf-8")
    raise _BuildFault(
        f"attnc: internal error: the C++ compiler failed (status {done.returncode}) on printed text; it and the "
        f"command are kept in {evidence}\n{shlex.join(words)}\n{said[-4000:]}"
    )


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Of processes that would build the same, one does; the others wait and find it made. Only a saving: where files
    cannot be locked, or the one takes too long, all build, and the last to finish is as good as the first. The system
    frees the lock of a process that is killed."""
    try:
        import fcntl

        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except (ImportError, OSError):
        yield
        return
    try:
        latest, wait = time.monotonic() + _PATIENCE, 0.002
        while time.monotonic() < latest:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(wait := min(wait * 1.5, 0.1))
            except OSError:  # a file system without locks
                break
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # who waits on it looks into the cache next
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)  # a forked child may hold the handle still
        os.close(handle)


def _compiler() -> tuple[str, ...]:
    """$CXX, or the first of g++, clang++, c++ that is there, or the package ziglang."""
    if chosen := os.environ.get("CXX"):
        words = (chosen,) if shutil.which(chosen) else tuple(shlex.split(chosen, posix=os.name != "nt"))
        if words and shutil.which(words[0]):
            return words
        raise _NoCompiler(f"attnc: native code needs a C++ compiler; CXX={chosen} is none that can be run")
    for name in ("g++", "clang++", "c++"):
        if found := shutil.which(name):
            return (found,)
    if importlib.util.find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang", "cc", "-x", "c++", "-nostdlib++")
    raise _NoCompiler(
        "attnc: native code needs a C++ compiler: install g++ or clang++, set CXX, or pip install ziglang"
    )


def _architecture(compiler: tuple[str, ...], asked: str) -> tuple[str, ...]:
    """The flags of an instruction set: native (what this processor has), avx512, avx2 or baseline. ValueError for one
    that this processor cannot run: it is not built, so it is never run."""
    if asked not in _ISA:
        raise ValueError(f"attnc: ATTNC_ISA: expected {', '.join(_ISA)}, got {asked!r}")
    name, needed = _ISA[asked]
    if missing := sorted(needed - set(_processor().split())):
        raise ValueError(f"attnc: ATTNC_ISA={asked}: this processor has no {', '.join(missing)}")
    if name is None:
        return ()
    wide = ("-mprefer-vector-width=512",) if platform.machine() in ("x86_64", "AMD64") else ()
    return (f"-march={name.replace('-', '_') if 'ziglang' in compiler else name}", *wide)


def _identity(command: tuple[str, ...]) -> tuple[tuple[str, int, int], ...]:
    """The compiler's version without starting it: the files that the command names, their sizes and times."""
    files = [Path(found).resolve() for word in command if (found := shutil.which(word))]
    if "ziglang" in command and (spec := importlib.util.find_spec("ziglang")) is not None and spec.origin:
        files.append(Path(spec.origin))
    return tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)


@cache
def _processor() -> str:
    """What -march=native depends on: a library of another machine, in a shared cache, must not be loaded here."""
    lines = []
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if not line.strip():  # the first processor is like the others
                break
            if line.startswith(("flags", "Features", "model name", "CPU ")):
                lines.append(line)
    return "".join(lines) or f"{platform.machine()} {platform.processor()}"

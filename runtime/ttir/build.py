"""C++ text -> a loaded library, compiled once and kept on disk."""

from __future__ import annotations

import ctypes
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path

from attnc.dsl import store

# Integers wrap and nothing traps, as on a GPU; the order of sums is the source's, infinities and NaNs are kept.
_FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fwrapv", "-fno-strict-aliasing"),
    *("-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC", "-pthread", "-w"),
    *(["-mprefer-vector-width=512"] if platform.machine() == "x86_64" else []),  # a quarter faster here
)
_SEAL = 32  # bytes of SHA-256 behind the library, where a loader does not look


class NoCompiler(RuntimeError):
    """There is no C++ compiler to be found."""


def library(source: str, *flags: str) -> ctypes.CDLL:
    """The library of a C++ text. Raises NoCompiler without a compiler, RuntimeError with its words if it fails."""
    command = (*compiler(), *_FLAGS, *flags)
    kept = f"{store.key(source, command, _version(command[0]), _processor())}.so"
    with suppress(OSError):
        path = store.directory() / kept
        data = path.read_bytes()
        if sha256(data[:-_SEAL]).digest() == data[-_SEAL:]:
            return ctypes.CDLL(str(path))
    with tempfile.TemporaryDirectory(prefix="attnc-") as folder:
        text, made = Path(folder) / "kernel.cpp", Path(folder) / "kernel.so"
        text.write_text(source)
        done = subprocess.run([*command, "-o", str(made), str(text)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"attnc: {shlex.join(command)} failed on a lowered kernel:\n{done.stderr[-4000:]}")
        data = made.read_bytes()
        with suppress(OSError):  # without a cache it is made again in the next process
            store.write(store.directory() / kept, data + sha256(data).digest())
        return ctypes.CDLL(str(made))


def compiler() -> tuple[str, ...]:
    """The C++ compiler: $CXX, or the first of g++, clang++, c++ that is there."""
    if chosen := os.environ.get("CXX"):
        command = tuple(shlex.split(chosen))
        if command and shutil.which(command[0]):
            return command
        raise NoCompiler(f"attnc: backend 'ttir' needs a C++ compiler; CXX={chosen} is none that can be run")
    for name in ("g++", "clang++", "c++"):
        if found := shutil.which(name):
            return (found,)
    raise NoCompiler("attnc: backend 'ttir' needs a C++ compiler: install g++ or clang++, or set CXX")


@cache
def _version(command: str) -> str:
    return subprocess.run([command, "--version"], capture_output=True, text=True, check=False).stdout


@cache
def _processor() -> str:
    """What -march=native depends on: a library of another machine, in a shared cache, must not be loaded here."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "\n".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))
    return f"{platform.machine()} {platform.processor()}"

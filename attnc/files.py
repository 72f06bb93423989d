"""Which files a command works on, and how a file is written: whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

STANDARD_INPUT = "-"


def specs(paths: Sequence[str]) -> Iterator[str]:
    """The files that the arguments name, each once: a file or ``-`` as it stands, a directory's ``*.attn`` in
    order, those below directories whose name starts with a dot left out. A path that is not there is yielded
    too: reading it is what fails."""
    seen: set[str] = set()
    for path in paths:
        found = _below(path) if path != STANDARD_INPUT and os.path.isdir(path) else [path]
        for name in found:
            if name not in seen:
                seen.add(name)
                yield name


def _below(directory: str) -> Iterator[str]:
    for folder, folders, names in os.walk(directory):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.normpath(os.path.join(folder, name)) for name in sorted(names) if name.endswith(".attn"))


def read(path: str, most: int = -1) -> bytes:
    """A file's bytes, or standard input's for ``-``; no more than ``most``, unless that is negative."""
    if path == STANDARD_INPUT and sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed", path)
    if path == STANDARD_INPUT:
        return sys.stdin.buffer.read(most)
    with open(path, "rb") as stream:
        return stream.read(most)


def write(path: str, content: bytes) -> None:
    """Put ``content`` in place in one step: another process sees the old file or the new one, and a failure
    leaves the old one. Links are followed; what is no plain file (a device, a pipe) is written to directly."""
    target = os.path.realpath(path)
    old = os.stat(target).st_mode if os.path.exists(target) else None
    if old is not None and not stat.S_ISREG(old):
        with open(path, "wb") as stream:
            stream.write(content)
        return
    temporary = f"{target}.{os.getpid()}.tmp"
    try:
        # "x": never through a link that someone else laid; made here, it gets the mode that the umask gives.
        with open(temporary, "xb") as stream:
            stream.write(content)
        if old is not None:
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            error.filename = path  # what the caller knows
        raise


def write_folder(path: str, files: Mapping[str, bytes]) -> None:
    """Put a folder of files in place in one step. ``path`` is not there yet, or an empty folder."""
    target = os.path.realpath(path)
    temporary = None
    try:
        temporary = tempfile.mkdtemp(prefix=f"{os.path.basename(target)}.", suffix=".tmp", dir=os.path.dirname(target))
        for name, content in files.items():
            Path(temporary, name).write_bytes(content)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o777 & ~mask)  # as a folder made here has it; mkdtemp's is the owner's alone
        os.replace(temporary, target)
    except BaseException as error:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            error.filename = path
        raise

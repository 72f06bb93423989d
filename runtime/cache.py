"""The disk cache of generated modules: one file of the store a compiled spec, named by everything its text depends on.

An entry is the module's text and a last line with a name and a checksum; its bytecode lies beside it, for half of a
warm load would be compiling it. An entry whose checksum does not fit is made again. A directory that cannot be
written costs a warning and a compile for each process, nothing else. No torch here: the command line cleans the
cache without it.
"""

from __future__ import annotations

import marshal
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from types import CodeType

from attnc.dsl import store
from attnc.dsl.version import VERSION

_SEAL = "# attnc cache:"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A generated module: the spec's name and the text, and the file that holds it (None: no file could be)."""

    name: str
    text: str
    path: Path | None

    @property
    def filename(self) -> str:
        """For tracebacks and inspect. Without a file the name is no path: linecache asks the loader then."""
        return f"attnc_generated_{self.name}.py" if self.path is None else str(self.path)


def key(*parts: object) -> str:
    """A name for what is made from ``parts`` (of plain values, told apart by repr) by this compiler, here."""
    return store.key(parts, _versions(), _compiler())


def fetch(entry_key: str, make: Callable[[], tuple[str, str]]) -> Entry:
    """The entry of a key; ``make() -> (name, text)`` where it is missing or damaged."""
    if (found := _find(entry_key)) is not None:
        return found
    name, text = make()
    try:
        path = store.directory() / f"{entry_key}.py"
        store.write(path, _seal(name, text))
    except OSError as error:
        warnings.warn(f"attnc: the cache cannot be written ({error}); going on without", stacklevel=2)
        return Entry(name=name, text=text, path=None)
    return Entry(name=name, text=text, path=path)


def _find(entry_key: str) -> Entry | None:
    try:
        path = store.directory() / f"{entry_key}.py"
        found = _unseal(path.read_bytes())
    except OSError:
        return None
    return None if found is None else Entry(name=found[0], text=found[1], path=path)


def bytecode(entry: Entry) -> CodeType:
    """The entry's text, compiled by Python; kept beside the entry, and made again where it is missing or damaged."""
    if entry.path is None:
        return compile(entry.text, entry.filename, "exec", dont_inherit=True)
    name = entry.path.with_suffix(".code").name
    salt = MAGIC_NUMBER + entry.filename.encode() + entry.text.encode()
    body = store.load(name, salt)
    if body is not None:
        kept: CodeType = marshal.loads(body)
        return kept
    made = compile(entry.text, entry.filename, "exec", dont_inherit=True)
    store.keep(name, marshal.dumps(made), salt)
    return made


def env() -> dict[str, str]:
    """Where the cache lies, what it holds, and the versions that its keys depend on."""
    files = store.kept()
    held = f"{len(files)} file{'' if len(files) == 1 else 's'}, {sum(map(_size, files)):,} bytes"
    return {**_versions(), "cache": str(store.directory()), "cached": held}


def clean() -> int:
    """Remove every file of the store, entries and the compiler's own tables; how many there were."""
    files = store.kept()
    for path in files:
        path.unlink(missing_ok=True)
    return len(files)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # another process has cleaned
        return 0


def _seal(name: str, text: str) -> bytes:
    body = text.encode()
    return body + f"\n{_SEAL} {name} {sha256(name.encode() + body).hexdigest()}\n".encode()


def _unseal(data: bytes) -> tuple[str, str] | None:
    body, mark, seal = data.rpartition(f"\n{_SEAL} ".encode())
    name, _, checksum = seal.partition(b" ")
    if not mark or checksum != sha256(name + body).hexdigest().encode() + b"\n":
        return None
    return name.decode(), body.decode()


@cache
def _versions() -> Mapping[str, str]:
    found = {"torch": "", "triton": ""}
    for package in found:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return {"attnc": VERSION, **found, "python": ".".join(map(str, sys.version_info[:2]))}


@cache
def _compiler() -> str:
    """A hash of the compiler itself, so that an entry made by other code is never taken."""
    import attnc.codegen
    import attnc.dsl

    content = sha256()
    for package in (attnc.dsl, attnc.codegen):
        root = package.__path__[0]
        for folder, folders, files in os.walk(root):
            folders.sort()
            for name in sorted(files):
                if name.endswith((".py", ".lark", ".attn", ".j2", ".toml", ".json")):
                    path = os.path.join(folder, name)
                    with open(path, "rb", buffering=0) as file:  # half the time of pathlib's way, on every warm load
                        content.update(f"{path.removeprefix(root)}\0".encode() + file.read() + b"\0")
    return content.hexdigest()

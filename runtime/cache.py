"""The disk cache of generated modules: one file a compiled spec, named by everything its text depends on.

An entry is the module's text and a last line with a name and a checksum; its bytecode lies beside it, sealed too, for
half of a warm load would be compiling it. An entry is written to a temporary file and
renamed, so a reader sees a whole entry or none, and processes that compile at once write the same bytes. An entry
whose checksum does not fit is made again. A directory that cannot be written costs a warning and a compile for
each process, nothing else. No torch here: the command line cleans the cache without it.
"""

from __future__ import annotations

import marshal
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from types import CodeType

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


def directory() -> Path:
    """Where entries lie: ATTNC_CACHE_DIR, or the user's cache directory as the platform has it."""
    if chosen := os.environ.get("ATTNC_CACHE_DIR"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "attnc" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "attnc"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attnc"


def key(*parts: object) -> str:
    """A name for what is made from ``parts`` (of plain values, told apart by repr) by this compiler, here."""
    content = sha256(repr(parts).encode("utf-8", errors="surrogatepass"))
    content.update(repr((_versions(), _compiler())).encode())
    return content.hexdigest()[:32]


def fetch(entry_key: str, make: Callable[[], tuple[str, str]]) -> Entry:
    """The entry of a key; ``make() -> (name, text)`` where it is missing or damaged."""
    path = directory() / f"{entry_key}.py"
    try:
        found = _unseal(path.read_bytes())
    except OSError:
        found = None
    if found is not None:
        return Entry(name=found[0], text=found[1], path=path)
    name, text = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, _seal(name, text))
    except OSError as error:
        warnings.warn(f"attnc: the cache {path.parent} cannot be written ({error}); going on without", stacklevel=2)
        return Entry(name=name, text=text, path=None)
    return Entry(name=name, text=text, path=path)


def bytecode(entry: Entry) -> CodeType:
    """The entry's text, compiled by Python; kept beside the entry, and made again where it is missing or damaged."""
    if entry.path is None:
        return compile(entry.text, entry.filename, "exec", dont_inherit=True)
    path = entry.path.with_suffix(".code")
    salt = MAGIC_NUMBER + entry.filename.encode() + entry.text.encode()
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    if data[:32] == sha256(salt + data[32:]).digest():
        made: CodeType = marshal.loads(data[32:])
        return made
    made = compile(entry.text, entry.filename, "exec", dont_inherit=True)
    body = marshal.dumps(made)
    with suppress(OSError):  # a directory that may only be read: compiling takes milliseconds
        _write(path, sha256(salt + body).digest() + body)
    return made


def env() -> dict[str, str]:
    """Where the cache lies, what it holds, and the versions that its keys depend on."""
    entries = _entries()
    held = f"{len(entries)} file{'' if len(entries) == 1 else 's'}, {sum(map(_size, entries)):,} bytes"
    return {**_versions(), "cache": str(directory()), "cached": held}


def clean() -> int:
    """Remove every entry; how many there were."""
    removed = 0
    for path in _entries():
        path.unlink(missing_ok=True)
        removed += 1
    return removed


def _entries() -> list[Path]:
    """The entries, and temporary files that a killed process left."""
    folder = directory()
    hexadecimal = "[0-9a-f]" * 32
    patterns = (f"{hexadecimal}.py", f"{hexadecimal}.code", ".attnc-*.tmp")
    return sorted(path for pattern in patterns for path in folder.glob(pattern))


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


def _write(path: Path, data: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".attnc-", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@cache
def _versions() -> Mapping[str, str]:
    found = {"attnc": "", "torch": "", "triton": ""}
    for package in found:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return {**found, "python": ".".join(map(str, sys.version_info[:2]))}


@cache
def _compiler() -> str:
    """A hash of the compiler itself, so that an entry made by other code is never taken."""
    import attnc.codegen
    import attnc.dsl

    content = sha256()
    for package in (attnc.dsl, attnc.codegen):
        root = Path(package.__path__[0])
        for path in sorted(root.rglob("*")):
            if path.suffix in (".py", ".lark", ".attn", ".j2"):
                content.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return content.hexdigest()

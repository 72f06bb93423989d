"""Files that outlive a process, in the user's cache directory: read whole and undamaged, or not at all.

A file is named by a hash of everything that its content depends on, so it is never out of date, only absent. It is
written to a temporary file and renamed: a reader sees all of it or none, and of processes that work at once either's
will do. A sealed file begins with a checksum of its name and content; one that does not fit counts as absent. That
guards against damage, not against people: bytecode and pickles are kept here, so the directory must be the user's
own, as Python's ``__pycache__`` must.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from attnc.dsl.place import _cache_directory, _write_whole

directory, write = _cache_directory, _write_whole

# Suffixes: a generated module, its bytecode, the tables of the grammar's parser, the bytecode of a template, a lowered
# kernel's library, a measured tile.
KINDS = ("py", "code", "lalr", "j2", "so", "tile")
_SEAL = 32  # bytes of a seal: SHA-256


def key(*parts: object) -> str:
    """A name for what is made from ``parts``: plain values, told apart by repr."""
    return sha256(repr(parts).encode("utf-8", errors="surrogatepass")).hexdigest()[:32]


def load(name: str, salt: bytes = b"") -> bytes | None:
    """What ``keep`` wrote under this name and salt; None where there is none or it is damaged."""
    try:
        data = (directory() / name).read_bytes()
    except OSError:
        return None
    body = data[_SEAL:]
    return body if data[:_SEAL] == _seal(name, salt, body) else None


def keep(name: str, body: bytes, salt: bytes = b"") -> bool:
    """Write a sealed file; whether it could be. Most of what is kept so can be made again in milliseconds."""
    try:
        write(directory() / name, _seal(name, salt, body) + body)
    except OSError:
        return False
    return True


def kept() -> list[Path]:
    """Every file of the store, and temporary files that a killed process left."""
    folder, hexadecimal = directory(), "[0-9a-f]" * 32
    patterns = (*(f"{hexadecimal}.{kind}" for kind in KINDS), ".attnc-*.tmp")
    return sorted(path for pattern in patterns for path in folder.glob(pattern))


def _seal(name: str, salt: bytes, body: bytes) -> bytes:
    return sha256(b"%d %d " % (len(name), len(salt)) + name.encode() + salt + body).digest()

"""Where files that outlive a process lie, and how one is written. The text below the line is printed into generated
modules too, which hold nothing of attnc: hence names that no spec can have."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

# --- from here on: printed into generated modules -------------------------------------------------


def _cache_directory() -> Path:
    """ATTNC_CACHE_DIR, or the user's cache directory as the platform has it. OSError for a user without a home."""
    if chosen := os.environ.get("ATTNC_CACHE_DIR"):
        return Path(chosen)
    try:
        if sys.platform == "win32":
            return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "attnc" / "Cache"
        if sys.platform == "darwin":
            return Path.home() / "Library" / "Caches" / "attnc"
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attnc"
    except RuntimeError as error:
        raise FileNotFoundError("the user has no home directory: set ATTNC_CACHE_DIR") from error


def _write_whole(path: Path, data: bytes) -> None:
    """All of a file or nothing; OSError if it cannot be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".attnc-", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise

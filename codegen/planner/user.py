"""Where a user's own targets lie. What is compiled depends on them, so a warm load reads them too, and only them."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def user_file() -> Path | None:
    """Where a user's own targets are looked for: ``targets.toml`` in attnc's configuration folder."""
    try:
        if sys.platform == "win32":
            root = Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
        else:
            root = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    except RuntimeError:  # a user without a home
        return None
    return root / "attnc" / "targets.toml"


def user_text() -> str:
    """The user's own table as text; empty where there is none. What is compiled depends on it."""
    path = user_file()
    try:
        return "" if path is None else path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return ""

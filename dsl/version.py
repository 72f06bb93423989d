"""The version, in the one place that pyproject.toml reads too: to ask for the installed package's takes longer than to
parse a spec."""

from __future__ import annotations

VERSION = "0.1.0"

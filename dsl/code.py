"""What a diagnostic code is; codes_*.py list them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Code:
    """``bad`` is a whole file that yields exactly this code, ``good`` the same intent with none."""

    code: str
    title: str
    explanation: str
    bad: str
    good: str

"""attnc: a compiler from attention specs to fused kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attnc.dsl.diagnostics import SpecError

if TYPE_CHECKING:
    from attnc.runtime.op import Op, load, loads

__all__ = ["Op", "SpecError", "load", "loads"]


def __getattr__(name: str) -> object:
    """What needs torch is imported when it is first used: the command line compiles without torch."""
    if name in ("Op", "load", "loads"):
        from attnc.runtime import op

        return getattr(op, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

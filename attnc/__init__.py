"""attnc: a compiler from attention specs to fused kernels."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attnc.dsl.diagnostics import SpecError
    from attnc.runtime.op import Op, load, loads

__all__ = ["Op", "SpecError", "load", "loads"]


def __getattr__(name: str) -> object:
    """Names are imported when they are first used: the command line compiles without torch, a warm cache loads
    without the compiler."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("attnc.dsl.diagnostics" if name == "SpecError" else "attnc.runtime.op"), name)

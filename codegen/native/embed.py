"""The builder's text, as generated modules hold it."""

from __future__ import annotations

from functools import cache
from inspect import getsource

import attnc.dsl.place
from attnc.codegen.native import build

_LINE = "# --- from here on: printed into generated modules"


@cache
def builder() -> str:
    """What ``dsl/place.py`` and ``build.py`` define, below their imports."""
    texts = (getsource(module) for module in (attnc.dsl.place, build))
    return "\n\n\n".join(text.partition(_LINE)[2].partition("\n")[2].strip("\n") for text in texts)

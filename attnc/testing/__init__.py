"""Fuzzing for users: is what the compiler made of a spec equal to the dense reference?

``assert_matches_reference`` checks one call, ``calls`` draws calls of an op, ``specs``, ``masks`` and ``scores`` draw
texts, ``mutants`` changes one. ``attnc fuzz`` does all of it for one file. The strategies need hypothesis:
``pip install 'attnc[fuzz]'``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attnc.testing.call import Call, assert_matches_reference, strided
    from attnc.testing.drawing import calls, shapes
    from attnc.testing.family import calls as calls_of_specs
    from attnc.testing.grammar import masks, scores, specs
    from attnc.testing.mutation import mutants
    from attnc.testing.script import unpacked

__all__ = [
    "Call", "assert_matches_reference", "calls", "calls_of_specs", "masks", "mutants", "scores", "shapes", "specs",
    "strided", "unpacked",
]  # fmt: skip

_PLACES = {
    "Call": "call",
    "assert_matches_reference": "call",
    "calls": "drawing",
    "shapes": "drawing",
    "calls_of_specs": "family",
    "masks": "grammar",
    "mutants": "mutation",
    "scores": "grammar",
    "specs": "grammar",
    "strided": "call",
    "unpacked": "script",
}


def __getattr__(name: str) -> object:
    """Names are imported when they are first used: only the strategies need hypothesis."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        place = import_module(f"attnc.testing.{_PLACES[name]}")
    except ModuleNotFoundError as error:
        if error.name == "hypothesis":
            message = f"attnc.testing.{name} draws with hypothesis: pip install 'attnc[fuzz]'"
            raise ModuleNotFoundError(message, name=error.name) from error
        raise
    return getattr(place, "calls" if name == "calls_of_specs" else name)

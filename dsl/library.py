"""The standard library (std.attn), parsed once, and the functions that every backend knows by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pkgutil import get_data

from attnc.dsl import syntax
from attnc.dsl.ir import Fn
from attnc.dsl.parse import parse
from attnc.dsl.source import Source


@dataclass(frozen=True, kw_only=True)
class Signature:
    """A built-in function's parameters; the first ``required`` must be given. ``variadic``: two or more of ``x``."""

    parameters: tuple[str, ...]
    required: int
    fn: Fn | None = None
    variadic: bool = False


def _elementwise(fn: Fn, *parameters: str) -> Signature:
    return Signature(parameters=parameters, required=len(parameters), fn=fn)


_UNARY = (
    Fn.ABS, Fn.SIGN, Fn.EXP, Fn.EXP2, Fn.LOG, Fn.LOG1P, Fn.SQRT, Fn.RSQRT, Fn.TANH, Fn.SIGMOID, Fn.RELU, Fn.ELU,
    Fn.SOFTPLUS, Fn.ERF, Fn.SIN, Fn.COS, Fn.FLOOR, Fn.INT,
)  # fmt: skip

BUILTINS: Mapping[str, Signature] = {
    **{fn.value: _elementwise(fn, "x") for fn in _UNARY},
    "min": Signature(parameters=("x", "y"), required=2, fn=Fn.MIN, variadic=True),
    "max": Signature(parameters=("x", "y"), required=2, fn=Fn.MAX, variadic=True),
    "clamp": _elementwise(Fn.CLAMP, "x", "lo", "hi"),
    "where": _elementwise(Fn.WHERE, "condition", "x", "y"),
    "dot": Signature(parameters=("x", "y"), required=2),
    "outer": Signature(parameters=("x", "y"), required=2),
    "rope": Signature(parameters=("x", "pos", "base", "scaling", "interleaved"), required=2),
    "l2norm": Signature(parameters=("x", "eps"), required=1),
    "rmsnorm": Signature(parameters=("x", "w", "eps"), required=1),
    "concat": Signature(parameters=("x", "y"), required=2, variadic=True),
}

# What the library alone can call: it has no meaning that .attn could express.
INTRINSICS: Mapping[str, Signature] = {
    "drawn": Signature(parameters=("head", "row", "column", "count", "seed", "blocks"), required=6),
    "listed": Signature(parameters=("table", "row", "column"), required=3),
}


@dataclass(frozen=True, kw_only=True)
class Library:
    """The lets of std.attn by name: the overloads of each, masks apart from normalizations (pairs)."""

    source: Source
    masks: Mapping[str, tuple[syntax.LetClause, ...]]
    normalizations: Mapping[str, tuple[syntax.LetClause, ...]]

    def names(self) -> frozenset[str]:
        return frozenset({*self.masks, *self.normalizations, *BUILTINS})


@cache
def standard_library() -> Library:
    """std.attn, parsed once a process: immutable from then on."""
    content = get_data("attnc.dsl", "std.attn")
    assert content is not None, "the loader of a package reads its files"
    source = Source(name="std.attn", text=content.decode("utf-8"))
    masks: dict[str, tuple[syntax.LetClause, ...]] = {}
    normalizations: dict[str, tuple[syntax.LetClause, ...]] = {}
    for let in parse(source, library=True).lets:
        found = normalizations if isinstance(let.value, syntax.Pair) else masks
        found[let.name.text] = (*found.get(let.name.text, ()), let)
    return Library(source=source, masks=masks, normalizations=normalizations)

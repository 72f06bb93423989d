"""Params: what their values may be."""

from __future__ import annotations

from attnc.dsl import ir


def param_value(value: object, kind: ir.Kind) -> bool | int | float:
    """The value as a param of that kind holds it; ValueError says what is wrong, after ``the value ...``."""
    match kind:
        case ir.Kind.BOOL if isinstance(value, bool):
            return value
        case ir.Kind.INT if isinstance(value, int) and not isinstance(value, bool):
            if not -(2**63) <= value < 2**63:
                raise ValueError("leaves 64 bits")
            return int(value)
        case ir.Kind.FLOAT if isinstance(value, int | float) and not isinstance(value, bool):
            if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))):
                raise ValueError(f"is {value}, not a finite number")
            try:
                return float(value)
            except OverflowError:
                raise ValueError("is no finite float") from None
    wanted = {ir.Kind.BOOL: "a bool", ir.Kind.INT: "an int", ir.Kind.FLOAT: "a float"}[kind]
    raise ValueError(f"is {_described(value)}, not {wanted}")


def _described(value: object) -> str:
    kind = type(value).__name__
    named = f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
    short = isinstance(value, bool | float | str) or (isinstance(value, int) and abs(value) < 2**63)
    return f"{value!r} ({named})" if short and len(text := repr(value)) <= 40 and text else named

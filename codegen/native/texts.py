"""The C++ texts that a generated module holds."""

from __future__ import annotations

import ast
from collections.abc import Mapping


def native_texts(module: str) -> dict[str, str]:
    """``{"out_forward": text}`` of a module's text: its constants ``NAME_cpp``, sums of constants. Empty for a module
    without native code."""
    known: dict[str, str] = {}
    for line in ast.parse(module).body:
        match line:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                if (text := _text(value, known)) is not None:
                    known[name] = text
    return {name.removesuffix("_cpp").lstrip("_"): text for name, text in known.items() if name.endswith("_cpp")}


def _text(value: ast.expr, known: Mapping[str, str]) -> str | None:
    match value:
        case ast.Constant(value=str(text)):
            return text
        case ast.Name(id=name):
            return known.get(name)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            parts = _text(left, known), _text(right, known)
            return parts[0] + parts[1] if parts[0] is not None and parts[1] is not None else None
    return None

"""The C++ texts that a generated module holds."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

ELEMENTS = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "f64": "float64"}  # by ATTNC_EL; PyTorch's names


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


def native_dims(text: str) -> list[str]:
    """The sizes of vectors that a text is compiled for: ``["D", "E"]``."""
    found = {name for name in re.findall(r"\bATTNC_(\w+)", text) if not re.search(rf"#\s*define ATTNC_{name}\b", text)}
    return sorted(found - {"EL", "WIDE"})

"""A call as runnable Python, and as JSON that ``attnc fuzz --replay`` reads."""

from __future__ import annotations

from base64 import b85decode, b85encode
from collections.abc import Mapping
from io import BytesIO
from typing import Any
from zlib import compress, decompress

import torch
from torch import Tensor

from attnc.runtime.op import Op, loads
from attnc.testing.call import Call, strided

_LITERAL = 200  # elements at most that are written as numbers


def packed(x: object) -> str:
    """A tensor, or a dict of them, as text."""
    made = BytesIO()
    torch.save(x, made)
    return b85encode(compress(made.getvalue(), 9)).decode()


def unpacked(text: str) -> Any:
    """What ``packed`` made a text of."""
    return torch.load(BytesIO(decompress(b85decode(text))), weights_only=True)


def as_python(call: Call, backend: str, message: str) -> str:
    """A program that makes the call and compares it with the reference. Tensors stand in it as numbers, large ones
    packed."""
    tensors = {**call.vectors, **call.inputs, **call.options}
    literals = {name: _literal(x) for name, x in tensors.items()}
    helpers = [name for name in ("strided", "unpacked") if any(f"{name}(" in text for text in literals.values())]
    names = {name: f"{name}_" if name in ("op", "torch", "attnc", "inf", "nan") else name for name in tensors}
    ahead = ["import os", 'os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported', ""]
    special = any(word in text for text in literals.values() for word in ("inf", "nan"))
    asked = zip(("name", "target"), call.op._asked, strict=False)
    params = "".join(f"{key}={value!r}, " for key, value in asked if value is not None)
    if call.op.params:
        params += f"params={dict(call.op.params)!r}"
    arguments = [names[name] for name in call.vectors]
    arguments += [f"{name}={names[name]}" for name in (*call.inputs, *call.options)]
    lines = [
        *(f"# {line}" for line in message.splitlines()),
        *(ahead if backend == "interpret" else ()),
        *(("from math import inf, nan",) if special else ()),
        "import torch",
        "",
        "import attnc",
        f"from attnc.testing import {', '.join(('assert_matches_reference', *helpers))}",
        "",
        'spec = """',
        str(call.op).rstrip("\n").replace("\\", "\\\\").replace('"""', '\\"\\"\\"'),
        '"""',
        f"op = attnc.loads(spec{', ' + params.rstrip(', ') if params else ''})",
        *(f"{names[key]} = {text}" for key, text in literals.items()),
        f'assert_matches_reference(op, {", ".join(arguments)}, backend="{backend}")',
    ]
    return "\n".join(lines) + "\n"


def _literal(x: object) -> str:
    """Python that makes a tensor of the same numbers and strides, or a number."""
    if not isinstance(x, Tensor):
        return repr(x)
    x = x.detach()
    spread = x.dim() > 0 and x.stride(0) == 0 and x.shape[0] > 1
    held = x[:1] if spread else x
    dtype = str(x.dtype)
    if held.numel() > _LITERAL:
        made = f'unpacked("{packed(held.contiguous())}")'
    elif held.numel():
        made = f"torch.tensor({held.tolist()}, dtype={dtype})"
    else:
        made = f"torch.zeros({tuple(held.shape)}, dtype={dtype})"
    if spread:
        return f"{made}.expand({', '.join(map(str, x.shape))})"
    if x.is_contiguous():
        return made
    return f"strided({made}, {x.stride()})"


# --- saved calls --------------------------------------------------------------------------------


def saved(call: Call, backend: str) -> dict[str, object]:
    """A call as what JSON holds."""
    tensors = {name: x for name, x in {**call.vectors, **call.inputs}.items() if isinstance(x, Tensor)}
    compact = {name: _compact(x) for name, x in {**call.vectors, **call.inputs}.items()}
    return {
        "backend": backend,
        "spec": str(call.op),
        "name": call.op._asked[0],
        "target": call.op._asked[1],
        "params": dict(call.op.params),
        "vectors": list(call.vectors),
        "arguments": packed({**compact, **call.options}),
        "shapes": {name: list(x.shape) for name, x in tensors.items()},
        "strides": {name: list(x.stride()) for name, x in tensors.items()},
    }


def _compact(x: object) -> object:
    """Without the room between rows that a view of a larger tensor has."""
    if not isinstance(x, Tensor):
        return x
    return x[:1].contiguous() if x.dim() and x.stride(0) == 0 else x.contiguous()


def restored(data: Mapping[str, Any]) -> tuple[Call, str]:
    """The call that ``saved`` wrote, and its backend. KeyError, TypeError or ValueError for what it did not write."""
    op: Op = loads(data["spec"], data["name"], target=data["target"], **data["params"])
    arguments = unpacked(data["arguments"])
    for name, strides in data["strides"].items():
        x, shape = arguments[name], data["shapes"][name]
        spread = bool(shape) and strides[0] == 0
        if spread:
            arguments[name] = x.expand(shape)
        elif list(x.stride()) != strides:
            arguments[name] = strided(x, tuple(strides))
    vectors = {name: arguments.pop(name) for name in data["vectors"]}
    options = {name: arguments.pop(name) for name in ("q_offset", "kv_offset") if name in arguments}
    return Call(op=op, vectors=vectors, inputs=arguments, options=options), str(data["backend"])

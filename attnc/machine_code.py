"""Machine code for the command line: kernels as files or text, and what is read from them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from attnc.dsl.diagnostics import SpecError
from attnc.files import STANDARD_INPUT, write_folder
from attnc.session import Refused, folder_is_free

if TYPE_CHECKING:
    from attnc.dsl.construct import Construct
    from attnc.runtime.aot import Compiled

KINDS = ("ttir", "ttgir", "llir", "ptx", "sass", "cubin", "amdgcn", "hsaco")
DTYPES = ("bf16", "f16", "f32", "f64")
Made = TypeVar("Made")


def emit(construct: Construct, kind: str, target: str, dtype: str, dim: int, output: str | None) -> None:
    """A spec's kernels as ``kind``: files ``KERNEL.KIND`` and ``kernels.json`` in the new folder ``output``, all of
    them or none; text of all kernels on standard output if there is no output."""
    from attnc.runtime.aot import BINARY, compile_kernels, kinds

    possible = _made(lambda: kinds(target), "--target")
    if kind not in possible:
        raise Refused(f"--emit {kind}: {target} has none; it has {', '.join(possible)}")
    to_standard_output = output in (None, STANDARD_INPUT)
    if to_standard_output and kind in BINARY:
        raise Refused(f"--emit {kind} is binary, one file a kernel: give -o FOLDER")
    compiled = _made(lambda: compile_kernels(construct, target, dtype, dim), f"--emit {kind}")
    if output is None or to_standard_output:
        mark = ";" if kind in ("llir", "amdgcn") else "//"
        for item in compiled:
            sys.stdout.write(f"{mark} {item.kernel}\n{item.emitted(kind).decode()}\n")
        return
    files = {f"{item.kernel}.{kind}": item.emitted(kind) for item in compiled}
    files["kernels.json"] = (json.dumps([_launch(item, kind) for item in compiled], indent=2) + "\n").encode()
    folder_is_free(output)
    write_folder(output, files)


def _launch(item: Compiled, kind: str) -> dict[str, object]:
    """What a launch of a kernel needs to know."""
    signature = item.signature
    return {
        "kernel": item.kernel,
        "file": f"{item.kernel}.{kind}",
        "target": item.target,
        "dtype": item.dtype,
        "dim": item.dim,
        "arguments": {name: type for name, type in signature.types.items() if type != "constexpr"},
        "constants": {**signature.constants, "ACC": signature.acc},
        "warps": signature.tile.warps,
        "stages": signature.tile.stages,
        "shared": item.shared,
        "tensor_columns": item.tensor_columns,
    }


def inspected(construct: Construct, target: str, dtype: str, dim: int, style: str) -> str:
    """What the machine code of a spec's kernels says, as text or as JSON."""
    from attnc.runtime.machine import as_json, as_text, inspect

    facts = _made(lambda: inspect(construct, target, dtype, dim), "inspect")
    return json.dumps(as_json(facts), indent=2) if style == "json" else as_text(facts)


def _made(make: Callable[[], Made], option: str) -> Made:
    """What is made, or why it is not, as a refusal; a fault in the spec stays one."""
    try:
        return make()
    except SpecError:
        raise
    except ModuleNotFoundError as error:
        raise Refused(f"{option} compiles with {error.name}: pip install 'attnc[torch]'") from error
    except (ValueError, RuntimeError) as error:
        raise Refused(f"{option}: {error}") from error

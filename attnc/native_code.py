"""C++ for the command line: a module's texts, and the libraries that they are compiled to."""

from __future__ import annotations

import json
import re
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from attnc.files import STANDARD_INPUT, write_folder
from attnc.session import Refused, folder_is_free

if TYPE_CHECKING:
    from attnc.codegen.planner.targets import Targets
    from attnc.dsl.ir import Construct

KINDS = ("cpp", "so")
_ELEMENTS = ("f32", "bf16", "f16", "f64")  # by ATTNC_EL
_ISA = {"avx2": "avx2", "avx512": "avx512"}  # targets that name an instruction set; others are built for this machine


def emit(
    construct: Construct, kind: str, target: str, known: Targets, dtype: str | None, dim: int | None, output: str | None
) -> None:
    """A spec's native code: files ``NAME.KIND`` and ``kernels.json`` in the new folder ``output``, all of them or none;
    texts on standard output if there is no output. One library serves one dtype (f32) and head dim (64)."""
    from attnc.codegen import pipeline
    from attnc.codegen.native.build import _command, _compiled, _NoCompiler
    from attnc.codegen.native.texts import native_texts
    from attnc.codegen.planner.targets import Cpu

    if not isinstance(known.find(target), Cpu):
        raise Refused(f"--emit {kind}: {target} has none: give --target cpu")
    texts = native_texts(pipeline.compile(construct, target, known))
    dtype, dim = dtype or "f32", dim or 64
    try:
        commands = {name: _command(*_defines(text, dtype, dim), isa=_ISA.get(target)) for name, text in texts.items()}
    except (_NoCompiler, ValueError) as error:
        raise Refused(f"--emit {kind}: {error}") from error
    headed = {name: f"// {shlex.join(commands[name])} -o {name}.so {name}.cpp\n{texts[name]}" for name in texts}
    if output in (None, STANDARD_INPUT):
        if kind == "so":
            raise Refused("--emit so is binary, one file a kernel: give -o FOLDER")
        sys.stdout.write("\n".join(headed.values()))
        return
    assert output is not None, "told apart above"
    folder_is_free(output)
    files = {f"{name}.cpp": text.encode() for name, text in headed.items()}
    if kind == "so":
        files = {}
        for name, text in texts.items():
            with tempfile.TemporaryDirectory(prefix="attnc-", ignore_cleanup_errors=True) as folder:
                files[f"{name}.so"] = _compiled(text, commands[name], Path(folder)).read_bytes()
    facts = [
        {
            "kernel": name,
            "file": f"{name}.{kind}",
            "target": target,
            "dtype": dtype,
            "dim": dim,
            "command": commands[name],
        }
        for name in texts
    ]
    write_folder(output, {**files, "kernels.json": (json.dumps(facts, indent=2) + "\n").encode()})


def _defines(text: str, dtype: str, dim: int) -> list[str]:
    """What a text is specialized by: the element, and every dim that it names."""
    dims = sorted(
        {name for name in re.findall(r"\bATTNC_(\w+)", text) if not re.search(rf"#\s*define ATTNC_{name}\b", text)}
    )
    sizes = [f"-DATTNC_{name}={dim}" for name in dims if name not in ("EL", "WIDE")]
    return [f"-DATTNC_EL={_ELEMENTS.index(dtype)}", *sizes]

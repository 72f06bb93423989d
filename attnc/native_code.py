"""C++ for the command line: a module's texts, and the libraries that they are compiled to."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from attnc.codegen.native.texts import ELEMENTS, native_dims, native_texts
from attnc.files import STANDARD_INPUT, write_folder
from attnc.session import Refused, folder_is_free

if TYPE_CHECKING:
    from attnc.codegen.planner.targets import Targets
    from attnc.dsl.construct import Construct

KINDS = ("cpp", "so")
_DTYPE, _DIM = "f32", 64  # where one of the two is not named
_ISA = {"avx2": "avx2", "avx512": "avx512"}  # targets that name an instruction set; others are built for this machine


def emit(
    construct: Construct, kind: str, target: str, known: Targets, dtype: str | None, dim: int | None, output: str | None
) -> None:
    """A spec's native code: files ``NAME.KIND`` and ``kernels.json`` in the new folder ``output``, all of them or none;
    texts on standard output if there is no output. One library serves one dtype (f32) and head dim (64)."""
    from attnc.codegen import pipeline
    from attnc.codegen.native.build import _command, _compiled, _NoCompiler

    if not is_cpu(target, known):
        raise Refused(f"--emit {kind}: {target} has none: give --target cpu")
    texts = native_texts(pipeline.compile(construct, target, known))
    dtype, dim = dtype or _DTYPE, dim or _DIM
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


def is_cpu(target: str, known: Targets) -> bool:
    from attnc.codegen.planner.targets import Cpu

    return isinstance(known.find(target), Cpu)


def built_at_import(module: str, dtype: str | None, dim: int | None) -> str:
    """A module's text, and below it lines that build its native code for vectors of ``dim`` (64) elements of ``dtype``
    (f32). Without a compiler they say once what runs instead."""
    dtype, dim = dtype or _DTYPE, dim or _DIM
    sizes = {
        name: "".join(f", {size}={dim}" for size in native_dims(text)) for name, text in native_texts(module).items()
    }
    lines = [f"    _native(_{name}_cpp, torch.{ELEMENTS[dtype]}, False{size})" for name, size in sizes.items()]
    head = "# What this module was compiled for is built now; what else it is called with, at the first call."
    return "\n".join((f"{module}\n", head, 'if _native_or_eager() == "native":', *lines)) + "\n"


def _defines(text: str, dtype: str, dim: int) -> list[str]:
    """What a text is specialized by: the element, and every dim that it names."""
    return [f"-DATTNC_EL={list(ELEMENTS).index(dtype)}", *(f"-DATTNC_{name}={dim}" for name in native_dims(text))]

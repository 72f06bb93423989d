"""Kernels to machine code, ahead of time, for a GPU that is not here: Triton's own compiler, an explicit target."""

from __future__ import annotations

import importlib.util
import tempfile
from dataclasses import dataclass
from pathlib import Path

from attnc.codegen.emit import emit
from attnc.codegen.lower import lower
from attnc.codegen.plan import plan
from attnc.codegen.signature import signatures
from attnc.dsl.frontend import compilable
from attnc.dsl.ir import Construct


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """One kernel's machine code: a cubin or hsaco, and the bytes of shared memory a block takes."""

    kernel: str
    binary: bytes
    shared: int
    warps: int


def compile_kernels(construct: Construct, target: str, dtype: str = "bf16", dim: int = 64) -> tuple[Compiled, ...]:
    """Every kernel of a spec for ``target`` (sm_80, sm_90, sm_100, gfx942), vectors of ``dim`` elements of ``dtype``.

    Raises RuntimeError under TRITON_INTERPRET=1, where kernels are not compiled, and whatever Triton's compiler
    raises for a kernel that it refuses."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    program = lower(compilable(construct))
    chosen = plan(target)
    gpu = GPUTarget("hip", target, 64) if target.startswith("gfx") else GPUTarget("cuda", int(target[3:]), 32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.py"
        path.write_text(emit(program, chosen))
        spec = importlib.util.spec_from_file_location(f"attnc_aot_{id(path)}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found = []
        for signature in signatures(program, chosen, dtype, dim):
            function = getattr(module, signature.kernel)
            if not isinstance(function, triton.JITFunction):
                raise RuntimeError("TRITON_INTERPRET=1 is set: kernels are interpreted, not compiled")
            names = list(signature.types)
            acc = triton.language.float64 if signature.acc == "fp64" else triton.language.float32
            constants = {**signature.constants, "ACC": acc}
            source = ASTSource(
                function,
                dict(signature.types),
                {(names.index(name),): value for name, value in constants.items()},
                {(names.index(name),): [["tt.divisibility", 16]] for name in signature.aligned},
            )
            made = triton.compile(
                source, target=gpu, options={"num_warps": signature.warps, "num_stages": signature.stages}
            )
            binary = made.asm["hsaco" if target.startswith("gfx") else "cubin"]
            found.append(
                Compiled(kernel=signature.kernel, binary=binary, shared=made.metadata.shared, warps=signature.warps)
            )
    return tuple(found)

"""Kernels to machine code, ahead of time, for a GPU that is not here: Triton's own compiler, an explicit target."""

from __future__ import annotations

import importlib.util
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from attnc.codegen.emit import emit
from attnc.codegen.lower import lower
from attnc.codegen.plan import Pass, plan
from attnc.codegen.planner.targets import Gpu, targets
from attnc.codegen.planner.tile import Tile
from attnc.codegen.signature import Signature, signatures
from attnc.dsl.construct import Construct
from attnc.dsl.frontend import compilable

NVIDIA = ("ttir", "ttgir", "llir", "ptx", "sass", "cubin")
AMD = ("ttir", "ttgir", "llir", "amdgcn", "hsaco")
BINARY = ("cubin", "hsaco")


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """One kernel's machine code and what it was made from: every stage of Triton's compiler by its name, the bytes of
    shared memory and columns of tensor memory that a block takes, and its warps: more than its tile's where warps have
    roles, for those that issue products and copies stand beside."""

    signature: Signature
    target: str
    dtype: str
    dim: int
    texts: Mapping[str, str | bytes]
    shared: int
    tensor_columns: int = 0
    block_warps: int = 0

    @property
    def rescaling(self) -> int:
        """Warps of the largest role beside the first, where warps have roles: in a forward, those that rescale sums."""
        found = re.findall(r"^ *partition\d+\(.* num_warps\((\d+)\)", str(self.texts.get("ttgir", "")), re.MULTILINE)
        return max(map(int, found), default=0)

    @property
    def kernel(self) -> str:
        return self.signature.kernel

    @property
    def warps(self) -> int:
        return self.signature.tile.warps

    @property
    def binary(self) -> bytes:
        """The cubin or hsaco: an ELF file."""
        found = self.texts[kinds(self.target)[-1]]
        assert isinstance(found, bytes)
        return found

    def emitted(self, kind: str) -> bytes:
        """What ``kind`` names (one of ``kinds``), as the bytes of a file."""
        if kind == "sass":
            from attnc.runtime.machine.disassembly import listing

            return listing(self.binary).encode()
        found = self.texts[kind]
        return found if isinstance(found, bytes) else found.encode()


def architecture(target: str) -> str:
    """The architecture that a target's kernels are compiled for: ``sm_90`` of ``h100``. Raises ValueError for an
    unknown target."""
    found = targets().find(target)
    return found.architecture if isinstance(found, Gpu) else target


def kinds(target: str) -> tuple[str, ...]:
    """What a kernel can be emitted as for a target, its binary last. Raises ValueError for a target that is no GPU."""
    if re.fullmatch(r"sm_\d{2,3}", architecture(target)):
        return NVIDIA
    if re.fullmatch(r"gfx[0-9a-f]{3,4}", architecture(target)):
        return AMD
    raise ValueError(f"no machine code is made for {target!r}: name a GPU's architecture, such as sm_90 or gfx942")


def compile_kernels(
    construct: Construct,
    target: str,
    dtype: str = "bf16",
    dim: int = 64,
    tiles: Mapping[Pass, Tile] | None = None,
    passes: Iterable[Pass] = ("forward", "query", "key"),
) -> tuple[Compiled, ...]:
    """Every kernel of a spec for ``target`` (sm_90, h100, gfx942), vectors of ``dim`` elements of ``dtype``,
    with the planner's tiles or with ``tiles`` by pass; only those of ``passes``.

    Raises ValueError for a target that is no GPU's, RuntimeError under TRITON_INTERPRET=1, where kernels are not
    compiled, and for a kernel that Triton's compiler refuses, and ModuleNotFoundError without triton."""
    kinds(target)
    wanted = frozenset(passes)
    program = lower(compilable(construct))
    chosen = plan(program, target)
    with _loaded(emit(program, chosen)) as module:
        return tuple(
            _compile(module, signature, target, dtype, dim)
            for signature in signatures(program, chosen, dtype, dim, tiles)
            if signature.step in wanted
        )


@contextmanager
def _loaded(text: str) -> Iterator[ModuleType]:
    """A module's text, imported. Triton reads the source of its kernels from the file."""
    import triton  # noqa: F401  # a module defines kernels only beside triton

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.py"
        path.write_text(text)
        spec = importlib.util.spec_from_file_location(f"attnc_aot_{id(path)}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


def allocations(
    construct: Construct,
    target: str,
    dtype: str = "bf16",
    dim: int = 64,
    tiles: Mapping[Pass, Tile] | None = None,
) -> Iterator[tuple[Signature, int, int]]:
    """Every kernel of a spec with the bytes of shared memory and the columns of tensor memory that Triton allocates for
    it: its compiler as far as there, which is a tenth of the whole. Raises as ``compile_kernels`` does."""
    kinds(target)
    program = lower(compilable(construct))
    chosen = plan(program, target)
    with _loaded(emit(program, chosen)) as module:
        for signature in signatures(program, chosen, dtype, dim, tiles):
            yield signature, *allocated(module, signature, target)


def allocated(module: ModuleType, signature: Signature, target: str) -> tuple[int, int]:
    """The same of one kernel of a generated module."""
    from triton._C.libtriton import amd, ir, nvidia, passes
    from triton.compiler.compiler import make_backend

    source, gpu, chosen = sourced(module, signature, target)
    backend = make_backend(gpu)
    options: Any = backend.parse_options(chosen)
    made: dict[str, Any] = {}
    backend.add_stages(made, options, source.language)
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    code = backend.get_codegen_implementation(options)
    mlir = source.make_ir(gpu, options, code, backend.get_module_map(), context)
    mlir = made["ttgir"](made["ttir"](mlir, {}), {})
    manager = ir.pass_manager(mlir.context)
    if gpu.backend == "cuda":  # as make_llir of triton.backends begins, in 3.7.1
        from triton.backends.nvidia.compiler import get_ptx_version_from_options

        version = get_ptx_version_from_options(options, gpu.arch)
        passes.ttgpuir.add_combine_tensor_select_and_if(manager)
        passes.ttgpuir.add_allocate_warp_groups(manager)
        passes.convert.add_scf_to_cf(manager)
        passes.gluon.add_inliner(manager)
        nvidia.passes.ttgpuir.add_allocate_shared_memory_nv(manager, gpu.arch, version)
        nvidia.passes.ttnvgpuir.add_allocate_tensor_memory(manager)
    else:
        amd.passes.ttgpuir.add_update_async_wait_count(manager, options.arch)
        amd.passes.ttgpuir.add_warp_pipeline_conversion(manager, options.arch)
        passes.convert.add_scf_to_cf(manager)
        passes.gluon.add_inliner(manager)
        passes.convert.add_index_to_llvmir(manager)
        amd.passes.ttgpuir.add_allocate_shared_memory(manager)
    manager.run(mlir, "allocate")
    return mlir.get_int_attr("ttg.shared"), mlir.get_int_attr("ttg.tensor_memory_size") or 0


def sourced(module: ModuleType, signature: Signature, target: str) -> tuple[Any, Any, dict[str, int]]:
    """What Triton's compiler is called with: source, target and options of one kernel of a generated module. Raises
    RuntimeError under TRITON_INTERPRET=1."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function = getattr(module, signature.kernel)
    if not isinstance(function, triton.JITFunction):
        raise RuntimeError("TRITON_INTERPRET=1 is set: kernels are interpreted, not compiled")
    name = architecture(target)
    gpu = GPUTarget("hip", name, 64) if name.startswith("gfx") else GPUTarget("cuda", int(name[3:]), 32)
    names = list(signature.types)
    acc = triton.language.float64 if signature.acc == "fp64" else triton.language.float32
    constants = {**signature.constants, "ACC": acc}
    source = ASTSource(
        function,
        dict(signature.types),
        {(names.index(name),): value for name, value in constants.items()},
        {(names.index(name),): [["tt.divisibility", 16]] for name in signature.aligned},
    )
    options = {"num_warps": signature.tile.warps, "num_stages": signature.tile.stages}
    if signature.tile.registers:
        options["maxnreg"] = signature.tile.registers
    return source, gpu, options


def _compile(module: ModuleType, signature: Signature, target: str, dtype: str, dim: int) -> Compiled:
    import triton

    source, gpu, options = sourced(module, signature, target)
    try:
        made: Any = triton.compile(source, target=gpu, options=options)
    except Exception as error:  # of many kinds: a compile error, a pass that fails, an assembler
        reason = str(error).strip() or type(error).__name__
        raise RuntimeError(f"Triton's compiler refuses {signature.kernel} for {target}: {reason}") from error
    return Compiled(
        signature=signature,
        target=target,
        dtype=dtype,
        dim=dim,
        texts=dict(made.asm),
        shared=made.metadata.shared,
        tensor_columns=getattr(made.metadata, "tmem_size", None) or 0,
        block_warps=made.metadata.num_warps,
    )

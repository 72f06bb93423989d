"""A second copy of a generated module, whose kernels run natively on CPU tensors."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from attnc.runtime.load import Loaded, second
from attnc.runtime.ttir.launch import NativeKernel


def twin(loaded: Loaded) -> ModuleType:
    """The module of the same text whose kernels are NativeKernels. Raises RuntimeError where there are no kernels to
    run: without triton, or where Triton's interpreter has taken them."""
    try:
        import triton  # before the module, which defines kernels where it finds triton
    except ImportError as error:
        raise RuntimeError(f"{loaded.entry.name}: backend 'ttir' needs the package triton: {error}") from error
    if not isinstance(triton.language.max, triton.JITFunction):
        raise RuntimeError(
            f"{loaded.entry.name}: backend 'ttir' cannot run: TRITON_INTERPRET=1 was set when triton was imported, "
            "so that kernels are interpreted in this process"
        )
    return second(loaded, "ttir", _adapt)


def _adapt(module: ModuleType) -> None:
    import triton

    kernels = {key: value for key, value in vars(module).items() if isinstance(value, triton.JITFunction)}
    launched = {key: value for key, value in kernels.items() if key.endswith("_kernel")}
    vars(module).update({key: NativeKernel(value) for key, value in launched.items()})
    vars(module)["_backend"] = _backend


def _backend(name: str, device: Any, kernel: object) -> str:
    """In place of the module's own choice."""
    if device.type != "cpu":
        raise RuntimeError(f"backend 'ttir' runs on CPU tensors; these are on {device}")
    return name

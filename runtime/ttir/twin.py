"""A second copy of a generated module, whose kernels run natively on CPU tensors."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_loader
from threading import Lock
from types import CodeType, ModuleType
from typing import Any

from attnc.runtime.cache import Entry
from attnc.runtime.load import GeneratedLoader, Loaded
from attnc.runtime.ttir.launch import NativeKernel

_LOADING = Lock()


def twin(loaded: Loaded) -> ModuleType:
    """The module of the same text whose kernels are NativeKernels: one a process for each module. Its operators are
    registered beside the first's, in a library of their own. Raises RuntimeError where there are no kernels to
    run: without triton, or where Triton's interpreter has taken them."""
    name = f"{loaded.module.__name__}_ttir"
    with _LOADING:
        return sys.modules.get(name) or _load(name, loaded.entry)


def _load(name: str, entry: Entry) -> ModuleType:
    try:
        import triton  # before the module, which defines kernels where it finds triton
    except ImportError as error:
        raise RuntimeError(f"{entry.name}: backend 'ttir' needs the package triton: {error}") from error
    if not isinstance(triton.language.max, triton.JITFunction):
        raise RuntimeError(
            f"{entry.name}: backend 'ttir' cannot run: TRITON_INTERPRET=1 was set when triton was imported, "
            "so that kernels are interpreted in this process"
        )
    spec = spec_from_loader(name, _TwinLoader(entry))
    assert spec is not None and spec.loader is not None, "a loader was given"
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        kernels = {key: value for key, value in vars(module).items() if isinstance(value, triton.JITFunction)}
        launched = {key: value for key, value in kernels.items() if key.endswith("_kernel")}
        vars(module).update({key: NativeKernel(value) for key, value in launched.items()})
        vars(module)["_backend"] = _backend
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _backend(name: str, device: Any, kernel: object) -> str:
    """In place of the module's own choice."""
    if device.type != "cpu":
        raise RuntimeError(f"backend 'ttir' runs on CPU tensors; these are on {device}")
    return name


class _TwinLoader(GeneratedLoader):
    """The module's text line for line, operators in the library ``attnc_ttir``."""

    def get_code(self, fullname: str) -> CodeType:
        text = self.entry.text.replace('"attnc::', '"attnc_ttir::')
        return compile(text, self.entry.filename, "exec", dont_inherit=True)

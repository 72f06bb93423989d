"""A Triton kernel that runs on CPU tensors: launched like the kernel itself, ``kernel[grid](...)``.

The kernel is compiled by Triton's own front end, with the arguments' specialization that a GPU's launch would get,
up to Triton's IR; that is lowered to C++. Triton's internals are used for it as ``triton.compile`` uses them.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from linecache import getline
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attnc.codegen.native.build import _library
from attnc.runtime.ttir.lower import lower
from attnc.runtime.ttir.parse import parse
from attnc.runtime.ttir.writer import ANY, Site

ARCHITECTURE = 90  # the GPU whose specializations and IR are run: descriptors stay descriptors
_NO_MEMORY = 2


class KernelFault(RuntimeError):
    """A kernel reached outside its arguments, or failed an assertion; the message says which, and where."""


class _Launch(ctypes.Structure):
    """``Launch`` of prelude.hpp."""

    _fields_ = (
        ("arguments", ctypes.POINTER(ctypes.c_int64)),
        ("low", ctypes.POINTER(ctypes.c_int64)),
        ("high", ctypes.POINTER(ctypes.c_int64)),
        ("tensors", ctypes.c_int32),
        ("grid", ctypes.c_int32 * 3),
        ("threads", ctypes.c_int32),
        ("fault", ctypes.POINTER(ctypes.c_int64)),
        ("claimed", ctypes.c_int64),
    )


@dataclass(frozen=True, kw_only=True)
class _Compiled:
    launch: Any
    names: tuple[str, ...]
    sites: tuple[Site, ...]
    library: ctypes.CDLL


class NativeKernel:
    """Stands in for a ``triton.JITFunction``. Programs are spread over torch's number of threads."""

    def __init__(self, function: Any) -> None:
        from triton.backends.compiler import GPUTarget
        from triton.compiler.compiler import make_backend
        from triton.runtime.jit import create_function_from_signature

        self.function = function
        self._target = GPUTarget("cuda", ARCHITECTURE, 32)
        self._backend = make_backend(self._target)
        self._binder = create_function_from_signature(function.signature, function.params, self._backend)
        self._compiled: dict[str, _Compiled] = {}

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *args, **options: self.run(*args, grid=grid, **options)

    def run(self, *args: Any, grid: Any, **options: Any) -> None:
        """One launch, over when it returns. Raises KernelFault where the kernel reaches outside its arguments."""
        bound, specialization, given = self._binder(*args, **options)
        key = f"{specialization} {given}"
        if key not in self._compiled:
            self._compiled[key] = self._compile(bound, specialization, given)
        sizes = (grid(bound) if callable(grid) else grid, 1, 1)
        axes = (*sizes[0], 1, 1)[:3] if isinstance(sizes[0], tuple | list) else (sizes[0], 1, 1)
        self._launch(self._compiled[key], bound, axes)

    def ttir(self, *args: Any, **options: Any) -> str:
        """The IR that a launch with these arguments would run."""
        return self._front_end(*self._binder(*args, **options))[0]

    def source(self, *args: Any, **options: Any) -> str:
        """Its C++."""
        return lower(parse(self.ttir(*args, **options))).source

    def _front_end(self, bound: dict[str, Any], specialization: Any, given: dict[str, Any]) -> tuple[str, Any, Any]:
        from triton._C.libtriton import ir
        from triton.compiler import ASTSource

        options, signature, constants, attributes = self.function._pack_args(
            self._backend, given, bound, specialization, None
        )
        source = ASTSource(self.function, signature, constants, attributes)
        context = ir.context()
        ir.load_dialects(context)
        self._backend.load_dialects(context)
        module = source.make_ir(
            self._target,
            options,
            self._backend.get_codegen_implementation(options),
            self._backend.get_module_map(),
            context,
        )
        stages: dict[str, Any] = {}
        self._backend.add_stages(stages, options, source.language)
        return str(stages["ttir"](module, {})), signature, options

    def _compile(self, bound: dict[str, Any], specialization: Any, given: dict[str, Any]) -> _Compiled:
        text, signature, options = self._front_end(bound, specialization, given)
        lowered = lower(parse(text))
        fused = f"-ffp-contract={'fast' if options.enable_fp_fusion else 'off'}"
        wanted = shlex.split(os.environ.get("CXXFLAGS", ""))  # last: the last -O is the one that counts
        made = _library(lowered.source, fused, "-fexceptions", *wanted)  # a fault in a kernel is thrown
        names = tuple(name for name, kind in signature.items() if kind != "constexpr")
        made.launch.argtypes, made.launch.restype = (ctypes.POINTER(_Launch),), None
        return _Compiled(launch=made.launch, names=names, sites=lowered.sites, library=made)

    def _launch(self, compiled: _Compiled, bound: dict[str, Any], grid: Sequence[int]) -> None:
        parts = [(name, part) for name in compiled.names for part in _parts(bound[name])]
        names, values = [name for name, _ in parts], [part for _, part in parts]
        count = len(values)
        slots, low, high = ((ctypes.c_int64 * max(count, 1))() for _ in range(3))
        for number, value in enumerate(values):
            slots[number], (low[number], high[number]) = _slot(value), _span(value)
        fault = (ctypes.c_int64 * 6)()
        launch = _Launch(slots, low, high, count, tuple(map(int, grid)), torch.get_num_threads(), fault, 0)
        compiled.launch(launch)
        if fault[0] == _NO_MEMORY:
            raise MemoryError(f"{self.function.__name__}: no memory for a program's tiles")
        if fault[0]:
            raise KernelFault(self._message(compiled.sites, names, values, list(fault)))

    def _message(self, sites: Sequence[Site], names: Sequence[str], values: Sequence[Any], fault: Sequence[int]) -> str:
        _, number, x, y, z, address = fault
        site = sites[number]
        where = f"program ({x}, {y}, {z}), {Path(site.place.file).name}:{site.place.line}"
        if line := getline(site.place.file, site.place.line).strip():
            where += f": {line}"
        what = site.what
        if site.element:
            what += " every tensor" if site.origin == ANY else _argument(names, values, site.origin, address)
        return f"{self.function.__name__} {what}; {where}"


def _parts(value: Any) -> tuple[Any, ...]:
    """What Triton makes of an argument: of a descriptor its tensor, extents and strides."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    return (value.base, *value.shape, *value.strides) if isinstance(value, TensorDescriptor) else (value,)


def _argument(names: Sequence[str], values: Sequence[Any], number: int, address: int) -> str:
    tensor: Tensor = values[number]
    place = (address - tensor.data_ptr()) // tensor.element_size()
    shape = ", ".join(map(str, tensor.shape))
    return f" {names[number]}, {tensor.dtype} [{shape}]: element {place}"


def _slot(value: Any) -> int:
    """An argument in eight bytes: an address, an integer, the bits of a double."""
    if isinstance(value, Tensor):
        if value.device.type != "cpu":
            raise ValueError(f"backend 'ttir' runs on CPU tensors; one is on {value.device}")
        return value.data_ptr()
    if isinstance(value, float):
        return int(struct.unpack("<q", struct.pack("<d", value))[0])
    if isinstance(value, int):
        return value if value < 2**63 else value - 2**64
    raise TypeError(f"backend 'ttir': an argument of type {type(value).__name__}")


def _span(value: Any) -> tuple[int, int]:
    """Addresses from the first byte of a tensor to behind the last that its strides reach. Not of its storage: what
    lies between two views of one storage belongs to neither."""
    if not isinstance(value, Tensor) or value.numel() == 0:
        return (2**63 - 1, -(2**63))
    last = sum((extent - 1) * stride for extent, stride in zip(value.shape, value.stride(), strict=True))
    return value.data_ptr(), value.data_ptr() + (last + 1) * value.element_size()

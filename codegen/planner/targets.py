"""Machines as data: codegen/data/targets.toml, and tables of the same form that a user adds.

A target is a product (``h100``), an architecture (``sm_90``: the least of its products), ``generic`` (a kernel that
runs on every architecture from sm_80 on and on gfx942) or a processor (``avx512``)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from attnc.codegen.planner.user import user_file, user_text

Matrix = Literal["fma", "mma", "wgmma", "tcgen05", "mfma"]
DTYPES = ("f16", "bf16", "f32", "f64")
GENERIC = "generic"
# What a generic kernel has to run on, and whose rates rank its tiles: the first.
FAMILY = ("sm_89", "sm_80", "sm_90", "sm_100", "sm_120", "gfx942")


class TargetError(ValueError):
    """A target that is not known, or a table of targets with a fault; the message names file, table and key."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU. Sizes in bytes; rates per SM and clock, a multiply-add counted as one; ``tensor`` by dtype of the
    operands. ``matrix``: how Triton multiplies tiles there; ``warp_rate``: the share of that rate which a single
    warp's instruction has."""

    name: str
    architecture: str
    title: str = ""
    matrix: Matrix
    warp: int = 32
    shared_block: int
    shared_sm: int
    shared_reserved: int
    registers: int
    registers_thread: int
    warps: int
    blocks: int
    fp32: int
    special: int
    integer: int
    shared_bandwidth: int
    tensor_columns: int = 0
    tensor: Mapping[str, float]
    warp_rate: float = 1.0
    sms: int
    clock_ghz: float
    l2: int
    bandwidth_gbs: float
    memory_gib: float

    def __hash__(self) -> int:
        return hash(self.name)

    def tflops(self, dtype: str) -> float:
        """Peak of the matrix units in TFLOP/s."""
        return 2e-3 * self.tensor[dtype] * self.sms * self.clock_ghz


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """A processor: float32 lanes of a vector, multiply-add units of a core, caches in bytes (l1 and l2 of a core)."""

    name: str
    title: str = ""
    lanes: int
    fma_units: int
    cores: int
    clock_ghz: float
    l1: int
    l2: int
    l3: int
    bandwidth_gbs: float

    def tflops(self, dtype: str) -> float:
        """Peak in TFLOP/s; half precision is widened to float32, float64 has half the lanes."""
        return 2e-3 * self.lanes * self.fma_units * self.cores * self.clock_ghz / (2 if dtype == "f64" else 1)


Machine = Gpu | Cpu
_PRODUCT = ("sms", "clock_ghz", "l2", "bandwidth_gbs", "memory_gib")


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Tables of targets, merged: later files add to earlier ones and replace equal names."""

    architectures: Mapping[str, Mapping[str, Any]]
    products: Mapping[str, Gpu]
    processors: Mapping[str, Cpu]
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return (GENERIC, *self.architectures, *self.products, *self.processors)

    def find(self, name: str) -> Machine:
        """A target by name. Raises TargetError for an unknown one."""
        if name in self.products:
            return self.products[name]
        if name in self.processors:
            return self.processors[name]
        if name in self._families:
            return self._families[name]
        if name in self.architectures:
            raise TargetError(f"target {name!r}: no product of this architecture is known; add one, or name another")
        raise TargetError(f"unknown target {name!r}; known are {', '.join(self.names)}")

    @cached_property
    def _families(self) -> Mapping[str, Gpu]:
        """The least of every architecture that has a product, and of the generic family."""
        made = {
            name: _least(name, name, products)
            for name in self.architectures
            if (products := [gpu for gpu in self.products.values() if gpu.architecture == name])
        }
        return {**made, GENERIC: _least(GENERIC, GENERIC, [made[member] for member in FAMILY])}

    def members(self, name: str) -> tuple[Gpu, ...]:
        """The GPUs that a kernel for ``name`` must fit; none for a processor."""
        if name == GENERIC:
            return tuple(self._families[member] for member in FAMILY)
        found = self.find(name)
        return (found,) if isinstance(found, Gpu) else ()


def _least(name: str, architecture: str, gpus: Sequence[Gpu]) -> Gpu:
    """What all of ``gpus`` have; the kind of matrix unit is the first's."""
    numbers = {
        item.name: min(getattr(gpu, item.name) for gpu in gpus)
        for item in fields(Gpu)
        if item.type in ("int", "float") and item.name != "tensor_columns"
    }
    tensor = {dtype: min(gpu.tensor[dtype] for gpu in gpus) for dtype in DTYPES}
    titles = ", ".join(gpu.name for gpu in gpus)
    return replace(
        gpus[0], name=name, architecture=architecture, title=f"the least of {titles}", tensor=tensor, **numbers
    )


def targets(*extra: Path | str) -> Targets:
    """The built-in table, the user's own and the files given, in this order. Raises TargetError for a faulty table
    and OSError for a file that cannot be read."""
    tables = [(str(user_file()), user_text())]
    tables += [(str(path), Path(path).read_bytes().decode("utf-8", errors="replace")) for path in extra]
    return _read(*tables)


@cache
def _read(*tables: tuple[str, str]) -> Targets:
    builtin = files("attnc.codegen").joinpath("data/targets.toml").read_text(encoding="utf-8")
    found = Targets(architectures={}, products={}, processors={})
    for file, text in (("targets.toml", builtin), *tables):
        found = _merge(found, text, file)
    return found


def _merge(base: Targets, text: str, file: str) -> Targets:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TargetError(f"{file}: {error}") from error
    for table in content:
        if table not in ("architecture", "target", "cpu", "sources"):
            raise TargetError(f"{file}: [{table}] is no table of targets: architecture, target, cpu, sources are")
    architectures = {**base.architectures}
    for name, given in _tables(content, "architecture", file):
        _check(given, Gpu, f"{file}: [architecture.{name}]", without=("name", "architecture", "title", *_PRODUCT))
        architectures[name] = given
    products = {**base.products}
    for name, given in _tables(content, "target", file):
        where = f"{file}: [target.{name}]"
        known = given.get("architecture")
        if known not in architectures:
            raise TargetError(f"{where} architecture: {known!r} is not known; known are {', '.join(architectures)}")
        whole = {**architectures[known], **given}
        _check(whole, Gpu, where, without=("name",))
        products[name] = Gpu(**{**whole, "name": name, "tensor": MappingProxyType(dict(whole["tensor"]))})
    processors = {**base.processors}
    for name, given in _tables(content, "cpu", file):
        _check(given, Cpu, f"{file}: [cpu.{name}]", without=("name",))
        processors[name] = Cpu(name=name, **given)
    for name in [GENERIC, *architectures]:
        if name in products or name in processors:
            raise TargetError(f"{file}: {name!r} names an architecture: choose another name for the target")
    return Targets(
        architectures=architectures,
        products=products,
        processors=processors,
        sources={**base.sources, **content.get("sources", {})},
    )


def _tables(content: Mapping[str, Any], kind: str, file: str) -> list[tuple[str, dict[str, Any]]]:
    found = content.get(kind, {})
    for name, given in found.items() if isinstance(found, dict) else [(kind, found)]:
        if not isinstance(given, dict):
            raise TargetError(f"{file}: write [{kind}.NAME], with a name for each: {name!r} is no table")
    return list(found.items())


def _check(given: Mapping[str, Any], into: type[Gpu] | type[Cpu], where: str, *, without: tuple[str, ...]) -> None:
    """Every key is known, none is missing, every value is of its kind."""
    wanted = {item.name: item for item in fields(into) if item.name not in without}
    for key, value in given.items():
        if key not in wanted:
            raise TargetError(f"{where}: `{key}` is not known; known are {', '.join(wanted)}")
        if fault := _fault(key, value, str(wanted[key].type)):
            raise TargetError(f"{where}: `{key}` {fault}, not {value!r}")
    missing = [name for name, item in wanted.items() if name not in given and item.default is MISSING]
    if missing:
        raise TargetError(f"{where} lacks {', '.join(f'`{name}`' for name in missing)}")


def _fault(key: str, value: object, kind: str) -> str | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match kind:
        case "int":
            least = 0 if key in ("shared_reserved", "tensor_columns") else 1
            whole = isinstance(value, int) and not isinstance(value, bool)
            return None if whole and isinstance(value, int) and value >= least else "is a whole number, positive"
        case "float":
            return None if number and value > 0 else "is a positive number"  # type: ignore[operator]
        case "Matrix":
            return None if value in get_args(Matrix) else f"is one of {', '.join(get_args(Matrix))}"
        case "str":
            return None if isinstance(value, str) else "is text"
        case _:
            rates = isinstance(value, dict) and set(value) == set(DTYPES)
            fine = rates and all(isinstance(rate, int | float) and rate > 0 for rate in value.values())  # type: ignore[attr-defined]
            return None if fine else f"gives a positive rate for each of {', '.join(DTYPES)}"

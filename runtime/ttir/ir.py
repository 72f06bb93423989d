"""Triton's IR as a small typed SSA: what ``parse`` makes of its text, and ``lower`` prints as C++."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


class Unsupported(NotImplementedError):
    """A kernel uses an operation that this executor does not know; the message names it and its line."""


@dataclass(frozen=True)
class Place:
    """A line of the kernel's source."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


UNKNOWN = Place("<unknown>", 0)


@dataclass(frozen=True)
class Type:
    """A scalar, a tensor, or a descriptor of tensors. ``element``: i1, i32, f32, bf16, ...; ``*`` before it for a
    pointer. ``shape`` is empty for scalars; ``described`` marks a descriptor, whose blocks have ``shape``."""

    element: str
    shape: tuple[int, ...] = ()
    described: bool = False

    @property
    def is_pointer(self) -> bool:
        return self.element.startswith("*")

    @property
    def is_float(self) -> bool:
        return self.element.startswith(("f", "bf"))

    @property
    def size(self) -> int:
        """Elements."""
        total = 1
        for extent in self.shape:
            total *= extent
        return total

    def of(self, element: str) -> Type:
        """Another element, the same shape."""
        return Type(element, self.shape)

    def __str__(self) -> str:
        return "x".join((*map(str, self.shape), self.element))


@dataclass(frozen=True, kw_only=True)
class Op:
    """One operation. ``words`` are the bare words and numbers of its text (a predicate, an axis), ``types`` what is
    printed of its operands' types, ``returns`` its results' types."""

    name: str
    results: tuple[str, ...] = ()
    operands: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    strings: tuple[str, ...] = ()
    symbol: str = ""
    types: tuple[Type, ...] = ()
    returns: tuple[Type, ...] = ()
    regions: tuple[Block, ...] = ()
    place: Place = UNKNOWN


@dataclass(frozen=True, kw_only=True)
class Block:
    """A region of one block: arguments and operations, the last of them its terminator."""

    arguments: tuple[tuple[str, Type], ...] = ()
    ops: tuple[Op, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Function:
    """A function of a module. The public one is the kernel."""

    name: str
    public: bool
    body: Block
    returns: tuple[Type, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Module:
    """The functions of one compiled kernel, helpers that are not inlined among them."""

    functions: tuple[Function, ...]

    @property
    def kernel(self) -> Function:
        return next(function for function in self.functions if function.public)

"""Values of a kernel and the C++ text that computes them.

A tensor is either *stored*, an array in the program's frame, or *lazy*: an expression of one element's indices,
written into the loops of whoever reads it. Pointers, masks and casts are lazy and so cost no memory; what is
expensive or read often is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from attnc.runtime.ttir.ir import Place, Type
from attnc.runtime.ttir.scalars import c_type

Index = tuple[str, ...]
ANY = -1  # the origin of a pointer that may come from any argument


@dataclass(eq=False, kw_only=True)
class Value:
    """One SSA value. ``read`` gives the expression of an element, ``cost`` what it takes against an addition;
    ``array`` names the frame's array where there is one; ``origin`` is the argument that a pointer points into."""

    type: Type
    read: Callable[[Index], str]
    cost: int = 0
    array: str = ""
    origin: int = ANY
    described: Described | None = None


@dataclass(frozen=True, kw_only=True)
class Described:
    """A tensor descriptor: scalars by their C++ names."""

    base: Value
    extents: tuple[str, ...]
    strides: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where a program may stop: what it does there, and to which argument (-1: not known)."""

    what: str
    place: Place
    origin: int
    element: str = ""


@dataclass(kw_only=True)
class Writer:
    """The text of one function. Names are never used twice in it."""

    lines: list[str] = field(default_factory=list)
    fields: list[str] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)
    serial: bool = False
    _depth: int = 1
    _names: int = 0
    _known: dict[tuple[int, Index], str] = field(default_factory=dict)
    _kept: list[Value] = field(default_factory=list)
    _stored: list[tuple[Value, Callable[[Index], str], int]] = field(default_factory=list)

    def put(self, line: str) -> None:
        self.lines.append("  " * self._depth + line)

    def name(self, stem: str) -> str:
        self._names += 1
        return f"{stem}_{self._names}"

    @contextmanager
    def scope(self, opening: str, closing: str = "}") -> Iterator[None]:
        """Lines between an opening and a closing one. What is known inside is forgotten behind, where it may not have
        been computed: elements have no names there, and what was stored inside is lazy again."""
        self.put(opening)
        known, self._known = self._known, dict(self._known)
        stored, self._stored = self._stored, []
        self._depth += 1
        yield
        self._depth -= 1
        for value, read, cost in self._stored:
            value.read, value.array, value.cost = read, "", cost
        self._known, self._stored = known, stored
        self.put(closing)

    @contextmanager
    def loops(self, shape: Sequence[int]) -> Iterator[Index]:
        """A loop an axis; no loop over an axis of one element, none at all for a scalar."""
        index = tuple("0" if extent == 1 else self.name("i") for extent in shape)
        header = " ".join(
            f"for (int {at} = 0; {at} < {extent}; {at}++)"
            for at, extent in zip(index, shape, strict=True)
            if extent > 1
        )
        with self.scope(f"{header} {{".lstrip()):
            yield index

    def site(self, what: str, place: Place, origin: int, element: str = "") -> int:
        self.sites.append(Site(what=what, place=place, origin=origin, element=element))
        return len(self.sites) - 1

    def scalar(self, kind: Type, text: str, stem: str, origin: int = ANY) -> Value:
        """A scalar, computed here."""
        name = self.name(stem)
        self.put(f"{c_type(kind.element)} const {name} = {text};")
        return named(kind, name, origin)

    def lazy(self, kind: Type, form: Callable[[Index], str], cost: int, origin: int = ANY) -> Value:
        """A tensor whose elements are computed where they are read, once in the loops that read them."""

        def read(index: Index) -> str:
            key = (id(value), index)
            if key not in self._known:
                text = form(index)
                self._known[key] = self.name("x")
                self.put(f"{c_type(kind.element)} const {self._known[key]} = {text};")
            return self._known[key]

        value = Value(type=kind, read=read, cost=cost, origin=origin)
        self._kept.append(value)  # for as long as its id is a key
        return value

    def alias(self, kind: Type, value: Value, moved: Callable[[Index], Index]) -> Value:
        """The elements of another value under other indices."""
        return Value(type=kind, read=lambda index: value.read(moved(index)), cost=value.cost, origin=value.origin)

    def new_array(self, kind: Type, stem: str) -> Value:
        """An array of the frame, not filled yet."""
        name = self.name(stem)
        self.fields.append(f"alignas(64) {c_type(kind.element)} {name}[{max(kind.size, 1)}];")
        return array(kind, f"F->{name}")

    def store(self, value: Value, stem: str = "t") -> Value:
        """The value, an array from here to the end of the scope."""
        if value.array or not value.type.shape or value.described:
            return value
        made = self.new_array(value.type, stem)
        self.fill(made, value)
        self._stored.append((value, value.read, value.cost))
        value.read, value.array, value.cost = made.read, made.array, 0
        return value

    def fill(self, target: Value, value: Value) -> None:
        """Every element of an array."""
        with self.loops(value.type.shape) as index:
            self.put(f"{target.read(index)} = {value.read(index)};")


def named(kind: Type, name: str, origin: int = ANY) -> Value:
    """A scalar that has a name."""
    return Value(type=kind, read=lambda index: name, origin=origin)


def array(kind: Type, name: str) -> Value:
    """A stored tensor, row-major."""
    return Value(type=kind, read=lambda index: f"{name}[{linear(kind.shape, index)}]", array=name)


def linear(shape: Sequence[int], index: Index) -> str:
    """The place of an element in row-major order."""
    text, stride = [], 1
    for extent, at in zip(reversed(shape), reversed(index), strict=True):
        if at != "0":
            text.append(at if stride == 1 else f"{at} * {stride}")
        stride *= extent
    return " + ".join(reversed(text)) or "0"


def unraveled(shape: Sequence[int], place: str) -> Index:
    """The indices of the element at a place in row-major order."""
    found, stride = [], 1
    for extent in reversed(shape):
        found.append("0" if extent == 1 else f"(({place}) / {stride} % {extent})")
        stride *= extent
    return tuple(reversed(found))

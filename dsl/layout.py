"""The ``kv`` clause: layouts and storage types with their arguments."""

from __future__ import annotations

from typing import Literal, TypeVar, get_args

from attnc.dsl import syntax
from attnc.dsl.construct import Layout
from attnc.dsl.report import Report, near

T = TypeVar("T", bound=str)
LayoutKind = Literal["contiguous", "packed", "paged", "latent"]
Storage = Literal["int8", "int4", "fp8"]

# Each argument: an int (None), or one of these words.
_ARGUMENTS: dict[str, dict[str, tuple[str, ...] | None]] = {
    "contiguous": {}, "packed": {}, "paged": {"page": None}, "latent": {},
    "int8": {"per": ("token", "channel")}, "int4": {"group": None}, "fp8": {},
}  # fmt: skip


def layout(clause: syntax.KvClause, report: Report) -> Layout | None:
    """The layout that a clause names; None after a fault."""
    kind: LayoutKind | None = _known(clause.layout, get_args(LayoutKind), "layout", report)
    storage: Storage | None = None
    if clause.storage is not None:
        storage = _known(clause.storage, get_args(Storage), "storage type", report)
    args = _arguments(clause.layout, clause.layout_args, report) if kind is not None else None
    storage_args: tuple[tuple[str, int | str], ...] | None = ()
    if clause.storage is not None:
        storage_args = _arguments(clause.storage, clause.storage_args, report) if storage is not None else None
    if kind is None or args is None or storage_args is None:
        return None
    return Layout(kind=kind, args=args, storage=storage, storage_args=storage_args, span=clause.span)


def _known(name: syntax.Name, known: tuple[T, ...], what: str, report: Report) -> T | None:
    for word in known:
        if word == name.text:
            return word
    help = near(name.text, known) or f"one of {', '.join(known)}"
    report.fault("A408", f"no {what} is called `{name.text}`", name.span, help=help)
    return None


def _arguments(
    name: syntax.Name, given: tuple[syntax.Argument, ...], report: Report
) -> tuple[tuple[str, int | str], ...] | None:
    wanted = _ARGUMENTS[name.text]
    form = ", ".join(f"{key} = {' | '.join(words) if words else '16'}" for key, words in wanted.items())
    help = f"write `{name.text}({form})`" if form else f"write `{name.text}`"
    found: dict[str, int | str] = {}
    for argument in given:
        key = argument.name.text if argument.name is not None else None
        if key not in wanted or key in found:
            report.fault("A408", f"`{name.text}` takes no such argument", argument.span, help=help)
            return None
        words = wanted[key]
        match argument.value:
            case syntax.Ref(name=word) if words is not None and word in words:
                found[key] = word
            case syntax.Number(value=int(number)) if words is None and 1 <= number < 2**31:
                found[key] = number
            case _:
                report.fault("A408", f"`{key}` has another value", argument.value.span, help=help)
                return None
    if len(found) < len(wanted):
        report.fault("A408", f"`{name.text}` lacks an argument", name.span, help=help)
        return None
    return tuple(sorted(found.items()))

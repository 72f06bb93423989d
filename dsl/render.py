"""Diagnostics as text: for people (full, concise), for programs (json) and for GitHub's annotations."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from typing import Literal, assert_never

from attnc.dsl.diagnostics import Diagnostic, Severity
from attnc.dsl.source import Source

Style = Literal["full", "concise", "json", "github"]

WIDTH = 100  # characters of a source line that are shown
_LEAD = 30  # of them before the span, where the line is longer

_RESET, _BOLD, _RED, _YELLOW, _BLUE, _CYAN = (
    "\x1b[0m",
    "\x1b[1m",
    "\x1b[1;31m",
    "\x1b[1;33m",
    "\x1b[1;34m",
    "\x1b[1;36m",
)


def render(source: Source, diagnostics: Sequence[Diagnostic], *, style: Style = "full", color: bool = False) -> str:
    """The diagnostics of one source. ``full``: as rustc writes them, a blank line between two; ``concise`` and
    ``github``: a line each; ``json``: one array. Whatever the text holds, the result can be encoded and shown."""
    match style:
        case "full":
            return "\n".join(_full(source, item, _Paint(on=color)) for item in diagnostics)
        case "concise":
            return "".join(_concise(source, item, _Paint(on=color)) for item in diagnostics)
        case "json":
            return json.dumps([_fields(source, item) for item in diagnostics], indent=2) + "\n"
        case "github":
            return "".join(_annotation(source, item) for item in diagnostics)
        case _:
            assert_never(style)


def visible(text: str) -> str:
    """The text with every character that a terminal or an encoder would act on or refuse shown as U+FFFD,
    a tab as four spaces. Direction marks are among them: they could reorder what is read."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_cell(char) for char in text)


class _Paint:
    """Colours a piece of text, or leaves it."""

    def __init__(self, *, on: bool) -> None:
        self.on = on

    def __call__(self, style: str, text: str) -> str:
        return f"{style}{text}{_RESET}" if self.on and text else text

    def severity(self, severity: Severity, text: str) -> str:
        return self(_RED if severity is Severity.ERROR else _YELLOW, text)


def _full(source: Source, item: Diagnostic, paint: _Paint) -> str:
    first, column = source.position(item.span.start)
    last, _ = source.position(max(item.span.start, item.span.end - 1))
    gutter = " " * len(str(last))
    bar = paint(_BLUE, "|")
    head = paint.severity(item.severity, f"{item.severity}[{item.code}]")
    lines = [
        f"{head}{paint(_BOLD, ': ' + visible(item.message))}",
        f"{gutter}{paint(_BLUE, '-->')} {visible(source.name)}:{first}:{column}",
        f"{gutter} {bar}",
    ]
    shown = [first] if first == last else [first, last]
    for number in shown:
        if number == last and last > first + 1:
            lines.append(paint(_BLUE, "..."))
        text, carets = _underlined(source, item, number)
        label = f" {visible(item.label)}" if item.label and number == last else ""
        lines.append(f"{paint(_BLUE, str(number).rjust(len(gutter)))} {bar} {text}".rstrip())
        lines.append(f"{gutter} {bar} {' ' * carets.start}{paint.severity(item.severity, '^' * len(carets) + label)}")
    if item.help:
        lines.append(f"{gutter} {bar}")
        lines.append(f"{gutter} {paint(_BLUE, '=')} {paint(_CYAN, 'help')}: {visible(item.help)}")
    return "\n".join(lines) + "\n"


def _underlined(source: Source, item: Diagnostic, number: int) -> tuple[str, range]:
    """A line as shown, cropped around the span if it is long, and the columns to underline, from 0."""
    line = source.line(number)
    start_line, start_column = source.position(item.span.start)
    end_line, end_column = source.position(item.span.end)
    start = start_column - 1 if number == start_line else len(line) - len(line.lstrip())
    end = end_column - 1 if number == end_line else len(line.rstrip())
    if len(line) > WIDTH:
        begin = max(0, min(start - _LEAD, len(line) - WIDTH))
        left = "…" if begin > 0 else ""
        right = "…" if begin + WIDTH < len(line) else ""
        line = left + line[begin : begin + WIDTH] + right
        start, end = start - begin + len(left), end - begin + len(left)
    start = min(start, len(line))
    end = max(start, min(end, len(line)))
    before, under = _width(line[:start]), _width(line[start:end])
    return visible(line), range(before, before + max(1, under))


def _cell(char: str) -> str:
    if char == "\t":
        return "    "
    return char if char.isprintable() or unicodedata.category(char) == "Zs" else "\ufffd"


def _width(text: str) -> int:
    """The terminal columns that a visible text takes."""
    if text.isascii() and text.isprintable():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF") for char in visible(text)
    )


def _concise(source: Source, item: Diagnostic, paint: _Paint) -> str:
    line, column = source.position(item.span.start)
    code = paint.severity(item.severity, f"{item.severity}[{item.code}]")
    help = f" (help: {visible(item.help)})" if item.help else ""
    return f"{visible(source.name)}:{line}:{column}: {code}: {visible(item.message)}{help}\n"


def _fields(source: Source, item: Diagnostic) -> dict[str, object]:
    """Lines and columns count from 1, ``offset`` from 0; the end is exclusive."""
    places: dict[str, object] = {}
    for end, offset in (("start", item.span.start), ("end", item.span.end)):
        line, column = source.position(offset)
        places[end] = {"line": line, "column": column, "offset": offset}
    return {
        "code": item.code,
        "severity": str(item.severity),
        "message": item.message,
        "label": item.label or None,
        "help": item.help or None,
        "file": source.name,
        **places,
    }


def _annotation(source: Source, item: Diagnostic) -> str:
    """https://docs.github.com/actions: workflow commands; a property escapes more than the message does."""
    line, column = source.position(item.span.start)
    end_line, end_column = source.position(item.span.end)
    properties = {
        "file": source.name,
        "line": str(line),
        "col": str(column),
        "endLine": str(end_line),
        "endColumn": str(end_column),
        "title": f"attnc {item.code}",
    }
    given = ",".join(f"{name}={_escaped(value, also=':,')}" for name, value in properties.items())
    text = item.message + (f"\nhelp: {item.help}" if item.help else "")
    return f"::{item.severity} {given}::{_escaped(text)}\n"


def _escaped(text: str, also: str = "") -> str:
    marks = "%\r\n" + also
    escaped = "".join(f"%{ord(char):02X}" if char in marks else char for char in text)
    return visible(escaped)

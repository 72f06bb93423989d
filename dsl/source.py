"""A source text and places in it."""

from __future__ import annotations

import errno
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

LARGEST_FILE = 16 * 2**20  # bytes, blanks and comments included; what reads a device has to stop somewhere


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """Characters ``start <= c < end`` of a source text; zero-width at end of file."""

    start: int
    end: int

    def to(self, other: Span) -> Span:
        """The smallest span that covers both."""
        return Span(start=min(self.start, other.start), end=max(self.end, other.end))


@dataclass(frozen=True, kw_only=True)
class Source:
    """A named text. ``name`` is a path, ``-`` for standard input or ``<text>`` for a string."""

    name: str
    text: str

    @cached_property
    def _starts(self) -> list[int]:
        starts = [0]
        starts += [at + 1 for at, char in enumerate(self.text) if char == "\n"]
        return starts

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of a character, both from 1."""
        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def line(self, number: int) -> str:
        """The text of a line, numbered from 1, without its end."""
        start = self._starts[number - 1]
        stop = self._starts[number] - 1 if number < len(self._starts) else len(self.text)
        return self.text[start:stop].rstrip("\r")


def read_source(path: str | Path, content: bytes | None = None) -> Source:
    """A file's text, from ``content`` where that is at hand: a byte order mark is dropped, line ends become ``\\n``.
    Bytes that are not UTF-8 are kept as lone surrogates, for ``parse`` to fault at their place. OSError for a file
    that cannot be read, or has more than ``LARGEST_FILE`` bytes."""
    if content is None:
        with open(path, "rb") as stream:
            content = stream.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise OSError(errno.EFBIG, f"more than {LARGEST_FILE >> 20} MiB, which no spec has", str(path))
    text = content.decode("utf-8", errors="surrogateescape").removeprefix("\ufeff")
    return Source(name=str(path), text=text.replace("\r\n", "\n").replace("\r", "\n"))

"""What the commands share: exit statuses, the files at hand, how faults are printed."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TextIO

from attnc.dsl.diagnostics import Diagnostic, Severity
from attnc.files import read

if TYPE_CHECKING:
    from attnc.dsl.source import Source

CLEAN, FAULTS, USAGE, INTERNAL, INTERRUPTED = 0, 1, 2, 101, 130


class Refused(Exception):
    """A command that cannot be carried out as it was given."""


def folder_is_free(path: str) -> None:
    """Refused, where something is at ``path`` that is no empty folder."""
    if os.path.exists(path) and not (os.path.isdir(path) and not os.listdir(path)):
        raise Refused(f"-o {path} is there already: one file a kernel is written to a new folder, or an empty one")


@dataclass(kw_only=True)
class Inputs:
    """Reads specs, and remembers the last: if attnc itself fails, that is what it failed on."""

    path: str = ""
    content: bytes = field(default=b"", repr=False)

    def source(self, path: str) -> Source:
        from attnc.dsl.source import LARGEST_FILE, read_source

        self.path, self.content = path, read(path, LARGEST_FILE + 1)
        return read_source(path, self.content)


def io_fault(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename is not None else str(error)


Report = tuple["Source", tuple[Diagnostic, ...]]


def report(reports: Sequence[Report], options: argparse.Namespace, stream: TextIO) -> None:
    """Print diagnostics in the format asked for; json is one array whatever the number of files."""
    from attnc.dsl.render import render

    texts = [render(source, found, style=options.format, color=_colored(options, stream)) for source, found in reports]
    if options.format == "json":
        json.dump([item for text in texts for item in json.loads(text)], stream, indent=2)
        stream.write("\n")
    else:
        between = "\n\n" if options.format == "full" else "\n"
        stream.write(between.join(text.removesuffix("\n") for text in texts) + "\n")


def _colored(options: argparse.Namespace, stream: TextIO) -> bool:
    if options.color == "auto":
        return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return bool(options.color == "always")


def denied(found: Iterable[Diagnostic], options: argparse.Namespace) -> tuple[Diagnostic, ...]:
    """Under ``--deny warnings`` a warning is a fault."""
    if options.deny is None:
        return tuple(found)
    return tuple(replace(item, severity=Severity.ERROR) for item in found)


def faulty(found: Iterable[Diagnostic]) -> bool:
    return any(item.severity is Severity.ERROR for item in found)


def draw_bar(done: int, steps: int, text: str) -> None:
    """A progress bar on standard error, a terminal's, over the last one; without a text that one goes."""
    filled = 30 * done // steps
    line = f"{'█' * filled}{'░' * (30 - filled)} {text}" if text else ""
    print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")

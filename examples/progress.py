"""A line of progress on standard error."""

from __future__ import annotations

import sys

WIDTH = 30


class Progress:
    """A bar, a count and a note: on a terminal drawn over the last one, elsewhere a line each tenth of the way."""

    def __init__(self, title: str, total: int) -> None:
        self.title = title
        self.total = total
        self.done = 0

    def advance(self, note: str) -> None:
        """One more is done."""
        self.done += 1
        filled = WIDTH * self.done // self.total
        line = f"{self.title} {'█' * filled}{'░' * (WIDTH - filled)} {self.done}/{self.total}  {note}"
        if sys.stderr.isatty():
            print(f"\r{line}\033[K", end="\n" if self.done == self.total else "", file=sys.stderr, flush=True)
        elif self.done * 10 // self.total > (self.done - 1) * 10 // self.total:
            print(line, file=sys.stderr)

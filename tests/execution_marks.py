"""Marks in generated text: which lines are of which branch of a template, and which of them C++ executed.

    python -P -m tests.execution_marks WORDS ...     in place of the compiler, for ``tests.execution_templates``

Of the standard library alone: this is a process for every library that is built."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

MARK = re.compile("\ue000(\\d+)\ue001|\ue002(\\d+)\ue003")
Span = tuple[int, int, int]  # a branch, its first and its last line


def stripped(text: str) -> tuple[str, list[Span]]:
    """The text without marks, and the lines that each pair of them encloses."""
    made: list[str] = []
    open_: dict[int, list[int]] = defaultdict(list)
    spans: list[Span] = []
    at, line, fresh = 0, 1, True  # fresh: nothing stands on this line yet
    for mark in MARK.finditer(text):
        piece = text[at : mark.start()]
        made.append(piece)
        line += piece.count("\n")
        fresh = piece.endswith("\n") if piece else fresh
        at = mark.end()
        if mark[1]:
            open_[int(mark[1])].append(line)
        elif first := open_[int(mark[2])]:
            spans.append((int(mark[2]), first[-1], max(first.pop(), line - fresh)))
    return "".join([*made, text[at:]]), spans


def executed(spans: Sequence[Span], code: set[int], run: set[int]) -> Iterator[int]:
    """The branches that ran, of those that lines with code and lines that ran are known of."""
    for branch, first, last in spans:
        inside = [line for line in range(first, last + 1) if line in code]
        if not inside:
            before, after = [line for line in code if line < first], [line for line in code if line > last]
            inside = [max(before, default=0), min(after, default=0)]
        if any(line in run for line in inside):
            yield branch


def compiler(words: list[str]) -> int:
    """In place of the compiler: without marks, with counters, unoptimized; the marks' lines beside the objects."""
    sources = [Path(word) for word in words if word.endswith(".cpp")]
    if not sources or "-o" not in words:
        return subprocess.run(["c++", *words], check=False).returncode
    (source,) = sources
    folder = Path(tempfile.mkdtemp(dir=os.environ["ATTNC_COVERAGE"]))
    text, spans = stripped(source.read_text(encoding="utf-8"))
    (folder / "kernel.cpp").write_text(text, encoding="utf-8")
    (folder / "spans.json").write_text(json.dumps(spans))
    target = words[words.index("-o") + 1]
    rest = [word for word in words if word not in ("-o", target, str(source), "-shared")]
    one = ["c++", *rest, "-O0", "--coverage", "-c", str(folder / "kernel.cpp"), "-o", str(folder / "kernel.o")]
    two = ["c++", "-shared", "-pthread", "--coverage", str(folder / "kernel.o"), "-o", target]
    return subprocess.run(one, check=False).returncode or subprocess.run(two, check=False).returncode


def counted(folder: Path) -> set[int]:
    """The branches that C++ executed, of all libraries that were loaded."""
    made: set[int] = set()
    for data in folder.glob("*/kernel.gcda"):
        command = ["gcov", "--json-format", "--stdout", data.name]
        said = subprocess.run(command, cwd=data.parent, capture_output=True, check=True, text=True).stdout
        counts: dict[int, int] = defaultdict(int)
        for file in json.loads(said)["files"]:
            if file["file"].endswith("kernel.cpp"):
                for item in file["lines"]:
                    counts[item["line_number"]] += item["count"]
        spans = json.loads((data.parent / "spans.json").read_text())
        made |= set(executed(spans, set(counts), {line for line, count in counts.items() if count}))
    return made


if __name__ == "__main__":
    sys.exit(compiler(sys.argv[1:]))

"""Which branches of the templates are executed, not rendered alone.

    nice python -P -m tests.execution_templates [causal longformer ...]

The marks of ``tests.coverage_templates`` print a character of no language at both ends of every branch. They are taken
out of a module before it runs, and out of its C++ text by a compiler that stands before the real one; what they enclose
is known as lines from then on. Calls of specs (all of the zoo, and the rare ones, if none is named), forward and
backward, run on ``eager`` and ``native``, and ``interpret`` for kernels of GPUs; a tracer counts lines of Python, gcov
those of C++. A branch is executed if a line within it is. One that holds no line with code (nothing, a part of a
statement, a declaration) is executed with the line before or behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from jinja2 import Environment, nodes

from tests.coverage_templates import RARE, ROOT, Branch, Coverage

ZOO = ROOT / "examples" / "zoo"
MARK = re.compile("\ue000(\\d+)\ue001|\ue002(\\d+)\ue003")
_CPP = re.compile('r"""(.*?)"""', re.DOTALL)
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


def lines(code: CodeType) -> set[int]:
    """The lines that have code, but for those of definitions alone."""
    found = {line for _, _, line in code.co_lines() if line}
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            found |= lines(inner) - {inner.co_firstlineno}
    return found


class Marking(Coverage):
    """Numbers branches, and prints a mark where one begins and one where it ends. A choice ``{{ x if y else z }}`` that
    is printed at once has both in its text; of others nothing is known but that they were rendered."""

    def __init__(self, made: Environment) -> None:
        self.numbers: dict[Branch, int] = {}
        self.unknown: set[Branch] = set()
        made.globals |= {"_begin": self._begin, "_end": self._end, "_whole": self._whole}
        super().__init__(made)

    def _number(self, *branch: Any) -> int:
        return self.numbers.setdefault(branch, len(self.numbers))

    def _begin(self, *branch: Any) -> str:
        return f"\ue000{self._number(*branch)}\ue001"

    def _end(self, *branch: Any) -> str:
        return f"\ue002{self._number(*branch)}\ue003"

    def _whole(self, *branch: Any) -> str:
        *branch, value = branch
        return f"{self._begin(*branch)}{value}{self._end(*branch)}"

    def _enclose(self, body: list[nodes.Node], mark: nodes.Call) -> None:
        super()._enclose(body, mark)
        body.insert(1, nodes.Output([_renamed(mark, "_begin")]))
        body.append(nodes.Output([_renamed(mark, "_end")]))

    def _marked(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._marked(source, name, filename)
        printed = {id(x) for output in tree.find_all(nodes.Output) for x in output.nodes}
        for choice in tree.find_all(nodes.CondExpr):
            for side in ("expr1", "expr2"):
                mark = getattr(choice, side)
                if id(choice) in printed:
                    whole = _renamed(mark, "_whole")
                    whole.args = [*mark.args[:3], mark]
                    setattr(choice, side, whole)
                else:
                    self.unknown.add(tuple(x.value for x in mark.args[:3]))
        made = tree.set_environment(self.environment)
        assert isinstance(made, nodes.Template)
        return made


def _renamed(mark: nodes.Call, name: str) -> nodes.Call:
    made = nodes.Call(nodes.Name(name, "load"), list(mark.args), [], None, None)
    return made.set_lineno(mark.lineno, override=True)  # type: ignore[return-value]


# --- one process: what it renders and runs --------------------------------------------------------


class Execution:
    """Marks of the modules of this process, and the lines of them that run."""

    def __init__(self) -> None:
        from attnc.codegen import pipeline
        from attnc.codegen.environment import environment

        self.marking = Marking(environment())
        self.spans: dict[str, list[Span]] = {}  # by a module's text
        self.run: dict[str, set[int]] = defaultdict(set)  # by file
        self.files: dict[str, str] = {}  # texts by file
        self._plain = pipeline.compile
        pipeline.compile = self._compile  # type: ignore[assignment]
        sys.settrace(self._called)
        threading.settrace(self._called)

    def _compile(self, *args: Any, **options: Any) -> str:
        """The module without the marks of its Python, with those in its C++ text."""
        made = self._plain(*args, **options)
        kept: list[str] = []

        def aside(match: re.Match[str]) -> str:
            kept.append(match[0])
            return f"\ue004{len(kept) - 1}\ue005" + "\n" * match[0].count("\n")

        text, spans = stripped(_CPP.sub(aside, made.rstrip("\n")))
        text = text.rstrip("\n") + "\n"  # a mark at the end kept what the emitter takes off
        for number, whole in enumerate(kept):
            text = text.replace(f"\ue004{number}\ue005" + "\n" * whole.count("\n"), whole)
        self.spans[text] = spans
        return text

    def _called(self, frame: FrameType, event: str, argument: object) -> Any:
        name = frame.f_code.co_filename
        if name not in self.files:
            entry = getattr(frame.f_globals.get("__loader__"), "entry", None)
            self.files[name] = entry.text if entry is not None and entry.filename == name else ""
        if self.files[name] not in self.spans:
            return None
        run = self.run[name]

        def traced(frame: FrameType, event: str, argument: object) -> Any:
            run.add(frame.f_lineno)
            return traced

        return traced

    def found(self) -> set[int]:
        made: set[int] = set()
        for name, run in self.run.items():
            text = self.files[name]
            made |= set(executed(self.spans[text], lines(compile(text, name, "exec")), run))
        return made


def work(backends: Sequence[str], names: Sequence[str], folder: Path) -> None:
    """Make calls, and write down what they executed of Python, and the names of branches."""
    from attnc.dsl.frontend import compilable
    from attnc.dsl.source import Source
    from attnc.runtime.op import Op
    from attnc.testing.call import outcome
    from attnc.testing.kernels import Request, arguments, pool

    execution = Execution()
    texts = {name: (ZOO / f"{name}.attn").read_text(encoding="utf-8") for name in names if not name.startswith("rare")}
    texts |= {
        f"rare{n}": f"attention rare {{ {body} }}" for n, body in enumerate(RARE) if not names or f"rare{n}" in names
    }
    if not names:
        texts |= {path.stem: path.read_text(encoding="utf-8") for path in sorted(ZOO.glob("*.attn"))}
    import torch

    for number, (name, text) in enumerate(texts.items()):
        source = Source(name="<text>", text=text)

        def load(params: Any, source: Source = source) -> Op:
            op = Op(source, name=None, params=params, target=None)
            compilable(op.construct)
            return op

        try:
            dtypes = [(torch.float32, torch.bfloat16)[number % 2]]
            made = pool(load, load({}).construct.params, {}, count=1, seed=0, dtypes=dtypes, dims=(8, 16))
        except ValueError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        for kernels in made:
            heads = kernels.heads or 2
            for backend in backends:
                small = backend == "interpret"
                for request in (
                    Request(B=1, G=1, H=heads, N=20 if small else 90, M=24 if small else 150),
                    Request(B=2, G=1, H=heads, N=3, M=24 if small else 300, q_offset=(4, 9), layout="BNHD"),
                ):
                    outcome(arguments(kernels, request), backend)
        print(f"{'+'.join(backends)}: {name}", file=sys.stderr, flush=True)
    sys.settrace(None)
    said = {"numbers": [list(x) for x in execution.marking.numbers], "executed": sorted(execution.found())}
    said["rendered"] = [list(x) for x, count in execution.marking.hits.items() if count]
    said["unknown"] = [list(x) for x in execution.marking.unknown]
    (folder / f"{'-'.join(backends)}.json").write_text(json.dumps(said))


# --- C++ ----------------------------------------------------------------------------------------


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


def main() -> int:
    if sys.argv[1:2] == ["--compiler"]:
        return compiler(sys.argv[2:])
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[3].split(","), sys.argv[4:], Path(sys.argv[2]))
        return 0
    names = sys.argv[1:]
    total: set[Branch] = set()
    every: set[Branch] = set()
    rendered: set[Branch] = set()
    for backends in ("eager,native", "interpret"):
        with tempfile.TemporaryDirectory() as room:
            folder = Path(room)
            stand_in = folder / "cxx"
            stand_in.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m tests.execution_templates --compiler "$@"\n')
            stand_in.chmod(0o755)
            environment = os.environ | {
                "CXX": str(stand_in), "ATTNC_COVERAGE": room, "ATTNC_CACHE_DIR": str(folder / "cache"),
                "TRITON_INTERPRET": "1" if backends == "interpret" else "0",
            }  # fmt: skip
            command = [sys.executable, "-P", "-m", "tests.execution_templates", "--work", room, backends, *names]
            subprocess.run(command, env=environment, check=True)
            said = json.loads((folder / f"{backends.replace(',', '-')}.json").read_text())
            numbers = [tuple(x) for x in said["numbers"]]
            total |= {numbers[n] for n in {*said["executed"], *counted(folder)}}
            rendered |= {tuple(x) for x in said["rendered"]}
            every |= rendered - {tuple(x) for x in said["unknown"]}
    for branch in sorted(every - total):
        print(f"{branch[0]} line {branch[1]}: {branch[2]}")
    unknown = len(rendered - every)
    print(f"{len(total)} of {len(every)} rendered branches are executed; of {unknown} more it is not known")
    return 0


if __name__ == "__main__":
    sys.exit(main())

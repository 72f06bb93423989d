"""The command line: ``attnc check | fmt | compile | plan | show | explain | env | clean | version``.

Results go to standard output, all else to standard error. Exit status: 0 clean, 1 faults in a spec or a difference
under ``--check``, 2 a wrong command line or a file that cannot be read or written, 101 a fault in attnc itself.

Every command imports what it needs when it runs: the compiler is used where torch is not installed, and checking a
file should not wait for torch where it is.
"""

from __future__ import annotations

import argparse
import difflib
import io
import json
import os
import platform
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from attnc.dsl.diagnostics import Diagnostic, Severity, SpecError
from attnc.files import STANDARD_INPUT, read, specs, write

if TYPE_CHECKING:
    from attnc.dsl.ir import Construct
    from attnc.dsl.source import Source

CLEAN, FAULTS, USAGE, INTERNAL, INTERRUPTED = 0, 1, 2, 101, 130

Value = bool | int | float | tuple[bool | int | float, ...]


class Refused(Exception):
    """A command that cannot be carried out as it was given."""


@dataclass(kw_only=True)
class Inputs:
    """Reads specs, and remembers the last: if attnc itself fails, that is what it failed on."""

    path: str = ""
    content: bytes = field(default=b"", repr=False)

    def source(self, path: str) -> Source:
        from attnc.dsl.parse import read_source

        self.path, self.content = path, read(path)
        return read_source(path, self.content)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; argparse itself exits with 2 where it understands nothing."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # the same bytes in every locale; odd file names print too
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    options = _parser().parse_args(arguments)
    inputs = Inputs()
    try:
        status: int = options.run(options, inputs)
        sys.stdout.flush()
    except Refused as refusal:
        print(f"attnc: {refusal}", file=sys.stderr)
        return USAGE
    except SpecError as error:
        _report([(error.source, error.diagnostics)], options, sys.stderr)
        return FAULTS
    except BrokenPipeError:  # the reader has seen enough; nothing may be written when Python closes the stream
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLEAN
    except OSError as error:
        print(f"attnc: {_io_fault(error)}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        where = _save_repro(arguments, inputs)
        print(f"attnc: internal error: {type(error).__name__}: {error}", file=sys.stderr)
        print(f"attnc: this is a fault in attnc; what it was doing is saved in {where}", file=sys.stderr)
        return INTERNAL
    return status


def _io_fault(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename is not None else str(error)


def _save_repro(arguments: Sequence[str], inputs: Inputs) -> str:
    """A folder with the command, the traceback and the spec at hand."""
    folder = Path(tempfile.mkdtemp(prefix="attnc-repro-"))
    facts = [
        f"attnc {version('attnc')}, Python {platform.python_version()}, {platform.platform()}",
        f"arguments: {arguments}",
        f"file: {inputs.path or 'none'}",
        "",
        traceback.format_exc(),
    ]
    (folder / "report.txt").write_text("\n".join(facts), encoding="utf-8", errors="surrogateescape")
    (folder / "input.attn").write_bytes(inputs.content)
    return str(folder)


# --- diagnostics ------------------------------------------------------------------------------

Report = tuple["Source", tuple[Diagnostic, ...]]


def _report(reports: Sequence[Report], options: argparse.Namespace, stream: TextIO) -> None:
    """Print diagnostics in the format asked for; json is one array whatever the number of files."""
    from attnc.dsl.render import render

    texts = [render(source, found, style=options.format, color=_colored(options, stream)) for source, found in reports]
    if options.format == "json":
        json.dump([item for text in texts for item in json.loads(text)], stream, indent=2)
        stream.write("\n")
    else:
        stream.writelines(text.rstrip("\n") + "\n" for text in texts if text)


def _colored(options: argparse.Namespace, stream: TextIO) -> bool:
    if options.color == "auto":
        return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return bool(options.color == "always")


def _denied(found: Iterable[Diagnostic], options: argparse.Namespace) -> tuple[Diagnostic, ...]:
    """Under ``--deny warnings`` a warning is a fault."""
    if options.deny is None:
        return tuple(found)
    return tuple(replace(item, severity=Severity.ERROR) for item in found)


def _faulty(found: Iterable[Diagnostic]) -> bool:
    return any(item.severity is Severity.ERROR for item in found)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


# --- check and fmt ----------------------------------------------------------------------------


def _files(options: argparse.Namespace, work: Callable[[str], None]) -> tuple[int, bool]:
    """Do ``work`` for every file named; one that cannot be read or written is reported and the rest still done.
    Returns how many there were and whether one failed."""
    paths, failed = list(specs(options.paths)), False
    for path in paths:
        try:
            work(path)
        except BrokenPipeError:
            raise
        except OSError as error:
            print(f"attnc: {_io_fault(error)}", file=sys.stderr)
            failed = True
    if not paths:
        print(f"attnc: no .attn files under {', '.join(options.paths)}", file=sys.stderr)
    return len(paths), failed


def _check(options: argparse.Namespace, inputs: Inputs) -> int:
    reports: list[Report] = []

    def work(path: str) -> None:
        from attnc.dsl.check import check
        from attnc.dsl.parse import parse

        try:
            source = inputs.source(path)
            found = check(parse(source)).warnings
        except SpecError as error:
            source, found = error.source, error.diagnostics
        if found:
            reports.append((source, _denied(found, options)))

    count, failed = _files(options, work)
    if reports or options.format == "json":
        _report(reports, options, sys.stdout)
    found = [item for _, items in reports for item in items]
    faults = sum(item.severity is Severity.ERROR for item in found)
    summary = f"{_count(faults, 'fault')}, {_count(len(found) - faults, 'warning')} in {_count(count, 'file')}"
    print(summary, file=sys.stderr)
    return USAGE if failed else FAULTS if faults else CLEAN


def _fmt(options: argparse.Namespace, inputs: Inputs) -> int:
    differing: list[str] = []
    faults: list[Report] = []

    def work(path: str) -> None:
        from attnc.dsl.format import format_source

        try:
            source = inputs.source(path)
            text = format_source(source)
        except SpecError as error:
            faults.append((error.source, error.diagnostics))
            return
        if text.encode() != inputs.content:
            differing.append(path)
            if options.diff:
                before, after = source.text.splitlines(keepends=True), text.splitlines(keepends=True)
                sys.stdout.writelines(difflib.unified_diff(before, after, path, path))
        if options.check or options.diff:
            return
        if path == STANDARD_INPUT:
            sys.stdout.write(text)
        elif path in differing:
            write(path, text.encode())

    count, failed = _files(options, work)
    if faults:
        _report(faults, options, sys.stderr)
    dry = options.check or options.diff
    if options.check and not options.diff:
        sys.stdout.writelines(f"would reformat {path}\n" for path in differing)
    said = "would be reformatted" if dry else "reformatted"
    print(f"{_count(len(differing), 'file')} of {count} {said}", file=sys.stderr)
    return USAGE if failed else FAULTS if faults or (dry and differing) else CLEAN


# --- compile, plan, show ----------------------------------------------------------------------


def _literal(text: str) -> Value:
    """A param's value as the language writes it: ``512``, ``0.5``, ``true``, ``[1, 2, 4]``."""
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        return tuple(_scalar(item) for item in text[1:-1].split(",") if item.strip())
    return _scalar(text)


def _scalar(text: str) -> bool | int | float:
    text = text.strip()
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise Refused(f"--param: `{text}` is no number, true, false or list of them")


def _pairs(items: Sequence[str], option: str) -> dict[str, str]:
    """``["w=512", "s=0"]`` as a dict of texts."""
    found: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals:
            raise Refused(f"{option} is written NAME=VALUE, not `{item}`")
        if name.strip() in found:
            raise Refused(f"{option}: `{name.strip()}` is given twice")
        found[name.strip()] = value
    return found


def _construct(options: argparse.Namespace, inputs: Inputs) -> Construct:
    """The one construct that the file, ``--name`` and ``--param`` ask for; warnings go to standard error."""
    from attnc.dsl.check import check
    from attnc.dsl.frontend import compile_text
    from attnc.dsl.parse import parse

    source = inputs.source(options.file)
    warnings = _denied(check(parse(source)).warnings, options)
    if _faulty(warnings):
        raise SpecError(source, warnings)
    if warnings:
        _report([(source, warnings)], options, sys.stderr)
    params = {name: _literal(value) for name, value in _pairs(options.param, "--param").items()}
    return compile_text(source, params, options.name)


def _compile(options: argparse.Namespace, inputs: Inputs) -> int:
    text = _stage(options, inputs)
    if options.output in (None, STANDARD_INPUT):
        sys.stdout.write(text)
    else:
        write(options.output, text.encode())
    return CLEAN


def _stage(options: argparse.Namespace, inputs: Inputs) -> str:
    """The text of the stage that ``--emit`` names."""
    if options.emit == "ast":
        from attnc.dsl.parse import parse
        from attnc.dsl.print_ast import print_ast

        if options.param or options.name:
            raise Refused("--emit ast prints the file as written: --param and --name have no part in it")
        return print_ast(parse(inputs.source(options.file)))
    construct = _construct(options, inputs)
    if options.emit == "ir":
        from attnc.dsl.print_ir import print_ir

        return print_ir(construct)
    from attnc.codegen import pipeline

    stage = pipeline.plan_text if options.emit == "plan" else pipeline.compile
    return stage(construct, target=options.target)


def _plan(options: argparse.Namespace, inputs: Inputs) -> int:
    from attnc.codegen import pipeline

    sys.stdout.write(pipeline.plan_text(_construct(options, inputs), target=options.target))
    return CLEAN


def _show(options: argparse.Namespace, inputs: Inputs) -> int:
    from attnc.show import live, png, svg, terminal

    construct = _construct(options, inputs)
    keys = options.m if options.m is not None else options.n
    try:
        import torch

        from attnc.runtime.reference import mask
    except ModuleNotFoundError as error:
        raise Refused(f"show evaluates the mask with {error.name}: pip install 'attnc[torch]'") from error
    tensors = {name: torch.tensor(_json(value)) for name, value in _pairs(options.input, "--input").items()}
    pairs = mask(construct, N=options.n, M=keys, B=1, H=options.heads, inputs=tensors)
    for head, rows in enumerate(pairs[0].tolist()):
        which = f", head {head}" if pairs.shape[1] > 1 else ""
        share = 100 * live(rows) / (options.n * keys)
        title = f"{construct.name}{which}: N = {options.n}, M = {keys}, {share:.1f}% live"
        if options.png is not None:
            write(_numbered(options.png, head, pairs.shape[1]), png(rows))
        if options.svg is not None:
            write(_numbered(options.svg, head, pairs.shape[1]), svg(rows, title=title).encode())
        if options.png is None and options.svg is None:
            print(title, terminal(rows, columns=shutil.get_terminal_size().columns), sep="\n")
    return CLEAN


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Refused(f"--input: `{text}` is no JSON number or array: {error}") from error


def _numbered(path: str, head: int, heads: int) -> str:
    """``mask.png`` for one head; ``mask.0.png``, ``mask.1.png`` for several."""
    stem, extension = os.path.splitext(path)
    return path if heads == 1 else f"{stem}.{head}{extension}"


# --- explain, env, clean, version -------------------------------------------------------------


def _explain(options: argparse.Namespace, inputs: Inputs) -> int:
    from attnc.dsl.codes import CODES

    if options.code is None:
        sys.stdout.writelines(f"{code.code}  {code.title}\n" for code in CODES.values())
        return CLEAN
    code = CODES.get(options.code.upper())
    if code is None:
        near = difflib.get_close_matches(options.code.upper(), CODES, n=1)
        raise Refused(f"no code `{options.code}`" + (f"; is it {near[0]}?" if near else ""))
    print(f"{code.code}: {code.title}\n\n{code.explanation.strip()}\n")
    for word, example in (("Wrong", code.bad), ("Right", code.good)):
        print(f"{word}:\n\n```attn\n{example.strip()}\n```\n")
    return CLEAN


def _env(options: argparse.Namespace, inputs: Inputs) -> int:
    from attnc.runtime.cache import env

    facts = {"attnc": version("attnc"), "python": platform.python_version(), **env()}
    width = max(map(len, facts))
    sys.stdout.writelines(f"{name:{width}}  {value}\n" for name, value in facts.items())
    return CLEAN


def _clean(options: argparse.Namespace, inputs: Inputs) -> int:
    from attnc.runtime.cache import clean

    print(f"removed {_count(clean(), 'file')}")
    return CLEAN


def _version(options: argparse.Namespace, inputs: Inputs) -> int:
    print(f"attnc {version('attnc')}")
    return CLEAN


# --- the command line itself ------------------------------------------------------------------


def _size(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"`{text}` is no positive integer")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="attnc", description="A compiler from attention specs to fused kernels.")
    parser.add_argument("--version", action="version", version=f"attnc {version('attnc')}")
    commands = parser.add_subparsers(metavar="command", required=True)

    faults = argparse.ArgumentParser(add_help=False)
    faults.add_argument("--format", choices=("full", "concise", "json", "github"), default="full", help="of faults")
    faults.add_argument("--color", choices=("auto", "always", "never"), default="auto")

    strict = argparse.ArgumentParser(add_help=False)
    strict.add_argument("--deny", choices=("warnings",), help="make warnings faults")

    many = argparse.ArgumentParser(add_help=False)
    many.add_argument("paths", nargs="*", default=["."], help="files, directories, or - for standard input")

    one = argparse.ArgumentParser(add_help=False)
    one.add_argument("file", help="a spec, or - for standard input")
    one.add_argument("--name", help="which construct, where the file holds several")
    one.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="512, 0.5, true, [1, 2]")

    target = argparse.ArgumentParser(add_help=False)
    target.add_argument("--target", default="generic", help="what to plan for, such as sm_90")

    def command(
        name: str, run: Callable[[argparse.Namespace, Inputs], int], does: str, *parents: argparse.ArgumentParser
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=does, description=does, parents=parents)
        made.set_defaults(run=run)
        return made

    command("check", _check, "Report faults and warnings.", many, faults, strict)

    fmt = command("fmt", _fmt, "Rewrite specs in the canonical form.", many, faults)
    fmt.add_argument("--check", action="store_true", help="change nothing; exit 1 if something would change")
    fmt.add_argument("--diff", action="store_true", help="the same, and print the difference")

    build = command("compile", _compile, "Compile a spec to a Python module.", one, target, faults, strict)
    build.add_argument("--emit", choices=("ast", "ir", "plan", "py"), default="py", help="the stage to print")
    build.add_argument("-o", "--output", help="a file, written whole or not at all; standard output if not given")

    command("plan", _plan, "Print what the compiler decided, and why.", one, target, faults, strict)

    show = command("show", _show, "Draw a spec's mask.", one, faults, strict)
    show.add_argument("-n", type=_size, default=64, help="queries (64)")
    show.add_argument("-m", type=_size, help="keys (as many as queries)")
    show.add_argument("--heads", type=_size, default=1, help="query heads (1); drawn one by one where they differ")
    show.add_argument("--input", action="append", default=[], metavar="NAME=JSON", help="an input that the mask reads")
    show.add_argument("--png", metavar="FILE", help="write a PNG instead")
    show.add_argument("--svg", metavar="FILE", help="write an SVG instead")

    explain = command("explain", _explain, "Explain a fault's code, or list all codes.")
    explain.add_argument("code", nargs="?")

    command("env", _env, "Print versions and where the cache lies.")
    command("clean", _clean, "Empty the cache.")
    command("version", _version, "Print the version.")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""The command line: ``attnc check | fmt | compile | plan | inspect | show | bench | explain | env | clean`` and more.

Results go to standard output, all else to standard error. Exit status: 0 clean, 1 faults in a spec or a difference
under ``--check``, 2 a wrong command line or a file that cannot be read or written, 101 a fault in attnc itself.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import platform
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from attnc import benching, commands, fuzzing, machine_code, native_code
from attnc.dsl.diagnostics import SpecError
from attnc.dsl.version import VERSION
from attnc.session import CLEAN, FAULTS, INTERNAL, INTERRUPTED, USAGE, Inputs, Refused, io_fault, report

Command = Callable[[argparse.Namespace, Inputs], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; argparse itself exits with 2 where it understands nothing."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if sys.stderr is None:  # closed, as by `2>&-`
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # for all that the process prints
    if sys.stdout is None:
        print("attnc: standard output is closed", file=sys.stderr)
        return USAGE
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # the same in every locale; what is no text is escaped
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    options, unknown = _parser().parse_known_args(arguments)
    if unknown:
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    inputs = Inputs()
    try:
        return _run(options, inputs)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        where = _save_repro(arguments, inputs)
        print(f"attnc: internal error: {type(error).__name__}: {error}", file=sys.stderr)
        print(f"attnc: this is a fault in attnc; what it was doing is saved in {where}", file=sys.stderr)
        return INTERNAL


def _run(options: argparse.Namespace, inputs: Inputs) -> int:
    """The command, with the faults that are not attnc's own."""
    try:
        status: int = options.run(options, inputs)
        sys.stdout.flush()
        return status
    except Refused as refusal:
        print(f"attnc: {refusal}", file=sys.stderr)
        return USAGE
    except SpecError as error:
        report([(error.source, error.diagnostics)], options, sys.stderr)
        return FAULTS
    except BrokenPipeError:  # the reader has seen enough; nothing may be written when Python closes the stream
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLEAN
    except OSError as error:
        print(f"attnc: {io_fault(error)}", file=sys.stderr)
        return USAGE


def _save_repro(arguments: Sequence[str], inputs: Inputs) -> str:
    """A folder with the command, the traceback and the spec at hand."""
    folder = Path(tempfile.mkdtemp(prefix="attnc-repro-"))
    facts = [
        f"attnc {VERSION}, Python {platform.python_version()}, {platform.platform()}",
        f"arguments: {arguments}",
        f"file: {inputs.path or 'none'}",
        "",
        traceback.format_exc(),
    ]
    (folder / "report.txt").write_text("\n".join(facts), encoding="utf-8", errors="surrogateescape")
    (folder / "input.attn").write_bytes(inputs.content)
    return str(folder)


def _size(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"`{text}` is no positive integer")
    return int(text)


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"`{text}` is no positive number of seconds")


def _tile(text: str) -> tuple[int, int]:
    """``64`` or ``128x64``."""
    sides = [_size(side) for side in text.split("x")]
    if len(sides) > 2:
        raise argparse.ArgumentTypeError(f"`{text}` is no tile: write 64, or 128x64 (queries x keys)")
    return sides[0], sides[-1]


def _lengths(text: str) -> list[int]:
    """``512,2048``, ascending."""
    return sorted({_size(item.strip()) for item in text.split(",")})


class _Parser(argparse.ArgumentParser):
    """Says which command, choice or option a misspelt one is near to."""

    def error(self, message: str) -> NoReturn:
        wrong = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message)
        if wrong is not None:
            near = get_close_matches(wrong[1], re.findall(r"\w+", wrong[2]), n=1)
        else:
            options = re.findall(r"--\w+", self.format_usage())
            near = [
                option
                for given in re.findall(r"--\w+", message.partition("unrecognized arguments: ")[2])
                for option in get_close_matches(given, options, n=1)
            ]
        super().error(message + (f"; did you mean {', '.join(near)}?" if near else ""))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="attnc", description="A compiler from attention specs to fused kernels.")
    parser.add_argument("--version", action="version", version=f"attnc {VERSION}")
    subparsers = parser.add_subparsers(metavar="command", required=True)

    faults = _Parser(add_help=False)
    faults.add_argument("--format", choices=("full", "concise", "json", "github"), default="full", help="of faults")
    faults.add_argument("--color", choices=("auto", "always", "never"), default="auto")

    strict = _Parser(add_help=False)
    strict.add_argument("--deny", choices=("warnings",), help="make warnings faults")

    many = _Parser(add_help=False)
    many.add_argument("paths", nargs="*", default=["."], help="files, directories, or - for standard input")

    one = _Parser(add_help=False)
    one.add_argument("file", help="a spec, or - for standard input")
    one.add_argument("--name", help="which construct, where the file holds several")
    one.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="512, 0.5, true, [1, 2]")

    target = _Parser(add_help=False)
    target.add_argument("--target", default="generic", help="what to plan for, such as h100 or sm_90")
    tables = _Parser(add_help=False)
    tables.add_argument("--targets", action="append", default=[], metavar="FILE", help="a table of more targets (TOML)")

    def command(name: str, run: Command, does: str, *parents: _Parser) -> _Parser:
        made = subparsers.add_parser(name, help=does, description=does, parents=parents)
        made.set_defaults(run=run, parser=made)
        return made

    command("check", commands.check, "Report faults and warnings.", many, faults, strict)

    fmt = command("fmt", commands.fmt, "Rewrite specs in the canonical form.", many, faults)
    fmt.add_argument("--check", action="store_true", help="change nothing; exit 1 if something would change")
    fmt.add_argument("--diff", action="store_true", help="the same, and print the difference")

    build = command(
        "compile", commands.compile, "Compile a spec to a Python module.", one, target, tables, faults, strict
    )
    stages = ("ast", "ir", "plan", "py", *native_code.KINDS, *machine_code.KINDS)
    build.add_argument("--emit", choices=stages, default="py", help="the stage to print; from cpp on, of every kernel")
    build.add_argument(
        "--dtype",
        choices=machine_code.DTYPES,
        help="of the vectors, for machine code (bf16, on processors f32) and what a CPU's module builds at import",
    )
    build.add_argument("--dim", type=_size, help="elements of a vector, for the same (64)")
    build.add_argument(
        "-o",
        "--output",
        help="a file, or for machine code a new folder, written whole or not at all; standard output if not given",
    )

    does = "Print what the compiler decided, and why; with --shape also what it costs."
    plan = command("plan", commands.plan, does, one, target, tables, strict)
    plan.add_argument("--shape", metavar="H=32,N=4096,D=128", help="sizes of a call: B, H, G, N, M, D, E")
    plan.add_argument("--dtype", choices=machine_code.DTYPES, default="bf16", help="of the vectors (bf16)")
    plan.add_argument("--verify", action="store_true", help="compile the kernels, and print what they take beside it")
    styles = ("full", "concise", "json", "github")
    plan.add_argument("--format", choices=styles, default="full", help="of faults; json of the plan too")
    plan.add_argument("--color", choices=("auto", "always", "never"), default="auto")

    listed = command("targets", commands.targets, "List the targets, and what is known of them.", tables)
    listed.add_argument("--format", choices=("text", "json"), default="text")

    read = command("inspect", commands.inspect, "Compile kernels and judge them by their machine code.", one, target)
    read.add_argument("--dtype", choices=machine_code.DTYPES, default="bf16", help="of the vectors (bf16)")
    read.add_argument("--dim", type=_size, default=64, help="elements of a vector (64)")
    read.add_argument("--format", choices=("full", "json"), default="full", help="of the facts")
    read.add_argument("--color", choices=("auto", "always", "never"), default="auto", help="of faults in the spec")
    read.set_defaults(deny=None)

    show = command("show", commands.show, "Draw a spec's mask.", one, faults, strict)
    show.add_argument("-n", type=_size, default=64, help="queries (64)")
    show.add_argument("-m", type=_size, help="keys (as many as queries)")
    show.add_argument("--heads", type=_size, default=1, help="query heads (1); drawn one by one where they differ")
    show.add_argument("--input", action="append", default=[], metavar="NAME=JSON", help="an input that the mask reads")
    show.add_argument("--tiles", type=_tile, metavar="SIZE", help="its tiles: 64, or 128x64 (queries x keys)")
    show.add_argument("--png", metavar="FILE", help="write a PNG instead")
    show.add_argument("--svg", metavar="FILE", help="write an SVG instead")

    does = "Time a spec beside what PyTorch has, in turns in one process; a table, and a plot over lengths."
    bench = command("bench", benching.bench, does, one, faults, strict)
    bench.add_argument("--shape", default="", metavar="H=8,N=2048,D=64", help="sizes of a call: B, H, G, N, M, D, E")
    bench.add_argument("--lengths", type=_lengths, metavar="512,2048", help="several N, each with as many keys")
    bench.add_argument("--against", default="sdpa", metavar="sdpa,flex", help=", ".join(benching.CONTENDERS))
    bench.add_argument("--backend", choices=benching.BACKENDS, default="auto", help="of attnc's own code (auto)")
    bench.add_argument("--dtype", choices=machine_code.DTYPES, default="f32", help="of the vectors (f32)")
    bench.add_argument("--backward", action="store_true", help="time the gradients alone")
    bench.add_argument(
        "--input", action="append", default=[], metavar="NAME=JSON", help="an input; floats are drawn else"
    )
    bench.add_argument("--seconds", type=_seconds, default=1.0, help="at each length (1)")
    bench.add_argument("--png", metavar="FILE", help="also draw the times over the lengths")

    does = "Draw calls of a spec, compare results and gradients with the reference, make one that fails smaller."
    fuzz = command("fuzz", fuzzing.fuzz, does)
    fuzz.add_argument("file", nargs="?", help="a spec, or - for standard input")
    fuzz.add_argument("--name", help="which construct, where the file holds several")
    fuzz.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="others are drawn")
    backends = f"{', '.join(fuzzing.BACKENDS)} (native)"
    fuzz.add_argument("--backend", metavar="native,ttir", help=backends)
    fuzz.add_argument("--examples", type=_size, default=200, help="calls on each backend (200)")
    fuzz.add_argument("--kernels", type=_size, default=8, help="combinations of params, dtype and dims (8)")
    fuzz.add_argument("--dtype", default="f32,bf16,f16,f64", help="of the vectors, a list (f32,bf16,f16,f64)")
    fuzz.add_argument("--seed", type=int, default=0, help="the same calls for the same seed (0)")
    fuzz.add_argument("--seconds", type=_seconds, help="stop by then")
    fuzz.add_argument("--limit", type=_seconds, default=600, help="seconds a call may take, compiling included (600)")
    fuzz.add_argument("--save", metavar="DIR", help="keep what fails there, a file each")
    fuzz.add_argument("--replay", metavar="PATH", help="make the calls of --format json, or --save, again")
    fuzz.add_argument("--format", choices=("full", "json"), default="full", help="of what was found")
    fuzz.add_argument("--color", choices=("auto", "always", "never"), default="auto", help="of faults in the spec")
    fuzz.set_defaults(deny=None)

    explain = command("explain", commands.explain, "Explain a fault's code, or list all codes.")
    explain.add_argument("code", nargs="?")
    explain.add_argument("--format", choices=("text", "json"), default="text")

    command("env", commands.env, "Print versions and where the cache lies.")
    command("clean", commands.clean, "Empty the cache.")
    command("version", commands.version, "Print the version.")
    return parser

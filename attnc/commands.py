"""What each command does. A command imports what it needs when it runs: the compiler is used where torch is not
installed, and checking a file should not wait for torch where it is."""

from __future__ import annotations

import argparse
import difflib
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from attnc.dsl.diagnostics import Severity, SpecError
from attnc.dsl.version import VERSION
from attnc.files import STANDARD_INPUT, specs, write
from attnc.planning import known_targets, lengths, listed, planned
from attnc.session import CLEAN, FAULTS, USAGE, Inputs, Refused, Report, count, denied, faulty, io_fault, report

if TYPE_CHECKING:
    from torch import Tensor

    from attnc.dsl.construct import Attention, Construct

Value = bool | int | float | tuple[bool | int | float, ...]


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
            print(f"attnc: {io_fault(error)}", file=sys.stderr)
            failed = True
    if not paths:
        print(f"attnc: no .attn files under {', '.join(options.paths)}", file=sys.stderr)
    return len(paths), failed


def check(options: argparse.Namespace, inputs: Inputs) -> int:
    reports: list[Report] = []

    def work(path: str) -> None:
        from attnc.codegen.lint import lint
        from attnc.dsl.check import check
        from attnc.dsl.parse import parse

        try:
            source = inputs.source(path)
            checked = check(parse(source))
            found = (*checked.warnings, *(item for construct in checked.constructs for item in lint(construct)))
        except SpecError as error:
            source, found = error.source, error.diagnostics
        if found:
            reports.append((source, denied(found, options)))

    number, failed = _files(options, work)
    if reports or options.format == "json":
        report(reports, options, sys.stdout)
    found = [item for _, items in reports for item in items]
    faults = sum(item.severity is Severity.ERROR for item in found)
    summary = f"{count(faults, 'fault')}, {count(len(found) - faults, 'warning')} in {count(number, 'file')}"
    print(summary, file=sys.stderr)
    return USAGE if failed else FAULTS if faults else CLEAN


def fmt(options: argparse.Namespace, inputs: Inputs) -> int:
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

    number, failed = _files(options, work)
    if faults:
        report(faults, options, sys.stderr)
    dry = options.check or options.diff
    if options.check and not options.diff:
        sys.stdout.writelines(f"would reformat {path}\n" for path in differing)
    said = "would be reformatted" if dry else "reformatted"
    print(f"{count(len(differing), 'file')} of {number} {said}", file=sys.stderr)
    return USAGE if failed else FAULTS if faults or (dry and differing) else CLEAN


# --- compile, plan, show ----------------------------------------------------------------------


def literal(text: str) -> Value:
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
    raise Refused(f"a param is a number, true, false or a list of them: `{text}` is none")


def assigned(items: Sequence[str], option: str) -> dict[str, str]:
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


def construct_of(options: argparse.Namespace, inputs: Inputs, lengths: tuple[int, int] | None = None) -> Construct:
    """The one construct that the file, ``--name`` and ``--param`` ask for; warnings go to standard error, with those
    that hold at the ``lengths`` of a call."""
    from attnc.codegen.lint import lint
    from attnc.dsl.check import check
    from attnc.dsl.frontend import choose
    from attnc.dsl.parse import parse
    from attnc.dsl.specialize import specialize

    source = inputs.source(options.file)
    checked = check(parse(source))
    params = {name: literal(value) for name, value in assigned(options.param, "--param").items()}
    construct = choose(source, checked.constructs, options.name)
    bound = specialize(construct, params)
    warnings = denied((*checked.warnings, *lint(construct, bound, lengths)), options)
    if faulty(warnings):
        raise SpecError(source, warnings)
    if warnings:
        report([(source, warnings)], options, sys.stderr)
    return bound


def compile(options: argparse.Namespace, inputs: Inputs) -> int:
    from attnc import machine_code, native_code

    if options.emit in native_code.KINDS:
        construct, known = _planned(options, inputs), known_targets(options)
        native_code.emit(construct, options.emit, options.target, known, options.dtype, options.dim, options.output)
        return CLEAN
    if options.emit in machine_code.KINDS:
        construct = _planned(options, inputs)
        dtype, dim = options.dtype or "bf16", options.dim or 64
        machine_code.emit(construct, options.emit, options.target, dtype, dim, options.output)
        return CLEAN
    named = [f"--{name}" for name in ("dtype", "dim") if getattr(options, name) is not None]
    built = options.emit == "py" and named and native_code.is_cpu(options.target, known_targets(options))
    if named and not built:
        raise Refused(f"--emit {options.emit} serves every dtype and head dim: {named[0]} has no part in it")
    text = _stage(options, inputs)
    if built:
        text = native_code.built_at_import(text, options.dtype, options.dim)
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
    if options.emit == "ir":
        from attnc.dsl.print_ir import print_ir

        return print_ir(construct_of(options, inputs))
    from attnc.codegen import pipeline

    construct, known = _planned(options, inputs), known_targets(options)
    if options.emit == "plan":
        return pipeline.plan_text(construct, options.target, known) + "\n"
    return pipeline.compile(construct, options.target, known)


def plan(options: argparse.Namespace, inputs: Inputs) -> int:

    print(planned(_planned(options, inputs), options, known_targets(options)))
    return CLEAN


def targets(options: argparse.Namespace, inputs: Inputs) -> int:
    print(listed(known_targets(options), options.format))
    return CLEAN


def inspect(options: argparse.Namespace, inputs: Inputs) -> int:
    from attnc import machine_code

    construct = _planned(options, inputs)
    print(machine_code.inspected(construct, options.target, options.dtype, options.dim, options.format))
    return CLEAN


def _planned(options: argparse.Namespace, inputs: Inputs) -> Construct:
    """The construct, once ``--target`` is known to be a target."""
    from attnc.codegen.planner.targets import TargetError

    try:
        known_targets(options).find(options.target)
    except TargetError as error:
        raise Refused(f"--target: {error}") from error
    return construct_of(options, inputs, lengths(options))


def show(options: argparse.Namespace, inputs: Inputs) -> int:
    from attnc.dsl.construct import Attention

    keys = options.m if options.m is not None else options.n
    construct = construct_of(options, inputs, (options.n, keys))
    if not isinstance(construct, Attention):
        raise Refused(f"`{construct.name}` is a recurrence: it has no mask")
    values = {name: as_json(value) for name, value in assigned(options.input, "--input").items()}
    _mask_inputs(construct, values)
    try:
        from attnc.pictures import PAIRS, pairs, tiles

        tensors = as_tensors(values)
    except ModuleNotFoundError as error:
        raise Refused(f"show evaluates the mask with {error.name}: pip install 'attnc[torch]'") from error
    given = replace(construct, inputs=tuple(item for item in construct.inputs if item.name in values))
    columns = shutil.get_terminal_size().columns
    if options.tiles is None and options.n * keys * options.heads > PAIRS:
        raise Refused(f"show draws at most {PAIRS:,} pairs one by one: give --tiles, such as --tiles 128")
    try:
        if options.tiles is None:
            pictures = list(pairs(given, options.n, keys, options.heads, tensors, columns=columns))
        else:
            pictures = list(tiles(given, options.n, keys, options.heads, tensors, options.tiles, columns=columns))
    except (TypeError, ValueError) as error:  # an input of another shape
        raise Refused(f"--input: {error}") from error
    for picture in pictures:
        if options.png is not None:
            write(picture.named(options.png), picture.png())
        if options.svg is not None:
            write(picture.named(options.svg), picture.svg())
        if options.png is None and options.svg is None:
            print(picture.text)
    return CLEAN


def _mask_inputs(construct: Attention, values: Mapping[str, object]) -> None:
    """The mask's inputs are given, and nothing that is no input."""
    from attnc.dsl.ir import Listed, Load, postorder

    declared = {item.name for item in construct.inputs}
    for name in values:
        if name not in declared:
            raise Refused(f"--input: `{construct.name}` has no input `{name}`")
    for node in postorder(*(branch.mask for branch in construct.branches)):
        if isinstance(node, Load | Listed) and node.tensor not in values:
            if node.tensor not in declared:
                raise Refused(f"the mask of `{construct.name}` depends on its vectors: there is no one picture of it")
            raise Refused(f"the mask reads the input `{node.tensor}`: give --input '{node.tensor}=[...]'")


def as_json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Refused(f"--input: `{text}` is no JSON number or array: {error}") from error


def as_tensors(values: Mapping[str, object]) -> dict[str, Tensor]:
    """Inputs as ``--input`` gave them."""
    import torch

    made = {}
    for name, value in values.items():
        try:
            made[name] = torch.tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise Refused(f"--input: `{name}` is no number, true, false or array of them, all rows as long") from error
    return made


# --- explain, env, clean, version -------------------------------------------------------------


def explain(options: argparse.Namespace, inputs: Inputs) -> int:
    from attnc.dsl import codes

    if options.code is None:
        if options.format == "json":
            print(json.dumps([asdict(code) for code in codes.CODES.values()], indent=2))
        else:
            sys.stdout.writelines(f"{code.code}  {code.title}\n" for code in codes.CODES.values())
        return CLEAN
    code = codes.CODES.get(options.code.upper())
    if code is None:
        near = difflib.get_close_matches(options.code.upper(), codes.CODES, n=1)
        raise Refused(f"no code `{options.code}`" + (f"; is it {near[0]}?" if near else ""))
    print(json.dumps(asdict(code), indent=2) + "\n" if options.format == "json" else codes.explain(code), end="")
    return CLEAN


def env(options: argparse.Namespace, inputs: Inputs) -> int:
    from attnc.runtime.cache import env

    facts = env()
    width = max(map(len, facts))
    sys.stdout.writelines(f"{name:{width}}  {value}\n" for name, value in facts.items())
    return CLEAN


def clean(options: argparse.Namespace, inputs: Inputs) -> int:
    from attnc.runtime.cache import clean

    print(f"removed {count(clean(), 'file')}")
    return CLEAN


def version(options: argparse.Namespace, inputs: Inputs) -> int:
    print(f"attnc {VERSION}")
    return CLEAN

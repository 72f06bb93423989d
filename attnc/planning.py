"""``plan`` and ``targets``: what was decided for a target, and the targets there are."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnc.session import Refused

if TYPE_CHECKING:
    from attnc.codegen.planner.report import Compiled, Shape
    from attnc.codegen.planner.targets import Targets
    from attnc.dsl.construct import Construct

SIZES = ("B", "H", "G", "N", "M", "D", "E")


def known_targets(options: argparse.Namespace) -> Targets:
    """The built-in targets, the user's own, and those of ``--targets FILE``; Refused for a faulty table."""
    from attnc.codegen.planner.targets import TargetError, targets

    try:
        return targets(*(Path(file) for file in getattr(options, "targets", [])))
    except TargetError as error:
        raise Refused(f"targets: {error}") from error


def planned(construct: Construct, options: argparse.Namespace, known: Targets) -> str:
    """What was chosen and why; at a shape where one is given."""
    from attnc.codegen.lower import lower
    from attnc.codegen.plan import plan
    from attnc.codegen.plan_text import describe
    from attnc.dsl.frontend import compilable

    program = lower(compilable(construct))
    made = plan(program, options.target, known)
    if options.shape is None:
        if options.verify or options.format == "json":
            raise Refused("--verify and --format json need a --shape, such as B=1,H=32,N=4096,D=128")
        return describe(program, made)
    from attnc.codegen.planner.report import report  # counts tiles, with numpy: not without a shape
    from attnc.codegen.report_text import data, text

    if options.target == "generic":
        raise Refused("--shape is priced for one target: give --target, such as h100 (attnc targets lists them)")
    shape = _shape(options.shape, program)
    compiled = _verified(construct, options, shape) if options.verify else None
    found = report(program, made, shape, options.dtype, draw=_draw(), compiled=compiled)
    if options.format == "json":
        return json.dumps(data(program, found, verified=options.verify), indent=2)
    return text(program, found, verified=options.verify)


def lengths(options: argparse.Namespace) -> tuple[int, int] | None:
    """N and M of ``--shape``, where a command has it and it says them."""
    given = getattr(options, "shape", None)
    sizes = named_sizes(given) if given is not None else {}
    return (sizes["N"], sizes.get("M", sizes["N"])) if "N" in sizes else None


def named_sizes(given: str) -> dict[str, int]:
    """``N=16384,D=128``: the sizes by name."""
    sizes: dict[str, int] = {}
    for item in given.split(","):
        name, _, value = (part.strip() for part in item.partition("="))
        if name not in SIZES:
            raise Refused(f"--shape: `{item}` is no size: write {', '.join(f'{size}=1' for size in SIZES)}")
        if name in sizes:
            raise Refused(f"--shape: `{name}` is given twice")
        if not value.isdecimal():
            raise Refused(f"--shape: {name} is `{value}`, which is no whole number")
        sizes[name] = int(value)
    return sizes


def _shape(given: str, program: Any) -> Shape:
    """``B=1,H=32,G=8,N=16384,D=128``: B is 1, G is H, M is N and E is D where they are not given."""
    from attnc.codegen.planner.report import Shape, sizes_of

    sizes = named_sizes(given)
    for name, fixed in sizes_of(program).items():
        if sizes.setdefault(name, fixed) != fixed:
            raise Refused(f"--shape: {name} is {fixed} in the spec, not {sizes[name]}")
    missing = [name for name in ("H", "N", "D") if name not in sizes]
    if missing:
        raise Refused(f"--shape lacks {', '.join(missing)}")
    filled = {"B": 1, "G": sizes["H"], "M": sizes["N"], "E": sizes["D"]} | sizes
    try:
        return Shape(**filled)
    except ValueError as error:
        raise Refused(f"--shape: {error}") from error


def _draw() -> Any:
    """How random blocks are drawn; without torch they are not, and the report says so."""
    try:
        from attnc.runtime.tiles import drawn
    except ModuleNotFoundError:
        return None
    return drawn


def _verified(construct: Construct, options: argparse.Namespace, shape: Shape) -> Mapping[str, Compiled]:
    """Every kernel compiled for the target and read: registers, spills, shared memory, blocks, est."""
    from attnc.codegen.planner.report import Compiled

    try:
        from attnc.runtime.machine import inspect

        found = inspect(construct, options.target, options.dtype, max(shape.D, shape.E))
    except ModuleNotFoundError as error:
        raise Refused(f"--verify compiles with {error.name}: pip install 'attnc[torch]'") from error
    except (ValueError, RuntimeError) as error:
        raise Refused(f"--verify: {error}") from error
    return {
        item.kernel: Compiled(
            registers=item.registers,
            stack=item.stack,
            spills=item.spills,
            shared=item.shared,
            blocks=None if item.occupancy is None else item.occupancy.blocks,
            est=item.loops[0].est if item.loops else None,
        )
        for item in found
    }


def listed(known: Targets, style: str) -> str:
    """Every target, with what the planner knows of it."""
    from attnc.codegen.planner.targets import GENERIC, Gpu

    if style == "json":
        found = {name: _fields(known.find(name)) for name in known.names if _described(known, name)}
        return json.dumps({"targets": found, "sources": dict(known.sources)}, indent=2)
    lines = ["target      architecture     SMs    GHz  TFLOP/s bf16    GB/s  shared/block  L2 MiB  what it is"]
    for name in known.names:
        if not _described(known, name):
            lines.append(f"{name:11} {'':58} an architecture of which no product is known")
            continue
        item = known.find(name)
        if name == GENERIC:
            lines.append(f"{name:11} {'any':58} runs on every GPU from sm_80 on and on gfx942; the default")
        elif isinstance(item, Gpu):
            lines.append(
                f"{name:11} {item.architecture:12} {item.sms:7} {item.clock_ghz:6.2f} {item.tflops('bf16'):13.0f} "
                f"{item.bandwidth_gbs:7,} {item.shared_block:13,} {item.l2 / 2**20:7.0f}  {item.title}"
            )
        else:
            lines.append(
                f"{name:11} {'processor':12} {item.cores:7} {item.clock_ghz:6.2f} {item.tflops('bf16'):13.1f} "
                f"{item.bandwidth_gbs:7,} {'':13} {item.l2 / 2**20:7.1f}  {item.title}, {item.lanes} lanes"
            )
    return "\n".join(lines)


def _described(known: Targets, name: str) -> bool:
    """Whether a name can be planned for: an architecture of a user's own may have no product yet."""
    made = {gpu.architecture for gpu in known.products.values()}
    return name not in known.architectures or name in made


def _fields(item: Any) -> dict[str, Any]:
    return {
        field.name: (dict(value) if isinstance(value := getattr(item, field.name), Mapping) else value)
        for field in fields(item)
    }


__all__ = ["known_targets", "lengths", "listed", "planned"]

"""The report of a program at a shape, as text and as plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from attnc.codegen.plan import Plan
from attnc.codegen.plan_text import TITLES, strategy
from attnc.codegen.planner.cost import PIPES
from attnc.codegen.planner.report import Kernel, Report, cpu_bound
from attnc.codegen.planner.targets import Cpu, Gpu
from attnc.codegen.program import Program

CAVEAT = (
    "By the model, not run: times leave out clocks under load, latencies of memory and power, so they are too short, "
    "by 1.35 to 1.65 times where kernels like these were measured elsewhere."
)


def text(program: Program, found: Report, *, verified: bool) -> str:
    """For people: strategy, then every kernel, then the whole."""
    shape, plan = found.shape, found.plan
    sizes = " ".join(f"{name}={value}" for name, value in asdict(shape).items())
    title = plan.machine.title and f" ({plan.machine.title})"
    lines = [f"{program.attention.name} for {plan.target}{title}, {found.dtype}, {sizes}"]
    lines += strategy(program)
    if isinstance(plan.machine, Cpu):
        return "\n".join([*lines, *_cpu(found, plan.machine), *_cache(found)])
    for item in found.kernels:
        lines += _kernel(item, plan.gpu, found.dtype)
    for name in found.unplanned:
        lines.append(f"  {name}: no tile fits {plan.target}")
    lines += _whole(found, plan.gpu)
    lines += _cache(found)
    lines.append(f"  {CAVEAT}")
    if verified:
        lines.append("  The compiler's figures are of this spec's kernels, compiled here for the target.")
    else:
        lines.append("  `calibrated` is what the compiler made of a spec like it; --verify compiles this one.")
    return "\n".join(lines)


def _kernel(item: Kernel, gpu: Gpu, dtype: str) -> list[str]:
    use = item.budget
    lines = [f"  {TITLES[item.step]}, {item.name}: {item.tile}"]

    def line(name: str, what: str) -> None:
        lines.append(f"    {name:14} {what}")

    refused = f"{len(item.refused)} candidates refused" if item.refused else "no candidate refused"
    first = f", one of them: {item.refused[0].tile}: {item.refused[0].reason}" if item.refused else ""
    line("chosen", f"for the fewest clocks a pair; {refused}{first}")
    if item.spill:
        line("", f"every tile that fits spills; this one least, {item.spill} bytes a thread")
    line("shared memory", f"{use.shared_bytes:,} bytes of {gpu.shared_block:,} a block{_seen(item, 'shared')}")
    lines += [f"      {what:46} {amount:>9,}" for what, amount in use.shared if amount]
    line("registers", f"{use.registers_thread} of {gpu.registers_thread} a thread{_seen(item, 'registers')}")
    lines += [f"      {what:46} {amount:>9,}" for what, amount in use.registers if amount]
    if use.columns:
        line("tensor memory", f"{use.columns} of {gpu.tensor_columns} columns")
    line("spills", _spills(item))
    blocks = f"{use.blocks} blocks, {use.blocks * item.tile.warps} warps an SM (limit: {use.limits})"
    seen = f"; compiler: {item.compiled.blocks}" if item.compiled and item.compiled.blocks is not None else ""
    line("occupancy", f"{blocks}{seen}")
    line("programs", _programs(item))
    exact = "exact" if item.exact else "not exact: " + "; ".join(item.why or ("the mask is opaque",))
    line("tiles", f"{item.full:,} full, {item.partial:,} partial, {item.empty:,} empty, not visited ({exact})")
    share = item.useful / item.executed if item.executed else 1.0
    line("operations", f"{_si(item.useful)}FLOP useful, {_si(item.executed)}FLOP executed ({100 * share:.0f}% useful)")
    line("device memory", f"{_si(item.bytes)}B, {item.memory_ms:.3g} ms at {gpu.bandwidth_gbs:,} GB/s")
    pipes = sorted(zip(item.clocks.pipes, PIPES, strict=True), reverse=True)
    named = ", ".join(f"{name} {amount:.0f}" for amount, name in pipes if amount >= 0.5)
    line("clocks a tile", f"{item.clocks.tile:.0f} a full one, overlapped; {named}")
    peak = item.useful * 1e-9 / item.milliseconds / gpu.tflops(dtype) if item.milliseconds else 0.0
    line(
        "time",
        f"{item.milliseconds:.3g} ms, {100 * peak:.0f}% of the matrix units' peak",
    )
    line("bound by", f"{item.bound} ({_intensity(item, gpu, dtype)})")
    if item.compiled and item.compiled.est is not None:
        line("compiler", f"est {item.compiled.est:.0f}% of peak in full tiles, from the machine code (attnc inspect)")
    if item.split is not None:
        split = item.split
        parts = " + ".join(map(str, split.parts))
        saves = f", {100 * split.saves:.0f}% fewer clocks than padded to {split.padded}" if len(split.parts) > 1 else ""
        line(f"head dim {split.dim}", f"computed as {parts}{saves}")
    if item.better is not None:
        tile, milliseconds = item.better
        line("at this shape", f"{tile} would take {milliseconds:.3g} ms; a module's tiles are for every length")
    return lines


def _programs(item: Kernel) -> str:
    """How many there are, and how many of them share a query's keys."""
    told = []
    for number, launch in enumerate(item.launches, 1):
        lead = f"pass {number}: " if len(item.launches) > 1 else ""
        shared = f", {launch.splits} share a query's keys, merged in PyTorch" if launch.splits > 1 else ""
        told.append(f"{lead}{launch.programs:,}{shared}")
    return f"{'; '.join(told)}; {item.waves:.1f} waves of them"


def _seen(item: Kernel, what: str) -> str:
    if item.compiled is not None:
        return f"; compiler: {getattr(item.compiled, what):,}"
    value = getattr(item.calibrated, what, None)
    return "" if value is None else f"; calibrated: {value:,}"


def _spills(item: Kernel) -> str:
    if item.compiled is not None:
        compiled = item.compiled
        return f"compiler: {compiled.stack} bytes of stack a thread, {compiled.spills} instructions"
    if item.calibrated is not None and item.calibrated.stack is not None:
        return f"calibrated: {item.calibrated.stack} bytes of stack a thread"
    return "not asked of the compiler" if not item.spill else f"about {item.spill} bytes a thread"


def _intensity(item: Kernel, gpu: Gpu, dtype: str) -> str:
    ridge = 1e3 * gpu.tflops(dtype) / gpu.bandwidth_gbs
    return f"roofline: {item.useful / item.bytes:.0f} FLOP a byte, the ridge is at {ridge:.0f}"


def _whole(found: Report, gpu: Gpu) -> list[str]:
    forward = sum(item.milliseconds for item in found.kernels if item.step == "forward")
    backward = sum(item.milliseconds for item in found.kernels if item.step != "forward")
    useful = sum(item.useful for item in found.kernels if item.step == "forward")
    rate = 1e-9 * useful / forward if forward else 0.0
    speed = f"{rate:.0f} TFLOP/s of {gpu.tflops(found.dtype):.0f}"
    return [f"  in all: forward {forward:.3g} ms ({speed}), backward {backward:.3g} ms"]


def _cpu(found: Report, machine: Cpu) -> list[str]:
    compute, memory = cpu_bound(machine, [item for item in found.kernels if item.step == "forward"], found.dtype)
    bound = "arithmetic" if compute > memory else "device memory"
    useful = sum(item.useful for item in found.kernels if item.step == "forward")
    return [
        "  on a processor the blocked PyTorch code runs (backend eager)",
        f"  forward: {_si(useful)}FLOP useful; no less than {max(compute, memory):.3g} ms at the processor's peak of "
        f"{machine.tflops(found.dtype):.2f} TFLOP/s and {machine.bandwidth_gbs:,} GB/s; bound by {bound}",
    ]


def _cache(found: Report) -> list[str]:
    each = f"{found.cache_token:,} bytes a token"
    return [f"  KV cache of a layer: {each}, {_si(found.cache)}B for B={found.shape.B}, M={found.shape.M:,}"]


def _si(value: float) -> str:
    for unit, scale in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.3g} "


def data(program: Program, found: Report, *, verified: bool) -> dict[str, Any]:
    """All of it, for ``json.dumps``."""
    plan = found.plan
    return {
        "caveat": CAVEAT,
        "name": program.attention.name,
        "target": _machine(plan),
        "dtype": found.dtype,
        "shape": asdict(found.shape),
        "strategy": strategy(program),
        "verified": verified,
        "kernels": [] if isinstance(plan.machine, Cpu) else [_plain(item) for item in found.kernels],
        "unplanned": list(found.unplanned),
        "kv_cache": {"bytes_a_token": found.cache_token, "bytes": found.cache},
    }


def _machine(plan: Plan) -> dict[str, Any]:
    fields = {name: getattr(plan.machine, name) for name in plan.machine.__dataclass_fields__}
    return {name: dict(value) if name == "tensor" else value for name, value in fields.items()}


def _plain(item: Kernel) -> dict[str, Any]:
    use = item.budget
    return {
        "kernel": item.name,
        "pass": item.step,
        "tile": {
            "block_m": item.tile.block_m,
            "block_n": item.tile.block_n,
            "warps": item.tile.warps,
            "stages": item.tile.stages,
        },
        "refused": [{"tile": str(entry.tile), "reason": entry.reason} for entry in item.refused],
        "spills_anyway": item.spill,
        "model": {
            "shared": [{"what": what, "amount": amount} for what, amount in use.shared if amount],
            "shared_bytes": use.shared_bytes,
            "registers": [{"what": what, "amount": amount} for what, amount in use.registers if amount],
            "registers_thread": use.registers_thread,
            "tensor_columns": use.columns,
            "blocks": use.blocks,
            "limit": use.limits,
        },
        "calibrated": None if item.calibrated is None else item.calibrated._asdict(),
        "compiler": None if item.compiled is None else asdict(item.compiled),
        "tiles": {
            "full": item.full,
            "partial": item.partial,
            "empty": item.empty,
            "exact": item.exact,
            "why": item.why,
        },
        "live_pairs": item.live,
        "flop": {"useful": item.useful, "executed": item.executed},
        "bytes": item.bytes,
        "clocks": {"tile": item.clocks.tile, **dict(zip(PIPES, item.clocks.pipes, strict=True))},
        "ms": {"compute": item.compute_ms, "memory": item.memory_ms},
        "launches": [{"programs": launch.programs, "splits": launch.splits} for launch in item.launches],
        "waves": item.waves,
        "bound": item.bound,
        "split": None if item.split is None else asdict(item.split),
        "better_at_this_shape": None if item.better is None else {"tile": str(item.better[0]), "ms": item.better[1]},
    }

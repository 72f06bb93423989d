"""``attnc bench``: a spec timed beside what PyTorch has, over lengths."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from attnc.commands import as_json, as_tensors, assigned, construct_of, literal
from attnc.files import write
from attnc.planning import named_sizes
from attnc.session import CLEAN, Inputs, Refused, draw_bar

if TYPE_CHECKING:
    from attnc.runtime.bench import Cell

BACKENDS = ("auto", "triton", "interpret", "ttir", "native", "eager", "reference")
CONTENDERS = ("sdpa", "flex", *BACKENDS[1:])
Row = tuple[int, "dict[str, Cell]"]  # N, and what was found of each contender
_OFF = 64  # roundings of the dtype at the largest value: beyond, a result is another function's


def bench(options: argparse.Namespace, inputs: Inputs) -> int:
    from attnc.dsl.frontend import compilable

    names = [name.strip() for name in options.against.split(",") if name.strip()]
    for name in names:
        if name not in CONTENDERS:
            raise Refused(f"--against: `{name}` is none of {', '.join(CONTENDERS)}")
    sizes = named_sizes(options.shape) if options.shape else {}
    if options.lengths is not None and {"N", "M"} & set(sizes):
        raise Refused("--lengths says N and M: leave them out of --shape")
    construct = compilable(construct_of(options, inputs))
    given = {name: as_json(value) for name, value in assigned(options.input, "--input").items()}
    params = {name: literal(value) for name, value in assigned(options.param, "--param").items()}
    try:
        import torch

        from attnc.runtime.bench import contend, make_inputs
        from attnc.runtime.op import Op
    except ModuleNotFoundError as error:
        raise Refused(f"bench runs specs with {error.name}: pip install 'attnc[torch]'") from error
    figure = _figure() if options.png is not None else None
    op = Op(inputs.source(options.file), name=options.name, params=params, target=None)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16, "f64": torch.float64}[options.dtype]
    lengths = options.lengths or [sizes.get("N", 2048)]
    ours = options.backend
    all_names = (ours, *(name for name in dict.fromkeys(names) if name != ours))
    told = _bar(len(lengths) * (len(all_names) + 1))
    rows: list[Row] = []
    for n in lengths:
        shape = _whole(sizes, n)
        try:
            tensors = make_inputs(construct, shape, as_tensors(given))
        except (TypeError, ValueError) as error:
            raise Refused(f"{error}") from error
        settings: dict[str, Any] = {"inputs": tensors, "backward": options.backward, "seconds": options.seconds}
        rows.append((n, contend(op, shape, dtype, all_names, told=partial(told, f"N {n}"), **settings)))
    told("", "")
    fixed = " ".join(
        f"{name}={size}"
        for name, size in _whole(sizes, lengths[0]).items()
        if name != "N" and (name != "M" or name in sizes)
    )
    step = "backward" if options.backward else "forward"
    title = f"{op.name}, {options.dtype}, {step}, {fixed}"
    print(f"{title}; torch {torch.__version__}, {torch.get_num_threads()} threads; medians, in brackets over attnc's")
    print(_table(rows, all_names))
    if figure is not None:
        write(options.png, _plot(figure, rows, all_names, title))
    return CLEAN


def _whole(sizes: Mapping[str, int], n: int) -> dict[str, int]:
    """The sizes of a call of ``n`` queries: as given, else one batch, eight heads and vectors of 64."""
    made = {"B": 1, "H": 8, "N": n, "M": n, "D": 64} | dict(sizes)
    made = {"G": made["H"], "E": made["D"]} | made
    if made["H"] % made["G"]:
        raise Refused(f"--shape: H={made['H']} query heads cannot share G={made['G']} key heads evenly")
    return {name: made[name] for name in ("B", "H", "G", "N", "M", "D", "E")}


def _label(name: str) -> str:
    return name if name not in BACKENDS else "attnc" if name == "auto" else f"attnc {name}"


def _table(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Milliseconds of every contender, and below why some have none."""
    from attnc.runtime.bench import ratio

    ours, notes = names[0], dict[str, None]()
    lines = ["       N" + "".join(f"{_label(name) + ' ms':>20}" for name in names)]
    for n, cells in rows:
        line = f"{n:>8}"
        for name in names:
            cell = cells[name]
            if not cell.times:
                line += f"{'-':>20}"
                notes[f"{_label(name)}: {cell.why}"] = None
                continue
            shown = f"{cell.milliseconds:.3f}"
            if name != ours:
                times = ratio(cell.times, cells[ours].times)[0]
                shown += f" ({times:.2f})" if times >= 0.1 else f" ({times:.2g})"  # a peer a hundred times faster shows
            line += f"{shown:>20}"
            if cell.off > _OFF:
                notes[f"{name}: its result differs from attnc's by {cell.off:.0f} roundings at N {n}"] = None
        lines.append(line)
    return "\n".join((*lines, *notes))


def _bar(steps: int) -> Callable[[str, str], None]:
    """A progress bar on standard error, where that is a terminal; an empty name ends it."""
    if not sys.stderr.isatty():
        return lambda place, name: None
    done = 0

    def told(place: str, name: str) -> None:
        nonlocal done
        draw_bar(done, steps, f"{place} {name}" if name else "")
        done += 1

    return told


def _figure() -> Any:
    """Matplotlib's, without a window."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise Refused(f"--png is drawn with {error.name}: pip install 'attnc[plot]'") from error
    return Figure(figsize=(7, 4.5), layout="constrained")


def _plot(figure: Any, rows: Sequence[Row], names: Sequence[str], title: str) -> bytes:
    axes = figure.add_subplot(xscale="log", yscale="log", xlabel="N", ylabel="ms", title=title)
    for name in names:
        points = [(n, cells[name].milliseconds) for n, cells in rows if cells[name].times]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label=_label(name))
    axes.set_xticks([n for n, _ in rows], [str(n) for n, _ in rows])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    made = io.BytesIO()
    figure.savefig(made, format="png", dpi=150)
    return made.getvalue()

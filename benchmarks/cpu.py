"""attnc's CPU code beside PyTorch's: scaled_dot_product_attention, compiled FlexAttention, and what the machine can do.

    python benchmarks/cpu.py [--quick] [--only TEXT] [--dtypes f32 bf16 f16] [--backend native] [--threads 2]

A cell is their time over ours: the median over rounds of the ratio within a round, contenders in turns in one process;
in brackets the quartiles; behind the slash the number to reach, ``<`` where it is not. Forward calls want no
gradients; a backward is timed alone. FlexAttention's compilation, block masks and dense masks are made beforehand.
Say what else ran on the machine: the ratios bear it, the milliseconds do not."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

# Peers at their best, in this process: settings that hold their kernels to an older processor.
for _name in ("OPENBLAS_CORETYPE", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS"):
    os.environ.pop(_name, None)

import torch  # noqa: E402  # reads the environment
from torch import Tensor  # noqa: E402
from torch.nn.functional import scaled_dot_product_attention  # noqa: E402

import attnc  # noqa: E402
from attnc.dsl.version import VERSION  # noqa: E402
from attnc.runtime.bench import contend, interleave, make_inputs, make_vectors, ratio  # noqa: E402
from attnc.runtime.helpers import alibi_slopes  # noqa: E402
from attnc.runtime.op import Op  # noqa: E402

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
SCORE = "score dot(q, k) / sqrt(D)"
ALIBI = "input slope: f32[H] score dot(q, k) / sqrt(D) - slope[h] * abs(i - j)"
SOFTCAP = "score 50.0 * tanh(dot(q, k) / sqrt(D) / 50.0)"


clock = time.perf_counter  # of all samples


def spec(score: str = SCORE, mask: str = "", head: str = "") -> str:
    return f"attention a {{ {head} {score} {'mask ' + mask if mask else ''} normalize softmax }}"


def nothing(shape: Mapping[str, int]) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row: a spec at a shape against a peer. ``reach``: their time over ours, by dtype."""

    label: str
    text: str
    sizes: Mapping[str, int]
    peer: str
    reach: Mapping[str, float]
    backward: bool = False
    quick: bool = False
    inputs: Callable[[Mapping[str, int]], dict[str, Any]] = nothing
    flops: float = 0.0


def sizes(N: int, D: int, H: int = 8, G: int | None = None, M: int | None = None) -> dict[str, int]:
    return {"B": 1, "H": H, "G": G or H, "N": N, "M": M or N, "D": D, "E": D}


def three(f32: float, bf16: float, f16: float) -> dict[str, float]:
    return {"f32": f32, "bf16": bf16, "f16": f16}


def documents(shape: Mapping[str, int]) -> dict[str, Any]:
    """Documents of 100 to 700 tokens, one after another."""
    lengths = torch.randint(100, 700, (shape["M"] // 100 + 1,), generator=torch.Generator().manual_seed(3))
    ids = torch.repeat_interleave(torch.arange(len(lengths)), lengths)[: shape["M"]]
    return {"ids": ids.to(torch.int32)[None]}


def slopes(shape: Mapping[str, int]) -> dict[str, Any]:
    return {"slope": alibi_slopes(shape["H"])}


def products(count: int, shape: Mapping[str, int], mask: str) -> float:
    """Multiplies and adds of so many matrix products over the live pairs."""
    live = shape["N"] * (shape["N"] + 1) / 2 if mask else shape["N"] * shape["M"]
    return 2.0 * count * shape["H"] * live * shape["D"]


def cases() -> Iterator[Case]:
    """The table of the issue."""
    for mask, reach in (("", three(1.25, 1.9, 1.4)), ("causal", three(1.5, 2.2, 1.6))):
        for N in (512, 2048, 8192):
            for D in (64, 128):
                label = f"SDPA forward {mask or 'dense'}, N {N}, D {D}"
                shape = sizes(N, D, H=8 if N < 8192 else 2)
                quick, flops = D == 64 and N == 2048, products(2, shape, mask)
                yield Case(
                    label=label, text=spec(mask=mask), sizes=shape, peer="sdpa", reach=reach, quick=quick, flops=flops
                )
    for N, reach in ((2048, three(8, 9, 8)), (8192, three(30, 35, 30))):
        text, shape = spec(mask="causal and window(255)"), sizes(N, 64, H=8 if N < 8192 else 2)
        label = f"SDPA dense mask, window 256, N {N}"
        yield Case(label=label, text=text, sizes=shape, peer="sdpa", reach=reach, quick=N == 2048)
    flex, shape = three(2.5, 4, 3), sizes(2048, 64)
    ids = "input ids: i32[B, M]"
    for name, text in {
        "causal": spec(mask="causal"),
        "window 256": spec(mask="causal and window(255)"),
        "document": spec(mask="causal and document(ids)", head=ids),
        "ALiBi": spec(ALIBI, "causal"),
        "soft-cap": spec(SOFTCAP, "causal"),
    }.items():
        made = {"document": documents, "ALiBi": slopes}.get(name, nothing)
        label = f"FlexAttention {name}, N 2048, D 64"
        quick = name in ("causal", "window 256")
        yield Case(label=label, text=text, sizes=shape, peer="flex", reach=flex, inputs=made, quick=quick)
    for mask, reach in (("", three(1.3, 2, 1.5)), ("causal", three(1.7, 2.8, 2))):
        for N in (1024, 4096):
            for D in (64, 128):
                label = f"SDPA backward {mask or 'dense'}, N {N}, D {D}"
                shape, quick = sizes(N, D, H=8 if N < 4096 else 4), N == 1024 and D == 64
                yield Case(
                    label=label,
                    text=spec(mask=mask),
                    sizes=shape,
                    peer="sdpa",
                    reach=reach,
                    backward=True,
                    quick=quick,
                    flops=products(5, shape, mask),
                )
    for name, H, G, reach in (
        ("GQA 32/8", 32, 8, three(3, 2, 1.5)),
        ("MHA 8/8", 8, 8, three(1.2, 1.2, 1.5)),
        ("MQA 8/1", 8, 1, three(1.2, 1.2, 1.5)),
    ):
        shape = sizes(1, 128, H=H, G=G, M=8192)
        yield Case(
            label=f"SDPA decode {name}, N 8192, D 128", text=spec(), sizes=shape, peer="sdpa", reach=reach, quick=True
        )


# --- cells ------------------------------------------------------------------------------------


SQUARE = torch.randn(1536, 1536)
MM_FLOPS = 2 * 1536**3


def mm() -> Tensor:
    return SQUARE @ SQUARE


def cell(case: Case, dtype: str, backend: str, seconds: float) -> tuple[str, str]:
    """The ratio and the times as text, or why there are none. What matrix products bound has its share of
    ``torch.mm``'s fp32 rate, and the share that the goal asks for: over 100% fp32 arithmetic cannot reach it."""
    op = attnc.loads(case.text)
    inputs = make_inputs(op.construct, case.sizes, case.inputs(case.sizes))
    torch._dynamo.reset()  # or from the eighth spec on FlexAttention runs uncompiled
    found = contend(
        op,
        case.sizes,
        DTYPES[dtype],
        (backend, case.peer),
        inputs=inputs,
        backward=case.backward,
        seconds=seconds,
        clock=clock,
    )
    ours, theirs = found[backend], found[case.peer]
    if ours.why or theirs.why:
        return "-", f"{dtype}: {'attnc' if ours.why else case.peer}: {ours.why or theirs.why}"
    middle, low, high = ratio(theirs.times, ours.times)
    missed = "<" if middle < case.reach[dtype] else ""
    text = f"{missed}{middle:.2f} [{low:.2f} {high:.2f}] / {case.reach[dtype]:g}"
    note = f"{ours.milliseconds:.2f}" + (f" off by {theirs.off:.0f} eps" if theirs.off > 64 else "")
    if case.flops:
        rate = MM_FLOPS / median(interleave({"mm": mm}, min(seconds, 0.3), clock=clock)["mm"])
        share = case.flops / (ours.milliseconds / 1e3) / rate
        note += f" ({share:.0%} of mm, goal {share * case.reach[dtype] / middle:.0%})"
    return text, note


def table(chosen: list[Case], dtypes: list[str], backend: str, seconds: float, quick: bool) -> None:
    print(f"{'time of peer / time of attnc':42}" + "".join(f"{name:^28}" for name in dtypes) + "  ms of attnc")
    for case in chosen:
        # each cell of FlexAttention's compiles for a quarter of a minute
        own = dtypes[:1] if quick and case.peer == "flex" else dtypes
        found = [cell(case, dtype, backend, seconds) for dtype in own]
        times = ", ".join(note for _, note in found)
        if all(text == "-" for text, _ in found):
            times = found[0][1].partition(": ")[2]
        print(f"{case.label:42}" + "".join(f"{text:^28}" for text, _ in found) + f"  {times}", flush=True)


# --- limits -----------------------------------------------------------------------------------


def call(op: Op, shape: Mapping[str, int], dtype: str, backend: str, **inputs: Any) -> Callable[[], object]:
    vectors = list(make_vectors(op, shape, DTYPES[dtype]).values())
    return lambda: op(*vectors, backend=backend, **inputs)


def line(label: str, make: Callable[[], str]) -> None:
    try:
        print(f"{label:72}{make()}", flush=True)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        print(f"{label:72}-  {str(error).strip().splitlines()[0]}", flush=True)


def limits(backend: str, seconds: float, quick: bool) -> None:
    """Shares of what the machine does: multiply-adds of torch.mm, bytes read by torch.sum."""
    dense = attnc.loads(spec())
    for N, D in ((2048, 64),) if quick else ((2048, 64), (2048, 128), (4096, 64), (8192, 64)):
        shape = sizes(N, D, H=4)

        def share(shape: Mapping[str, int] = shape) -> str:
            found = interleave({"ours": call(dense, shape, "f32", backend), "mm": mm}, seconds, clock=clock)
            work = 4 * shape["H"] * shape["N"] * shape["M"] * shape["D"]
            shares = [work / ours / (MM_FLOPS / other) for ours, other in zip(found["ours"], found["mm"], strict=True)]
            return f"{median(shares):.0%} / 90%   torch.mm {MM_FLOPS / median(found['mm']) / 1e9:.0f} GF/s"

        line(f"dense forward, N {N}, D {D}, of torch.mm's fp32 rate", share)
    x = torch.ones(2**26)
    for dtype in DTYPES:
        for name, H, G in (("GQA 32/8", 32, 8), ("MHA 8/8", 8, 8)):
            shape = sizes(1, 128, H=H, G=G, M=8192)

            def read(shape: Mapping[str, int] = shape, dtype: str = dtype) -> str:
                found = interleave({"ours": call(dense, shape, dtype, backend), "sum": x.sum}, seconds, clock=clock)
                count = 2 * shape["G"] * shape["M"] * 128 * DTYPES[dtype].itemsize
                shares = [count / ours / (x.nbytes / s) for ours, s in zip(found["ours"], found["sum"], strict=True)]
                return f"{median(shares):.0%} / 85%   torch.sum {x.nbytes / median(found['sum']) / 1e9:.1f} GB/s"

            line(f"decode {name}, {dtype}, of read bandwidth", read)


def live_pairs(op: Op, N: int) -> int:
    """Of one head, counted in strips of rows."""
    strip = max(1, 2**26 // N)
    return sum(int(op.mask(min(strip, N - at), N, q_offset=at).sum()) for at in range(0, N, strip))


def costs(backend: str, seconds: float, quick: bool) -> None:
    """Time of a live pair beside dense attention's at 4096."""
    dense, shape = attnc.loads(spec()), sizes(4096, 64, H=1)
    long = 8192 if quick else 65536
    rows = {
        ("causal", 4096, 1.05): spec(mask="causal"),
        ("ALiBi", 4096, 1.05): spec(ALIBI, "causal"),
        ("soft-cap", 4096, 1.1): spec(SOFTCAP),
        ("Longformer (512, 64 global)", long, 1.3): spec(mask="window(256) or global(64)"),
        ("strided (128)", long, 1.3): spec(mask="causal and (window(127) or strided(128))"),
        ("BigBird (64, 3 random)", long, 1.3): spec(
            mask="block_window(64, 1) or global(128) or random(3, block = 64, seed = 0)"
        ),
    }
    for (name, N, reach), text in rows.items():

        def cost(name: str = name, N: int = N, reach: float = reach, text: str = text) -> str:
            op, own = attnc.loads(text), sizes(N, 64, H=1)
            inputs = make_inputs(op.construct, own, {})
            calls = {"dense": call(dense, shape, "f32", backend), "it": call(op, own, "f32", backend, **inputs)}
            found = interleave(calls, seconds, clock=clock)
            pairs = live_pairs(op, N)
            each = [t / pairs / (d / 4096**2) for t, d in zip(found["it"], found["dense"], strict=True)]
            missed = "<" if median(each) > reach else ""
            return f"{missed}{median(each):.2f} / {reach:g}   {pairs / N**2:.2%} of the pairs"

        line(f"time of a live pair over dense's: {name}, N {N}", cost)
    for dtype in ("bf16", "f16"):

        def half(dtype: str = dtype) -> str:
            own = sizes(2048, 64, H=4)
            found = interleave(
                {"f32": call(dense, own, "f32", backend), "it": call(dense, own, dtype, backend)}, seconds
            )
            middle, low, high = ratio(found["it"], found["f32"])
            return f"{'<' if middle > 1.1 else ''}{middle:.2f} [{low:.2f} {high:.2f}] / 1.1"

        line(f"{dtype} over fp32, dense forward, N 2048, D 64", half)


def results(run: Callable[..., Tensor], vectors: list[Tensor], go: Tensor, kind: torch.dtype) -> list[Tensor]:
    """The output and the gradients of a call with everything in a dtype."""
    leaves = [x.to(kind).requires_grad_() for x in vectors]
    out = run(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, go.to(kind))]


def accuracy(backend: str, draws: int) -> None:
    """Largest error against float64, ours / SDPA's, in units of the dtype's rounding at the largest value: the median
    over draws, for the largest of one draw is one row's, where roundings happen to add up."""
    for mask in ("", "causal"):
        for dtype, kind in DTYPES.items():

            def errors(mask: str = mask, kind: torch.dtype = kind) -> str:
                op = attnc.loads(spec(mask=mask))
                runs = partial(op, backend=backend), partial(scaled_dot_product_attention, is_causal=bool(mask))
                found: dict[str, list[list[float]]] = {name: [[], []] for name in ("out", "dq", "dk", "dv")}
                for seed in range(draws):
                    generator = torch.Generator().manual_seed(seed)
                    *given, go = (torch.randn(1, 4, 512, 64, generator=generator).to(kind) for _ in range(4))
                    exact = results(runs[1], given, go, torch.float64)
                    for side, run in enumerate(runs):
                        made = results(run, given, go, kind)
                        for largest, x, y in zip(found.values(), exact, made, strict=True):
                            largest[side].append(float((y - x).abs().max() / x.abs().max()) / torch.finfo(kind).eps)
                texts = []
                for name, both in found.items():
                    ours, other = map(median, both)
                    texts.append(f"{name} {'<' if ours > other else ''}{ours:.2f} / {other:.2f}")
                return "   ".join(texts)

            line(f"largest error, {mask or 'dense'}, {dtype}, attnc / SDPA", errors)


# --- the program ------------------------------------------------------------------------------


def machine() -> str:
    """What ran, and beside what."""
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            name = next((row.partition(": ")[2].strip() for row in file if row.startswith("model name")), name)
    return (
        f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, "
        f"{torch.backends.cpu.get_cpu_capability()}; torch {torch.__version__}, Python {platform.python_version()}, "
        f"attnc {VERSION}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="some rows, in under three minutes")
    parser.add_argument("--only", default="", help="rows whose label holds this text")
    parser.add_argument("--dtypes", nargs="+", choices=tuple(DTYPES), default=list(DTYPES))
    parser.add_argument("--backend", default="native")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--busy", action="store_true", help="one thread and its processor time: for a machine with other work to do"
    )
    parser.add_argument("--seconds", type=float, help="a cell (0.5 with --quick, else 4)")
    options = parser.parse_args()
    torch.set_num_threads(1 if options.busy else options.threads)
    global clock
    clock = time.process_time if options.busy else time.perf_counter
    seconds = options.seconds or (0.5 if options.quick else 4.0)
    began = time.perf_counter()
    print(f"{machine()}, {'processor time' if options.busy else 'wall clock'}", flush=True)
    chosen = [case for case in cases() if options.only in case.label and (case.quick or not options.quick)]
    table(chosen, options.dtypes, options.backend, seconds, options.quick)
    if not options.only:
        limits(options.backend, seconds, options.quick)
        costs(options.backend, seconds, options.quick)
        accuracy(options.backend, 5 if options.quick else 25)
    print(f"{time.perf_counter() - began:.0f} s, load {os.getloadavg()[0]:.1f}", file=sys.stderr)


if __name__ == "__main__":
    main()

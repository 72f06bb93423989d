"""Bugs planted in a private copy of the compiler: ``attnc fuzz`` must find each.

    nice python -P -m tests.planted                  all of them, a table as markdown
    nice python -P -m tests.planted window-end ...   some

A mutation replaces a text that its file holds exactly once, so that one that no longer fits the compiler fails loudly
(tests/cli/test_planted.py). It is applied to a copy of its file, the rest of the compiler is linked to; the copy has a
cache of its own. What is fuzzed is a spec of the zoo or a few words here, on the backend that the text serves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = 500
# Few kernels where each takes a C++ compiler seconds.
POOLS = {
    "eager": ("--kernels", "4", "--dtype", "f32,bf16"),
    "native": ("--kernels", "2", "--dtype", "f32"),
    "ttir": ("--kernels", "2", "--dtype", "f32"),
}
ROOMS = {"dsl": "dsl", "codegen": "codegen", "runtime": "runtime"}

_BIAS = "attention biased { input bias: f32[H, N, M]  score dot(q, k) + bias[h, i, j]  normalize softmax }"
_SUMS = (
    "attention sums { score dot(q, k) / sqrt(D)  mask causal  normalize sigmoid  emit total, rowmax, entropy, colsum }"
)
_STATS = "attention stats { score dot(q, k) / sqrt(D)  mask window(4)  normalize softmax  emit lse, rowmax, entropy }"
_TABLE = (
    "attention table { input t: bool[B, H, R, S]  score dot(q, k) / sqrt(D)  mask blocks(t, 16)  normalize softmax }"
)
_PAIR = "attention pair { input row: f32[B, H, N]  score dot(q, k) + row[b, h, i] * (j % 5)  normalize softmax1 }"


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """A bug: ``old`` becomes ``new`` in a file under the root. ``spec``: a name in the zoo, or a spec."""

    name: str
    does: str
    file: str
    old: str
    new: str
    spec: str
    backend: str

    @property
    def mutated(self) -> str:
        """The file's text with the bug. ValueError unless the old text is there once."""
        text = (ROOT / self.file).read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{self.name}: {self.file} holds its text {text.count(self.old)} times:\n{self.old}")
        return text.replace(self.old, self.new)

    @property
    def text(self) -> str:
        """The spec that finds it."""
        if "{" in self.spec:
            return self.spec
        return (ROOT / "examples" / "zoo" / f"{self.spec}.attn").read_text(encoding="utf-8")


_EAGER, _HELPERS = "codegen/templates/eager.py.j2", "codegen/templates/torch_helpers.py.j2"
_OP = "codegen/templates/op.py.j2"
_FORWARD, _BACKWARD = "codegen/templates/native/forward.cpp.j2", "codegen/templates/native/backward.cpp.j2"
_CONTEXTS, _VISITS = "codegen/templates/native/contexts.cpp.j2", "codegen/templates/native/visits.cpp.j2"
_PRODUCTS, _NATIVE = "codegen/templates/native/products.cpp.j2", "codegen/templates/native/backward.py.j2"
_TRITON, _TRITON_BACK = "codegen/templates/kernel_forward.py.j2", "codegen/templates/kernel_backward.py.j2"
_PARTS = "codegen/templates/kernel_parts.py.j2"


def _of(backend: str, file: str, *rows: tuple[str, str, str, str, str]) -> list[Mutation]:
    return [
        Mutation(name=name, does=does, file=file, old=old, new=new, spec=spec, backend=backend)
        for name, does, old, new, spec in rows
    ]


MUTATIONS = (
    # --- analysis: what is visited, what is derived
    *_of(
        "eager", "codegen/bounds.py",
        ("window-end", "intervals of live keys end one key early",
         "high = self._extreme(Fn.MIN, high, simplify((add(limit, 1),))[0])",
         "high = self._extreme(Fn.MIN, high, limit)", "longformer"),
        ("must-complement", "tiles are taken for full where one side alone is live",
         "sides += [] if low is None else [(None, low)]", "sides += [] if low is None else [(None, None)]", "sliding"),
    ),
    *_of(
        "eager", "codegen/project.py",
        ("window-side", "a bound from above is taken for one from below",
         "(self.highs if upper else self.lows)[limit] = None", "(self.lows if upper else self.highs)[limit] = None",
         "padded"),
    ),
    *_of(
        "eager", "codegen/residue.py",
        ("residue-class", "the class of residues is off by one",
         "(moved,) = substitute((sub(root, offset(side)),), {other: at})",
         "(moved,) = substitute((sub(sub(root, offset(side)), 1),), {other: at})", "dilated"),
        ("residue-sign", "the class of residues has the wrong sign",
         "inverse = -pow(unknown, -1, step)", "inverse = pow(unknown, -1, step)",
         "attention turned { score dot(q, k) / sqrt(D)  mask (i + j) % 5 == 2  normalize softmax }"),
    ),
    *_of(
        "eager", "codegen/derive.py",
        ("tanh-derivative", "tanh' = 1 + tanh ** 2",
         "return _times(g, sub(1.0, mul(node, node)))", "return _times(g, add(1.0, mul(node, node)))", "softcap"),
        ("log-derivative", "log' x = 1 / (x + 1)",
         "return div(g, x)", "return div(g, add(x, 1.0))",
         "attention logged { score log(dot(q, k) ** 2 + 1)  normalize softmax }"),
    ),
    # --- what all backends share; arguments are bound for the reference too, a bug there is none that it could show
    *_of(
        "eager", _OP,
        ("delta-sign", "the cotangent of lse has the wrong sign in delta",
         "delta = delta - d_lse\n", "delta = delta + d_lse\n", _STATS),
        ("delta-dropped", "what the divisor takes off is dropped",
         "{% if m.plain %}\n    dead = lse == -math.inf\n    delta = inner\n",
         "{% if m.plain %}\n    dead = lse == -math.inf\n    delta = inner * 0\n", "dense"),
        ("lse-without-divisor", "lse is the logarithm of the sum, sinks left out",
         "torch.where(dead, -math.inf, m + torch.log(divisor))",
         "torch.where(dead, -math.inf, m + torch.log(l{{ g }}))",
         "attention sunk { input e: f32[H]  score dot(q, k)  mask causal  normalize softmax(sink = e[h])  emit lse }"),
        ("total-scale", "the sum of weights keeps the running maximum's scale",
         "torch.where(dead, 0.0, l{{ g }} * torch.exp(m))", "torch.where(dead, 0.0, l{{ g }})",
         "attention one { score dot(q, k) / sqrt(D)  normalize softmax1  emit total }"),
    ),
    # --- eager
    *_of(
        "eager", _EAGER,
        ("rescale-output", "outputs are not rescaled when the maximum grows",
         "o{{ g }} = o{{ g }} * alpha + _mix(p, {{ t.value }}_values)",
         "o{{ g }} = o{{ g }} + _mix(p, {{ t.value }}_values)", "dense"),
        ("rescale-sum", "sums are not rescaled when the maximum grows",
         "l_i{{ g }} = l_i{{ g }} * alpha + p.sum(-1, keepdim=True)",
         "l_i{{ g }} = l_i{{ g }} + p.sum(-1, keepdim=True)", "dense"),
        ("dead-row", "a row without a key is 0 / 0",
         "torch.where(dead, 0.0, o{{ g }} / l_i{{ g }}).to(out{{ g }}.dtype)",
         "(o{{ g }} / l_i{{ g }}).to(out{{ g }}.dtype)", "causal"),
        ("mask-forgotten", "masked weights are kept in the backward",
         "p{{ g }} = torch.where(live{{ g }}, p{{ g }}, 0.0)\n{% endif %}\n{% endmacro %}\n{% macro statistics",
         "p{{ g }} = p{{ g }} + 0.0\n{% endif %}\n{% endmacro %}\n{% macro statistics", "sigmoid"),
        ("delta-added", "dS = p (dp + delta)",
         "g_ij{{ m.tag }} = p{{ m.tag }} * (dp - delta{{ m.tag }}_tile)",
         "g_ij{{ m.tag }} = p{{ m.tag }} * (dp + delta{{ m.tag }}_tile)", "dense"),
        ("rowmax-masked", "rowmax takes masked scores",
         "raw{{ g }} = torch.where(live{{ g }}, raw{{ g }}, -math.inf)", "raw{{ g }} = raw{{ g }} + 0.0", _SUMS),
        ("offset-kv", "the offset of the keys is ignored",
         "            j = cols + kv_offset\n", "            j = cols\n", "causal"),
        ("garbage", "keys that a condition masks are not zeroed",
         "{{ name }} = torch.where(_any_head(key_live, G).mT, {{ name }}, 0.0)", "{{ name }} = {{ name }} + 0.0",
         "padded"),
    ),
    *_of(
        "eager", _HELPERS,
        ("offset-query", "the offset of the queries is ignored",
         "return torch.full((1, 1, 1, 1), q_offset, device", "return torch.full((1, 1, 1, 1), 0, device", "causal"),
        ("offset-batch", "offsets a batch are ignored",
         "return q_offsets.view(-1, 1, 1, 1) + q_offset", "return q_offsets.view(-1, 1, 1, 1)[:1] + q_offset",
         "causal"),
        ("table-last-block", "a table's last block is dropped",
         "stop = min(start + block, length)\n        if start // block in listed",
         "stop = min(start + block, length)\n        if start // block in listed and stop < length", _TABLE),
        ("read-edge", "an index beyond an axis reads the last but one",
         "last = x.shape[axis] - 1\n        at = torch.clamp",
         "last = max(x.shape[axis] - 2, 0)\n        at = torch.clamp", "t5_bias"),
        ("live-boundary", "a tile that an interval ends in is skipped, `<` for `<=`",
         "any(lo < stop and start < hi and lo < hi for lo, hi in may)",
         "any(lo < stop and stop < hi and lo < hi for lo, hi in may)", "sliding"),
    ),
    # --- native
    *_of(
        "native", _FORWARD,
        ("cpp-rescale", "outputs are not rescaled when the maximum grows",
         "alpha[v] = exp2_weight((t.m[u + v] - safe) * scale_log2);", "alpha[v] = vec(1);", "dense"),
        ("cpp-tail", "the last keys of a row of blocks are dropped",
         "const int count = keys.count - at < KEYS ? keys.count - at : KEYS;\n    const Block<Map> whole",
         "const int count = keys.count - at < KEYS ? (keys.count - at) / 2 * 2 : KEYS;\n    const Block<Map> whole",
         "dense"),
        ("cpp-lse-base", "lse is in units of log 2",
         "* (real)0.69314718055994530942 + log(l) : m + log(l);", "+ log(l) * LOG2E : (m + log(l)) * LOG2E;",
         "causal"),
        ("cpp-stride", "rows of queries lie as those of keys do",
         "const element* rows = x.at + c.b * x.batch + c.h * x.head + t.first * x.row;",
         "const element* rows = x.at + c.b * x.head + c.h * x.batch + t.first * x.row;", "causal"),
    ),
    *_of(
        "native", _CONTEXTS,
        ("cpp-gqa", "query heads meet the wrong key-value head",
         "c.b = b, c.h = h, c.g = h / (a.H / a.G);", "c.b = b, c.h = h, c.g = h % a.G;", "gqa"),
        ("cpp-offset", "offsets a batch are ignored",
         "c.q_offset = a.q_offset + (a.q_offsets ? a.q_offsets[b] : 0);",
         "c.q_offset = a.q_offset + (a.q_offsets ? a.q_offsets[0] : 0);", "causal"),
    ),
    *_of(
        "native", _VISITS,
        ("cpp-class", "one row too many is counted in a class",
         "i64 n = (row - first + step - 1) / step;", "i64 n = (row - first + step) / step - (step > 1);", "dilated"),
        ("cpp-full", "keys are taken for full one key too far",
         "bits(x.from[n] - at, x.to[n] - at);", "bits(x.from[n] - at, x.to[n] + 1 - at);", "causal"),
    ),
    *_of(
        "native", _BACKWARD,
        ("cpp-delta", "dS = p (dp + delta)",
         "vf g = (dp - t.delta[v]) * (Map::EXPONENTIAL ? p : t.inverse[v]);",
         "vf g = (dp + t.delta[v]) * (Map::EXPONENTIAL ? p : t.inverse[v]);", "alibi"),
        ("cpp-bias-transposed", "the gradient of a bias is stored transposed",
         "pairs[(line + (v * LANES + m) * STEP) * a.M + keys.row(key + n)] = part[m];",
         "pairs[(line + (v * LANES + LANES - 1 - m) % t.count * STEP) * a.M + keys.row(key + n)] = part[m];", _BIAS),
        ("cpp-row-total", "sums along rows are doubled, and those of earlier chunks lost",
         "o.rows[x][line + n * STEP] += t.totals", "o.rows[x][line + n * STEP] = 2 * t.totals", _PAIR),
    ),
    # --- the kernels for GPUs, on the processor
    *_of(
        "ttir", _TRITON,
        ("gpu-rescale", "outputs are not rescaled when the maximum grows",
         "acc{{ p.tag }}{{ t }} * alpha[:, None]", "acc{{ p.tag }}{{ t }} * 1.0", "dense"),
        ("gpu-row", "a row beyond the last is stored",
         '"at_row", "row < N", k.value.dim)', '"at_row", "row <= N", k.value.dim)', "dense"),
    ),
    *_of(
        "ttir", _TRITON_BACK,
        ("gpu-heads", "gradients of keys leave out the last query head of a group",
         "for h in range(g * (H // G), (g + 1) * (H // G)):",
         "for h in range(g * (H // G), (g + 1) * (H // G) - (H // G > 2)):", "gqa"),
    ),
    *_of(
        "ttir", _PARTS,
        ("gpu-delta", "dS = p (dp + delta)",
         "g_ij{{ t }} = p{{ t }} * (dp{{ t }} - delta{{ t }}{{ rowvec }})",
         "g_ij{{ t }} = p{{ t }} * (dp{{ t }} + delta{{ t }}{{ rowvec }})", "dense"),
        ("gpu-offset", "offsets a batch are ignored",
         "q_offset += tl.load(q_offsets_ptr + b).to(tl.int32)", "q_offset += tl.load(q_offsets_ptr).to(tl.int32)",
         "causal"),
    ),
)  # fmt: skip


def planted(mutation: Mutation, folder: Path) -> dict[str, str]:
    """A copy of attnc with the bug below ``folder``; the environment in which it is the one that is imported."""
    package = folder / "attnc"
    package.mkdir(parents=True)
    room, *rest = Path(mutation.file).parts
    for name in ROOMS:
        if name != room:
            (package / name).symlink_to(ROOT / name)
    for item in (ROOT / "attnc").iterdir():
        if item.name not in ("__pycache__", *ROOMS):
            (package / item.name).symlink_to(item)
    _linked(ROOT / room, package / room, rest, mutation.mutated)
    compiler = folder / "cxx"  # the last -O counts: what runs for milliseconds is not worth a minute of compiling
    compiler.write_text(f'#!/bin/sh\nexec {os.environ.get("CXX", "c++")} "$@" -Og\n', encoding="utf-8")
    compiler.chmod(0o755)
    return os.environ | {
        "PYTHONPATH": str(folder),
        "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
        "ATTNC_CACHE_DIR": str(folder / "cache"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
        "CXXFLAGS": "-Og",
        "CXX": str(compiler),
    }


def _linked(source: Path, target: Path, path: list[str], text: str) -> None:
    """A folder of links, but for one file below it."""
    target.mkdir()
    for item in source.iterdir():
        if item.name == path[0] and len(path) == 1:
            (target / item.name).write_text(text, encoding="utf-8")
        elif item.name == path[0]:
            _linked(item, target / item.name, path[1:], text)
        elif item.name != "__pycache__":
            (target / item.name).symlink_to(item)


def fuzzed(
    mutation: Mutation, folder: Path, *, examples: int = EXAMPLES, options: tuple[str, ...] = ()
) -> dict[str, object]:
    """What ``attnc fuzz`` says of the copy with the bug."""
    environment = planted(mutation, folder)
    (folder / "spec.attn").write_text(mutation.text, encoding="utf-8")
    command = [sys.executable, "-P", "-m", "attnc", "fuzz", str(folder / "spec.attn")]
    command += ["--backend", mutation.backend, "--examples", str(examples), "--format", "json", *options]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1) or not done.stdout:
        raise RuntimeError(f"{mutation.name}: attnc fuzz ended with {done.returncode}\n{done.stderr}")
    (run,) = json.loads(done.stdout)["runs"]
    return dict(run)


class Here:
    """In place of the process that a backend runs in: torch is imported once for all bugs."""

    def __init__(self, *, interpreted: bool = False, limit: float | None = None) -> None: ...

    def call(self, function: Callable[..., object], *arguments: object) -> object:
        return function(*arguments)

    def close(self) -> None: ...


def quickly(mutation: Mutation, folder: Path) -> dict[str, object]:
    """The same in a fork of this process, which has imported what all share; a failing call is left as it is."""
    environment = planted(mutation, folder)
    (folder / "spec.attn").write_text(mutation.text, encoding="utf-8")
    child = os.fork()
    if child == 0:
        status = 101
        try:
            os.environ.update(environment)
            sys.path[:] = [str(folder), *(path for path in sys.path if not path.startswith(str(ROOT)))]
            sys.pycache_prefix = environment["PYTHONPYCACHEPREFIX"]
            from attnc.cli import main
            from attnc.testing import fuzz

            assert fuzz.__file__.startswith(str(folder))
            fuzz.Process, fuzz._SMALLER = Here, 0  # type: ignore[misc, assignment]
            arguments = ["fuzz", str(folder / "spec.attn"), "--backend", mutation.backend, "--examples", str(EXAMPLES)]
            with (folder / "said.json").open("w") as said, redirect_stdout(said):
                status = main([*arguments, *POOLS[mutation.backend], "--format", "json"])
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    ended = os.waitstatus_to_exitcode(status)
    if ended < 0:
        return {"failure": {"after": "?", "message": f"the process ended with signal {-ended}"}}
    if ended not in (0, 1):  # a fault of the fuzzing itself is no catch
        raise RuntimeError(f"{mutation.name}: attnc fuzz ended with {ended}")
    (run,) = json.loads((folder / "said.json").read_text())["runs"]
    return dict(run)


def main() -> int:
    import hypothesis.strategies  # noqa: F401  # before the first fork
    import jinja2  # noqa: F401
    import lark  # noqa: F401
    import torch

    torch.set_num_threads(1)
    chosen = [mutation for mutation in MUTATIONS if not sys.argv[1:] or mutation.name in sys.argv[1:]]
    print("| bug | in | spec | caught after | by |\n| --- | --- | --- | --- | --- |", flush=True)
    missed = 0
    for mutation in chosen:
        with tempfile.TemporaryDirectory() as folder:
            run = quickly(mutation, Path(folder))
        failure = run["failure"]
        missed += failure is None
        after, by = "**missed**", ""
        if isinstance(failure, dict):
            after, by = str(failure["after"]), failure["message"].splitlines()[0].split(":")[0]
        spec = mutation.spec if "{" not in mutation.spec else f"`{mutation.spec.split()[1]}`"
        place = f"{mutation.backend}, {Path(mutation.file).name}"
        print(f"| {mutation.name}: {mutation.does} | {place} | {spec} | {after} | {by} |", flush=True)
    print(f"\n{len(chosen) - missed} of {len(chosen)} caught within {EXAMPLES} calls each", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

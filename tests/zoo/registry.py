"""What an entry of the zoo is: a spec of examples/zoo, and a call of it beside an authority that is not this project.

A module of entries has one function a spec, of the spec's name:

    @entry(authority="torch's scaled_dot_product_attention")
    def causal() -> Trial:
        return Trial(leaves=heads(), theirs=lambda q, k, v: sdpa(q, k, v, is_causal=True))

``tests/zoo/entries.py`` gathers the modules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import attnc
from attnc import Op

ZOO = Path(__file__).resolve().parents[2] / "examples" / "zoo"
B, H, N, D = 2, 4, 37, 16  # of a trial, unless its authority asks for others. One D: native code is built once

Scene = Callable[[int], Mapping[str, Tensor]]


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in float64 that float32 holds exactly."""
    generator = torch.Generator().manual_seed(1000 * seed + prod(shape))
    return torch.randn(*shape, generator=generator).double()


def heads(*, n: int = N, kv_heads: int = H, names: str = "q k v", dim: int = D) -> dict[str, Tensor]:
    """Vectors [B, H or kv_heads, n, dim] of these names; a name that begins with q is a query's."""
    return {
        name: noise(B, H if name.startswith("q") else kv_heads, n, dim, seed=seed)
        for seed, name in enumerate(names.split())
    }


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One call of an op beside its authority, small enough to be quick, large enough that every part of the pattern
    occurs. ``leaves``: float64 tensors that float32 holds exactly; gradients of all of them are compared.
    ``theirs(**leaves)`` gives the authority's result. ``mine(op, **leaves)`` gives the op's: by default the op of the
    leaves by their names, vectors and inputs, with the inputs in ``fixed`` that have no gradient. ``dtype``: the
    precision that the authority computes in, whatever it is given."""

    leaves: Mapping[str, Tensor]
    theirs: Callable[..., Tensor]
    params: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Tensor] = field(default_factory=dict)
    mine: Callable[..., Tensor] | None = None
    dtype: torch.dtype = torch.float64

    def run(self, op: Op, *, backend: str, dtype: torch.dtype) -> Compared:
        """Both, forward and backward, from the same numbers: the op's in ``dtype``, the authority's in its own."""
        mine = partial(self.mine or self._called, partial(op, backend=backend))
        results = []
        for function, own in ((mine, dtype), (self.theirs, self.dtype)):
            leaves = {name: x.to(own).detach().requires_grad_() for name, x in self.leaves.items()}
            out = function(**leaves)
            cotangent = noise(*out.shape, seed=7).to(out.dtype)
            gradients = torch.autograd.grad(out, list(leaves.values()), cotangent)
            results.append({"out": out.detach(), **dict(zip(leaves, gradients, strict=True))})
        return Compared(mine=results[0], theirs=results[1])

    def _called(self, op: partial[Tensor], /, **leaves: Tensor) -> Tensor:
        called: Op = op.func  # type: ignore[assignment]
        vectors = [leaves.pop(vector.name) for vector in called.construct.vectors]
        fixed = {n: x.to(vectors[0].dtype) if x.is_floating_point() else x for n, x in self.fixed.items()}
        return op(*vectors, **leaves, **fixed)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Results by name, ``out`` first, then the gradient of each leaf."""

    mine: Mapping[str, Tensor]
    theirs: Mapping[str, Tensor]

    def error(self, name: str) -> float:
        """The largest difference over the authority's largest value."""
        expected = self.theirs[name].double()
        return float((self.mine[name].double() - expected).abs().max() / expected.abs().max())

    @property
    def forward(self) -> float:
        return self.error("out")

    @property
    def gradient(self) -> float:
        """The worst of all leaves."""
        return max(self.error(name) for name in self.theirs if name != "out")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A spec, who says that it is right, and how to try it. ``scene(n)``: the inputs that the mask reads for n queries
    and keys, where it reads any; ``length``: the queries and keys at which the gallery counts the cost of the spec with
    its own defaults."""

    name: str
    authority: str
    trial: Callable[[], Trial]
    scene: Scene
    length: int

    @property
    def path(self) -> Path:
        return ZOO / f"{self.name}.attn"

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def note(self) -> Note:
        return note(self.text)

    @property
    def lines(self) -> int:
        """Lines of the spec, comments and blanks left out."""
        lines = (line.strip() for line in self.text.splitlines())
        return sum(bool(line) and not line.startswith("#") for line in lines)

    def op(self, **params: Any) -> Op:
        return attnc.load(self.path, **params)

    def compared(self, *, backend: str, dtype: torch.dtype) -> Compared:
        made = self.trial()
        return made.run(self.op(**made.params), backend=backend, dtype=dtype)


def entry(*, authority: str, scene: Scene = lambda n: {}, length: int = 4096) -> Callable[[Callable[[], Trial]], Entry]:
    """Makes an entry of a function that gives its trial, named like the spec."""

    def made(trial: Callable[[], Trial]) -> Entry:
        return Entry(name=trial.__name__, authority=authority, trial=trial, scene=scene, length=length)

    return made


# --- what a spec says of itself ---------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Note:
    """The comment at the head of a spec: a sentence, then lines that begin with Paper, Equation and Cost."""

    summary: str
    paper: str
    equation: str
    cost: str


_LABELS = ("Paper", "Equation", "Cost")


def note(text: str) -> Note:
    """Raises ValueError for a text whose head lacks a part, or has them in another order."""
    head = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        head.append(line.removeprefix("#").strip())
    joined = " ".join(head)
    pattern = r"(.+?)" + "".join(rf" {label}: (.+?)" for label in _LABELS)
    found = re.fullmatch(pattern, joined)
    if found is None:
        raise ValueError(f"expected a sentence, then {', '.join(f'{label}:' for label in _LABELS)}; got {joined!r}")
    summary, paper, equation, cost = found.groups()
    return Note(summary=summary, paper=paper, equation=equation, cost=cost)

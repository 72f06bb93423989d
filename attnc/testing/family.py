"""Calls of drawn specs. A family is a spec, dims, heads, a layout, the kind of offsets: what kernels are compiled for.
Its calls differ in lengths, offsets and values: many of them run through one set of kernels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import torch
from hypothesis import strategies as st
from torch import Tensor

from attnc.codegen.ranges import LIMIT
from attnc.runtime.op import Op, loads
from attnc.testing.call import Call, like, make
from attnc.testing.grammar import Draw, Text, drawn_specs

LENGTHS = (1, 2, 17, 33, 127, 129)
DIMS = (1, 3, 16, 17, 24, 48, 64, 80, 96, 128, 256)
PAIRS = 400_000  # of all heads, at most: the reference holds them in float64, several times over

Values = Literal["plain", "large", "tied", "zero", "garbage"]
_FAR = LIMIT - 4000  # near the largest position


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a call of a family is made from."""

    N: int
    M: int
    q_offset: int | tuple[int, ...] | None = None
    kv_offset: int = 0
    values: Values = "plain"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Family:
    spec: str
    text: Text
    B: int
    H: int
    G: int
    D: int
    E: int
    layout: str
    per_batch: bool  # a query offset for each batch entry
    target: str = "generic"

    @cached_property
    def op(self) -> Op:
        return loads(self.spec, target=self.target)

    def call(self, shape: Shape) -> Call:
        """The same call for the same shape."""
        sizes = {name: getattr(self, name) for name in "BHGDE"} | {"N": shape.N, "M": shape.M}
        generator = torch.Generator().manual_seed(shape.seed)
        inputs = {name: maker(sizes, generator) for name, maker in self.text.makers.items()}
        offsets: dict[str, Any] = {}
        if shape.q_offset is not None:
            per_batch = isinstance(shape.q_offset, tuple)
            offsets["q_offset"] = torch.tensor(shape.q_offset) if per_batch else shape.q_offset
        if shape.kv_offset:
            offsets["kv_offset"] = shape.kv_offset
        made = make(self.op, sizes, inputs=inputs, layout=self.layout, seed=shape.seed, **offsets)
        return self._with_values(made, shape)

    def _with_values(self, call: Call, shape: Shape) -> Call:
        vectors, inputs = dict(call.vectors), dict(call.inputs)
        match shape.values:
            case "large" if "total" not in self.spec:  # scores of hundreds: exp of them is beyond float32
                vectors["q"] = vectors["q"] * 32
            case "tied":
                vectors["k"] = vectors["k"] * 0 + vectors["k"][:, :, :1]
            case "zero":
                vectors["q"] = vectors["q"] * 0
            case "garbage":
                _spoil(call, vectors, inputs, shape, self.text.bounded)
            case _:
                pass
        return Call(op=call.op, vectors=vectors, inputs=inputs, options=call.options)


def _spoil(call: Call, vectors: dict[str, Tensor], inputs: dict[str, Any], shape: Shape, bounded: bool) -> None:
    """Inf and NaN where the language says that they do not matter: in what only masked pairs read, and in keys and
    values behind ``lens`` where every map has that condition."""
    trash = torch.tensor([torch.inf, torch.nan, -torch.inf], dtype=torch.float64)
    lead = {axis: vectors["q"].shape[n] for n, axis in enumerate("BH")}
    if "pair" in inputs:
        live = call.op.mask(shape.N, shape.M, **lead, **inputs, **call.options)
        for axis, size in enumerate(inputs["pair"].shape[:2]):
            live = live.any(axis, keepdim=True) if size == 1 else live
        spread = live.expand(inputs["pair"].shape)
        inputs["pair"] = torch.where(spread, inputs["pair"], trash[torch.arange(shape.M) % 3])
    if not bounded:
        return
    columns = torch.arange(shape.M) + shape.kv_offset
    behind = columns >= inputs["lens"][:, None]  # [B, M]
    if vectors["k"].stride(0) == 0:  # one row of keys for every batch
        behind = behind.all(0, keepdim=True).expand(behind.shape)
    fill = trash[torch.arange(shape.M) % 3]
    for name in ("k", "v"):
        vectors[name] = like(torch.where(behind[:, None, :, None], fill[:, None], vectors[name]), vectors[name])


@st.composite
def families(draw: Draw, *, dims: tuple[int, ...] = DIMS, groups: tuple[int, ...] = (1, 3, 8)) -> Family:
    spec, text = draw(drawn_specs())
    heads = draw(st.sampled_from([1, 2]))
    allowed = [d for d in dims if ("rope" not in spec or d % 2 == 0) and ("l2norm" not in spec or d > 2)]
    return Family(
        spec=spec,
        text=text,
        B=draw(st.sampled_from([1, 2])),
        H=heads * draw(st.sampled_from(groups)),
        G=heads,
        D=draw(st.sampled_from(allowed)),  # l2norm of one number is its sign, with a gradient of 0
        E=draw(st.sampled_from(dims)),
        layout=draw(st.sampled_from(["BHND", "BNHD", "spread"])),
        per_batch=draw(st.integers(0, 3)) == 0,
        target=draw(st.sampled_from(["generic", "sm_100"])),  # the second reads vectors by descriptors
    )


@st.composite
def shapes(draw: Draw, family: Family, lengths: tuple[int, ...] = LENGTHS) -> Shape:
    most = PAIRS // (family.B * family.H)
    first = draw(st.sampled_from(lengths))
    second = draw(st.sampled_from([n for n in lengths if n * first <= most]))
    q_offset: int | tuple[int, ...] | None = None
    kv_offset = 0
    kind = draw(st.integers(0, 3))
    if family.per_batch:
        q_offset = tuple(draw(st.integers(-60, 60)) for _ in range(family.B))
    elif kind == 1:
        q_offset, kv_offset = draw(st.integers(-5, 40)), draw(st.integers(-3, 20))
    elif kind == 2:
        far = [] if "rope" in family.spec else [(_FAR, _FAR)]  # float32 has no such angles
        q_offset, kv_offset = draw(st.sampled_from([(-2000, 0), (2000, 0), (0, 2000), (300, 290), *far]))
    lengths_ = (first, second) if draw(st.booleans()) else (second, first)
    return Shape(
        N=lengths_[0],
        M=lengths_[1],
        q_offset=q_offset,
        kv_offset=kv_offset,
        values=draw(st.sampled_from(("plain", "plain", *get_args(Values)))),
        seed=draw(st.integers(0, 99)),
    )


@st.composite
def calls(
    draw: Draw, *, lengths: tuple[int, ...] = LENGTHS, dims: tuple[int, ...] = DIMS, groups: tuple[int, ...] = (1, 3, 8)
) -> Call:
    """A call of a drawn spec."""
    family = draw(families(dims=dims, groups=groups))
    made: Call = family.call(draw(shapes(family, lengths)))
    return made

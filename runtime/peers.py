"""What PyTorch itself has for a spec: scaled_dot_product_attention and FlexAttention, written from the spec's IR.

Each is made for one call and returns ``out``; NoPeer says why there is none. The mask of one, the block mask and the
compilation of the other are made beforehand, as a user would keep them: what is timed is the attention alone.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from attnc.codegen.print_torch import TorchPrinter
from attnc.codegen.printer import Names, Text
from attnc.dsl.construct import Attention
from attnc.dsl.ir import Axis, Const, Dot, Expr, Index, Kind, Load, Offset, Side, Size, Symbol, Table, Vector, postorder
from attnc.runtime.evaluate import Domain, Scope, evaluate
from attnc.runtime.reference import mask_scope

Run = Callable[[], Tensor]
_LARGEST = 2**29  # elements of a dense mask
_AXES: tuple[Axis, ...] = ("b", "h", "i", "j")


class NoPeer(ValueError):
    """A peer has nothing that computes this spec; the message says what is missing."""


def sdpa(construct: Attention, vectors: Mapping[str, Tensor], inputs: Mapping[str, Any]) -> Run:
    """scaled_dot_product_attention: its causal path where the mask is that, else a dense mask of truth values, or of
    numbers where the score adds any. Differentiable in the vectors."""
    score, dots = _one_softmax(construct)
    q, k, v = _qkv(construct, vectors, dots)
    scope = _scope(construct, q, k, v, inputs)
    B, H, N, M = q.shape[0], q.shape[1], q.shape[2], k.shape[2]

    def scores(dot: float, indices: Mapping[Axis, Tensor]) -> Tensor:
        known: dict[Expr, Tensor] = {node: torch.full((1, 1, 1, 1), dot, dtype=scope.dtype) for node in dots}
        return evaluate(score, scope, Domain(rank=4, indices=indices), known)

    few = _indices(B, H, torch.arange(0, N, max(1, N // 29)) + M - N, torch.arange(0, M, max(1, M // 31)))
    at = [scores(float(dot), few) for dot in (-3, 0, 1, 5)]
    scale = (at[2] - at[1]).mean().item()
    line = zip(at, (-3, 0, 1, 5), strict=True)
    if not all(torch.allclose(s - at[1], torch.tensor(scale * dot), atol=1e-5) for s, dot in line):
        raise NoPeer("its score is no multiple of the dot product plus a bias")
    plain = bool((at[1] == 0).all()) and not any(isinstance(node, Load | Index) for node in postorder(score))
    mask = construct.branches[0].mask
    every = _indices(B, H, torch.arange(N) + M - N, torch.arange(M))
    options: dict[str, Any] = {"scale": scale, "enable_gqa": q.shape[1] != k.shape[1]}
    if not isinstance(mask, Const):
        live = evaluate(mask, scope, Domain(rank=4, indices=every), {})
        if plain and N == M and torch.equal(live, torch.ones(N, M, dtype=torch.bool).tril()[None, None]):
            options["is_causal"] = True
        else:
            options["attn_mask"] = _fits(live, N, M)
    if not plain:
        bias = scores(0.0, every)
        live = options.pop("attn_mask", torch.ones(1, 1, 1, 1, dtype=torch.bool))
        options["attn_mask"] = _fits(torch.where(live, bias, -math.inf), N, M).to(q.dtype)
    return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)


def flex(construct: Attention, vectors: Mapping[str, Tensor], inputs: Mapping[str, Any]) -> Run:
    """FlexAttention, compiled: the first call compiles, for many seconds. Without gradients: on a CPU it has none."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    score, dots = _one_softmax(construct)
    q, k, v = _qkv(construct, vectors, dots)
    B, H, N, M = q.shape[0], q.shape[1], q.shape[2], k.shape[2]
    mask = construct.branches[0].mask
    printed = _Flex(construct, q, k, v, inputs)
    modified = printed.function("score, b, h, i, j", score, dict.fromkeys(dots, "score"))
    kept = printed.function("b, h, i, j", mask, {})
    vary = {node.axis for node in postorder(mask) if isinstance(node, Index)}
    block_mask = None
    if not isinstance(mask, Const):
        block_mask = create_block_mask(kept, B if "b" in vary else None, H if "h" in vary else None, N, M, device="cpu")
    compiled = torch.compile(flex_attention, dynamic=False)

    def run() -> Tensor:
        with torch.no_grad():
            grouped = q.shape[1] != k.shape[1]
            out = compiled(q, k, v, score_mod=modified, block_mask=block_mask, scale=1.0, enable_gqa=grouped)
            assert isinstance(out, Tensor)
            return out

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of inductor, about itself
        run()
    return run


PEERS: Mapping[str, Callable[[Attention, Mapping[str, Tensor], Mapping[str, Any]], Run]] = {"sdpa": sdpa, "flex": flex}


def _one_softmax(construct: Attention) -> tuple[Expr, tuple[Dot, ...]]:
    """The score of a spec with one map, normalized by the plain softmax, and its dots of declared vectors."""
    if len(construct.branches) > 1 or not isinstance(construct.output, Symbol):
        raise NoPeer("it combines several maps")
    (branch,) = construct.branches
    if branch.normalization.name != "softmax" or not isinstance(branch.normalization.divisor, Symbol):
        raise NoPeer("its normalization is not the plain softmax")
    if construct.tokens:
        raise NoPeer("it derives vectors or values by token")
    dots = tuple(node for node in postorder(branch.score) if isinstance(node, Dot))
    if len(dots) != 1:
        raise NoPeer(f"its score has {len(dots)} dot products")
    return branch.score, dots


def _qkv(construct: Attention, vectors: Mapping[str, Tensor], dots: Sequence[Dot]) -> tuple[Tensor, Tensor, Tensor]:
    role = {item.role: vectors[item.name] for item in construct.vectors}
    return role["query"], role["key"], role["value"]


def _scope(construct: Attention, q: Tensor, k: Tensor, v: Tensor, inputs: Mapping[str, Any]) -> Scope:
    B, H, N, D = q.shape
    found = mask_scope(construct, N, k.shape[2], B, H, inputs)
    return replace(found, sizes={**found.sizes, "D": D, "G": k.shape[1], "E": v.shape[3]})


def _indices(B: int, H: int, i: Tensor, j: Tensor) -> dict[Axis, Tensor]:
    b, h = torch.arange(B).reshape(-1, 1, 1, 1), torch.arange(H).reshape(1, -1, 1, 1)
    return {"b": b, "h": h, "i": i.reshape(1, 1, -1, 1), "j": j.reshape(1, 1, 1, -1)}


def _fits(mask: Tensor, N: int, M: int) -> Tensor:
    """A mask with rows and columns in full; NoPeer for one that is too large to make."""
    if mask.shape[0] * mask.shape[1] * N * M > _LARGEST:
        raise NoPeer(f"its dense mask would have {mask.shape[0]} x {mask.shape[1]} x {N} x {M} elements")
    return mask.expand(mask.shape[0], mask.shape[1], N, M).contiguous()


class _Flex(TorchPrinter):
    """Expressions as a FlexAttention user would write them: functions of index scalars, tensors captured."""

    def __init__(self, construct: Attention, q: Tensor, k: Tensor, v: Tensor, inputs: Mapping[str, Any]) -> None:
        scope = _scope(construct, q, k, v, inputs)
        super().__init__({}, Names(("score", *_AXES, "torch", "math", "acc")), {})
        self._sizes = scope.sizes
        self._space: dict[str, Any] = {
            "torch": torch,
            "math": math,
            "acc": torch.float32,
            "_like": _like,
            "_full": _full,
        }
        self._space |= {"shift": scope.sizes["M"] - scope.sizes["N"]}
        for item in construct.inputs:
            value = scope.inputs[item.name]
            wanted = [scope.sizes[axis.name] if isinstance(axis, Size) else -1 for axis in item.axes]
            spread = [a if b == 1 else b for a, b in zip(wanted, value.shape, strict=True)]
            self._space[f"input_{item.name}"] = value.expand(spread).contiguous()
        self.tensors = {item.name: f"input_{item.name}" for item in construct.inputs}

    def function(self, arguments: str, root: Expr, leaves: Mapping[Expr, str]) -> Callable[..., Tensor]:
        """``root`` as a Python function of the ``arguments``."""
        self.leaves = {**leaves}
        for node in postorder(root):
            match node:
                case Index(axis=axis):
                    self.leaves[node] = axis
                case Size(name=name):
                    self.leaves[node] = str(self._sizes[name])
                case Offset(side=side):
                    self.leaves[node] = "0" if side is Side.KEY else "shift"
                case Vector():
                    self.leaves[node] = "score"  # below the dot, which has its name
        try:
            lines = self.block({"result": root}, [frozenset(_AXES)]).lines[0]
        except (NotImplementedError, KeyError) as error:
            raise NoPeer(f"FlexAttention has no words for it ({error})") from error
        shift = ["i = i + shift"] if self._space["shift"] else []
        text = "\n    ".join((f"def function({arguments}):", *shift, *lines, "return result"))
        exec(compile(text, "<flex>", "exec"), self._space)
        made: Callable[..., Tensor] = self._space.pop("function")
        return made

    def load(self, node: Load, index: Sequence[str]) -> Text:
        name = self.tensors[node.tensor]
        axes = self._space[name].shape
        reach = {"b": "B", "h": "H", "i": "M", "j": "M"}  # position i ends where j does
        inside = [
            at
            if isinstance(expr, Index) and length >= self._sizes[reach[expr.axis]]
            else f"torch.clamp({at}, 0, {length - 1})"
            for at, expr, length in zip(index, node.index, axes, strict=True)
        ]
        return Text(text=f"{name}[{', '.join(inside)}]" if inside else name)

    def table(self, node: Table, index: Text) -> Text:
        name = f"table{len(self._space)}"
        kinds = {Kind.BOOL: torch.bool, Kind.INT: torch.int64, Kind.FLOAT: torch.float32}
        self._space[name] = torch.tensor(node.values, dtype=kinds[node.kind])
        return Text(text=f"{name}[torch.clamp({index.text}, 0, {len(node.values) - 1})]")


def _like(value: float, model: Tensor) -> Tensor:
    return torch.full_like(model, value)


def _full(value: float, model: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.full_like(model, value, dtype=dtype)

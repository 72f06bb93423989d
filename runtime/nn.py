"""An attention layer around an op: projections, heads, and the op between them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attnc.dsl.ir import Size
from attnc.runtime.evaluate import size
from attnc.runtime.op import Op, load, loads


class Attention(nn.Module):
    """``out_proj(op(q_proj(x), k_proj(y), v_proj(y)))`` on [B, N, embed_dim], y = x unless ``memory`` is given.

    ``spec``: an op, a path of a ``.attn`` file, or a spec's text; it takes q, k, v. ``params`` go to the spec.
    ``inputs`` are the spec's inputs that belong to the layer: float tensors become parameters (``input_NAME`` in the
    state dict), others, and those that the spec marks nograd, buffers. What is not given here is given by keyword
    to ``forward``. Where the spec emits, ``forward`` returns its named tuple, ``out`` projected."""

    def __init__(
        self,
        spec: Op | str | Path,
        embed_dim: int,
        num_heads: int,
        *,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        bias: bool = False,
        inputs: Mapping[str, Tensor] | None = None,
        **params: object,
    ) -> None:
        super().__init__()
        self.op = as_op(spec, params)
        self.num_heads = num_heads
        self.kv_heads = num_heads if kv_heads is None else kv_heads
        if num_heads < 1 or self.kv_heads < 1 or num_heads % self.kv_heads:
            raise ValueError(f"num_heads = {num_heads} is no multiple of kv_heads = {self.kv_heads}")
        if head_dim is None and embed_dim % num_heads:
            raise ValueError(f"embed_dim = {embed_dim} is no multiple of num_heads = {num_heads}: give head_dim")
        self.head_dim = embed_dim // num_heads if head_dim is None else head_dim
        _check_vectors(self.op, self.head_dim)
        self.q_proj = nn.Linear(embed_dim, num_heads * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(embed_dim, self.kv_heads * self.head_dim, bias=bias)
        self.v_proj = nn.Linear(embed_dim, self.kv_heads * self.head_dim, bias=bias)
        self.out_proj = nn.Linear(num_heads * self.head_dim, embed_dim, bias=bias)
        self._own = tuple(inputs or ())
        for name, value in (inputs or {}).items():
            self._register(name, torch.as_tensor(value))

    def _register(self, name: str, value: Tensor) -> None:
        """Put one of the layer's own inputs on the module as ``input_NAME``."""
        declared = {item.name: item for item in self.op.construct.inputs}
        if name not in declared:
            raise TypeError(f"{self.op.name} has no input {name}; its inputs: {', '.join(declared) or 'none'}")
        if declared[name].differentiable and value.is_floating_point():
            self.register_parameter(f"input_{name}", nn.Parameter(value))
        else:
            self.register_buffer(f"input_{name}", value)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        *,
        q_offset: int | Tensor | None = None,
        kv_offset: int = 0,
        backend: str = "auto",
        **inputs: Tensor | int | float | bool,
    ) -> Any:
        """x [B, N, embed_dim], memory [B, M, embed_dim] -> [B, N, embed_dim]."""
        y = x if memory is None else memory
        q = self._heads(self.q_proj(x), self.num_heads)
        k = self._heads(self.k_proj(y), self.kv_heads)
        v = self._heads(self.v_proj(y), self.kv_heads)
        own = {name: getattr(self, f"input_{name}") for name in self._own}
        for name in own.keys() & inputs.keys():
            raise TypeError(f"{self.op.name}: the input {name} is the layer's own: a call cannot give it")
        result = self.op(q, k, v, q_offset=q_offset, kv_offset=kv_offset, backend=backend, **own, **inputs)
        if isinstance(result, Tensor):
            return self._project(result)
        return result._replace(out=self._project(result.out))

    def _heads(self, x: Tensor, heads: int) -> Tensor:
        """[B, L, heads * dim] -> [B, heads, L, dim], a view."""
        return x.reshape(*x.shape[:-1], heads, self.head_dim).transpose(1, 2)

    def _project(self, out: Tensor) -> Tensor:
        projected: Tensor = self.out_proj(out.transpose(1, 2).flatten(-2))
        return projected

    def extra_repr(self) -> str:
        return f"{self.op.name}, num_heads={self.num_heads}, kv_heads={self.kv_heads}, head_dim={self.head_dim}"


def as_op(spec: Op | str | Path, params: Mapping[str, object]) -> Op:
    """An op as it is; the op of a path of a ``.attn`` file or of a spec's text, with ``params``."""
    if isinstance(spec, Op):
        if params:
            raise TypeError(f"an op has its params already: {', '.join(params)} cannot be given again")
        return spec
    if isinstance(spec, Path) or (spec.endswith(".attn") and "{" not in spec):
        return load(spec, params=params)
    return loads(spec, params=params)


def _check_vectors(op: Op, head_dim: int) -> None:
    """The layer makes q, k and v of one head dim: any other signature needs a layer of its own."""
    vectors = [(vector.name, vector.role) for vector in op.construct.vectors]
    if vectors != [("q", "query"), ("k", "key"), ("v", "value")]:
        names = ", ".join(name for name, _ in vectors)
        raise ValueError(f"{op.name} takes ({names}): this layer makes q, k, v; call the op from your own module")
    for vector in op.construct.vectors:
        if not isinstance(vector.dim, Size) and size(vector.dim, {}) != head_dim:
            raise ValueError(f"{op.name} takes {vector.name} of dim {size(vector.dim, {})}: head_dim is {head_dim}")

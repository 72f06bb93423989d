"""A spec as an attention implementation of Hugging Face transformers.

``register("longformer", "longformer.attn", w=512)`` makes ``attn_implementation="longformer"`` a choice of every model
that calls transformers' attention interface; ``set_attn_implementation(model, "longformer")`` chooses it for those and
for models of ``runtime/adapters.py``, whose classes do not call it. The spec is then the whole mathematics: causality,
windows and scale are its own. What a model brings to a call, the spec takes as an input of the same name:

| input | from |
| --- | --- |
| ``keep: bool[B, M]`` | the padding mask: which keys are tokens |
| ``len: i32[B]`` | the padding mask of a batch padded on the right: how many keys are tokens |
| ``pair: bool[B, 1, N, M]`` | the mask as the model would build it, N x M; for patterns that come with the data |
| ``sliding_window: i32`` | the layer: how many keys it sees with the query's own; 2^31 - 1 if it sees all |
| ``scaling: f32``, ``softcap: f32``, ``s_aux: f32[H]``, ``position_bias: f32[B, H, N, M]``, ... | the layer |

Nothing is left out in silence: padding, packed documents, a softcap, sinks, a bias or dropout that the spec does not
take raise ValueError, and so does a scale that differs from the spec's, where that is a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import prepare_padding_mask, sdpa_mask

from attnc.codegen.build import const, size
from attnc.codegen.derive import derive
from attnc.codegen.simplify import simplify
from attnc.dsl.construct import Attention
from attnc.dsl.ir import Const, Dot, Expr, Vector, postorder, substitute
from attnc.runtime.nn import as_op
from attnc.runtime.op import Op

Given = Tensor | Callable[[nn.Module], Tensor]
ONE_OF_EACH = ("query", "key", "value")

_FROM_MASK = ("keep", "len", "pair")
_SCORE_TERMS = ("softcap", "s_aux", "position_bias")  # what models of transformers add to a score, or do to it
_NO_BOUND = {"sliding_window": 2**31 - 1}  # where a layer of several kinds brings None
_CAUSES = "attention_dropout, attention_probs_dropout_prob or attn_pdrop"


def register(name: str, spec: Op | str | Path, *, inputs: Mapping[str, Given] | None = None, **params: object) -> Op:
    """Make a spec selectable with ``attn_implementation=name``; returns its op. ``spec``: an op, a path of a
    ``.attn`` file, or a spec's text. ``inputs`` are those of the spec's inputs that no call brings: tensors, or
    functions of the layer (``{"slope": lambda layer: layer.slope}``). Again with the same name: replaced."""
    if any(part in name for part in ("/", "|", "sdpa", "flash", "flex", "eager")):
        raise ValueError(f"{name!r} means something to transformers: choose a plain name")
    interface = AttentionInterface()
    if name in interface and not isinstance(interface[name], Implementation):
        raise ValueError(f"transformers has an attention implementation {name!r}: choose another name")
    implementation = Implementation(name, as_op(spec, params), dict(inputs or {}))
    AttentionInterface.register(name, implementation)
    AttentionMaskInterface.register(name, implementation.sight)
    return implementation.op


@dataclass(frozen=True, kw_only=True, eq=False)
class Sight:
    """What a model says of the pairs of one call, made once for all layers: inputs of the spec, and offsets."""

    inputs: Mapping[str, Tensor]
    q_offset: int | Tensor | None = None
    kv_offset: int = 0


class Implementation:
    """The two functions that transformers calls: one makes the mask, one attends."""

    def __init__(self, name: str, op: Op, given: Mapping[str, Given]) -> None:
        self.name = name
        self.op = op
        self._given = given
        self._factors: dict[int, float | None] = {}  # by head dim
        construct = op.construct
        self._declared = tuple(item.name for item in construct.inputs)
        for unknown in given.keys() - set(self._declared):
            raise TypeError(f"{op.name} has no input {unknown}; its inputs: {', '.join(self._declared) or 'none'}")
        self.roles = tuple(vector.role for vector in construct.vectors)
        self._wants = frozenset(self._declared) - given.keys()

    def sight(
        self,
        batch_size: int,
        q_length: int,
        kv_length: int,
        q_offset: int | Tensor = 0,
        kv_offset: int = 0,
        *,
        mask_function: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
        attention_mask: Tensor | None = None,
        use_vmap: bool = False,
        device: torch.device | str = "cpu",
        **others: object,
    ) -> Sight:
        """In the place of transformers' masks. ``attention_mask``: [B, tokens seen], nonzero where one is."""
        shape = {"batch_size": batch_size, "q_length": q_length, "kv_length": kv_length, "device": device}
        keep = None
        if attention_mask is not None:
            padded: Tensor = prepare_padding_mask(attention_mask, kv_length, kv_offset).bool()
            keep = padded[:, kv_offset : kv_offset + kv_length]
        found: dict[str, Tensor] = {}
        if "pair" in self._wants:
            found["pair"] = sdpa_mask(
                **shape,
                q_offset=q_offset,
                kv_offset=kv_offset,
                mask_function=mask_function,
                attention_mask=attention_mask,
                allow_is_causal_skip=False,
                use_vmap=use_vmap,
            )
        elif use_vmap or q_length == kv_length > 1:
            plain = torch.tensor(False) if use_vmap else _neighbours(mask_function, batch_size, q_length, device)
            _require(
                plain,
                f"the model masks by the data (packed documents, image blocks), and {self.op.name} would not: "
                "its spec can take that mask, as `input pair: bool[B, 1, N, M]`",
            )
        if keep is None and self._wants & {"keep", "len"}:
            keep = torch.ones(batch_size, kv_length, dtype=torch.bool, device=device)
        if keep is not None:
            found |= self.tokens(keep, kv_offset)
        offset = q_offset.expand(batch_size) if isinstance(q_offset, Tensor) else q_offset
        return Sight(inputs=found, q_offset=offset, kv_offset=kv_offset)

    def tokens(self, keep: Tensor, kv_offset: int = 0) -> dict[str, Tensor]:
        """What the spec takes of ``keep``, bool [B, M]: which keys are tokens."""
        found: dict[str, Tensor] = {}
        if "keep" in self._wants:
            found["keep"] = keep
        if "len" in self._wants:
            found["len"] = self._lengths(keep) + kv_offset
        if not self._wants & set(_FROM_MASK):
            _require(
                keep.all(),
                f"the batch is padded (or its cache is), and {self.op.name} would attend to that: its spec can take "
                "`input keep: bool[B, M]` and mask by `keep[b, j]`",
            )
        return found

    def _lengths(self, keep: Tensor) -> Tensor:
        """How many keys of each sequence are tokens, int32 [B]."""
        count = keep.sum(-1, dtype=torch.int32)
        _require(
            (keep == (torch.arange(keep.shape[1], device=keep.device) < count[:, None])).all(),
            f"{self.op.name} takes lengths, so the batch must be padded on the right: set the tokenizer's "
            '`padding_side="right"`, or let the spec take `input keep: bool[B, M]`',
        )
        return count

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Sight | Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        **terms: Any,
    ) -> tuple[Tensor, None]:
        """query [B, H, N, D], key [B, G, M, D], value [B, G, M, E] -> [B, N, H, E]; there are no weights to return."""
        if self.roles != ONE_OF_EACH:
            raise ValueError(f"{self.signature}: {type(module).__name__} brings one query, one key and one value")
        return self.attend(module, (query, key, value), attention_mask, scaling, dropout, **terms), None

    @property
    def signature(self) -> str:
        return f"{self.op.name} takes ({', '.join(vector.name for vector in self.op.construct.vectors)})"

    def attend(
        self,
        module: nn.Module,
        vectors: Sequence[Tensor],
        mask: Sight | Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        **terms: Any,
    ) -> Tensor:
        """The spec's vectors in its order -> [B, N, H, E]. ``terms``: what else the layer brings, by inputs' names."""
        query = vectors[0]
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        self._verify(query.shape[-1], scale, dropout, terms)
        sight = self._seen(mask)
        inputs: dict[str, Any] = {}
        for name in self._declared:
            if name in self._given:
                given = self._given[name]
                inputs[name] = given.to(query.device) if isinstance(given, Tensor) else given(module)
            elif name == "scaling":
                inputs[name] = scale
            elif name in sight.inputs:
                inputs[name] = sight.inputs[name]
            elif name in _FROM_MASK:
                raise ValueError(f"{self.op.name} takes {name}, and this layer of {type(module).__name__} has no mask")
            elif terms.get(name) is not None:
                inputs[name] = terms[name]
            elif name in _NO_BOUND and name in terms:
                inputs[name] = _NO_BOUND[name]
            else:
                raise ValueError(
                    f"{self.op.name} takes {name}, which {type(module).__name__} does not bring: "
                    f"register({self.name!r}, ..., inputs={{{name!r}: ...}})"
                )
        result = self.op(*vectors, q_offset=sight.q_offset, kv_offset=sight.kv_offset, **inputs)
        out: Tensor = result if isinstance(result, Tensor) else result.out
        return out.transpose(1, 2)

    def _seen(self, mask: Sight | Tensor | None) -> Sight:
        if isinstance(mask, Sight):
            return mask
        if mask is None:  # a layer that asked for no mask: every key is a token
            return Sight(inputs={})
        if "pair" in self._wants and mask.dtype == torch.bool:
            return Sight(inputs={"pair": mask})
        raise ValueError(
            f"{self.op.name} was given a {mask.dtype} mask {list(mask.shape)} of the caller's: its spec can take a "
            "boolean one, as `input pair: bool[B, 1, N, M]`"
        )

    def _verify(self, dim: int, scale: float, dropout: float, terms: Mapping[str, Any]) -> None:
        if dropout > 0:
            raise ValueError(f"{self.op.name} has no dropout, and the layer asks for {dropout}: set {_CAUSES} to 0")
        if terms.get("output_attentions"):
            raise ValueError(f"{self.op.name} makes no matrix of weights: output_attentions is for eager attention")
        for term in _SCORE_TERMS:
            if terms.get(term) is not None and term not in self._declared:
                raise ValueError(f"the layer brings {term}, and the spec of {self.op.name} takes no input {term}")
        if dim not in self._factors:
            self._factors[dim] = factor(self.op.construct, dim)
        own = self._factors[dim]
        if "scaling" not in self._declared and own is not None and not math.isclose(own, scale, rel_tol=1e-6):
            raise ValueError(
                f"the layer scales q k by {scale:g}, the spec of {self.op.name} by {own:g} at D = {dim}: "
                "the spec can take `input scaling: f32 nograd`"
            )


def factor(construct: Attention, dim: int) -> float | None:
    """What the scores multiply dot(q, k) by, near dot(q, k) = 0 and at D = dim; None where that is no plain number or
    0: it depends on inputs or indices, q or k is transformed first, the score begins with a higher power, or branches
    differ."""
    declared = frozenset(vector.name for vector in construct.vectors)
    (found, *others) = [_slope(branch.score, declared, dim) for branch in construct.branches]
    return found if all(other == found for other in others) else None


def _slope(score: Expr, declared: frozenset[str], dim: int) -> float | None:
    dots = [node for node in postorder(score) if isinstance(node, Dot)]
    sides = [side for dot in dots for side in (dot.left, dot.right)]
    if len(dots) != 1 or not all(isinstance(side, Vector) and side.name in declared for side in sides):
        return None
    slope = derive(score, dots, const(1.0))[dots[0]]
    values: dict[Expr, Expr] = {dots[0]: const(0.0), size("D"): const(dim)}
    (constant,) = simplify(substitute([slope], values))
    return float(constant.value) if isinstance(constant, Const) and constant.value else None


def _require(condition: Tensor, message: str) -> None:
    """Raise ValueError unless the condition holds. Inside torch.compile, where nothing can be looked at yet, the
    condition becomes part of the graph, and a run where it fails raises RuntimeError."""
    if torch.compiler.is_compiling():
        torch._assert_async(condition, message)
    elif not condition:
        raise ValueError(message)


def _neighbours(
    mask_function: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    batch_size: int,
    length: int,
    device: torch.device | str,
) -> Tensor:
    """Whether every query sees the key before its own: so with any causal mask or window, not with packed documents."""
    batch = torch.arange(batch_size, device=device)[:, None]
    query = torch.arange(1, length, device=device)[None]
    return mask_function(batch, torch.zeros_like(batch), query, query - 1).all()

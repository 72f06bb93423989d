"""Models of transformers whose attention does not ask its interface, or asks it twice for one map.

``set_attn_implementation(model, name)`` gives their layers a ``forward`` that makes what the layer's own makes up to
the heads, then calls the registered spec. What it brings, by the names of the spec's vectors in order and of its inputs
(beside ``keep`` and ``len``):

| layer | vectors | inputs |
| --- | --- | --- |
| ``BloomAttention`` | query, key, value | ``slope: f32[H]``, of ALiBi |
| ``DiffLlamaAttention`` | two queries, two keys, a value twice as wide | ``lam: f32[H]``; norm and scale stay outside |
| ``LongformerSelfAttention`` | two queries, keys, values: the second of global tokens | ``is_global: bool[B, M]``, |
| | | ``attention_window: i32``, both sides together |
| ``BigBirdBlockSparseAttention`` | query, key, value | ``chosen: i32[1, H, N / n, slots]``, the random blocks; |
| | | ``extra: f32``, what is added to scores of the first block |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from attnc.runtime.helpers import alibi_slopes
from attnc.runtime.transformers import ONE_OF_EACH, Implementation, Sight


def set_attn_implementation(model: PreTrainedModel, name: str) -> None:
    """``model.set_attn_implementation(name)`` that also serves BLOOM, Longformer and BigBird, and a spec of two queries
    and two keys in DiffLlama. ``name``: one that was registered, or "eager", which gives all layers their own back.

    Raises ValueError for a model whose attention does not ask for an implementation and is none of these, and for a
    spec whose vectors are not those that the layers bring."""
    implementation = AttentionInterface().get(name)
    layers = [(module, _ADAPTERS[type(module).__name__]) for module in model.modules() if _adapter(module)]
    alone = [adapter for _, adapter in layers if adapter.alone]
    if alone and name != "eager" and not isinstance(implementation, Implementation):
        raise ValueError(f'{type(model).__name__} takes "eager" or a name that was registered, not {name!r}')
    for module, adapter in layers:
        vars(module).pop("forward", None)
        if not isinstance(implementation, Implementation):
            continue
        if adapter.roles == implementation.roles:
            vars(module)["forward"] = partial(adapter.forward, module, implementation)
        elif adapter.alone:
            raise ValueError(f"{implementation.signature}: {type(module).__name__} brings {', '.join(adapter.roles)}")
    if not alone:
        model.set_attn_implementation(name)
        if model.config._attn_implementation != name:
            raise ValueError(
                f"{type(model).__name__} does not ask for an attention implementation, and attnc adapts "
                f"{', '.join(sorted(_ADAPTERS))} alone"
            )
    elif all(adapter.masked for adapter in alone):
        model.config._attn_implementation = name


@dataclass(frozen=True, kw_only=True)
class _Adapter:
    """``forward(layer, implementation, ...)`` in the place of a layer's. ``alone``: the layer does not ask for an
    implementation itself; ``masked``: but its model makes the mask of one."""

    roles: tuple[str, ...]
    forward: Callable[..., Any]
    alone: bool = True
    masked: bool = False


def _adapter(module: nn.Module) -> bool:
    return type(module).__name__ in _ADAPTERS


def _bloom(
    self: Any,
    implementation: Implementation,
    hidden_states: Tensor,
    residual: Tensor,
    alibi: Tensor,
    attention_mask: Sight,
    layer_past: Any = None,
    **others: Any,
) -> tuple[Tensor, None]:
    query, key, value = self._reshape(self.query_key_value(hidden_states))
    if layer_past is not None:
        key, value = layer_past.update(key, value, self.layer_idx)
    out = implementation.attend(
        self,
        (query, key, value),
        attention_mask,
        self.inv_norm_factor,
        self.attention_dropout.p if self.training else 0.0,
        slope=alibi_slopes(self.num_heads, device=query.device),
        output_attentions=others.get("output_attentions"),
    )
    out = nn.functional.dropout(self.dense(out.flatten(2)), self.hidden_dropout, self.training)
    return residual + out, None


def _diff_llama(
    self: Any,
    implementation: Implementation,
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Sight | None = None,
    past_key_values: Any = None,
    **others: Any,
) -> tuple[Tensor, None]:
    from transformers.models.diffllama.modeling_diffllama import apply_rotary_pos_emb

    shape = (*hidden_states.shape[:-1], -1, self.head_dim)
    query, key, value = (
        project(hidden_states).view(shape).transpose(1, 2) for project in (self.q_proj, self.k_proj, self.v_proj)
    )
    query, key = apply_rotary_pos_emb(query, key, *position_embeddings)
    if past_key_values is not None:
        key, value = past_key_values.update(key, value, self.layer_idx)
    lam = (self.lambda_q1 @ self.lambda_k1).exp() - (self.lambda_q2 @ self.lambda_k2).exp() + self.lambda_init
    out = implementation.attend(
        self,
        (*query.chunk(2, dim=1), *key.chunk(2, dim=1), torch.cat(value.chunk(2, dim=1), dim=-1)),
        attention_mask,
        self.scaling,
        lam=lam.expand(query.shape[1] // 2),
        output_attentions=others.get("output_attentions"),
    )
    out = (1 - self.lambda_init) * self.groupnorm(out)
    return self.o_proj(out.flatten(2)), None


def _longformer(
    self: Any,
    implementation: Implementation,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    *,
    is_index_masked: Tensor,
    is_index_global_attn: Tensor,
    **others: Any,
) -> tuple[Tensor]:
    shape = (*hidden_states.shape[:-1], self.num_heads, self.head_dim)
    projections = self.query, self.query_global, self.key, self.key_global, self.value, self.value_global
    out = implementation.attend(
        self,
        [project(hidden_states).view(shape).transpose(1, 2) for project in projections],
        Sight(inputs=implementation.tokens(~is_index_masked)),
        self.head_dim**-0.5,
        self.dropout if self.training else 0.0,
        is_global=is_index_global_attn,
        attention_window=2 * self.one_sided_attn_window_size,
        output_attentions=others.get("output_attentions"),
    )
    return (out.flatten(2),)


def _big_bird(
    self: Any,
    implementation: Implementation,
    hidden_states: Tensor,
    band_mask: Tensor | None = None,
    from_mask: Tensor | None = None,
    to_mask: Tensor | None = None,
    *_: Any,
    **others: Any,
) -> tuple[Tensor, None]:
    assert to_mask is not None  # [B, 1, 1, M], from BigBirdModel
    shape = (*hidden_states.shape[:-1], self.num_attention_heads, self.attention_head_size)
    out = implementation.attend(
        self,
        [project(hidden_states).view(shape).transpose(1, 2) for project in (self.query, self.key, self.value)],
        Sight(inputs=implementation.tokens(to_mask[:, 0, 0] > 0)),
        self.attention_head_size**-0.5,
        chosen=_random_blocks(self, hidden_states.shape[1]).to(hidden_states.device),
        extra=0.0 if self.training else math.log1p(self.num_random_blocks),
        output_attentions=others.get("output_attentions"),
    )
    return out.flatten(2), None


def _random_blocks(layer: Any, length: int) -> Tensor:
    """int32 [1, H, N / n, slots], drawn by the layer's own code and seed; -1 for the first and last block, which see
    all. In evaluation transformers takes block 0 every time, again for each: none here, and ``extra`` counts them."""
    size, count, heads = layer.block_size, layer.num_random_blocks, layer.num_attention_heads
    table = np.full((1, heads, length // size, count), -1, dtype=np.int32)
    if layer.training:
        np.random.seed(layer.seed)
        if length in (1024, 3072, 4096):  # the lengths for which BigBird was published with other plans
            whole = layer.max_seqlen
            drawn = [layer._bigbird_block_rand_mask(whole, whole, size, size, count, 1024) for _ in range(heads)]
        else:
            plan = layer._get_rand_attn_plan(length, size, count)
            drawn = layer._bigbird_block_rand_mask_with_head(length, length, size, size, heads, *plan)
        table[0, :, 1:-1] = np.stack(drawn)[:, : length // size - 2]
    return torch.from_numpy(table)


_ADAPTERS = {
    "BloomAttention": _Adapter(roles=ONE_OF_EACH, forward=_bloom, masked=True),
    "DiffLlamaAttention": _Adapter(
        roles=("query", "query", "key", "key", "value"), forward=_diff_llama, alone=False, masked=True
    ),
    "LongformerSelfAttention": _Adapter(roles=("query", "query", "key", "key", "value", "value"), forward=_longformer),
    "BigBirdBlockSparseAttention": _Adapter(roles=ONE_OF_EACH, forward=_big_bird),
}

"""FlexAttention's mods against the specs that say the same: PyTorch's own eager FlexAttention in float64 decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._higher_order_ops.flex_attention import math_attention
from torch.nn.attention import flex_attention as public

from attnc.runtime.op import loads
from attnc.testing.tolerance import assert_close
from tests.integrations.flex_mods import PORTS, Mod, Mods

DIM = 16


def _vectors(port: Mods) -> dict[str, Tensor]:
    B, H, G, N, M = port.sizes
    generator = torch.Generator().manual_seed(0)
    shapes = {"q": (B, H, N, DIM), "k": (B, G, M, DIM), "v": (B, G, M, DIM)}
    return {name: torch.randint(-12, 13, shape, generator=generator).double() / 8 for name, shape in shapes.items()}


def _cotangent(port: Mods) -> Tensor:
    B, H, _, N, _ = port.sizes
    return torch.randint(-8, 9, (B, H, N, DIM), generator=torch.Generator().manual_seed(1)).double() / 8


def _gradients(out: Tensor, leaves: dict[str, Tensor], cotangent: Tensor) -> dict[str, Tensor]:
    return dict(zip(leaves, torch.autograd.grad(out, list(leaves.values()), cotangent.to(out.dtype)), strict=True))


def _whole(port: Mods, given: Mapping[str, Tensor]) -> tuple[Mod, Mod]:
    """Both mods, those that change nothing for None."""
    score_mod, mask_mod = port.make(given)
    return (
        score_mod or (lambda score, b, h, q, kv: score),
        mask_mod or (lambda b, h, q, kv: torch.ones_like(q >= kv)),
    )


def flex(port: Mods) -> dict[str, Tensor]:
    """Flex's result and the gradients of vectors and captured tensors, in float64. flex_attention itself refuses
    gradients on a CPU; math_attention, which it runs there in eager mode, has them."""
    leaves = {name: x.requires_grad_() for name, x in _vectors(port).items()}
    given = {name: x.clone().requires_grad_(x.is_floating_point()) for name, x in port.inputs.items()}
    leaves |= {name: x for name, x in given.items() if x.requires_grad}
    score_mod, mask_mod = _whole(port, given)
    q, k, v = (leaves[name] for name in "qkv")
    out, _, _ = math_attention(q, k, v, score_mod, (mask_mod,), DIM**-0.5, {})
    return {"out": out.detach(), **_gradients(out, leaves, _cotangent(port))}


def ours(port: Mods, backend: str) -> dict[str, Tensor]:
    """The spec's result and gradients in float32, under the names of ``flex``."""
    op = loads(port.text)
    leaves = {name: x.float().requires_grad_() for name, x in _vectors(port).items()}
    given = {name: x.float().requires_grad_() if x.is_floating_point() else x for name, x in port.inputs.items()}
    leaves |= {name: x for name, x in given.items() if x.requires_grad}
    vectors = [leaves[name] for name in "qkv"]
    options: dict[str, Any] = {"backend": backend} | ({} if port.q_offset is None else {"q_offset": port.q_offset})
    if "q_rope" in given:  # vectors here, captured tensors there
        shared = given.pop("k_rope").unsqueeze(1).expand(-1, port.sizes[2], -1, -1)
        vectors = [vectors[0], given.pop("q_rope"), vectors[1], shared, vectors[2]]
    out = op(*vectors, **given, **options)
    return {"out": out.detach(), **_gradients(out, leaves, _cotangent(port))}


@pytest.mark.parametrize("name", PORTS)
def test_a_spec_is_the_mod(name: str) -> None:
    compare(PORTS[name], "eager")


def compare(port: Mods, backend: str) -> None:
    """On native and ttir, which compile each of them for seconds: ``for port in PORTS.values(): ...`` by hand."""
    expected, found = flex(port), ours(port, backend)
    B, H, _, N, M = port.sizes
    for what, x in expected.items():
        assert_close(found[what], x, dtype=torch.float32, length=max(B * H * N, M), what=f"{backend} {what}")


def test_what_decides_is_flex_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)  # the same, without Dynamo's seconds
    port = PORTS["soft-cap, ALiBi, causal, documents"]
    score_mod, mask_mod = _whole(port, port.inputs)
    B, H, _, N, M = port.sizes
    block_mask = public.create_block_mask(mask_mod, B, H, N, M, device="cpu")
    found = public.flex_attention(*_vectors(port).values(), score_mod=score_mod, block_mask=block_mask)
    assert isinstance(found, Tensor)
    torch.testing.assert_close(found, flex(port)["out"])

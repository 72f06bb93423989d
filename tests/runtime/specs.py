"""Helpers of the reference's tests: specs compiled to IR, random vectors, gradients side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from attnc.dsl.construct import Attention
from attnc.dsl.frontend import compile_text
from attnc.dsl.source import Source
from attnc.runtime.reference import reference


def attention(text: str, /, **params: object) -> Attention:
    """The IR of a spec; a text without a head is the inside of ``attention spec { ... }``."""
    if not text.lstrip().startswith("attention"):
        text = f"attention spec {{ {text} }}"
    construct = compile_text(Source(name="<text>", text=text), params)
    assert isinstance(construct, Attention)
    return construct


def vectors(
    *, B: int = 2, H: int = 4, G: int | None = None, N: int = 7, M: int | None = None, D: int = 8, E: int | None = None
) -> dict[str, Tensor]:
    """Random q, k, v in float64 that want gradients."""
    torch.manual_seed(N * 1000 + D)
    G, M, E = G or H, N if M is None else M, E or D
    shapes = {"q": (B, H, N, D), "k": (B, G, M, D), "v": (B, G, M, E)}
    return {name: torch.randn(shape, dtype=torch.float64, requires_grad=True) for name, shape in shapes.items()}


def call(
    construct: Attention, given: Mapping[str, Tensor], inputs: Mapping[str, Any] | None = None, **rest: Any
) -> Any:
    return reference(construct, given, inputs or {}, **rest)


def assert_same(actual: Tensor, expected: Tensor, leaves: Sequence[Tensor]) -> None:
    """Equal to 1e-11 in float64, values and the gradients of every leaf under one random cotangent."""
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)
    cotangent = torch.randn(expected.shape, dtype=expected.dtype, generator=torch.Generator().manual_seed(5))
    found = torch.autograd.grad(actual, leaves, cotangent, retain_graph=True, materialize_grads=True)
    wanted = torch.autograd.grad(expected, leaves, cotangent, retain_graph=True, materialize_grads=True)
    for left, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-11)

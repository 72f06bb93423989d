"""The specs in examples/zoo: each is canonical, names its paper, and is what its paper says, forward and backward."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers.models.t5.modeling_t5 import T5Attention

import attnc
from attnc.dsl.check import check
from attnc.dsl.format import format_source
from attnc.dsl.parse import parse
from attnc.dsl.source import Source
from attnc.testing.tolerance import assert_close

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "zoo"
B, H, N, D = 2, 4, 37, 16


@dataclass(frozen=True, kw_only=True)
class Case:
    """How a spec is called here: sizes small enough that every part of its pattern occurs."""

    params: Mapping[str, int] = field(default_factory=dict)
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    kv_heads: int = H


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(math.prod(shape)))


CASES = {
    "alibi": Case(inputs={"slope": 2.0 ** -torch.arange(1.0, H + 1)}),
    "bigbird": Case(params={"n": 4, "r": 1}),
    "block_local": Case(params={"n": 8}),
    "causal": Case(),
    "dense": Case(),
    "differential": Case(inputs={"lam": noise(H)}),
    "dilated": Case(params={"w": 3, "s": 4}),
    "document": Case(inputs={"ids": torch.tensor([[0] * 9 + [1] * 20 + [2] * 8, [3] * 36 + [4]], dtype=torch.int32)}),
    "gqa": Case(kv_heads=2),
    "linear": Case(),
    "linformer": Case(inputs={"e": noise(6, N), "f": noise(6, N)}),
    "longformer": Case(params={"w": 5, "g": 2}),
    "native_sparse": Case(
        params={"w": 6, "n": 8},
        inputs={
            "chosen": torch.tensor([[[[0, -1], [1, 0], [0, 2], [3, 1], [4, 0]]]], dtype=torch.int32).expand(B, H, 5, 2),
            "gate": noise(B, H, N, 2),
        },
    ),
    "padded": Case(inputs={"len": torch.tensor([5, N], dtype=torch.int32)}),
    "performer": Case(inputs={"omega": noise(24, D)}),
    "prefix_lm": Case(inputs={"n": torch.tensor([3, 20], dtype=torch.int32)}),
    "qk_norm": Case(inputs={"g": 4 + noise(H)}),
    "retention": Case(inputs={"gamma": 1 - 2.0 ** (-5 - torch.arange(float(H)))}),
    "rope": Case(),
    "sigmoid": Case(),
    "sinks": Case(inputs={"sink_logit": noise(H)}),
    "sliding": Case(params={"w": 9}),
    "softcap": Case(params={"cap": 2}),
    "sparse_fixed": Case(params={"l": 7, "c": 2}),
    "sparse_strided": Case(params={"s": 5}),
    "streaming": Case(params={"w": 9, "n": 2}),
    "t5_bias": Case(inputs={"bias": noise(32, H)}),
}
NAMES = sorted(CASES)


def test_every_example_is_here() -> None:
    assert [path.stem for path in sorted(EXAMPLES.glob("*.attn"))] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_text(name: str) -> None:
    """No faults, no warnings, canonical; the paper with its year above, one construct named like the file."""
    source = Source(name=f"{name}.attn", text=(EXAMPLES / f"{name}.attn").read_text(encoding="utf-8"))
    result = check(parse(source))
    assert [construct.name for construct in result.constructs] == [name]
    assert not result.warnings
    assert format_source(source) == source.text
    comment = source.text.partition("\nattention ")[0]
    assert re.search(r"\b(19|20)\d\d\b", comment) and all(line.startswith("#") for line in comment.splitlines())


@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradients(name: str) -> None:
    """The compiled op on CPU tensors against the dense definition in float64."""
    case = CASES[name]
    op = attnc.load(EXAMPLES / f"{name}.attn", **case.params)
    generator = torch.Generator().manual_seed(0)
    vectors = [
        torch.randn(B, H if vector.role == "query" else case.kv_heads, N, D, generator=generator).requires_grad_()
        for vector in op.construct.vectors
    ]
    inputs = {key: value.clone().requires_grad_(value.is_floating_point()) for key, value in case.inputs.items()}
    leaves = [*vectors, *(value for value in inputs.values() if value.requires_grad)]

    out = op(*vectors, **inputs)
    cotangent = torch.randn(out.shape, generator=generator)
    gradients = torch.autograd.grad(out, leaves, cotangent)
    expected = op.reference(*vectors, dtype=torch.float64, **inputs)
    wanted = torch.autograd.grad(expected, leaves, cotangent.double())

    assert_close(out, expected, dtype=torch.float32, length=N, what="out")
    for position, (mine, theirs) in enumerate(zip(gradients, wanted, strict=True)):
        assert_close(mine, theirs, dtype=torch.float32, length=N * B * H, what=f"gradient {position}")


def test_t5_buckets_are_t5s() -> None:
    """Over distances beyond the last bucket on both sides, against the model's own function."""
    length = 300
    bias = noise(32, H)
    q, k, v = (torch.randn(1, H, length, D, generator=torch.Generator().manual_seed(i)) for i in range(3))
    position = torch.arange(length)
    bucket = T5Attention._relative_position_bucket(
        position[None] - position[:, None], bidirectional=True, num_buckets=32, max_distance=128
    )
    weights = (q @ k.mT + bias[bucket].permute(2, 0, 1)).softmax(-1)
    assert_close(
        attnc.load(EXAMPLES / "t5_bias.attn")(q, k, v, bias=bias), weights @ v, dtype=torch.float32, length=length
    )


def test_a_sink_takes_weight_and_gives_nothing() -> None:
    """As gpt-oss writes it: one more column of scores, dropped after the softmax."""
    logit = noise(H)
    q, k, v = (torch.randn(1, H, N, D, generator=torch.Generator().manual_seed(i)) for i in range(3))
    scores = (q @ k.mT / math.sqrt(D)).masked_fill(torch.ones(N, N).triu(1).bool(), -torch.inf)
    weights = torch.cat([scores, logit[None, :, None, None].expand(1, H, N, 1)], dim=-1).softmax(-1)[..., :-1]
    assert_close(
        attnc.load(EXAMPLES / "sinks.attn")(q, k, v, sink_logit=logit), weights @ v, dtype=torch.float32, length=N
    )


def test_retention_decays() -> None:
    """The parallel form of the paper: (Q K^T / sqrt(d) * D) V over max(|row sum|, 1)."""
    gamma = 1 - 2.0 ** (-5 - torch.arange(float(H)))
    q, k, v = (torch.randn(1, H, N, D, generator=torch.Generator().manual_seed(i)) for i in range(3))
    distance = torch.arange(N)[:, None] - torch.arange(N)
    decay = torch.where(distance >= 0, gamma[:, None, None] ** distance.clamp(min=0), 0.0)
    weights = q @ k.mT / math.sqrt(D) * decay
    expected = (weights / weights.sum(-1, keepdim=True).abs().clamp(min=1)) @ v
    assert_close(attnc.load(EXAMPLES / "retention.attn")(q, k, v, gamma=gamma), expected, dtype=torch.float32, length=N)


def test_the_page_of_examples_names_each() -> None:
    page = (EXAMPLES.parents[1] / "docs" / "examples.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\]\(\.\./examples/zoo/(\w+)\.attn\)", page)) == NAMES

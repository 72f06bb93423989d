"""The layer: against the same mathematics written with PyTorch, its state, copies, and graphs without breaks."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import pytest
import torch
from torch import nn

import attnc
from attnc.nn import Attention
from attnc.testing.tolerance import assert_close

CAUSAL = "attention causal_layer { score dot(q, k) / sqrt(D) mask causal normalize softmax }"
ALIBI = """attention alibi_layer { input slope: f32[H] input start: i64[B]
  score dot(q, k) / sqrt(D) - slope[h] * abs(i - j) mask causal and j >= start[b] normalize softmax emit lse }"""


def test_the_layer_is_multi_head_attention() -> None:
    torch.manual_seed(0)
    layer = Attention(CAUSAL, 32, 4, bias=True)
    other = nn.MultiheadAttention(32, 4, batch_first=True)
    projections = (layer.q_proj, layer.k_proj, layer.v_proj)
    with torch.no_grad():
        other.in_proj_weight.copy_(torch.cat([projection.weight for projection in projections]))
        other.in_proj_bias.copy_(torch.cat([projection.bias for projection in projections]))
        other.out_proj.weight.copy_(layer.out_proj.weight)
        other.out_proj.bias.copy_(layer.out_proj.bias)
    x = torch.randn(2, 9, 32)
    mask = nn.Transformer.generate_square_subsequent_mask(9)
    expected = other(x, x, x, attn_mask=mask, is_causal=True, need_weights=False)[0]
    assert_close(layer(x), expected, dtype=torch.float32, length=32)


def test_cross_attention_grouped_heads_and_own_head_dim() -> None:
    layer = Attention("attention cross_layer { score dot(q, k) normalize softmax }", 30, 4, kv_heads=2, head_dim=8)
    assert layer.q_proj.weight.shape == (32, 30) and layer.k_proj.weight.shape == (16, 30)
    x, memory = torch.randn(2, 5, 30), torch.randn(2, 7, 30)
    out = layer(x, memory)
    assert out.shape == (2, 5, 30)
    assert_close(out, layer(x, memory, backend="reference"), dtype=torch.float32, length=32)


def test_inputs_of_the_layer_and_of_the_call() -> None:
    slope = torch.tensor([0.5, 0.25, 0.1, 0.0])
    layer = Attention(ALIBI, 32, 4, inputs={"slope": slope})
    assert isinstance(layer.input_slope, nn.Parameter) and "input_slope" in layer.state_dict()
    x, start = torch.randn(2, 6, 32), torch.tensor([0, 2])
    out, lse = layer(x, start=start)
    assert out.shape == (2, 6, 32) and lse.shape == (2, 4, 6)
    (out.sum() + lse[0].sum()).backward()
    assert layer.input_slope.grad is not None and layer.input_slope.grad.abs().sum() > 0
    fixed = Attention(ALIBI, 32, 4, inputs={"slope": slope, "start": start})
    assert [name for name, _ in fixed.named_buffers()] == ["input_start"]
    fixed.load_state_dict({**layer.state_dict(), "input_start": start})
    assert torch.equal(fixed(x).out, layer(x, start=start).out)


def test_copies_and_pickles() -> None:
    layer = Attention(ALIBI, 32, 4, inputs={"slope": torch.rand(4)})
    x, start = torch.randn(2, 6, 32), torch.zeros(2, dtype=torch.int64)
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(layer), torch.load(buffer, weights_only=False)):
        assert torch.equal(other(x, start=start).out, layer(x, start=start).out)
        assert other.input_slope is not layer.input_slope


def test_no_graph_break() -> None:
    layer = Attention(ALIBI, 32, 4, inputs={"slope": torch.rand(4)})
    x, start = torch.randn(2, 6, 32), torch.zeros(2, dtype=torch.int64)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    expected, found = layer(x, start=start), compiled(x, start=start)
    assert_close(found.out, expected.out, dtype=torch.float32, length=32)
    leaves = [*layer.parameters()]
    wanted = torch.autograd.grad(expected.out.square().sum(), leaves)
    for left, right in zip(torch.autograd.grad(found.out.square().sum(), leaves), wanted, strict=True):
        assert_close(left, right, dtype=torch.float32, length=32)


def test_what_the_layer_takes(tmp_path: Path) -> None:
    (tmp_path / "causal.attn").write_text(CAUSAL)
    op = attnc.load(tmp_path / "causal.attn")
    for spec in (op, tmp_path / "causal.attn", str(tmp_path / "causal.attn")):
        assert Attention(spec, 16, 2).op == op
    windowed = "attention w_layer { param w: int score dot(q, k) mask window(w) normalize softmax }"
    assert dict(Attention(windowed, 16, 2, w=3).op.params) == {"w": 3}
    with pytest.raises(TypeError, match="an op has its params already: w"):
        Attention(op, 16, 2, w=3)
    with pytest.raises(ValueError, match="embed_dim = 17 is no multiple of num_heads = 2"):
        Attention(op, 17, 2)
    with pytest.raises(ValueError, match="num_heads = 0 is no multiple of kv_heads = 0"):
        Attention(op, 16, 0)
    with pytest.raises(TypeError, match="scaled_layer: the input tau is the layer's own: a call cannot give it"):
        scaled = "attention scaled_layer { input tau: f32 score dot(q, k) * tau normalize softmax }"
        Attention(scaled, 8, 2, inputs={"tau": torch.tensor(1.0)})(torch.randn(1, 3, 8), tau=2.0)
    with pytest.raises(ValueError, match="num_heads = 4 is no multiple of kv_heads = 3"):
        Attention(op, 16, 4, kv_heads=3)
    with pytest.raises(TypeError, match="causal_layer has no input slope; its inputs: none"):
        Attention(op, 16, 2, inputs={"slope": torch.zeros(2)})
    two = "attention two_queries { query q1, q2 score dot(q1, k) + dot(q2, k) normalize softmax }"
    with pytest.raises(ValueError, match=r"two_queries takes \(q1, q2, k, v\): this layer makes q, k, v"):
        Attention(two, 16, 2)
    sized = "attention sized_layer { query q[4] key k[4] score dot(q, k) normalize softmax }"
    assert Attention(sized, 8, 2)(torch.randn(1, 3, 8)).shape == (1, 3, 8)
    with pytest.raises(ValueError, match="sized_layer takes q of dim 4: head_dim is 8"):
        Attention(sized, 16, 2)

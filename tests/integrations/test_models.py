"""Whole models of transformers, their attention swapped by a spec: the logits of their own code, and its gradients."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    BigBirdConfig,
    BigBirdModel,
    BloomConfig,
    BloomForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    DiffLlamaConfig,
    DiffLlamaForCausalLM,
    DynamicCache,
    EncoderDecoderCache,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GptOssConfig,
    GptOssForCausalLM,
    LongformerConfig,
    LongformerModel,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from attnc.codegen.lint import lint
from attnc.dsl.check import check
from attnc.dsl.format import format_source
from attnc.dsl.parse import parse
from attnc.dsl.source import Source
from attnc.dsl.specialize import specialize
from attnc.helpers import alibi_slopes
from attnc.integrations.transformers import register, set_attn_implementation
from attnc.runtime.op import Op
from attnc.testing.tolerance import assert_close

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
NAME = "attnc_model"
N = 21
SMALL: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
NATIVE = {"mistral", "longformer"}  # the others in blocked PyTorch: a library takes seconds to build
GROUPED = SMALL | {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}


@dataclass(frozen=True, kw_only=True)
class Model:
    """A small model, the spec for it, and what its calls take beside ids."""

    make: Callable[[], PreTrainedModel]
    spec: str
    params: Mapping[str, object] = field(default_factory=dict)
    call: Mapping[str, object] = field(default_factory=dict)


def bloom() -> PreTrainedModel:
    return BloomForCausalLM(BloomConfig(vocab_size=99, hidden_size=48, n_layer=2, n_head=3))


def mistral() -> PreTrainedModel:
    return MistralForCausalLM(MistralConfig(**GROUPED, sliding_window=6))


def gemma3() -> PreTrainedModel:
    kinds = ["sliding_attention", "full_attention"]
    return Gemma3ForCausalLM(Gemma3TextConfig(**GROUPED, sliding_window=6, layer_types=kinds, query_pre_attn_scalar=7))


def gemma2() -> PreTrainedModel:
    own = {"sliding_window": 6, "query_pre_attn_scalar": 7, "attn_logit_softcapping": 0.5}
    return Gemma2ForCausalLM(Gemma2Config(**GROUPED, **own))


def gpt_oss() -> PreTrainedModel:
    model = GptOssForCausalLM(GptOssConfig(**GROUPED, sliding_window=6, num_local_experts=2, num_experts_per_tok=2))
    for layer in model.model.layers:
        torch.nn.init.normal_(layer.self_attn.sinks)
    return model


def diff_llama() -> PreTrainedModel:
    return DiffLlamaForCausalLM(DiffLlamaConfig(**GROUPED))


def deepseek() -> PreTrainedModel:
    sizes = {"q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 12, "qk_rope_head_dim": 4, "v_head_dim": 16}
    return DeepseekV3ForCausalLM(
        DeepseekV3Config(**SMALL, **sizes, num_key_value_heads=2, first_k_dense_replace=2, n_routed_experts=8)
    )


def longformer() -> PreTrainedModel:
    return LongformerModel(LongformerConfig(**SMALL, attention_window=[8, 4], max_position_embeddings=64))


def bigbird() -> PreTrainedModel:
    return BigBirdModel(
        BigBirdConfig(**SMALL, block_size=4, num_random_blocks=1, hidden_dropout_prob=0, attention_probs_dropout_prob=0)
    )


DECODERS = {
    "mistral": Model(make=mistral, spec="zoo/sliding.attn", params={"w": 6}),
    "gemma3": Model(make=gemma3, spec="models/gemma3.attn"),
    "gemma2": Model(make=gemma2, spec="models/gemma2.attn"),
    "gpt_oss": Model(make=gpt_oss, spec="models/gpt_oss.attn"),
    "bloom": Model(make=bloom, spec="models/bloom.attn"),
    "diff_llama": Model(make=diff_llama, spec="zoo/differential.attn"),
    "diff_llama, map by map": Model(make=diff_llama, spec="zoo/causal.attn"),
    "deepseek": Model(make=deepseek, spec="zoo/causal.attn"),
}


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    for interface in (AttentionInterface, AttentionMaskInterface):
        interface._global_mapping.pop(NAME, None)


@pytest.fixture
def _backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = "native" if NATIVE & set(request.node.callspec.params.values()) else "eager"
    monkeypatch.setattr(Op, "__call__", partialmethod(Op.__call__, backend=backend))


def tokens(*shape: int) -> Tensor:
    return torch.randint(3, 99, shape)


def padding(side: str) -> Tensor:
    """int [2, N]: the second row lacks 5 tokens on that side."""
    position = torch.arange(N)
    row = position >= 5 if side == "left" else position < N - 5
    return torch.stack([torch.ones(N), row]).long()


def result(model: PreTrainedModel, **call: object) -> Tensor:
    found = model(**call)
    return found.logits if "logits" in found else found.last_hidden_state


def depth(model: PreTrainedModel) -> int:
    """Terms behind a logit: what each layer sums, one sum after the other."""
    return N * model.config.hidden_size * model.config.num_hidden_layers


def assert_gradients(mine: list[Tensor], theirs: list[Tensor], length: int) -> None:
    """Some are zero but for rounding, a key's bias among them: they cancel terms of the size of the others."""
    terms = max(float(gradient.abs().max()) for gradient in theirs)
    for one, other in zip(mine, theirs, strict=True):
        assert_close(one, other, dtype=torch.float32, length=length, terms=terms, what="gradient")


@pytest.mark.usefixtures("_backend")
@pytest.mark.parametrize("name", DECODERS)
def test_prefill_a_step_and_gradients(name: str) -> None:
    """All at once with gradients of every parameter; then a prefill and one token over the cache."""
    case = DECODERS[name]
    register(NAME, EXAMPLES / case.spec, **case.params)
    model, ids = case.make().eval(), tokens(2, N)
    cotangent = torch.randn(2, N, 99)
    logits, gradients = [], []
    for implementation in ("eager", NAME):
        set_attn_implementation(model, implementation)
        model.zero_grad()
        logits.append(result(model, input_ids=ids, use_cache=False))
        logits[-1].backward(cotangent)
        gradients.append([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    length = depth(model)
    assert_close(logits[1], logits[0], dtype=torch.float32, length=length, what="logits")
    assert_gradients(gradients[1], gradients[0], 2 * N * length)
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        pieces = [result(model, input_ids=ids[:, a:b], past_key_values=cache) for a, b in ((0, N - 1), (N - 1, N))]
    assert_close(torch.cat(pieces, dim=1), logits[0], dtype=torch.float32, length=length, what="pieces")


@pytest.mark.parametrize("padded", [True, False])
def test_t5_reads_and_writes(padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoder, decoder and the attention between them by one spec: gradients, then a prefill and a step."""
    monkeypatch.setattr(Op, "__call__", partialmethod(Op.__call__, backend="eager"))
    register(NAME, EXAMPLES / "models" / "t5.attn")
    config = T5Config(vocab_size=99, d_model=48, d_kv=12, d_ff=64, num_layers=2, num_heads=4, dropout_rate=0.0)
    model = T5ForConditionalGeneration(config).eval()
    ids, written = tokens(2, N), tokens(2, 9)
    mask = padding("right") if padded else None
    logits, gradients = [], []
    for implementation in ("eager", NAME):
        set_attn_implementation(model, implementation)
        model.zero_grad()
        call = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": written, "use_cache": False}
        logits.append(result(model, **call))
        logits[-1].square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    length = 4 * depth(model)
    assert_close(logits[1], logits[0], dtype=torch.float32, length=length, what="logits")
    assert_gradients(gradients[1], gradients[0], 2 * N * length)
    cache = EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))
    with torch.no_grad():
        call = {"encoder_outputs": model.encoder(input_ids=ids, attention_mask=mask), "attention_mask": mask}
        pieces = [
            result(model, **call, decoder_input_ids=written[:, a:b], past_key_values=cache) for a, b in ((0, 8), (8, 9))
        ]
    assert_close(torch.cat(pieces, dim=1), logits[0], dtype=torch.float32, length=length, what="pieces")


@pytest.mark.usefixtures("_backend")
@pytest.mark.parametrize("name", ["gemma3", "bloom"])
def test_padding_on_the_left_and_generation(name: str) -> None:
    case = DECODERS[name]
    register(NAME, EXAMPLES / case.spec, **case.params)
    model, ids, mask = case.make().eval(), tokens(2, N), padding("left")
    found, texts = [], []
    for implementation in ("eager", NAME):
        set_attn_implementation(model, implementation)
        with torch.no_grad():
            found.append(result(model, input_ids=ids, attention_mask=mask)[mask.bool()])
        texts.append(model.generate(ids, attention_mask=mask, max_new_tokens=3, do_sample=False, pad_token_id=0))
    assert_close(found[1], found[0], dtype=torch.float32, length=depth(model))
    assert torch.equal(*texts)


ENCODERS = {
    "longformer": Model(
        make=longformer,
        spec="models/longformer.attn",
        call={"global_attention_mask": torch.zeros(2, N).index_fill(1, torch.tensor([0, 11]), 1)},
    ),
    "bigbird": Model(make=bigbird, spec="models/bigbird.attn", params={"n": 4}),
}


@pytest.mark.usefixtures("_backend")
@pytest.mark.parametrize(("name", "training"), [("longformer", False), ("bigbird", False), ("bigbird", True)])
def test_encoders_padded_with_gradients(name: str, training: bool) -> None:
    """The length is no multiple of their blocks; BigBird draws its random blocks in training alone."""
    case = ENCODERS[name]
    register(NAME, EXAMPLES / case.spec, **case.params)
    length = N if name == "longformer" else 2 * N
    model = case.make().train(training)
    ids, mask = tokens(2, length), padding("right").repeat_interleave(length // N, dim=1)
    cotangent = torch.randn(int(mask.sum()), 32)
    states, gradients = [], []
    for implementation in ("eager", NAME):
        set_attn_implementation(model, implementation)
        model.zero_grad()
        state = result(model, input_ids=ids, attention_mask=mask, **case.call)[mask.bool()]
        state.backward(cotangent)
        states.append(state)
        gradients.append([parameter.grad for parameter in model.parameters() if parameter.grad is not None])
    assert_close(states[1], states[0], dtype=torch.float32, length=2 * depth(model), what="states")
    assert_gradients(gradients[1], gradients[0], 8 * N * depth(model))


@pytest.mark.usefixtures("_backend")
@pytest.mark.parametrize("name", ["bloom"])
def test_a_copy_keeps_its_layers_apart(name: str) -> None:
    """A deep copy attends with its own weights, and "eager" gives the layers' own code back."""
    register(NAME, EXAMPLES / DECODERS[name].spec)
    model, ids = DECODERS[name].make().eval(), tokens(1, 9)
    set_attn_implementation(model, NAME)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        before = result(twin, input_ids=ids)
        for parameter in model.parameters():
            parameter.zero_()
        assert torch.equal(result(twin, input_ids=ids), before)
        set_attn_implementation(twin, "eager")
        assert all("forward" not in vars(module) for module in twin.modules())
        assert_close(result(twin, input_ids=ids), before, dtype=torch.float32, length=depth(twin))


def test_what_does_not_fit_is_refused() -> None:
    model = bloom().eval()
    with pytest.raises(ValueError, match=r'takes "eager" or a name that was registered, not .sdpa'):
        set_attn_implementation(model, "sdpa")
    register(NAME, EXAMPLES / "zoo" / "differential.attn")
    with pytest.raises(ValueError, match=r"takes \(q1, q2, k1, k2, v\): BloomAttention brings query, key, value"):
        set_attn_implementation(model, NAME)
    register(NAME, EXAMPLES / "zoo" / "alibi.attn")
    set_attn_implementation(model, NAME)
    with pytest.raises(ValueError, match="input keep: bool"):
        model(input_ids=tokens(2, N), attention_mask=padding("left"))
    with pytest.raises(ValueError, match="output_attentions is for eager attention"):
        model(input_ids=tokens(2, N), output_attentions=True)


@pytest.mark.parametrize("path", sorted((EXAMPLES / "models").glob("*.attn")), ids=lambda path: path.stem)
def test_text(path: Path) -> None:
    """Canonical, without warnings, its model and paper above; the page on models names it."""
    text = path.read_text(encoding="utf-8")
    (made,) = check(parse(Source(name=path.name, text=text))).constructs
    assert made.name == path.stem
    assert format_source(Source(name=path.name, text=text)) == text
    assert lint(made) == lint(made, specialize(made, {})) == ()
    assert re.match(r"#.*\b20\d\d\b", text.partition("\nattention ")[0], flags=re.S)
    assert f"../examples/models/{path.name}" in (EXAMPLES.parent / "docs" / "models.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("heads", [1, 3, 8, 12])
def test_slopes_are_those_of_bloom(heads: int) -> None:
    theirs = BloomConfig(vocab_size=9, hidden_size=heads, n_layer=1, n_head=heads)
    bias = BloomForCausalLM(theirs).transformer.build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)
    torch.testing.assert_close(alibi_slopes(heads), bias[:, 0, 1], rtol=1e-6, atol=0.0)

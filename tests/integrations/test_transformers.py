"""Models of transformers through specs: the logits of their eager attention, and nothing left out in silence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    BertConfig,
    BertModel,
    DynamicCache,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    StaticCache,
    T5Config,
    T5EncoderModel,
)

import attnc
from attnc.integrations.transformers import register
from attnc.runtime.transformers import factor

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "zoo"
MODELS = EXAMPLES.parent / "models"
CLOSE = {"rtol": 0.0, "atol": 1e-5}
PAIR = """attention pair {
  input s_aux: f32[H]  input pair: bool[B, 1, N, M]
  score dot(q, k) / sqrt(D)  mask pair[b, 0, i, j]  normalize softmax(sink = s_aux[h])
}"""
SMALL = {"vocab_size": 99, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
NAME = "attnc_test"


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    for interface in (AttentionInterface, AttentionMaskInterface):
        interface._global_mapping.pop(NAME, None)


def llama(**changes: object) -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=2, **changes)).eval()


def tokens(*shape: int) -> Tensor:
    return torch.randint(1, 99, shape)


def padded(batch: int, length: int, side: str) -> Tensor:
    """Row b lacks 2 b tokens on that side."""
    position, lacking = torch.arange(length), 2 * torch.arange(batch)[:, None]
    return (position >= lacking if side == "left" else position < length - lacking).long()


@torch.no_grad()
def both(model: PreTrainedModel, **call: object) -> tuple[Tensor, Tensor]:
    """What the model gives with its own attention and with the registered one."""
    results = []
    for implementation in ("eager", NAME):
        model.set_attn_implementation(implementation)
        result = model(**call)
        results.append(result.logits if "logits" in result else result.last_hidden_state)
    return results[0], results[1]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_prefill_decode_and_a_chunk(kind: str) -> None:
    """A whole text at once; then in pieces over a cache, one token and several: the default offset aligns them."""
    register(NAME, EXAMPLES / "causal.attn")
    if kind == "llama":
        model: PreTrainedModel = llama()
    else:
        model = GPT2LMHeadModel(GPT2Config(vocab_size=99, n_embd=48, n_layer=2, n_head=4)).eval()
    ids = tokens(2, 13)
    eager, whole = both(model, input_ids=ids)
    torch.testing.assert_close(whole, eager, **CLOSE)
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        pieces = [model(input_ids=ids[:, a:b], past_key_values=cache).logits for a, b in ((0, 7), (7, 8), (8, 13))]
    torch.testing.assert_close(torch.cat(pieces, dim=1), eager, **CLOSE)


def test_padding_on_the_left_and_generation() -> None:
    register(NAME, MODELS / "llama.attn")
    model, ids, mask = llama(), tokens(3, 11), padded(3, 11, "left")
    eager, mine = both(model, input_ids=ids, attention_mask=mask)
    torch.testing.assert_close(mine[mask.bool()], eager[mask.bool()], **CLOSE)
    texts = []
    for implementation in ("eager", NAME):
        model.set_attn_implementation(implementation)
        texts.append(model.generate(ids, attention_mask=mask, max_new_tokens=5, do_sample=False, pad_token_id=0))
    assert torch.equal(*texts)


def test_a_static_cache() -> None:
    """Keys that are not written yet are padding, and queries do not end where keys do."""
    register(NAME, MODELS / "llama.attn")
    model, ids = llama(attn_implementation=NAME), tokens(2, 9)
    with torch.no_grad():
        model.set_attn_implementation("eager")
        expected = model(input_ids=ids).logits
        model.set_attn_implementation(NAME)
        cache = StaticCache(config=model.config, max_cache_len=32)
        seen = torch.ones(2, 9, dtype=torch.long)
        first = model(input_ids=ids[:, :6], attention_mask=seen[:, :6], past_key_values=cache).logits
        rest = [
            model(input_ids=ids[:, at : at + 1], attention_mask=seen[:, : at + 1], past_key_values=cache).logits
            for at in range(6, 9)
        ]
    torch.testing.assert_close(torch.cat([first, *rest], dim=1), expected, **CLOSE)


def test_bert_padded_on_the_right_with_gradients() -> None:
    register(NAME, EXAMPLES / "padded.attn")
    model = BertModel(BertConfig(**SMALL), add_pooling_layer=False).eval()
    ids, mask = tokens(3, 11), padded(3, 11, "right")
    cotangent = torch.randn(int(mask.sum()), 48)
    states, gradients = [], []
    for implementation in ("eager", NAME):
        model.set_attn_implementation(implementation)
        state = model(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()]
        model.zero_grad()
        state.backward(cotangent)
        states.append(state.detach())
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.testing.assert_close(states[1], states[0], **CLOSE)
    for mine, theirs in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0.0, atol=1e-5 * max(1.0, theirs.abs().max().item()))


def test_gpt_oss_brings_sinks_and_windows() -> None:
    """Its layers alternate a window and all keys: with the window from the layer, and with the model's own mask."""
    config = GptOssConfig(
        **SMALL, num_key_value_heads=2, head_dim=12, sliding_window=4, num_local_experts=2, num_experts_per_tok=1
    )
    model = GptOssForCausalLM(config).eval()
    for layer in model.model.layers:
        nn.init.normal_(layer.self_attn.sinks)
    ids = tokens(2, 11)
    for spec in (MODELS / "gpt_oss.attn", PAIR):
        register(NAME, spec)
        eager, mine = both(model, input_ids=ids)
        torch.testing.assert_close(mine, eager, **CLOSE)


def test_gemma_brings_a_scale_and_a_cap() -> None:
    register(NAME, MODELS / "gemma2.attn")
    config = Gemma2Config(
        **SMALL,
        num_key_value_heads=2,
        head_dim=12,
        query_pre_attn_scalar=7,
        attn_logit_softcapping=0.5,
        sliding_window=4,
    )
    eager, mine = both(Gemma2ForCausalLM(config).eval(), input_ids=tokens(2, 11))
    torch.testing.assert_close(mine, eager, **CLOSE)


def test_t5_brings_a_bias() -> None:
    register(NAME, MODELS / "t5.attn")
    config = T5Config(vocab_size=99, d_model=48, d_kv=12, d_ff=64, num_layers=2, num_heads=4)
    mask = padded(3, 11, "right")
    eager, mine = both(T5EncoderModel(config).eval(), input_ids=tokens(3, 11), attention_mask=mask)
    torch.testing.assert_close(mine[mask.bool()], eager[mask.bool()], **CLOSE)


def test_packed_documents_through_pair() -> None:
    register(
        NAME,
        """attention pairs {
          input pair: bool[B, 1, N, M]  score dot(q, k) / sqrt(D)  mask pair[b, 0, i, j]  normalize softmax
        }""",
    )
    positions = torch.tensor([[0, 1, 2, 0, 1, 2, 3, 4, 0]])
    eager, mine = both(llama(), input_ids=tokens(1, 9), position_ids=positions, use_cache=False)
    torch.testing.assert_close(mine, eager, **CLOSE)


def test_one_graph_under_compile() -> None:
    """No graph break; what could not be looked at while compiling is refused when it runs."""
    register(NAME, EXAMPLES / "causal.attn")
    model, ids = llama(), tokens(2, 9)
    eager, _ = both(model, input_ids=ids)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    mask = padded(2, 9, "left")
    with torch.no_grad():
        mine = compiled(input_ids=ids, attention_mask=torch.ones_like(mask), use_cache=False).logits
        torch.testing.assert_close(mine, eager, **CLOSE)
        with pytest.raises(RuntimeError, match="input keep: bool"):
            compiled(input_ids=ids, attention_mask=mask, use_cache=False)


def test_checkpointed_gradients_are_the_same() -> None:
    register(NAME, MODELS / "llama.attn")
    model, ids, mask = llama(attn_implementation=NAME).train(), tokens(2, 9), padded(2, 9, "left")
    gradients = []
    for prepare in (lambda: None, model.gradient_checkpointing_enable):
        prepare()
        model.zero_grad()
        model(input_ids=ids, attention_mask=mask, labels=ids, use_cache=False).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*gradients, strict=True))


def test_inputs_of_the_layer_and_of_the_caller() -> None:
    """The same slopes, once as a tensor and once read off each layer."""
    model, ids, slope = llama(), tokens(2, 9), torch.tensor([0.5, 0.25, 0.125, 0.0625])
    for layer in model.model.layers:
        layer.self_attn.slope = nn.Parameter(slope)
    results = []
    for given in (slope, lambda layer: layer.slope):
        register(NAME, EXAMPLES / "alibi.attn", inputs={"slope": given})
        plain, mine = both(model, input_ids=ids)
        results.append(mine)
    assert torch.equal(*results)
    assert not torch.allclose(plain, mine, **CLOSE)


def test_registered_again_is_replaced() -> None:
    """The window of the second registration counts: it holds all keys, that of the first does not."""
    model, ids = llama(), tokens(2, 9)
    assert register(NAME, EXAMPLES / "sliding.attn", w=2).params == {"w": 2}
    eager, mine = both(model, input_ids=ids)
    assert not torch.allclose(mine, eager, **CLOSE)
    register(NAME, attnc.load(EXAMPLES / "sliding.attn", w=9))
    eager, mine = both(model, input_ids=ids)
    torch.testing.assert_close(mine, eager, **CLOSE)


@pytest.mark.parametrize(
    ("spec", "call", "message"),
    [
        ("causal.attn", {"attention_mask": padded(2, 9, "left")}, "input keep: bool"),
        ("padded.attn", {"attention_mask": padded(2, 9, "left")}, "padded on the right"),
        ("causal.attn", {"position_ids": torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4]]), "use_cache": False}, "packed"),
        ("causal.attn", {"attention_mask": torch.zeros(2, 1, 9, 9)}, "float32 mask"),
        ("alibi.attn", {}, "does not bring"),
    ],
)
def test_what_a_spec_would_leave_out_is_refused(spec: str, call: dict[str, object], message: str) -> None:
    register(NAME, EXAMPLES / spec)
    model = llama()
    model.set_attn_implementation(NAME)
    with pytest.raises(ValueError, match=message):
        model(input_ids=tokens(2, 9), **call)


def test_another_scale_is_refused() -> None:
    register(NAME, "attention half { score 0.5 * dot(q, k)  mask causal  normalize softmax }")
    model = llama(attn_implementation=NAME)
    with pytest.raises(ValueError, match=r"scales q k by 0\.288675, the spec of half by 0\.5 at D = 12"):
        model(input_ids=tokens(2, 9))


def test_terms_without_an_input_are_refused() -> None:
    register(NAME, EXAMPLES / "causal.attn")
    config = Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=12, query_pre_attn_scalar=12)
    model = Gemma2ForCausalLM(config).eval()
    model.set_attn_implementation(NAME)
    with pytest.raises(ValueError, match="brings softcap"):
        model(input_ids=tokens(2, 9))


def test_dropout_is_refused_in_training_alone() -> None:
    register(NAME, EXAMPLES / "padded.attn")
    model = BertModel(BertConfig(**SMALL, attention_probs_dropout_prob=0.1, attn_implementation=NAME))
    ids = tokens(2, 9)
    model.eval()(input_ids=ids)
    with pytest.raises(ValueError, match="has no dropout"):
        model.train()(input_ids=ids)


def test_other_vectors_are_refused() -> None:
    register(NAME, EXAMPLES / "differential.attn")
    model = llama(attn_implementation=NAME)
    with pytest.raises(ValueError, match=r"takes \(q1, q2, k1, k2, v\): LlamaAttention brings one query"):
        model(input_ids=tokens(2, 9))


def test_bad_registrations() -> None:
    for name in ("sdpa", "my/attention", "paged|mine", "flash"):
        with pytest.raises(ValueError, match="plain name"):
            register(name, EXAMPLES / "causal.attn")
    with pytest.raises(TypeError, match="causal has no input slope; its inputs: none"):
        register(NAME, EXAMPLES / "causal.attn", inputs={"slope": torch.ones(4)})
    assert NAME not in AttentionInterface()


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ("dot(q, k) / sqrt(D)", 48**-0.5),
        ("dot(q, k) * D ** -0.5 - abs(i - j)", 48**-0.5),
        ("50 * tanh(dot(q, k) / 100)", 0.5),
        ("dot(q, k)", 1.0),
        ("dot(q, k) / sqrt(M)", None),
        ("dot(q / 2, k)", None),
        ("dot(q, k) ** 2 + 3 * dot(k, q)", 3.0),
        ("dot(q, k) ** 2", None),
        ("1.0", None),
    ],
)
def test_the_factor_of_a_score(score: str, expected: float | None) -> None:
    construct = attnc.loads(f"attention x {{ score {score}  mask causal  normalize softmax }}").construct
    found = factor(construct, 48)
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-12))


def test_without_transformers_the_message_says_so() -> None:
    program = "import sys; sys.modules['transformers'] = None; import attnc.integrations.transformers"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert "needs transformers >= 5.4: pip install 'attnc[transformers]'" in done.stderr

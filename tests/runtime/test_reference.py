"""The reference against what the language page says, point by point, with dense formulas written out here."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, log, nan

import pytest
import torch
from torch import Tensor

from attnc.runtime.draw import draw
from attnc.runtime.reference import mask
from attnc.testing.tolerance import unit_roundoff
from tests.runtime.specs import assert_same, attention, call, vectors

SCORE = "score dot(q, k) / sqrt(D) "
PLAIN = SCORE + "normalize softmax "


def _scores(x: dict[str, Tensor]) -> Tensor:
    heads = x["q"].shape[1] // x["k"].shape[1]
    return x["q"] @ x["k"].repeat_interleave(heads, 1).mT / x["q"].shape[-1] ** 0.5


def _causal(n: int, m: int) -> Tensor:
    return torch.ones(n, m, dtype=torch.bool).tril(m - n)


# --- positions --------------------------------------------------------------------------------


def test_a_spec_is_the_same_for_prefill_chunks_and_decode() -> None:
    x = vectors(N=9)
    construct = attention(PLAIN + "mask causal")
    whole = call(construct, x)
    for first, last in ((0, 4), (4, 7), (8, 9)):
        part = {"q": x["q"][:, :, first:last], "k": x["k"][:, :, :last], "v": x["v"][:, :, :last]}
        torch.testing.assert_close(call(construct, part), whole[:, :, first:last])  # q_offset = M - N


def test_offsets_by_batch_and_of_keys() -> None:
    x = vectors(N=3, M=8)
    construct = attention(PLAIN + "mask window(2)")
    offsets = torch.tensor([1, 6])
    together = call(construct, x, q_offset=offsets)
    for b in range(2):
        one = {name: value[b : b + 1] for name, value in x.items()}
        torch.testing.assert_close(call(construct, one, q_offset=int(offsets[b])), together[b : b + 1])
    shifted = call(construct, x, q_offset=offsets + 100, kv_offset=100)
    torch.testing.assert_close(shifted, together)


def test_an_axis_named_n_or_m_is_read_by_row() -> None:
    x = vectors(N=3, M=8)
    ids = torch.tensor([[0, 0, 0, 1, 1, 1, 2, 2], [5, 5, 5, 5, 5, 5, 5, 5]])
    live = (ids[:, 5:, None] == ids[:, None, :])[:, None]
    expected = torch.where(live, _scores(x), -inf).softmax(-1) @ x["v"]
    construct = attention("input ids: i64[B, M]" + " mask document(ids) " + PLAIN)
    assert_same(call(construct, x, {"ids": ids}), expected, [*x.values()])
    shifted = call(construct, x, {"ids": ids}, q_offset=5 + 40, kv_offset=40)
    torch.testing.assert_close(shifted, expected)
    rows = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    construct = attention("input a: f64[H, N] score dot(q, k) / sqrt(D) * a[h, i] normalize softmax")
    expected = (_scores(x) * rows[None, :, :, None]).softmax(-1) @ x["v"]
    assert_same(call(construct, x, {"a": rows}, q_offset=-7), expected, [*x.values(), rows])


def test_sizes_one_broadcast_and_indices_outside_read_the_nearest() -> None:
    x = vectors(N=5)
    bias = torch.randn(1, 4, dtype=torch.float64, requires_grad=True)  # [B, R], R = 4
    construct = attention("input bias: f64[B, R] score dot(q, k) / sqrt(D) + bias[b, i - j] normalize softmax")
    at = (torch.arange(5)[:, None] - torch.arange(5)).clamp(0, 3)
    expected = (_scores(x) + bias[0][at]).softmax(-1) @ x["v"]
    assert_same(call(construct, x, {"bias": bias}), expected, [*x.values(), bias])
    with pytest.raises(IndexError, match=r"bias: index .* is outside axis 1 of size 4"):
        call(construct, x, {"bias": bias}, check=True)
    causal = attention(
        "input bias: f64[B, R] mask causal and window(3) score dot(q, k) / sqrt(D) + bias[b, i - j] normalize softmax"
    )
    call(causal, x, {"bias": bias}, check=True)  # outside only where the pair is masked


# --- masked pairs, rows with no key -----------------------------------------------------------


def test_a_masked_pair_has_no_weight_and_sends_no_gradient_whatever_its_score() -> None:
    for junk in (nan, inf, -inf):
        x = vectors(N=6)
        bias = torch.zeros(6, 6, dtype=torch.float64)
        bias[~_causal(6, 6)] = junk
        bias.requires_grad_()
        construct = attention(
            "input bias: f64[N, M] score dot(q, k) / sqrt(D) + log(exp(bias[i, j])) mask causal normalize softmax"
        )
        expected = torch.where(_causal(6, 6), _scores(x), -inf).softmax(-1) @ x["v"]
        assert_same(call(construct, x, {"bias": bias}), expected, [*x.values()])
        (gradient,) = torch.autograd.grad(call(construct, x, {"bias": bias}).sum(), bias)
        assert (gradient[~_causal(6, 6)] == 0).all() and gradient.isfinite().all()


@pytest.mark.parametrize("junk", [nan, inf])
def test_keys_that_no_query_sees_may_hold_anything(junk: float) -> None:
    x = vectors(N=6, M=9)
    spoilt = {name: value.detach().clone() for name, value in x.items()}
    spoilt["k"][:, :, 7:] = spoilt["v"][:, :, 7:] = junk
    spoilt = {name: value.requires_grad_() for name, value in spoilt.items()}
    construct = attention(PLAIN + "mask j < 7 emit lse, entropy")
    clean, dirty = call(construct, x), call(construct, spoilt)
    for left, right in zip(dirty, clean, strict=True):
        torch.testing.assert_close(left, right)
    loss = dirty.out.sum() + dirty.lse.sum()
    expected = clean.out.sum() + clean.lse.sum()
    for left, right in zip(
        torch.autograd.grad(loss, [*spoilt.values()]), torch.autograd.grad(expected, [*x.values()]), strict=True
    ):
        torch.testing.assert_close(left, right)


def test_nan_in_a_live_pair_spreads_to_the_queries_that_see_it_and_no_further() -> None:
    x = vectors(N=6)
    spoilt = {name: value.detach().clone() for name, value in x.items()}
    spoilt["v"][0, 0, 3, 2] = nan
    out = call(attention(PLAIN + "mask causal"), spoilt)
    assert out.isnan().nonzero().tolist() == [[0, 0, i, 2] for i in (3, 4, 5)]
    spoilt = {name: value.detach().clone() for name, value in x.items()}
    spoilt["k"][0, 0, 3, 2] = nan
    out = call(attention(PLAIN + "mask causal"), spoilt)
    assert out.isnan().any(-1).nonzero().tolist() == [[0, 0, i] for i in (3, 4, 5)]


NORMALIZATIONS = ["softmax", "softmax1", "softmax(sink = e[h])", "sum", "abs_sum", "sigmoid", "relu", "none"]


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_a_row_with_no_key_is_zero(normalize: str) -> None:
    """Masked throughout (row 0), or with no score but -inf (row 1)."""
    x = vectors(N=4)
    low = torch.zeros(4, dtype=torch.float64)
    low[1] = -inf
    low.requires_grad_()
    e = torch.randn(4, dtype=torch.float64, requires_grad=True)
    emits = "emit lse, total, rowmax, entropy, colsum" if "softmax" in normalize else "emit total, rowmax, colsum"
    construct = attention(
        "input e: f64[H] input low: f64[N] score sqrt(dot(q, k) ** 2 + 1) + low[i] mask i >= 1 "
        f"normalize {normalize} {emits}"
    )
    result = call(construct, x, {"e": e, "low": low})
    assert (result.out[:, :, :2] == 0).all() and (result.rowmax[:, :, :2] == -inf).all()
    assert result.out[:, :, 2:].isfinite().all()
    if "softmax" in normalize:
        assert (result.lse[:, :, :2] == -inf).all() and (result.entropy[:, :, :2] == 0).all()
    loss = result.out.sum() + result.total.sum()
    gradients = torch.autograd.grad(loss, [*x.values(), e, low], materialize_grads=True)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (gradients[0][:, :, :2] == 0).all() and (gradients[-1][:2] == 0).all()


@pytest.mark.parametrize("lengths", [(0, 3), (3, 0), (0, 0)])
@pytest.mark.parametrize("normalize", ["softmax", "sum"])
def test_empty_tensors(lengths: tuple[int, int], normalize: str) -> None:
    for batch in (0, 2):
        x = vectors(B=batch, N=lengths[0], M=lengths[1])
        out, total, colsum = call(attention(SCORE + f"mask causal normalize {normalize} emit total, colsum"), x)
        assert out.shape == (batch, 4, lengths[0], 8) and (out == 0).all()
        assert total.shape == (batch, 4, lengths[0]) and colsum.shape == (batch, 4, lengths[1])
        assert all((g == 0).all() for g in torch.autograd.grad(out.sum(), [*x.values()], materialize_grads=True))


# --- normalizations ---------------------------------------------------------------------------


FORMULAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "softmax": lambda s, e: s.softmax(-1),
    "softmax(sink = e[h])": lambda s, e: s.exp() / (s.exp().sum(-1, keepdim=True) + e[:, None, None].exp()),
    "softmax1": lambda s, e: s.exp() / (s.exp().sum(-1, keepdim=True) + 1),
    "sum": lambda s, e: s / s.sum(-1, keepdim=True),
    "abs_sum": lambda s, e: s / s.sum(-1, keepdim=True).abs().clamp_min(1),
    "sigmoid": lambda s, e: s.sigmoid(),
    "relu": lambda s, e: s.relu(),
    "none": lambda s, e: s,
    "weight(s) = relu(s) ** 2 divisor(t) = max(t, 0.5)": lambda s, e: (
        s.relu() ** 2 / (s.relu() ** 2).sum(-1, keepdim=True).clamp_min(0.5)
    ),
    "weight(s) = exp(s) divisor(t) = sqrt(t * t + e[h] ** 2)": lambda s, e: (
        s.exp() / torch.sqrt(s.exp().sum(-1, keepdim=True) ** 2 + e[:, None, None] ** 2)
    ),
    "weight(s) = exp(2 * s) divisor(t) = where(t > 3, t, 3)": lambda s, e: (
        (2 * s).exp() / (2 * s).exp().sum(-1, keepdim=True).clamp_min(3)
    ),
    "weight(s) = exp(s) divisor(t) = log(1 + t)": lambda s, e: s.exp() / s.exp().sum(-1, keepdim=True).log1p(),
    "weight(s) = softplus(s) divisor(t) = t + 1": lambda s, e: (
        torch.nn.functional.softplus(s) / (torch.nn.functional.softplus(s).sum(-1, keepdim=True) + 1)
    ),
}


@pytest.mark.parametrize("normalize", FORMULAS)
def test_normalizations(normalize: str) -> None:
    x = vectors(N=5, M=6)
    e = torch.randn(4, dtype=torch.float64, requires_grad=True)
    construct = attention(f"input e: f64[H] {SCORE} normalize {normalize} emit colsum")
    result = call(construct, x, {"e": e})
    weights = FORMULAS[normalize](_scores(x), e)
    assert_same(result.out, weights @ x["v"], [*x.values(), e])
    torch.testing.assert_close(result.colsum, weights.detach().sum(-2))
    assert not result.colsum.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("base", [-1e4, -100.0, 0.0, 100.0, 1e4])
@pytest.mark.parametrize("sink", [-1e4, -100.0, 0.0, 100.0, 1e4])
def test_no_finite_score_overflows(base: float, sink: float, dtype: torch.dtype) -> None:
    """Against logarithms: weights = exp(s - logaddexp(lse, sink))."""
    x = {name: value.detach().to(dtype).requires_grad_() for name, value in vectors(N=3).items()}
    e = torch.full((4,), sink, dtype=dtype, requires_grad=True)
    for normalize, extra in (("softmax", None), ("softmax1", 0.0), ("softmax(sink = e[h])", sink)):
        construct = attention(
            "input e: f64[H] param base: float score dot(q, k) / sqrt(D) + base "
            f"normalize {normalize} emit lse, entropy",
            base=base,
        )
        out, lse, entropy = call(construct, x, {"e": e})
        s = _scores({name: value.double() for name, value in x.items()}) + base
        expected = s.logsumexp(-1)
        if extra is not None:
            expected = torch.logaddexp(expected, torch.tensor(extra, dtype=torch.float64))
        weights = (s - expected[..., None]).exp()
        error = 32 * unit_roundoff(dtype) * max(abs(base), abs(sink), 1)  # of a score; its weight's, relative
        near = {"rtol": error, "atol": error}
        torch.testing.assert_close(lse.double(), expected, **near)
        torch.testing.assert_close(out.double(), weights @ x["v"].double(), **near)
        torch.testing.assert_close(entropy.double(), -torch.xlogy(weights, weights).sum(-1), **near)
        gradients = torch.autograd.grad(out.sum() + lse.sum(), [*x.values(), e], materialize_grads=True)
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_floor_under_the_divisor_holds_at_any_score() -> None:
    x = vectors(N=3)
    spec = "param base: float score dot(q, k) / sqrt(D) + base normalize weight(s) = exp(s) divisor(t) = max(t, 2) "
    tiny = call(attention(spec + "emit lse", base=-800.0), x)
    torch.testing.assert_close(tiny.lse, torch.full_like(tiny.lse, log(2)))
    assert (tiny.out == 0).all() or tiny.out.abs().max() < 1e-300
    large = call(attention(spec, base=800.0), x)
    torch.testing.assert_close(large, call(attention(PLAIN), x))


# --- emits ------------------------------------------------------------------------------------


def test_emits() -> None:
    x = vectors(N=5)
    e = torch.randn(4, dtype=torch.float64, requires_grad=True)
    emits = "lse, rowmax, entropy, colsum, total"
    construct = attention(f"input e: f64[H] {SCORE} mask causal normalize softmax(sink = e[h]) emit {emits}")
    result = call(construct, x, {"e": e})
    assert result._fields == ("out", "lse", "rowmax", "entropy", "colsum", "total")
    s = torch.where(_causal(5, 5), _scores(x), -inf)
    total = s.exp().sum(-1)
    lse = (total + e.exp()[:, None]).log()
    weights = (s - lse[..., None]).exp()
    assert_same(result.lse, lse, [x["q"], x["k"], e])
    assert_same(result.total, total, [x["q"], x["k"]])
    torch.testing.assert_close(result.rowmax, s.amax(-1))
    torch.testing.assert_close(result.entropy, -torch.xlogy(weights, weights).sum(-1))
    torch.testing.assert_close(result.colsum, weights.sum(-2))
    assert not any(getattr(result, name).requires_grad for name in ("rowmax", "entropy", "colsum"))


def test_dtypes() -> None:
    x = {name: value.detach().bfloat16() for name, value in vectors(N=5).items()}
    construct = attention(PLAIN + "emit lse")
    low = call(construct, x)
    assert low.out.dtype is torch.bfloat16 and low.lse.dtype is torch.float32
    high = call(construct, x, dtype=torch.float64)
    assert high.out.dtype is torch.float64 and high.lse.dtype is torch.float64
    torch.testing.assert_close(low.out.double(), high.out, rtol=2**-8, atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(call(construct, x, dtype=torch.float64).out, high.out)


# --- branches, token-wise values --------------------------------------------------------------


def test_branches() -> None:
    construct = attention("""attention differential {
      query q1, q2   key k1, k2   value v   input lam: f32[H]
      branch pos { score dot(q1, k1) / sqrt(D)  mask causal  normalize softmax }
      branch neg { score dot(q2, k2) / sqrt(D)  mask causal  normalize softmax }
      output pos - lam[h] * neg   emit neg.lse }""")
    one, two = vectors(N=5, G=2), vectors(N=5, G=2, D=8)
    two = {name: value.detach().flip(2).requires_grad_() for name, value in two.items()}
    lam = torch.rand(4, dtype=torch.float64, requires_grad=True)
    x = {"q1": one["q"], "q2": two["q"], "k1": one["k"], "k2": two["k"], "v": one["v"]}
    result = call(construct, x, {"lam": lam})
    plain = attention(PLAIN + "mask causal emit lse")
    pos = call(plain, {"q": one["q"], "k": one["k"], "v": one["v"]})
    neg = call(plain, {"q": two["q"], "k": two["k"], "v": one["v"]})
    assert_same(result.out, pos.out - lam[:, None, None] * neg.out, [*x.values(), lam])
    torch.testing.assert_close(result.neg_lse, neg.lse)


def _rotate(x: Tensor, base: float, interleaved: bool) -> Tensor:
    """By complex numbers."""
    half = x.shape[-1] // 2
    pairs = x.unflatten(-1, (half, 2)) if interleaved else torch.stack(x.chunk(2, -1), -1)
    angle = torch.arange(x.shape[-2], dtype=x.dtype)[:, None] * base ** (-torch.arange(half, dtype=x.dtype) / half)
    turned = torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * torch.polar(torch.ones_like(angle), angle))
    return turned.flatten(-2) if interleaved else torch.cat(turned.unbind(-1), -1)


@pytest.mark.parametrize("interleaved", [False, True])
def test_rope(interleaved: bool) -> None:
    x = vectors(N=5, G=2)
    word = ", interleaved = true" if interleaved else ""
    construct = attention(f"score dot(rope(q, i{word}), rope(k, j{word})) / sqrt(D) mask causal normalize softmax")
    turned = {
        "q": _rotate(x["q"], 1e4, interleaved), "k": _rotate(x["k"], 1e4, interleaved), "v": x["v"],
    }  # fmt: skip
    assert_same(call(construct, x), call(attention(PLAIN + "mask causal"), turned), [*x.values()])
    moved = call(construct, x, q_offset=70, kv_offset=70)  # relative
    torch.testing.assert_close(moved, call(construct, x))


def test_norms_slices_and_concatenation() -> None:
    x = vectors(N=5, G=2)
    w = torch.rand(8, dtype=torch.float64, requires_grad=True)
    construct = attention(
        "input w: f64[D] score dot(l2norm(q), concat(k[4:], k[:4])) + dot(rmsnorm(q, w), k) normalize softmax"
    )
    k = x["k"].repeat_interleave(2, 1)
    q_norm = torch.nn.functional.normalize(x["q"], dim=-1, eps=1e-12)
    q_rms = torch.nn.functional.rms_norm(x["q"], (8,), eps=1e-6) * w
    s = q_norm @ k.roll(4, -1).mT + q_rms @ k.mT
    assert_same(call(construct, x, {"w": w}), s.softmax(-1) @ x["v"].repeat_interleave(2, 1), [*x.values(), w])


def test_linear_attention() -> None:
    x = vectors(N=5, E=3)
    construct = attention("let phi(x) = elu(x) + 1 score dot(phi(q), phi(k)) mask causal normalize sum")
    features = {name: torch.nn.functional.elu(x[name]) + 1 for name in "qk"}
    s = (features["q"] @ features["k"].mT).tril()
    assert_same(call(construct, x), s @ x["v"] / s.sum(-1, keepdim=True), [*x.values()])


def test_performer() -> None:
    x = vectors(N=5)
    omega = torch.randn(6, 8, dtype=torch.float64, requires_grad=True)
    construct = attention("""attention performer { input omega: f32[R, D]
      let phi(x) = exp(omega @ x - dot(x, x) / 2) / sqrt(R)
      score dot(phi(q / D ** 0.25), phi(k / D ** 0.25))   normalize sum }""")

    def phi(y: Tensor) -> Tensor:
        y = y / 8**0.25
        return torch.exp(y @ omega.mT - (y * y).sum(-1, keepdim=True) / 2) / 6**0.5

    s = phi(x["q"]) @ phi(x["k"]).mT
    expected = s @ x["v"] / s.sum(-1, keepdim=True)
    assert_same(call(construct, x, {"omega": omega}), expected, [*x.values(), omega])


def test_linformer() -> None:
    x = vectors(N=5, G=2, E=3)
    e, f = (torch.randn(4, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    construct = attention("""attention linformer { input e: f32[R, M]   input f: f32[R, M]
      key kp = e @ k   value vp = f @ v   score dot(q, kp) / sqrt(D)   normalize softmax emit colsum }""")
    projected = {"q": x["q"], "k": e @ x["k"], "v": f @ x["v"]}
    result = call(construct, x, {"e": e, "f": f})
    assert result.colsum.shape == (2, 4, 4)
    assert_same(result.out, call(attention(PLAIN), projected), [*x.values(), e, f])


def test_token_scalars_of_grouped_keys() -> None:
    x = vectors(N=5, G=2)
    construct = attention("score dot(q, k) - (dot(q, q) + dot(k, k)) / 2 normalize softmax")
    k = x["k"].repeat_interleave(2, 1)
    s = -(torch.cdist(x["q"], k, compute_mode="donot_use_mm_for_euclid_dist") ** 2) / 2
    assert_same(call(construct, x), s.softmax(-1) @ x["v"].repeat_interleave(2, 1), [*x.values()])


@pytest.mark.parametrize(
    ("text", "inputs"),
    [
        (PLAIN + "mask causal", {}),
        (SCORE + "mask window(1) normalize softmax1 emit lse, total", {}),
        (SCORE + "mask causal normalize abs_sum", {}),
        ("input a: f64[H] score tanh(a[h] * dot(q, k)) normalize sigmoid", {"a": (4,)}),
        ("input r: f64[N + M] score dot(rope(q, i), rope(k, j)) + r[i - j + M] normalize softmax", {"r": (6,)}),
        ("input p: f64[H, N, M] score dot(q, k) * softplus(p[h, i, j]) mask j != 1 normalize sum", {"p": (4, 3, 3)}),
    ],
)
def test_gradcheck(text: str, inputs: dict[str, tuple[int, ...]]) -> None:
    x = vectors(B=1, G=2, N=3, D=4)
    values = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in inputs.values()]
    construct = attention(text)

    def function(*leaves: Tensor) -> tuple[Tensor, ...]:
        result = call(construct, dict(zip("qkv", leaves, strict=False)), dict(zip(inputs, leaves[3:], strict=True)))
        return (result,) if isinstance(result, Tensor) else tuple(result)

    leaves = (*x.values(), *values)
    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


# --- masks ------------------------------------------------------------------------------------


def test_mask_varies_only_where_it_must() -> None:
    assert mask(attention(PLAIN), 3, 4, 2, 2, {}).shape == (1, 1, 3, 4)
    causal = mask(attention(PLAIN + "mask causal"), 3, 5, 2, 2, {})
    assert torch.equal(causal[0, 0], _causal(3, 5))
    by_batch = mask(attention(PLAIN + "mask causal"), 3, 5, 2, 2, {}, q_offset=torch.tensor([0, 2]))
    rows, columns = torch.arange(3)[:, None], torch.arange(5)
    assert torch.equal(by_batch, torch.stack([columns <= rows, columns <= rows + 2])[:, None])
    dilation = attention(PLAIN + "param d: int[H] mask dilated(1, d[h])", d=[1, 2])
    by_head = mask(dilation, 4, 4, 2, 2, {})
    assert by_head.shape == (1, 2, 4, 4)
    apart = (torch.arange(4)[:, None] - torch.arange(4)).abs()
    assert torch.equal(by_head[0, 0], apart <= 1) and torch.equal(by_head[0, 1], (apart <= 2) & (apart % 2 == 0))


def test_random_blocks() -> None:
    found = mask(attention(PLAIN + "mask random(2, block = 3, seed = 9)"), 17, 17, 1, 4, {})
    assert found.shape == (1, 4, 17, 17)
    drawn = draw(9, torch.arange(4)[:, None], torch.arange(6), 2, 6)
    for h in range(4):
        for i in range(17):
            assert {j // 3 for j in range(17) if found[0, h, i, j]} == set(drawn[h, i // 3].tolist())
    every = mask(attention(PLAIN + "mask random(9, block = 3, seed = 9)"), 17, 17, 1, 1, {})
    assert every.all()


def test_listed_blocks() -> None:
    table = torch.rand(2, 1, 3, 4) < 0.5
    by_table = mask(attention(PLAIN + "input t: bool[B, H, R, C] mask blocks(t, 3)"), 7, 10, 2, 4, {"t": table})
    expected = table.repeat_interleave(3, 2).repeat_interleave(3, 3)[:, :, :7, :10]
    assert torch.equal(by_table, expected.expand_as(by_table))
    slots = torch.full((2, 1, 3, 5), -1)
    for b, row in ((b, row) for b in range(2) for row in range(3)):
        blocks = table[b, 0, row].nonzero()[:, 0]
        slots[b, 0, row, : len(blocks)] = blocks
        slots[b, 0, row, 4] = slots[b, 0, row, 0]  # a duplicate counts once
    by_list = mask(attention(PLAIN + "input t: i32[B, H, R, S] mask blocks(t, 3)"), 7, 10, 2, 4, {"t": slots.int()})
    assert torch.equal(by_list, by_table)


def test_global_tokens() -> None:
    special = torch.tensor([[True, False, False, True, False], [False] * 5])
    construct = attention(PLAIN + "input t: bool[B, M] mask global(t)")
    expected = special[:, None, :, None] | special[:, None, None, :]
    assert torch.equal(mask(construct, 5, 5, 2, 1, {"t": special}), expected)


def test_mask_names_what_it_lacks() -> None:
    construct = attention(PLAIN + "input ids: i64[B, M] input a: f32 mask document(ids)")
    with pytest.raises(TypeError, match="reads the input ids"):
        mask(construct, 4, 4, 1, 1, {})
    with pytest.raises(TypeError, match="no input idz; its inputs: ids, a"):
        mask(construct, 4, 4, 1, 1, {"idz": 3})
    assert mask(construct, 4, 4, 1, 1, {"ids": torch.zeros(1, 4, dtype=torch.int32)}).all()


def test_integer_arithmetic_floors_and_is_exact() -> None:
    far = 2**40
    construct = attention(PLAIN + "mask (i - 5) // 3 == (j - 5) // 3 and (j - i) % 4 != 3")
    found = mask(construct, 9, 9, 1, 1, {}, q_offset=far, kv_offset=far)
    for i in range(9):
        for j in range(9):
            assert found[0, 0, i, j] == ((far + i - 5) // 3 == (far + j - 5) // 3 and (j - i) % 4 != 3)

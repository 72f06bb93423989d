"""Numbers that float arithmetic may stumble over: NaN and inf, the largest floats, scores far from 0, float64."""

from __future__ import annotations

import pytest
import torch

import attnc
from attnc.testing.call import make, outcome

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")  # numpy warns of the inf and NaN of dead tiles

S = "score dot(q, k) / sqrt(D)  "
SIZES = {"B": 2, "H": 2, "G": 1, "N": 21, "M": 21, "D": 8, "E": 8}

BRANCHES = """
  branch x { score abs(dot(q, k)) mask (i - j) * (i - j) > 9 and j < len[b] normalize softmax }
  branch y { score dot(q, k) mask not (j % (h + 2) == 0) and j < len[b] normalize relu }
  output x - 0.5 * y
"""  # one pass, whose branches demand of a key what both do


@pytest.mark.parametrize("backend", ["eager", "native", "interpret"])
@pytest.mark.parametrize("body", [f"{S}mask causal and j < len[b]  normalize softmax  emit lse", BRANCHES])
def test_garbage_beyond_the_end_never_enters(body: str, backend: str) -> None:
    """NaN and inf in keys and values that a conjunct over the key alone masks."""
    op = attnc.loads(f"attention spec {{ input len: i32[B]  {body} }}")
    lengths = torch.tensor([5, 17], dtype=torch.int32)
    clean = make(op, SIZES, inputs={"len": lengths})
    for b, length in enumerate(lengths.tolist()):
        clean.vectors["k"][b, :, length:] = 0
        clean.vectors["v"][b, :, length:] = 0
    dirty = make(op, SIZES, inputs={"len": lengths})
    for b, length in enumerate(lengths.tolist()):
        dirty.vectors["k"][b, :, length:] = torch.nan
        dirty.vectors["v"][b, :, length:] = torch.inf
    expected, actual = outcome(clean, backend), outcome(dirty, backend)
    for name, x in expected.items():
        assert torch.equal(x, actual[name]), name


@pytest.mark.parametrize("shift", [-5000, 5000])
@pytest.mark.parametrize("backend", ["eager", "native", "interpret"])
def test_a_shift_of_all_scores_changes_nothing(backend: str, shift: int) -> None:
    """exp(5000) overflows, exp(-5000) is 0. Weights come from s - lse, known to 5000 u."""
    op = attnc.loads(f"attention spec {{ score dot(q, k) + ({shift})  mask causal  normalize softmax  emit lse }}")
    plain = attnc.loads("attention spec { score dot(q, k)  mask causal  normalize softmax  emit lse }")
    found, wanted = outcome(make(op, SIZES), backend), outcome(make(plain, SIZES), backend)
    found["lse"] -= shift
    for name, x in wanted.items():
        torch.testing.assert_close(found[name], x, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("backend", ["eager", "native", "interpret"])
@pytest.mark.parametrize("least", [torch.finfo(torch.float32).min, torch.finfo(torch.float32).max], ids=["min", "max"])
def test_a_bias_of_the_largest_float_is_finite(least: float, backend: str) -> None:
    """Masks are often written so. A row of nothing else weighs its keys alike; beside other scores it weighs 0 or 1."""
    op = attnc.loads(f"attention spec {{ input bias: f32[N, M]  {S[:-2]} + bias[i, j]  normalize softmax  emit lse }}")
    call = make(op, SIZES).prepared(torch.float32)
    call.inputs["bias"].zero_()
    call.inputs["bias"][3] = least
    call.inputs["bias"][5, 4:] = least
    made = op(*call.vectors.values(), **call.inputs, backend=backend)
    v = call.vectors["v"]
    torch.testing.assert_close(made.out[:, :, 3], v.mean(2).expand(-1, 2, -1))
    assert (made.lse[:, :, 3] == least).all()
    assert made.out.isfinite().all()
    if least > 0:
        torch.testing.assert_close(made.out[:, :, 5], v[:, :, 4:].mean(2).expand(-1, 2, -1))


@pytest.mark.parametrize("backend", ["eager", "native", "interpret"])
def test_what_is_live_follows_ieee(backend: str) -> None:
    op = attnc.loads(f"attention spec {{ {S}mask causal  normalize softmax }}")
    call = make(op, {**SIZES, "B": 1})
    call.vectors["q"][0, 0, 7] = torch.nan
    out = op(*call.vectors.values(), backend=backend)
    assert out[0, 0, 7].isnan().all()
    assert out[0, 0, :7].isfinite().all() and out[0, 0, 8:].isfinite().all() and out[0, 1].isfinite().all()


@pytest.mark.parametrize("backend", ["eager", "native", "interpret"])
def test_constants_divided_by_zero(backend: str) -> None:
    """Floats as IEEE says, where Python would raise; of integers x // 0 is 0 and x % 0 is x."""
    terms = "min(1 / 0, 2) + max(-1 / log(1), -1) + 7 // 0 + 7 % 0"
    op = attnc.loads(f"attention spec {{ score dot(q, k) + ({terms}) * j / 16 normalize softmax }}")
    plain = attnc.loads("attention spec { score dot(q, k) + 8.0 * j / 16 normalize softmax }")
    q, k, v = make(op, SIZES).vectors.values()
    torch.testing.assert_close(op(q, k, v, backend=backend), plain(q, k, v, backend="reference"))
    rows = attnc.loads("attention spec { score dot(q, k) + where(i > 3, 0 / 0, 0) normalize softmax }")
    assert (rows(q, k, v, backend=backend).isnan().any(-1) == (torch.arange(21) > 3)).all()


def test_float64_is_kept_to_the_last_bits() -> None:
    """Literals and tables that float32 would round stay what they are."""
    op = attnc.loads(
        "attention spec { param a: float[H]  score where(j > 3, 0.1, a[h]) * j  normalize softmax }", a=[0.3, 0.7]
    )
    call = make(op, SIZES)
    for backend in ("eager", "native", "interpret"):
        out = op(*call.vectors.values(), backend=backend)
        torch.testing.assert_close(out, op.reference(*call.vectors.values()), rtol=1e-14, atol=1e-14)

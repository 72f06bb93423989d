"""The C++ code equals the reference on drawn specs and calls: every dtype, forward and all gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, note
from hypothesis import strategies as st

import attnc
from attnc.testing.call import Call, check, make
from attnc.testing.family import calls

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@given(call=calls(), dtype=st.sampled_from(DTYPES))
def test_equals_the_reference(call: Call, dtype: torch.dtype) -> None:
    note(str(call.op))
    check(call, "native", dtype)


def test_maximum_of_raw_scores_in_full_blocks() -> None:
    """Found by a deep run: where blocks are full and the weight's exponent is not the score."""
    op = attnc.loads(
        "attention spec { score dot(q, k) / sqrt(D)  normalize weight(s) = exp(0.5 * s) divisor(t) = t + 1  "
        "emit lse, rowmax }"
    )
    check(make(op, {"B": 1, "H": 2, "G": 1, "N": 17, "M": 70, "D": 8, "E": 5}), "native", torch.float32)


def test_vectors_of_a_tile_visit_their_own_keys() -> None:
    """Neighbours that share some keys, with a gap between, in rows that lie 1024 bytes apart."""
    op = attnc.loads(
        "attention spec { score dot(q, k) / sqrt(D)  mask abs(i - j) <= 3 or abs(i - j) > 20 and j < 150  "
        "normalize softmax }"
    )
    made = make(op, {"B": 1, "H": 4, "G": 4, "N": 70, "M": 170, "D": 64, "E": 64})
    spread = {name: x.transpose(1, 2).contiguous().transpose(1, 2) for name, x in made.vectors.items()}
    assert all(x.stride(2) == 256 for x in spread.values())
    check(Call(op=op, vectors=spread, inputs={}), "native", torch.float32)


@pytest.mark.parametrize(
    "normalize",
    ["softmax  emit lse, rowmax, entropy", "weight(s) = sigmoid(s) divisor(t) = 1  emit entropy"],
)
def test_a_pass_adds_to_what_earlier_ones_gave(normalize: str) -> None:
    op = attnc.loads(
        "attention spec { score dot(q, k) / sqrt(D)  mask i > 3 and causal and (window(5) or strided(7)) "
        f"and (i > 9 or window(5))  normalize {normalize} }}"
    )
    check(make(op, {"B": 1, "H": 2, "G": 1, "N": 57, "M": 61, "D": 8, "E": 9}), "native", torch.float32)


def test_places_of_64_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for tensors too large to be made here: along neighbours, across them, beyond an axis, of bools and ints."""
    op = attnc.loads(
        "attention spec { input near: f32[H, 2 * M]  input far: f32[B, H, N, M]  input on: bool[N, M]  "
        "input ids: i32[M, N]  score dot(q, k) + near[h, i - j + M] + far[b, h, i, j + 3]  "
        "mask on[i, j] or ids[j, i] > 1  normalize softmax }"
    )
    inputs = {"on": torch.arange(19 * 23).view(19, 23) % 3 > 0, "ids": torch.arange(23 * 19).view(23, 19).int() % 4}
    call = make(op, {"B": 1, "H": 2, "G": 1, "N": 19, "M": 23, "D": 8, "E": 5}, inputs=inputs)
    check(call, "native", torch.float32)
    asked = []
    monkeypatch.setattr(op._loaded.module, "_beyond_32_bits", lambda *tensors: asked.append(tensors) or True)
    check(call, "native", torch.float32)
    assert asked

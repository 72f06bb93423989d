"""The Triton kernels, run in Triton's interpreter, equal the reference on drawn specs and calls."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, note
from hypothesis import strategies as st

import attnc
from attnc.testing.call import Call, check
from attnc.testing.family import calls

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")  # numpy warns of the inf and NaN of dead tiles

SMALL = calls(lengths=(1, 5, 17, 33), dims=(1, 3, 16, 17, 24), groups=(1, 3))


@given(call=SMALL, dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]))
def test_equals_the_reference(call: Call, dtype: torch.dtype) -> None:
    note(str(call.op))
    check(call, "interpret", dtype)


@pytest.mark.parametrize("normalize", ["softmax", "weight(s) = tanh(s) * s  divisor(t) = 1 + t ** 2"])
@pytest.mark.parametrize("backend", ["eager", "interpret", "native"])
def test_a_row_maximum_hides_no_nan(backend: str, normalize: str) -> None:
    """A live pair's NaN is the row's maximum; maxima of hardware prefer numbers. Found by fuzzing."""
    score = "rsqrt(dot(q, k) / D + 1)  mask causal"
    op = attnc.loads(f"attention spec {{ score {score}  normalize {normalize}  emit rowmax }}")
    generator = torch.Generator().manual_seed(5)
    q, k, v = (torch.randn(1, 2, 40, 16, generator=generator) * scale for scale in (1, 3, 1))
    for rows in (slice(None), slice(12, 15)):  # few queries have a kernel of their own
        x = q[:, :, rows], k, v
        wanted, found = (op(*x, q_offset=rows.start or 0, backend=name).rowmax for name in ("reference", backend))
        assert 0 < wanted.isnan().sum() < wanted.numel()
        torch.testing.assert_close(found, wanted, equal_nan=True)

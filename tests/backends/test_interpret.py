"""The Triton kernels, run in Triton's interpreter, equal the reference on drawn specs and calls."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, note
from hypothesis import strategies as st

from attnc.testing.call import Call, check
from attnc.testing.family import calls

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")  # numpy warns of the inf and NaN of dead tiles

SMALL = calls(lengths=(1, 5, 17, 33), dims=(1, 3, 16, 17, 24), groups=(1, 3))


@given(call=SMALL, dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]))
def test_equals_the_reference(call: Call, dtype: torch.dtype) -> None:
    note(str(call.op))
    check(call, "interpret", dtype)

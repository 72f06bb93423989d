"""The C++ code equals the reference on drawn specs and calls: every dtype, forward and all gradients."""

from __future__ import annotations

import torch
from hypothesis import given, note
from hypothesis import strategies as st

from tests.backends.calls import Call, check
from tests.backends.families import calls

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@given(call=calls(), dtype=st.sampled_from(DTYPES))
def test_equals_the_reference(call: Call, dtype: torch.dtype) -> None:
    note(str(call.op))
    check(call, "native", dtype)

"""What tests take for equal: a finite number is none that should be infinite, and overflow is a matter of rounding."""

from __future__ import annotations

import math

import pytest
import torch

from attnc.testing.tolerance import assert_close

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("actual", "expected", "dtype", "equal"),
    [
        (0.0, -INF, torch.float32, False),
        (INF, -INF, torch.float32, False),
        (NAN, INF, torch.float32, False),
        (INF, 3.0, torch.float32, False),
        (3.0, NAN, torch.float32, False),
        (-INF, -INF, torch.float32, True),
        (NAN, NAN, torch.float32, True),
        (INF, 65400.0, torch.float16, True),  # the largest number is 65504
        (-INF, 65400.0, torch.float16, False),
        (INF, 50000.0, torch.float16, False),
        (INF, 65400.0, torch.float32, False),
    ],
)
def test_infinite_and_finite(actual: float, expected: float, dtype: torch.dtype, equal: bool) -> None:
    found, exact = torch.tensor([actual, 1.0], dtype=dtype), torch.tensor([expected, 1.0], dtype=torch.float64)
    if equal:
        assert_close(found, exact, dtype=dtype, length=8)
    else:
        with pytest.raises(AssertionError, match="1 of 2 elements differ"):
            assert_close(found, exact, dtype=dtype, length=8)

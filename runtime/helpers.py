"""What specs take as inputs and their users would have to compute first: slopes, features, selections, merges."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def alibi_slopes(heads: int, *, device: torch.device | str | None = None) -> Tensor:
    """ALiBi's slopes of the penalty on distance, float32 [H]: 2^(-8 / H) and its powers; where H is no power of two,
    those of the power below, then every other one of the power above (Press et al., 2021, section 3 and its code)."""
    if heads < 1:
        raise ValueError(f"heads = {heads}: at least 1")
    whole = 2 ** int(math.log2(heads))
    powers = [8 * (head + 1) / whole for head in range(whole)]
    powers += [8 * (head + 0.5) / whole for head in range(heads - whole)]
    return torch.exp2(-torch.tensor(powers, device=device))

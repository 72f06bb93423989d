"""How far a result may lie from the reference: derived from dtypes and length, here and nowhere else.

With u(d) the unit roundoff of d (half the distance of 1 to the next number), a result stored in ``dtype`` from sums
of ``length`` terms accumulated in ``accumulated`` may differ by

    u(dtype) * 4 * (|expected| + scale)  +  u(accumulated) * 16 * (sqrt(length) + 8) * scale

where scale is the largest |expected| of the tensor, or the size of the terms that were added where they cancel
(``terms``). The first term: inputs, weights and cotangents of weights are
rounded to ``dtype`` before matrix products, each by u relative, and the result once more; their errors are
independent, so a weighted mean of them does not grow with length. The second: n roundings of a running sum grow as
sqrt(n) (Higham and Mary, 2019), elementary functions add a few more, and a backward pass chains a few such sums.

Below the smallest normal number errors are absolute. Each of ``length`` terms loses up to the smallest number of
``dtype`` that way, and in the accumulation up to the smallest normal one, as hardware may take what is smaller for 0.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor


def unit_roundoff(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps / 2


def tolerance(expected: Tensor, *, dtype: torch.dtype, length: int, terms: float = 0.0) -> Tensor:
    """The bound for each element of ``expected`` (float64, or float32 where ``dtype`` is half)."""
    accumulated = torch.float64 if dtype is torch.float64 else torch.float32
    magnitude = expected.detach().double().abs()
    finite = magnitude[magnitude.isfinite()]
    scale = max(float(finite.max()) if finite.numel() else 0.0, terms)
    stored = 4 * unit_roundoff(dtype) * (magnitude + scale)
    lost = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps + torch.finfo(accumulated).smallest_normal
    return stored + 16 * unit_roundoff(accumulated) * (sqrt(length) + 8) * scale + length * lost


def assert_close(
    actual: Tensor, expected: Tensor, *, dtype: torch.dtype, length: int, terms: float = 0.0, what: str = "result"
) -> None:
    """``actual``, computed in ``dtype`` over ``length`` terms, is ``expected`` within the tolerance; inf and NaN in
    the same places, but that what may lie beyond the largest number of its own dtype may be infinite."""
    assert actual.shape == expected.shape, f"{what}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    a, e = actual.detach().double(), expected.detach().double()
    same = (a == e) | (a.isnan() & e.isnan())
    allowed = tolerance(expected, dtype=dtype, length=length, terms=terms)
    most = torch.finfo(actual.dtype).max if actual.is_floating_point() else torch.inf
    beyond = a.isinf() & (a.sign() == e.sign()) & (e.abs() + allowed > most)
    bad = ~same & ~beyond & ~(e.isfinite() & ((a - e).abs() <= allowed))
    if bad.any():
        excess = torch.where(bad, ((a - e).abs() / allowed).nan_to_num(torch.inf, torch.inf), -1)
        at = tuple(int(n) for n in torch.unravel_index(excess.argmax(), a.shape))
        raise AssertionError(
            f"{what}: {int(bad.sum())} of {a.numel()} elements differ; worst at {list(at)}: expected {e[at]:.9g}, "
            f"found {a[at]:.9g}, which may be {allowed[at]:.3g} off"
        )

"""Memory that is allocated empty holds NaN: nothing may depend on what was there before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch


def _filled(allocate: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def filled(*args: Any, **options: Any) -> torch.Tensor:
        made = allocate(*args, **options)
        return made.fill_(torch.nan) if made.is_floating_point() else made

    return filled


@contextmanager
def poisoned() -> Iterator[None]:
    """Within: ``torch.empty``, ``empty_like``, ``empty_strided`` and ``Tensor.new_empty`` fill floats with NaN."""
    with (
        mock.patch.object(torch, "empty", _filled(torch.empty)),
        mock.patch.object(torch, "empty_like", _filled(torch.empty_like)),
        mock.patch.object(torch, "empty_strided", _filled(torch.empty_strided)),
        mock.patch.object(torch.Tensor, "new_empty", _filled(torch.Tensor.new_empty)),
    ):
        yield

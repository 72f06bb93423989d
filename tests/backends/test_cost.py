"""What a pattern costs: the products that the blocked PyTorch code multiplies, counted, against its live pairs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import attnc

D, HEADS = 16, 2


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Multiplications of every matrix product since the test began."""
    made: list[int] = []
    matmul = torch.matmul

    def counting(x: Tensor, y: Tensor) -> Tensor:
        found: Tensor = matmul(x, y)
        made.append(found.numel() * x.shape[-1])
        return found

    monkeypatch.setattr(torch, "matmul", counting)
    return made


def _pairs(made: list[int], mask: str, n: int, *, backward: bool = False) -> float:
    """Pairs whose vectors are multiplied, by head: forward two products of D terms each, backward five."""
    op = attnc.loads(f"attention spec {{ score dot(q, k)  mask {mask}  normalize softmax }}")
    q, k, v = (torch.randn(1, HEADS, n, D, requires_grad=True) for _ in range(3))
    made.clear()
    out = op(q, k, v, backend="eager")
    assert isinstance(out, Tensor)
    if backward:
        made.clear()
        out.sum().backward()
    return sum(made) / (D * HEADS * (5 if backward else 2))


@pytest.mark.parametrize("backward", [False, True])
def test_a_class_costs_its_share(products: list[int], backward: bool) -> None:
    assert _pairs(products, "strided(32)", 1024, backward=backward) == 1024 * 1024 / 32


def test_a_dilated_window_costs_as_one_without_gaps(products: list[int]) -> None:
    """Each class of 4 is a window in 2048 / 4 rows; its tiles are those of a window there."""
    assert _pairs(products, "dilated(8, 4)", 2048) == 4 * _pairs(products, "window(8)", 512)


def test_a_union_costs_the_sum_of_its_parts(products: list[int]) -> None:
    """Keys near, and further ones in classes: not the whole triangle."""
    near, far = _pairs(products, "causal and window(31)", 2048), _pairs(products, "causal and strided(32)", 2048)
    assert near < _pairs(products, "causal and (window(31) or strided(32))", 2048) <= near + far

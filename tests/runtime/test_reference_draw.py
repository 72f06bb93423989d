"""The random pattern: known answers, distinctness, uniformity, and the template's copy, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import attnc.codegen
from attnc.runtime.draw import draw, mix

GOLDEN_SEED_0 = [[[30, 27, 58], [0, 27, 48], [34, 39, 49]], [[21, 42, 30], [42, 54, 5], [9, 0, 19]]]
GOLDEN_WIDE_SEED = [
    [[574, 847, 938], [775, 435, 899], [421, 985, 390]],
    [[820, 755, 927], [244, 514, 132], [219, 902, 245]],
]

TEMPLATE = Path(attnc.codegen.__path__[0]) / "templates" / "draw.py.j2"


def _template_draw() -> Callable[..., Tensor]:
    names: dict[str, Any] = {"torch": torch}
    exec(TEMPLATE.read_text(), names)
    found: Callable[..., Tensor] = names["draw"]
    return found


def _mix_by_python(x: int) -> int:
    """lowbias32 as published, in Python's integers."""
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    return x ^ x >> 16


def _draw_by_python(seed: int, head: int, row: int, count: int, blocks: int) -> list[int]:
    """The definition in Python's integers, one (head, row) at a time."""
    if count >= blocks:
        return [slot if slot < blocks else -1 for slot in range(count)]
    state = 0
    for word in (seed, seed >> 32, head, row):
        state = _mix_by_python(((state ^ word % 2**32) + 0x9E3779B9) % 2**32)
    found: list[int] = []
    for slot in range(count):
        last = blocks - count + slot
        number = _mix_by_python(((state ^ slot) + 0x9E3779B9) % 2**32) * (last + 1) // 2**32
        found.append(last if number in found else number)
    return found


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1))
def test_mixing_is_lowbias32(numbers: list[int]) -> None:
    assert mix(torch.tensor(numbers)).tolist() == [_mix_by_python(number) for number in numbers]


@given(
    seed=st.integers(-(2**63), 2**63 - 1),
    head=st.integers(0, 1000),
    row=st.integers(-(2**31), 2**31 - 1),
    count=st.integers(0, 20),
    blocks=st.integers(0, 2**31 - 1) | st.integers(0, 30),
)
def test_draw_is_its_definition_and_the_template_its_copy(
    seed: int, head: int, row: int, count: int, blocks: int
) -> None:
    heads, rows = torch.tensor([[head], [head + 1]]), torch.tensor([[row, row + 1, row + 2]])
    found = draw(seed, heads, rows, count, blocks)
    assert found.dtype is torch.int64 and found.shape == (2, 3, count)
    expected = [[_draw_by_python(seed, head + a, row + c, count, blocks) for c in range(3)] for a in range(2)]
    assert found.tolist() == expected
    assert torch.equal(_template_draw()(seed, heads, rows, count, blocks), found)


def test_known_answers() -> None:
    """These numbers are in the world: a change of them changes what trained models compute."""
    heads, rows = torch.arange(2).reshape(2, 1), torch.arange(3).reshape(1, 3)
    assert draw(0, heads, rows, 3, 64).tolist() == GOLDEN_SEED_0
    assert draw(2**40 + 7, heads, rows, 3, 1000).tolist() == GOLDEN_WIDE_SEED


def test_draws_are_distinct_and_in_range() -> None:
    found = draw(3, torch.arange(8).reshape(8, 1), torch.arange(500).reshape(1, 500), 12, 40)
    assert found.min() >= 0 and found.max() < 40
    assert (found.sort(-1).values.diff(dim=-1) > 0).all()


def test_draws_are_uniform() -> None:
    """Chi-square over 40 cells (39 degrees of freedom): below 90 with probability 1 - 7e-6; pairs of neighbouring
    rows and heads are independent to the same measure."""
    found = draw(11, torch.arange(16).reshape(16, 1), torch.arange(1000).reshape(1, 1000), 1, 40)[..., 0]
    assert _chi_square(found.flatten(), 40) < 90
    for pair in (found[:, :-1] * 40 + found[:, 1:], found[:-1] * 40 + found[1:]):
        # 1599 degrees of freedom: mean 1599, deviation 56.6
        assert abs(_chi_square(pair.flatten(), 1600) - 1599) < 5 * 56.6
    many = draw(5, torch.arange(16).reshape(16, 1), torch.arange(1000).reshape(1, 1000), 5, 40)
    # Without replacement: counts vary by (1 - 4 / 39) of the multinomial's variance, so this bound holds a fortiori.
    assert _chi_square(many.flatten(), 40) < 90


def _chi_square(numbers: Tensor, cells: int) -> float:
    counts = torch.bincount(numbers, minlength=cells).double()
    expected = numbers.numel() / cells
    return float(((counts - expected) ** 2 / expected).sum())

"""Random patterns: which have a compiled form, and that those draw what the reference draws."""

from __future__ import annotations

import pytest
import torch

import attnc
from attnc.codegen.lower import MOST_DRAWN, lower
from attnc.dsl.diagnostics import SpecError
from attnc.dsl.frontend import compilable, compile_text
from attnc.dsl.source import Source


def spec(mask: str) -> str:
    return f"attention a {{ input x: i32  score dot(q, k) / sqrt(D) + x  mask {mask}  normalize softmax }}"


@pytest.mark.parametrize("block", [1, 2, 7, 64])
def test_blocks_of_any_length(block: int) -> None:
    op = attnc.loads(spec(f"random(3, block = {block}, seed = 7)"))
    q, k, v = (torch.randn(2, 3, length, 4, dtype=torch.float64) for length in (37, 45, 45))
    torch.testing.assert_close(op(q, k, v, x=1, backend="eager"), op.reference(q, k, v, x=1))


@pytest.mark.parametrize(
    "arguments",
    [
        "h + 1, block = 64, seed = 0",
        "i // 64 + 1, block = 64, seed = 0",
        "10 ** 9, block = 64, seed = 0",
        f"{MOST_DRAWN + 1}, block = 64, seed = 0",
        "3, block = D, seed = 0",
        "3, block = x, seed = 0",
        "3, block = 64, seed = h",
        "3, block = 64, seed = x",
        "3, block = 64, seed = 0, span = i",
    ],
)
def test_what_has_no_compiled_form_is_told(arguments: str) -> None:
    source = Source(name="<text>", text=spec(f"random({arguments})"))
    with pytest.raises(SpecError) as error:
        lower(compilable(compile_text(source, {})))
    assert [item.code for item in error.value.diagnostics] == ["A504"]


@pytest.mark.parametrize(
    "arguments", [f"{MOST_DRAWN}, block = 64, seed = 0", "3, block = 64, seed = 2 ** 40, span = N"]
)
def test_the_largest_count_and_any_seed_compile(arguments: str) -> None:
    source = Source(name="<text>", text=spec(f"random({arguments})"))
    assert len(lower(compilable(compile_text(source, {}))).tables) == 1

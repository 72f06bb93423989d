"""What is called opaque is what the tile map's own analysis leaves out, and the reason is in the spec's words."""

from __future__ import annotations

import pytest
from hypothesis import event, given

from attnc.codegen.opaque import crowded, opaque
from attnc.codegen.simplify import simplify
from attnc.codegen.tilemap import analyse
from attnc.dsl.construct import Attention
from attnc.dsl.frontend import compile_text
from attnc.dsl.ir import Expr
from attnc.dsl.source import Source
from tests.codegen.soundness import predicates

DECLARED = (
    "input ids: i32[B, M] input n: i32[B] input seen: bool[B, M] input t: i32[B, H, R, S] input w: f32[H, M]"
    " input bias: f32[H, R] param r: int[H] = [1, 2]"
)


def condition(mask: str) -> Expr:
    made = compile_text(
        Source(name="<text>", text=f"attention a {{ {DECLARED} score dot(q, k) mask {mask} normalize softmax }}"), {}
    )
    assert isinstance(made, Attention)
    return simplify((made.branches[0].mask,))[0]


CLEAR = (
    "true", "causal", "window(3, 5)", "prefix(9)", "sink(2)", "global(4)", "global(seen)", "dilated(3, 4)",
    "strided(5)", "fixed(8, 2)", "block(8)", "block_window(8, 1)", "random(2, block = 8, seed = 0)", "document(ids)",
    "blocks(t, 8)", "j < n[b]", "w[h, j] > 0.5", "abs(i - j) <= r[h]", "(i + j) % 7 < 3", "i * i < j",
    "causal and (window(9) or strided(4)) or global(2)", "i // 4 % 2 == j // 4 % 2", "min(i, 7) + max(j, 3) < 30",
)  # fmt: skip


@pytest.mark.parametrize("mask", CLEAR)
def test_clear(mask: str) -> None:
    assert opaque(condition(mask)) == ""
    assert not crowded(condition(mask))


OPAQUE = {
    "i * j < 100": "multiplies the positions",
    "(i - j) ** 2 < 100": "multiplies the positions",
    "max(i, j) % 4 < 2": "takes a remainder of both positions at once",
    "(2 * i + j) % 6 == 0": "takes a remainder of both positions at once",
    "(i - j) // 4 % 2 == 0": "divides both positions at once",
    "sin(i) < 0.5": "computes with floating-point numbers",
    "log(abs(i - j) + 1) < 3.0": "computes with floating-point numbers",
    "i / 2 < j": "computes with floating-point numbers",
    "bias[h, i - j] > 0.5": "reads `bias` at both positions at once",
    "ids[b, i + j] == 3": "reads `ids` at both positions at once",
    "causal and (max(i, j) % 4 < 2 or window(3))": "takes a remainder of both positions at once",
}


@pytest.mark.parametrize("mask", OPAQUE)
def test_says_why(mask: str) -> None:
    assert opaque(condition(mask)) == OPAQUE[mask]


@given(predicates())
def test_opaque_is_what_the_analysis_leaves_out(mask: Expr) -> None:
    (simple,) = simplify((mask,))
    pieces = [piece for outer in ("i", "j") for plan in [analyse(simple, outer)] for piece in (*plan.live, *plan.dead)]
    left_out = any(piece.opaque for piece in pieces)
    event("opaque" if left_out else "clear")
    assert bool(opaque(simple)) or not left_out or crowded(simple)


def test_very_many_cases_are_crowded() -> None:
    many = " and ".join(f"(i % {n} == 0 or j % {n} == 0)" for n in (2, 3, 5, 7, 11, 13, 17, 19))
    assert crowded(condition(many))

"""What is refuted has no solution; what people write wrong is refuted."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import event, given

from attnc.codegen.refute import Effort, impossible
from attnc.codegen.simplify import simplify
from attnc.dsl.construct import Attention
from attnc.dsl.frontend import compile_text
from attnc.dsl.ir import Expr
from attnc.dsl.source import Source
from tests.codegen.evaluate import Value, evaluate
from tests.codegen.expressions import KV_OFFSET, Q_OFFSET, H, I, J, M, N, bools, ints


def condition(text: str) -> Expr:
    spec = f"attention a {{ input n: i32[B] score dot(q, k) mask {text} normalize softmax }}"
    made = compile_text(Source(name="<text>", text=spec), {})
    assert isinstance(made, Attention)
    return simplify((made.branches[0].mask,))[0]


IMPOSSIBLE = (
    "causal and not causal",
    "window(2) and i - j > 2",
    "window(2) and not window(9)",
    "j % 4 == 0 and j % 4 == 1",
    "j % 4 == 0 and j % 2 == 1",
    "j % 4 == 0 and i == 2 and window(1)",
    "j % 5 >= 5",
    "j % -5 > 0",
    "block(4) and abs(i - j) > 3",
    "block_window(8, 1) and not window(15)",
    "fixed(8, 4) and not fixed(8, 5)",
    "not fixed(8, 8)",
    "dilated(3, 4) and not window(12)",
    "dilated(3, 4) and i - j == 10",
    "causal and max(i, j) == j and i != j",
    "min(i, j) > i",
    "clamp(i, 3, 9) > 9",
    "where(causal, i - j, j - i) < 0",
    "i // -4 > 3 and i > -16",
    "2 * i == 2 * j + 1",
    "j < n[b] and i < j and n[b] <= i",
    "(causal == (j <= i)) == false",
    "window(3) and (i > j + 5 or j > i + 5)",
    "h < 0",
    "M < 1",
)


@pytest.mark.parametrize("text", IMPOSSIBLE)
def test_impossible(text: str) -> None:
    assert impossible(condition(text))


POSSIBLE = (
    "causal",
    "window(2) and i - j >= 2",
    "window(9) and not window(8)",
    "block(4) and abs(i - j) > 2",
    "dilated(3, 4) and not window(11)",
    "block_window(8, 1) and not window(14)",
    "j < 0",  # keys before position 0: kv_offset may be negative
    "i - j > 2 ** 62",
    "2 * i == 3 * j + 1",
    "j < n[b] and i < j",
)


@pytest.mark.parametrize("text", POSSIBLE)
def test_possible(text: str) -> None:
    assert not impossible(condition(text))


def test_conditions_are_joined() -> None:
    assert impossible(condition("i < j"), condition("j < n[b]"), condition("n[b] < i"))
    assert not impossible(condition("i < j"), condition("j < n[b]"))


_LEAVES: dict[Expr, tuple[Value, ...]] = {
    I: (-5, -1, 0, 1, 2, 3, 7), J: (-4, 0, 1, 2, 5, 8), H: (0, 1, 2), M: (1, 6), N: (9,), Q_OFFSET: (-2, 3),
    KV_OFFSET: (0, 4),
}  # fmt: skip


@given(bools(ints()))
def test_what_is_refuted_has_no_solution(expr: Expr) -> None:
    (simple,) = simplify((expr,))
    if not impossible(simple):
        event("not refuted")
        return
    event("refuted")
    for values in product(*_LEAVES.values()):
        leaves = dict(zip(_LEAVES, values, strict=True))
        try:
            assert not evaluate(expr, leaves, lambda tensor, *at: hash((tensor, at)) % 7 - 3), leaves
        except (ZeroDivisionError, OverflowError):
            continue


def test_effort_is_bounded_and_shared() -> None:
    hard, easy = condition("block_window(8, 1) and not window(15)"), condition("window(2) and i - j > 2")
    effort = Effort(left=10)
    assert not impossible(hard, effort=effort)
    assert effort.left < 0
    assert not impossible(easy, effort=effort)
    assert impossible(hard, easy, effort=Effort(left=1000))


def test_opaque_terms_are_the_same_wherever_they_stand() -> None:
    assert impossible(condition("n[i] == n[j] and not n[j] == n[i]"))
    assert impossible(condition("sin(i) < 0.5 and j > 3 and not sin(i) < 0.5"))

"""Residue classes: which masks have them, and that the class of a position holds just what the congruence lets live."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.codegen.build import TRUE, absolute, all_of, any_of, const, eq, le, lt, mod, mul, ne, sub
from attnc.codegen.passes import passes
from attnc.codegen.residue import separate
from attnc.dsl.ir import Expr, Side
from tests.codegen.evaluate import evaluate
from tests.codegen.expressions import COUNT, KV_OFFSET, Q_OFFSET, H, I, J, M

CAUSAL = le(J, I)


def strided(step: int) -> Expr:
    return eq(mod(sub(I, J), step), 0)


def test_the_rest_of_the_mask_stays() -> None:
    found, rest = separate(all_of((CAUSAL, strided(4))))
    assert found is not None and found.step == 4 and rest == CAUSAL
    found, rest = separate(strided(4))
    assert found is not None and rest == TRUE


def test_of_several_the_largest_step() -> None:
    found, rest = separate(all_of((strided(2), strided(3))))
    assert found is not None and found.step == 3 and rest == strided(2)


@pytest.mark.parametrize(
    "mask",
    [
        CAUSAL,
        any_of((CAUSAL, strided(4))),
        ne(mod(sub(I, J), 2), 0),
        eq(mod(sub(mul(2, I), J), 4), 0),  # two classes of queries meet one of keys
        eq(mod(J, 4), 0),  # every query, some keys
        eq(mod(sub(I, mul(J, J)), 4), 0),
        eq(mod(sub(I, J), 4), 4),  # never
        eq(mod(sub(I, J), 1), 0),
        lt(mod(sub(I, J), 4), 2),
    ],
)
def test_none(mask: Expr) -> None:
    assert separate(mask)[0] is None


@given(
    step=st.integers(2, 12), u=st.integers(-20, 20), v=st.integers(-20, 20), c=st.integers(0, 11), apart=st.booleans(),
    q=st.integers(-9, 30), kv=st.integers(-9, 30), h=st.integers(0, 3), count=st.integers(-9, 9),
)  # fmt: skip
def test_a_class_is_what_the_congruence_lets_live(
    step: int, u: int, v: int, c: int, apart: bool, q: int, kv: int, h: int, count: int
) -> None:
    inside = sub(sub(mul(u, I), mul(v, J)), mul(3, sub(H, COUNT)))
    mask = eq(mod(mul(u, I), step), mod(mul(v, J), step)) if apart else eq(mod(inside, step), c)
    found, rest = separate(mask)
    if found is None:
        return
    assert rest == TRUE
    scope = {Q_OFFSET: q, KV_OFFSET: kv, H: h, COUNT: count}
    for row in range(2 * step):
        for col in range(2 * step):
            live = evaluate(mask, {**scope, I: row + q, J: col + kv})
            assert live == (col % step == evaluate(found.rows(Side.KEY, const(row + q)), scope))
            assert live == (row % step == evaluate(found.rows(Side.QUERY, const(col + kv)), scope))


NEAR = le(absolute(sub(I, J)), 3)


@pytest.mark.parametrize(
    ("mask", "steps"),
    [
        (any_of((NEAR, strided(8))), [1, 8]),
        (all_of((CAUSAL, any_of((NEAR, strided(8))))), [1, 8]),
        (any_of((strided(8), strided(5), NEAR)), [1, 8, 5]),
        (any_of((strided(8), strided(5))), [8, 5]),
        (any_of((NEAR, strided(2))), [1]),  # not worth it
        (any_of((le(absolute(sub(I, J)), 40), all_of((NEAR, strided(8))))), [1]),  # within the first pass's keys
        (all_of((strided(8), any_of((NEAR, strided(5))))), [8]),
        (NEAR, [1]),
    ],
)
def test_each_live_pair_is_in_one_pass(mask: Expr, steps: list[int]) -> None:
    found = passes(mask, M, {})
    assert [part.residue.step if part.residue else 1 for part in found] == steps
    for i in range(12):
        for j in range(12):
            at = {I: i, J: j}
            live = [
                evaluate(part.mask, at) and (part.residue is None or evaluate(part.residue.condition, at))
                for part in found
            ]
            assert sum(live) == evaluate(mask, at)

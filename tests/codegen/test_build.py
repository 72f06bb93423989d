"""Constructors derive kinds and dims as the checker does."""

from __future__ import annotations

import pytest

from attnc.codegen.build import (
    FALSE,
    TRUE,
    add,
    all_of,
    any_of,
    apply,
    const,
    div,
    floordiv,
    le,
    minimum,
    size,
    symbol,
    to_float,
    to_int,
    where,
)  # fmt: skip
from attnc.dsl.ir import Apply, Expr, Fn, Kind, Load
from tests.codegen.expressions import I, J, S


@pytest.mark.parametrize(
    ("expr", "kind"),
    [
        (const(1), Kind.INT),
        (const(True), Kind.BOOL),
        (const(1.0), Kind.FLOAT),
        (add(I, 1), Kind.INT),
        (add(I, 1.0), Kind.FLOAT),
        (div(I, 2), Kind.FLOAT),
        (floordiv(I, 2), Kind.INT),
        (le(I, J), Kind.BOOL),
        (where(le(I, J), I, 0.5), Kind.FLOAT),
        (where(le(I, J), TRUE, FALSE), Kind.BOOL),
        (apply(Fn.EXP, I), Kind.FLOAT),
        (minimum(I, J), Kind.INT),
        (to_int(S), Kind.INT),
    ],
)
def test_kinds(expr: Expr, kind: Kind) -> None:
    assert expr.kind is kind


def test_an_int_meets_a_float_through_a_conversion() -> None:
    assert add(I, S) == Apply(kind=Kind.FLOAT, fn=Fn.ADD, args=(to_float(I), S))
    assert to_float(S) is S
    assert to_int(I) is I


def test_a_scalar_takes_the_dims_that_it_meets() -> None:
    row = Load(kind=Kind.FLOAT, tensor="x", index=(I,), dims=(size("E"),))
    assert add(symbol("lam", Kind.FLOAT), row).dims == (size("E"),)


def test_junctions_of_nothing_are_neutral() -> None:
    assert (all_of(()), any_of(())) == (TRUE, FALSE)
    assert all_of((le(I, J), TRUE)) == apply(Fn.AND, le(I, J), TRUE)

"""The standard library's masks against the language page's table, pair by pair."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.dsl import ir
from attnc.dsl.constant import constant
from attnc.dsl.ir import Fn, Kind
from attnc.dsl.library import standard_library
from tests.dsl.specs import attention, fault, faults, spec

AT_I, AT_J = (ir.Index(kind=Kind.INT, axis=axis) for axis in ("i", "j"))  # type: ignore[arg-type]


def live(mask: ir.Expr, i: int, j: int) -> bool:
    values: dict[ir.Expr, ir.Expr] = {AT_I: ir.Const(kind=Kind.INT, value=i), AT_J: ir.Const(kind=Kind.INT, value=j)}
    (expr,) = ir.substitute((mask,), values)
    value = constant(expr)
    assert isinstance(value, bool)
    return value


MASKS: dict[str, Callable[[int, int], bool]] = {
    "causal": lambda i, j: j <= i,
    "window(3)": lambda i, j: abs(i - j) <= 3,
    "window(3, 1)": lambda i, j: i - 3 <= j <= i + 1,
    "window(3, r = 0)": lambda i, j: i - 3 <= j <= i,
    "causal and window(3)": lambda i, j: 0 <= i - j <= 3,
    "prefix(5)": lambda i, j: j < 5,
    "sink(2)": lambda i, j: j < 2,
    "global(2)": lambda i, j: i < 2 or j < 2,
    "dilated(2, 3)": lambda i, j: abs(i - j) <= 6 and (i - j) % 3 == 0,
    "strided(3)": lambda i, j: (i - j) % 3 == 0,
    "fixed(4, 1)": lambda i, j: i // 4 == j // 4 or j % 4 >= 3,
    "block(4)": lambda i, j: i // 4 == j // 4,
    "block_window(4, 1)": lambda i, j: abs(i // 4 - j // 4) <= 1,
    "not causal or i == j": lambda i, j: j >= i,
}


@pytest.mark.parametrize("text", MASKS)
def test_masks_of_indices(text: str) -> None:
    """Negative positions included: a query offset may be below zero, and division floors."""
    mask = attention(spec(mask=text)).branches[0].mask
    for i in range(-9, 14):
        for j in range(-9, 14):
            assert live(mask, i, j) is MASKS[text](i, j), (i, j)


def mask(text: str, *clauses: str) -> ir.Expr:
    return attention(spec(*clauses, mask=text)).branches[0].mask


def test_global_tokens_marked_by_an_input() -> None:
    assert mask("global(t)", "input t: bool[B, M]") == mask("t[b, i] or t[b, j]", "input t: bool[B, M]")


def test_documents() -> None:
    clause = "input ids: i64[B, M]"
    assert mask("document(ids)", clause) == mask("ids[b, i] == ids[b, j]", clause)


def test_random_draws_blocks() -> None:
    drawn = mask("random(3, block = 64, seed = 7)")
    assert isinstance(drawn, ir.Drawn)
    assert drawn.head == ir.Index(kind=Kind.INT, axis="h")
    assert mask("i // 64 == 0") == ir.Apply(
        kind=Kind.BOOL, fn=Fn.EQ, args=(drawn.row, ir.Const(kind=Kind.INT, value=0))
    )
    assert (constant(drawn.count), constant(drawn.seed), constant(drawn.blocks)) == (3, 7, None)
    spanned = mask("random(3, 64, 7, span = 1000)")
    assert isinstance(spanned, ir.Drawn) and constant(spanned.blocks) == 16


def test_blocks_of_a_table_and_of_a_list() -> None:
    table = mask("blocks(t, 32)", "input t: bool[B, H, R, S]")
    listed = mask("blocks(t, 32)", "input t: i32[B, 1, R, S]")
    assert isinstance(table, ir.Load) and isinstance(listed, ir.Listed)
    assert table.index[2:] == (listed.row, listed.column)
    offset = ir.Offset(kind=Kind.INT, side=ir.Side.QUERY)
    row = ir.Apply(kind=Kind.INT, fn=Fn.SUB, args=(AT_I, offset))
    assert listed.row == ir.Apply(kind=Kind.INT, fn=Fn.FLOORDIV, args=(row, ir.Const(kind=Kind.INT, value=32)))


@pytest.mark.parametrize("text", ["blocks(t, 32)", "global(t)", "document(t)", "window(t)"])
def test_tensors_of_the_wrong_shape(text: str) -> None:
    assert len(faults(spec("input t: f32[H]", mask=text))) == 1


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("window(-1)", "-1"), ("window(1, -2)", "-2"), ("strided(0)", "0"), ("block(0)", "0"), ("dilated(2, 0)", "0"),
        ("random(0, block = 4, seed = 1)", "0"), ("random(1, block = 0, seed = 1)", "0"), ("fixed(0, 1)", "0"),
        ("block_window(4, -1)", "-1"), ("block_window(0, 1)", "0"), ("window(2 - 3)", "2 - 3"),
    ],
)  # fmt: skip
def test_conditions_of_constants(text: str, wrong: str) -> None:
    assert fault(spec(mask=text)) == ("A302", wrong)


def test_conditions_on_indices_and_inputs_are_not_checked() -> None:
    assert faults(spec("input w: i32[H]", mask="window(w[h] - 5) and window(M - 100) and block(j - 9)")) == ()


@given(st.integers(-5, 5), st.integers(-5, 5))
def test_conditions_of_params_name_the_param(left: int, right: int) -> None:
    text = spec("param l: int", "param r: int", mask="window(l + 1, r)")
    found = faults(text, l=left, r=right)
    broken = [name for name, bad in (("`l`", left < -1), ("`r`", right < 0)) if bad]
    assert [item.code for item in found] == ["A302"] * len(broken)
    assert all(name in item.message for name, item in zip(broken, found, strict=True))


def test_the_library_holds_what_the_language_page_lists() -> None:
    library = standard_library()
    assert set(library.masks) == {
        "causal", "window", "prefix", "sink", "global", "dilated", "strided", "fixed", "block", "block_window",
        "random", "document", "blocks",
    }  # fmt: skip
    assert set(library.normalizations) == {
        "softmax", "softmax1", "sum", "abs_sum", "sigmoid", "relu", "none",
    }  # fmt: skip


def test_a_user_can_copy_the_library() -> None:
    """Every mask's text, under another name, means the same."""
    library = standard_library()
    (window,) = library.masks["window"]
    copied = library.source.text[window.span.start : window.span.end].replace("window", "near")
    assert mask("near(3, 1)", copied) == mask("window(3, 1)")

"""Hypothesis strategies of pairwise expressions. Tests only."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from attnc.codegen.build import (
    absolute,
    add,
    apply,
    const,
    floordiv,
    index,
    le,
    lt,
    maximum,
    minimum,
    mod,
    mul,
    not_,
    offset,
    size,
    sub,
    symbol,
    to_float,
    where,
)  # fmt: skip
from attnc.dsl.ir import Expr, Fn, Kind, Load, Side, Table

I, J, H, M, N = index("i"), index("j"), index("h"), size("M"), size("N")
Q_OFFSET, KV_OFFSET = offset(Side.QUERY), offset(Side.KEY)
S, T = symbol("s", Kind.FLOAT), symbol("t", Kind.FLOAT)
FLAG = Load(kind=Kind.BOOL, tensor="flag", index=(I, J))
LIVE_HEAD = Load(kind=Kind.BOOL, tensor="live", index=(H,))
COUNT = Load(kind=Kind.INT, tensor="count", index=(H,))

_COMPARISONS = st.sampled_from([Fn.EQ, Fn.NE, Fn.LT, Fn.LE, Fn.GT, Fn.GE])


def _int_leaves() -> st.SearchStrategy[Expr]:
    table = Table(kind=Kind.INT, values=(3, 1, 4), index=H)
    return st.one_of(st.sampled_from([I, J, H, M, Q_OFFSET, KV_OFFSET, COUNT, table]), st.integers(-9, 9).map(const))


def _int_step(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    constants = st.integers(-6, 6).filter(bool).map(const)
    divisors = st.one_of(constants, inner.map(lambda x: add(absolute(x), 1)))
    return st.one_of(
        st.builds(apply, st.sampled_from([Fn.ADD, Fn.SUB, Fn.MUL, Fn.MIN, Fn.MAX]), inner, inner),
        st.builds(apply, st.sampled_from([Fn.ADD, Fn.SUB, Fn.MUL, Fn.MIN, Fn.MAX]), inner, constants),
        st.builds(apply, st.sampled_from([Fn.FLOORDIV, Fn.MOD]), inner, divisors),
        st.builds(apply, st.sampled_from([Fn.NEG, Fn.ABS, Fn.SIGN, Fn.RELU]), inner),
        st.builds(lambda x, n: apply(Fn.POW, x, n), inner, st.integers(0, 3)),
        st.builds(lambda x, y, z: apply(Fn.CLAMP, x, y, z), inner, inner, inner),
        st.builds(where, st.builds(apply, _COMPARISONS, inner, inner), inner, inner),
    )


def ints() -> st.SearchStrategy[Expr]:
    """INT expressions over indices, sizes, offsets, a table and a load."""
    return st.recursive(_int_leaves(), _int_step, max_leaves=8)


def _float_leaves() -> st.SearchStrategy[Expr]:
    special = [0.0, -0.0, 1.0, -1.0, 2.0, 0.5, 3.0, 1e-300, math.inf, -math.inf, 25.0]
    return st.one_of(
        st.sampled_from([S, T]), st.sampled_from(special).map(const), _int_leaves().map(to_float), st.just(to_float(I))
    )


def _float_step(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    unary = [
        Fn.NEG, Fn.NEG, Fn.ABS, Fn.SIGN, Fn.EXP, Fn.EXP2, Fn.EXPM1, Fn.LOG, Fn.LOG1P, Fn.SQRT, Fn.RSQRT, Fn.TANH,
        Fn.SIGMOID, Fn.RELU, Fn.ELU, Fn.SOFTPLUS, Fn.ERF, Fn.SIN, Fn.COS, Fn.FLOOR,
    ]  # fmt: skip
    binary = [Fn.ADD, Fn.SUB, Fn.MUL, Fn.DIV, Fn.MIN, Fn.MAX]
    return st.one_of(
        st.builds(apply, st.sampled_from(unary), inner),
        st.builds(apply, st.sampled_from(binary), inner, inner),
        st.builds(lambda x, y, z: apply(Fn.CLAMP, x, y, z), inner, inner, inner),
        st.builds(where, st.builds(apply, _COMPARISONS, inner, inner), inner, inner),
        st.builds(lambda x, y: apply(Fn.POW, x, y), inner, st.sampled_from([0.0, 1.0, 0.5])),
    )


def floats() -> st.SearchStrategy[Expr]:
    """FLOAT expressions over symbols s and t and converted INTs."""
    return st.recursive(_float_leaves(), _float_step, max_leaves=8)


def _bool_step(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    return st.one_of(
        st.builds(apply, st.sampled_from([Fn.AND, Fn.OR]), inner, inner),
        st.builds(not_, inner),
        st.builds(where, inner, inner, inner),
        st.builds(apply, st.sampled_from([Fn.EQ, Fn.NE]), inner, inner),
    )


def bools(operands: st.SearchStrategy[Expr], *leaves: Expr) -> st.SearchStrategy[Expr]:
    """BOOL expressions over comparisons of ``operands``."""
    atoms = st.one_of(
        st.builds(apply, _COMPARISONS, operands, operands),
        st.sampled_from([const(True), const(False), *leaves]),
    )
    return st.recursive(atoms, _bool_step, max_leaves=5)


def positional() -> st.SearchStrategy[Expr]:
    """What masks compare: few terms, floors, extremes, distances."""
    away = sub(I, J)
    one = st.one_of(
        st.sampled_from([I, J, away, absolute(away), minimum(I, J), maximum(I, add(J, 2)), COUNT, H]),
        st.builds(floordiv, st.sampled_from([I, J, away, add(J, 3)]), st.integers(2, 5).map(const)),
        st.builds(mod, st.sampled_from([I, J, away]), st.integers(2, 4).map(const)),
        st.builds(where, st.sampled_from([le(J, I), lt(J, 4), LIVE_HEAD, FLAG]), st.just(I), st.just(J)),
    )
    scaled = st.builds(mul, one, st.integers(-2, 3).filter(bool).map(const))
    return st.one_of(one, scaled, st.builds(add, one, scaled), st.integers(-4, 14).map(const))

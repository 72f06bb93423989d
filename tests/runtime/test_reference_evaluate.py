"""The evaluator against the same expressions in Python's numbers, element by element; scaled divisors against plain."""

from __future__ import annotations

import math

import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from attnc.dsl.ir import Expr, Kind, postorder, substitute
from attnc.runtime.evaluate import Domain, Scope, evaluate
from attnc.runtime.scaled import Scaled, evaluate_divisor
from tests.codegen import evaluate as python
from tests.codegen.expressions import FLAG, KV_OFFSET, Q_OFFSET, H, I, J, M, N, S, T, bools, floats, ints

HEADS, QUERIES, KEYS = 2, 3, 4
COUNTS = torch.tensor([5, -2])
FLAGS = torch.rand(7, 9, generator=torch.Generator().manual_seed(0)) < 0.5
ROWS, COLUMNS, HEAD = (torch.arange(n) for n in (QUERIES, KEYS, HEADS))


def _scope(q_offset: int, kv_offset: int, dtype: torch.dtype = torch.float64) -> Scope:
    return Scope(
        dtype=dtype,
        device=torch.device("cpu"),
        sizes={"M": KEYS, "N": QUERIES},
        inputs={"count": COUNTS, "flag": FLAGS},
        q_offset=torch.tensor([q_offset]),
        kv_offset=kv_offset,
    )


def _read(tensor: str, *index: python.Value) -> python.Value:
    """The nearest element."""
    source = COUNTS if tensor == "count" else FLAGS
    at = tuple(min(max(int(n), 0), length - 1) for n, length in zip(index, source.shape, strict=True))
    value: python.Value = source[at].item()
    return value


@given(
    root=st.one_of(ints(), bools(st.one_of(ints(), floats()), FLAG), floats()),
    q_offset=st.integers(-5, 5),
    kv_offset=st.integers(-5, 5),
    s=st.sampled_from([0.0, -0.0, 1.0, -2.5, 21.0, math.inf, -math.inf, math.nan]),
)
def test_expressions_mean_what_they_mean_in_python(root: Expr, q_offset: int, kv_offset: int, s: float) -> None:
    domain = Domain(
        rank=3,
        indices={
            "h": HEAD.reshape(-1, 1, 1),
            "i": ROWS.reshape(1, -1, 1) + q_offset,
            "j": COLUMNS.reshape(1, 1, -1) + kv_offset,
        },
    )
    symbols: dict[Expr, Tensor] = {S: torch.full((1, 1, 1), s, dtype=torch.float64)}
    symbols[T] = torch.full((1, 1, 1), 3.0, dtype=torch.float64)
    found = evaluate(root, _scope(q_offset, kv_offset), domain, symbols).expand(HEADS, QUERIES, KEYS)
    for h, row, column in ((h, row, column) for h in range(HEADS) for row in range(QUERIES) for column in range(KEYS)):
        leaves: dict[Expr, python.Value] = {H: h, I: row + q_offset, J: column + kv_offset, S: s, T: 3.0}
        leaves |= {Q_OFFSET: q_offset, KV_OFFSET: kv_offset, M: KEYS, N: QUERIES}
        nodes = [node for node in postorder(root) if node.kind is Kind.INT]
        assume(all(abs(python.evaluate(node, leaves, _read)) < 2**62 for node in nodes))
        _assert_alike(found[h, row, column].item(), python.evaluate(root, leaves, _read))


def _assert_alike(actual: python.Value, expected: python.Value) -> None:
    if not isinstance(expected, float):
        assert actual == expected and type(actual) is type(expected)
    elif math.isnan(expected):
        assert math.isnan(actual)
    else:
        # libm's and torch's functions differ in the last places; differences of like numbers multiply that
        assert actual == expected or math.isclose(actual, expected, rel_tol=1e-9, abs_tol=1e-12)


@given(root=floats(), total=st.floats(0.1, 10), top=st.floats(-3, 3))
def test_a_scaled_divisor_is_the_divisor(root: Expr, total: float, top: float) -> None:
    """Where no intermediate overflows; where the plain one would, tests of the reference know the answers."""
    domain = Domain(rank=3, indices={axis: torch.ones(1, 1, 1, dtype=torch.int64) for axis in ("b", "h", "i", "j")})
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    (divisor,) = substitute((root,), {S: T})
    known: dict[Expr, Tensor] = {T: total * math.exp(top) * one}
    plain = evaluate(divisor, _scope(1, 1), domain, known)
    assume(all(known[node].isfinite().all() for node in postorder(divisor)))
    scaled = evaluate_divisor(divisor, Scaled(mantissa=total * one, scale=top * one), _scope(1, 1), domain)
    torch.testing.assert_close(scaled.plain(), plain, rtol=1e-6, atol=1e-9)

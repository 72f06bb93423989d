"""Whatever parses is either refused with diagnostics or becomes IR that keeps its promises. Nothing else escapes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.dsl.check import check
from attnc.dsl.codes import CODES
from attnc.dsl.construct import Attention
from attnc.dsl.diagnostics import SpecError
from attnc.dsl.parse import parse
from attnc.dsl.print_ir import print_ir
from attnc.dsl.source import Source
from attnc.dsl.specialize import specialize
from tests.dsl.specs import assert_sound, fault, faults, spec

NAMES = [
    "i",
    "j",
    "b",
    "h",
    "D",
    "E",
    "M",
    "N",
    "H",
    "R",
    "q",
    "k",
    "v",
    "qd",
    "kd",
    "x",
    "y",
    "ids",
    "t",
    "w",
    "u",
    "m",
    "f",
    "z",
    "heads",
    "near",
    "phi",
    "pair",
    "causal",
    "window",
    "global",
    "random",
    "block",
    "document",
    "blocks",
    "softmax",
    "sum",
    "exp",
    "dot",
    "rope",
    "q_offset",
    "kv_offset",
    "out",
    "s",
    "nothing",
    "listed",
    "S",
    "one",
    "two",
]
FUNCTIONS = [
    "abs",
    "exp",
    "log",
    "sqrt",
    "relu",
    "sign",
    "floor",
    "int",
    "min",
    "max",
    "clamp",
    "where",
    "dot",
    "rope",
    "l2norm",
    "rmsnorm",
    "concat",
    "outer",
    "near",
    "phi",
    "window",
    "global",
    "block",
    "strided",
    "document",
    "blocks",
    "random",
    "softmax",
    "sigmoid",
    "nothing",
]
OPERATORS = ["+", "-", "*", "/", "//", "%", "**", "@", "and", "or", "<", "<=", "==", "!=", ">"]
CLAUSES = (
    "param w: int = 4", "param w: int", "param heads: int[H] = [1, 2]", "param f: float = 0.5 where f > 0",
    "input x: f32[B, H, N, M]", "input x: f32[H]", "input y: f32[R, D]", "input y: f32[R, M]", "input ids: i64[B, M]",
    "input t: bool[B, M]", "input t: i32[B, H, R, R]", "input u: f32[D] nograd", "input m: f32[2 * R + w, R]",
    "input z: f32", "let near(a, n) = abs(i - a) < n", "let phi(a) = elu(a) + 1", "let z = z2 let z2 = z",
    "let pair = weight(s) = relu(s) divisor(t) = t + 1", "key kd = y @ k", "query qd = l2norm(q)", "key k, kd[R]",
    "value v, out", "value vd = v * 2", "kv packed", "kv latent", "emit lse, total", "emit x.lse", "let S = dot(q, k)",
)  # fmt: skip


def expressions() -> st.SearchStrategy[str]:
    leaves = st.one_of(
        st.sampled_from(NAMES),
        st.sampled_from(["0", "1", "2", "64", "0.5", "true", "false", "inf", "9223372036854775807"]),
    )

    def grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        arguments = st.lists(inner, max_size=3).map(", ".join)
        return st.one_of(
            st.tuples(inner, st.sampled_from(OPERATORS), inner).map(lambda part: f"({' '.join(part)})"),
            st.tuples(st.sampled_from(["-", "not ", "+"]), inner).map(lambda part: f"({part[0]}{part[1]})"),
            st.tuples(st.sampled_from(FUNCTIONS), arguments).map(lambda part: f"{part[0]}({part[1]})"),
            st.tuples(st.sampled_from(NAMES), st.lists(inner, min_size=1, max_size=4).map(", ".join)).map(
                lambda part: f"{part[0]}[{part[1]}]"
            ),
            st.tuples(inner, inner).map(lambda part: f"{part[0]}[{part[1]}:]"),
            st.tuples(inner, inner).map(lambda part: f"dot({part[0]}, {part[1]})"),
            st.tuples(inner, inner).map(lambda part: f"f(x = {part[0]}, y = {part[1]})"),
        )

    return st.recursive(leaves, grow, max_leaves=12)


def likely() -> st.SearchStrategy[str]:
    """Scores that are often right, so that the promises are put to the test too."""
    vectors = st.recursive(
        st.sampled_from(["q", "k", "v", "u", "qd", "kd"]),
        lambda inner: st.one_of(
            inner.map(lambda x: f"l2norm({x})"), inner.map(lambda x: f"rope({x}, i)"), inner.map(lambda x: f"phi({x})"),
            inner.map(lambda x: f"rope({x}, j)"), inner.map(lambda x: f"(y @ {x})"), inner.map(lambda x: f"{x} * f"),
            st.tuples(inner, inner).map(lambda x: f"({x[0]} + {x[1]})"), inner.map(lambda x: f"concat({x}, {x})"),
        ),
        max_leaves=4,
    )  # fmt: skip
    scalars = st.one_of(
        st.tuples(vectors, vectors).map(lambda x: f"dot({x[0]}, {x[1]})"), st.sampled_from(["i", "j", "x[h]", "w", "f"])
    )
    return st.recursive(
        scalars,
        lambda inner: st.tuples(inner, st.sampled_from(["+", "*", "/", "-"]), inner).map(lambda x: f"({' '.join(x)})"),
        max_leaves=6,
    )


def clauses() -> st.SearchStrategy[list[str]]:
    return st.lists(st.one_of(st.sampled_from(CLAUSES), expressions().map(lambda x: f"let two = {x}")), max_size=8)


def constructs() -> st.SearchStrategy[str]:
    anything, score = expressions(), st.one_of(expressions(), likely())
    normalize = st.one_of(
        st.sampled_from(["softmax", "sum", "pair", "softmax1", "softmax(sink = x[h])", "window(2)", "nothing"]),
        st.tuples(anything, anything).map(lambda x: f"weight(s) = {x[0]} divisor(t) = {x[1]}"),
    )
    mask = st.one_of(st.just("causal"), anything)
    attention = st.builds(
        lambda own, s, m, n: spec(*own, score=s, mask=m, normalize=n), clauses(), score, mask, normalize
    )
    branches = st.builds(
        lambda own, s, m, n, o: (
            f"attention a {{ {' '.join(own)} branch one {{ score {s} normalize {n} }} "
            f"branch two {{ let z = {m} score z normalize softmax }} output {o} }}"
        ),
        clauses(), score, score, normalize, st.one_of(anything, st.just("one - 0.5 * two")),
    )  # fmt: skip
    recurrence = st.builds(
        lambda own, step, read: f"recurrence r {{ {' '.join(own)} state S[D, E] step {step} read {read} }}",
        clauses(), anything, anything,
    )  # fmt: skip
    return st.one_of(attention, branches, recurrence)


@given(constructs())
def test_any_spec_is_refused_or_sound(text: str) -> None:
    file = parse(Source(name="<text>", text=text))
    try:
        result = check(file)
        assert len(result.constructs) == len(file.constructs)
        (construct,) = result.constructs
        assert print_ir(construct)
        made = specialize(construct, {})
    except SpecError as error:
        assert error.diagnostics
        for item in error.diagnostics:
            assert item.code in CODES
            assert item.message and not item.message.endswith(".")
            assert 0 <= item.span.start < item.span.end <= len(text)
        return
    assert print_ir(made) == print_ir(specialize(check(file).constructs[0], {}))
    if isinstance(made, Attention):
        assert_sound(made)


@pytest.mark.parametrize(
    "text",
    [
        spec(score="dot(q, k) + " + "(" * 10_000 + "i" + ")" * 10_000),
        spec(score="dot(q, k)" + " + i" * 10_000),
        spec(mask="not " * 10_000 + "causal"),
        spec(score="dot(q, k) + 2" + " ** 2" * 3_000),
        spec("let a0 = i", *(f"let a{n} = a{n - 1} + {n}" for n in range(1, 5_000)), score="dot(q, k) + a4999"),
        spec("let f0(x) = x", *(f"let f{n}(x) = f{n - 1}(x) + {n}" for n in range(1, 3_000)), score="f2999(dot(q, k))"),
        spec("input y: f32[D, D]", score="dot(q, " + "y @ (" * 2_000 + "k" + ")" * 2_000 + ")"),
        spec("input w: i32[M]", score="dot(q, k) + " + "w[" * 2_000 + "j" + "]" * 2_000),
    ],
    ids=["parentheses", "sum", "nots", "powers", "lets", "functions", "products", "subscripts"],
)
def test_depth_is_no_limit(text: str) -> None:
    assert faults(text) == ()


@pytest.mark.parametrize(
    ("clauses", "score", "code"),
    [
        (["let f0(x) = x", *(f"let f{n}(x) = f{n - 1}(x + 1) * f{n - 1}(x * 2)" for n in range(1, 40))],
         "f39(i)", "A107"),
        (["let a0 = 3", *(f"let a{n} = a{n - 1} * a{n - 1}" for n in range(1, 64)), "input x: f32[a63]"],
         "x[0]", "A209"),
        ([f"input x: f32[{' + '.join(['D'] * 200)}]"], "x[0]", "A209"),
        ([*(f"let a{n} = a{n + 1}" for n in range(2_000)), "let a2000 = a0"], "a7", "A103"),
        (["let f(x) = g(x)", "let g(x) = f(x) + 1"], "f(dot(q, k))", "A103"),
        (["key ka = kb, kb = ka"], "dot(q, ka)", "A103"),
    ],
    ids=["doubling", "squares", "long-size", "long-circle", "recursion", "derived-circle"],
)  # fmt: skip
def test_what_would_not_end_is_refused(clauses: list[str], score: str, code: str) -> None:
    assert fault(spec(*clauses, score=score))[0] == code


def test_very_many_faults_are_cut_short() -> None:
    names = " + ".join(f"unknown{n}" for n in range(5_000))
    assert len(faults(spec(score=names))) == 100

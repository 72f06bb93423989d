"""Random .attn texts: tokens from the grammar, joined by random space, newlines and numbered comments."""

from __future__ import annotations

from hypothesis import strategies as st

Tokens = list[str]

NAMES = st.sampled_from(["q", "k", "causal", "x1", "_y", "self", "lambda", "tl", "inf_", "Not", "e5", "global"])
NUMBERS = st.sampled_from(["0", "007", "42", "1.", ".5", "2.5e-3", "1e9", "9223372036854775807"])
LEAVES = st.one_of(NAMES, NUMBERS, st.sampled_from(["inf", "true", "false"])).map(lambda token: [token])
OPERATORS = st.sampled_from(["+", "-", "*", "/", "//", "%", "**", "@", "and", "or", "==", "!=", "<", "<=", ">", ">="])


def _comma(parts: list[Tokens]) -> Tokens:
    joined: Tokens = []
    for part in parts:
        joined += [*part, ","]
    return joined[:-1]


def _wider(inner: st.SearchStrategy[Tokens]) -> st.SearchStrategy[Tokens]:
    slices = st.builds(lambda a, b: [*a, ":", *b], inner | st.just([]), inner | st.just([]))
    arguments = st.one_of(inner, st.builds(lambda name, value: [name, "=", *value], NAMES, inner))
    return st.one_of(
        inner.map(lambda e: ["(", *e, ")"]),
        inner.map(lambda e: ["-", *e]),
        inner.map(lambda e: ["(", "not", *e, ")"]),
        st.builds(lambda a, op, b: [*a, op, *b], inner, OPERATORS, inner),
        st.builds(lambda a, op, b: ["(", *a, ")", op, "(", *b, ")"], inner, OPERATORS, inner),
        st.builds(
            lambda name, args: [name, "(", *_comma(args), ")"],
            NAMES | st.just("where"),
            st.lists(arguments, max_size=3),
        ),
        st.builds(
            lambda e, index: ["(", *e, ")", "[", *_comma(index), "]"],
            inner,
            st.lists(inner | slices, min_size=1, max_size=2),
        ),
        st.builds(lambda e, name: ["(", *e, ")", ".", name], inner, NAMES),
    )


EXPRESSIONS: st.SearchStrategy[Tokens] = st.recursive(LEAVES, _wider, max_leaves=12)
_OPTIONAL: st.SearchStrategy[Tokens] = EXPRESSIONS | st.just([])


def _after(mark: str, expression: Tokens) -> Tokens:
    return [mark, *expression] if expression else []


PAIRS = st.builds(
    lambda w, d: ["weight", "(", "s", ")", "=", *w, "divisor", "(", "t", ")", "=", *d], EXPRESSIONS, EXPRESSIONS
)
_SIZES = st.lists(EXPRESSIONS, min_size=1, max_size=2).map(lambda sizes: ["[", *_comma(sizes), "]"])
_TYPES = st.builds(lambda name, sizes: [name, *sizes], st.sampled_from(["int", "f32", "i64"]), _SIZES | st.just([]))
_CALLS = st.builds(
    lambda name, args: [name, *(["(", *_comma([[key, "=", *e] for key, e in args]), ")"] if args else [])],
    NAMES,
    st.lists(st.tuples(NAMES, EXPRESSIONS), max_size=2),
)
_PARAMETERS = st.lists(
    st.builds(
        lambda name, type_, default, where: [name, *_after(":", type_), *_after("=", default), *_after("where", where)],
        NAMES,
        st.sampled_from([[], ["int"]]),
        _OPTIONAL,
        _OPTIONAL,
    ),
    max_size=2,
).map(lambda parts: ["(", *_comma(parts), ")"])
_VECTORS = st.lists(
    st.builds(
        lambda name, dim, value: [name, *(["[", *dim, "]"] if dim else []), *_after("=", value)],
        NAMES,
        _OPTIONAL,
        _OPTIONAL,
    ),
    min_size=1,
    max_size=3,
).map(_comma)
CLAUSES: st.SearchStrategy[Tokens] = st.one_of(
    st.builds(
        lambda name, type_, default, where: [
            "param", name, ":", *type_, *_after("=", default), *_after("where", where)
        ],
        NAMES, _TYPES, _OPTIONAL | _SIZES, _OPTIONAL,
    ),
    st.builds(
        lambda name, type_, no: ["input", name, ":", *type_, *no], NAMES, _TYPES, st.sampled_from([[], ["nograd"]])
    ),
    st.builds(lambda role, items: [role, *items], st.sampled_from(["query", "key", "value"]), _VECTORS),
    st.builds(
        lambda name, taken, value: ["let", name, *taken, "=", *value],
        NAMES, _PARAMETERS | st.just([]), EXPRESSIONS | PAIRS,
    ),
    st.builds(lambda word, e: [word, *e], st.sampled_from(["score", "mask", "output", "step", "read"]), EXPRESSIONS),
    st.builds(lambda value: ["normalize", *value], _CALLS | PAIRS),
    st.builds(lambda layout, storage: ["kv", *layout, *storage], _CALLS, _CALLS | st.just([])),
    st.lists(
        st.builds(lambda a, b: [*b, a], NAMES, st.just([]) | NAMES.map(lambda n: [n, "."])), min_size=1, max_size=3
    ).map(lambda items: ["emit", *_comma(items)]),
    st.builds(lambda name, sizes: ["state", name, *sizes], NAMES, _SIZES),
)  # fmt: skip
BRANCHES = st.builds(
    lambda name, clauses: ["branch", name, "{", *(t for clause in clauses for t in clause), "}"],
    NAMES,
    st.lists(CLAUSES, max_size=3),
)
CONSTRUCTS = st.builds(
    lambda word, name, clauses: [word, name, "{", *(t for clause in clauses for t in clause), "}"],
    st.sampled_from(["attention", "recurrence"]),
    NAMES,
    st.lists(CLAUSES | BRANCHES, max_size=6),
)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """A text that parses. Its comments are numbered: none may be lost or doubled."""
    tokens = [token for construct in draw(st.lists(CONSTRUCTS, min_size=1, max_size=3)) for token in construct]
    gaps = draw(
        st.lists(st.sampled_from([" ", " ", " ", "  ", "\n", "\n\n\n", "\t", " #", "\n\n #", "\n#\n"]),
                 min_size=len(tokens) + 1, max_size=len(tokens) + 1)
    )  # fmt: skip
    parts = []
    for number, (gap, token) in enumerate(zip(gaps, [*tokens, ""], strict=True)):
        parts += [gap.replace("#", f"# note {number} #\n"), token]
    return "".join(parts)

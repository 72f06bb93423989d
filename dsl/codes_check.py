"""The checker's codes (A1xx names, A2xx types and shapes, A3xx params, A4xx clauses, A5xx not compiled, W0xx)."""

from __future__ import annotations

from attnc.dsl.code import Code


def _attention(*clauses: str, score: str = "dot(q, k) / sqrt(D)", mask: str = "", normalize: str = "softmax") -> str:
    """A whole file: the clauses, then a score, a mask and a normalization."""
    lines = [*clauses, f"score {score}", *([f"mask {mask}"] if mask else []), f"normalize {normalize}"]
    return _construct("attention", *lines)


def _construct(word: str, *lines: str) -> str:
    return f"{word} a {{\n" + "".join(f"  {line}\n" for line in lines if line) + "}\n"


NAMES = (
    Code(
        code="A101",
        title="an unknown name",
        explanation="""
Nothing in the spec, the standard names (`b h i j`, `B H G N M D E`) or the library is called so. The vectors are
`q`, `k`, `v` unless `query`, `key` or `value` names others. A call that gives a param which the spec does not
declare is told the same.
""",
        bad=_attention(mask="casual"),
        good=_attention(mask="causal"),
    ),
    Code(
        code="A102",
        title="a name that is taken",
        explanation="""
Params, inputs, vectors, lets, functions and their parameters, branches and sizes share one namespace with the
standard names and the library, and nothing may be shadowed.
""",
        bad=_attention("param window: int = 4", mask="j <= i and j > i - window"),
        good=_attention("param width: int = 4", mask="j <= i and j > i - width"),
    ),
    Code(
        code="A103",
        title="a definition by itself",
        explanation="""
A `let` may be used before it is written, but not, by whatever way, in its own definition: there is no recursion.
The label shows the way round.
""",
        bad=_attention("let near = far + 1", "let far = near * 2", mask="i - j < near"),
        good=_attention("let near = 3", "let far = near * 2", mask="i - j < far"),
    ),
    Code(
        code="A104",
        title="a function that is not called, or a call of what is none",
        explanation="A function stands before its arguments in parentheses; everything else stands alone.",
        bad=_attention(mask="causal()"),
        good=_attention(mask="causal"),
    ),
    Code(
        code="A105",
        title="a name where it means nothing",
        explanation="""
Some things have a meaning in one place only: branches in `output`, normalizations after `normalize`, `outer` and
the state in a recurrence, the key's index not in an output or a derived query. A mask does not read vectors.
""",
        bad=_attention("query qp = q * sqrt(j + 1)", score="dot(qp, k)"),
        good=_attention("query qp = q * sqrt(i + 1)", score="dot(qp, k)"),
    ),
    Code(
        code="A106",
        title="arguments that do not fit",
        explanation="Too few or too many arguments, or a keyword that the function lacks. The help shows its form.",
        bad=_attention(mask="dilated(4)"),
        good=_attention(mask="dilated(4, 2)"),
    ),
    Code(
        code="A107",
        title="functions that expand without end",
        explanation="""
Functions are written out at every distinct call. A function that calls another twice with different arguments,
which does the same, and so on, doubles the spec at each level.
""",
        bad=_attention(
            "let f0(x) = x",
            *(f"let f{n}(x) = f{n - 1}(x + 1) * f{n - 1}(x * 2)" for n in range(1, 17)),
            score="f16(dot(q, k))",
        ),
        good=_attention("let f0(x) = x", "let f1(x) = f0(x + 1) * f0(x * 2)", score="f1(dot(q, k))"),
    ),
)

TYPES = (
    Code(
        code="A201",
        title="a value of the wrong kind",
        explanation="""
Truth values have no arithmetic: `where(condition, x, y)` makes a number of one. `and`, `or`, `not`, a mask and a
condition take truth values. A function's parameter takes the kind that it declares.
""",
        bad=_attention(score="dot(q, k) + (j <= i)"),
        good=_attention(score="dot(q, k) + where(j <= i, 1, 0)"),
    ),
    Code(
        code="A202",
        title="shapes that do not fit",
        explanation="""
Elementwise functions and `dot` take vectors of one size, or numbers. Sizes are equal if their names or numbers
are; `D` and `E` are two names. Slices lie inside their vector.
""",
        bad=_attention(score="dot(q, v)"),
        good=_attention(score="dot(q, k)"),
    ),
    Code(
        code="A203",
        title="an index that does not fit",
        explanation="""
Inputs are indexed by ints, at most one for each axis; a param declared `int[H]` by one. `int(x)` truncates a
float. Vectors have slices but no elements.
""",
        bad=_attention("input bias: f32[H]", score="dot(q, k) + bias[h, i]"),
        good=_attention("input bias: f32[H]", score="dot(q, k) + bias[h]"),
    ),
    Code(
        code="A204",
        title="a vector in place of a number, or the reverse",
        explanation="""
A score is one number for a pair and a mask one truth value; `dot`, `rope`, norms, `concat` and slices take
vectors. `dot` makes a number of two vectors, an index an element of an input.
""",
        bad=_attention(score="q * 2"),
        good=_attention(score="dot(q, k) * 2"),
    ),
    Code(
        code="A205",
        title="a vector that mixes query and key",
        explanation="""
Only `dot` joins a query's vector and a key's: the kernel multiplies tiles of one by tiles of the other. What varies
with the pair, such as a bias, stands outside of `dot`.
""",
        bad=_attention(score="dot(q * k, k)"),
        good=_attention(score="dot(q, k * k)"),
    ),
    Code(
        code="A206",
        title="a matrix product that means nothing",
        explanation="""
In `m @ x` m is an input of two axes and x a vector. The last axis of m decides by its name what is summed over:
`M` the keys' positions, `N` the queries', `D` and `E` the vector's dim.
""",
        bad=_attention("input m: f32[R, 64]", score="dot(m @ q, m @ k)"),
        good=_attention("input m: f32[R, D]", score="dot(m @ q, m @ k)"),
    ),
    Code(
        code="A207",
        title="a constant is needed",
        explanation="The default of a param and `interleaved` of `rope` are known from the text alone.",
        bad=_attention("param w: int = N", mask="window(w)"),
        good=_attention("param w: int = 2 ** 8", mask="window(w)"),
    ),
    Code(
        code="A208",
        title="an unknown type",
        explanation="""
Params and parameters are `int`, `float`, `bool`; inputs are tensors of `f32 f16 bf16 f64 i32 i64 bool`.
""",
        bad=_attention("input slope: float[H]", score="dot(q, k) - slope[h] * abs(i - j)"),
        good=_attention("input slope: f32[H]", score="dot(q, k) - slope[h] * abs(i - j)"),
    ),
    Code(
        code="A209",
        title="not a size",
        explanation="Shapes and slices are made of sizes, params and whole numbers, by arithmetic of ints, at least 1.",
        bad=_attention("input table: f32[H, M / 2]", score="dot(q, k) + table[h, j // 2]"),
        good=_attention("input table: f32[H, M // 2]", score="dot(q, k) + table[h, j // 2]"),
    ),
    Code(
        code="A210",
        title="a size that no shape tells",
        explanation="""
A new name in a shape is a size that the call's tensors tell. It must be a whole axis at least once: from `2 * R`
alone nobody can say what `R` is.
""",
        bad=_attention("input table: f32[H, R * R]", score="dot(q, k) + table[h, i * R + j]"),
        good=_attention("input table: f32[R, R]", score="dot(q, k) + table[i % R, j % R]"),
    ),
)

PARAMS = (
    Code(
        code="A301",
        title="a param's value of the wrong kind",
        explanation="""
An int serves a float param; a bool does not serve an int, and a float does not either. NaN, infinities, strings and
tensors serve none. This holds for defaults and for the values that a call gives.
""",
        bad=_attention("param w: int = 2.5", mask="window(w)"),
        good=_attention("param w: int = 2", mask="window(w)"),
    ),
    Code(
        code="A302",
        title="a condition that does not hold",
        explanation="""
`param w: int where w >= 0` and the library's functions state what they need. A constant is checked at once, a param
when its value is known; what depends on indices, sizes or inputs is not checked.
""",
        bad=_attention(mask="window(-1)"),
        good=_attention(mask="window(1)"),
    ),
    Code(
        code="A303",
        title="a condition about something else",
        explanation="The condition of a param is decided when params are known: it speaks of params and numbers alone.",
        bad=_attention("param w: int = 4 where w < N", mask="window(w)"),
        good=_attention("param w: int = 4 where w < 100", mask="window(w)"),
    ),
    Code(
        code="A304",
        title="one value a head, or one for all",
        explanation="""
`param w: int[H]` has one entry a head: its default is a list, its value a list or tuple, and it is read as `w[h]`.
A param without brackets is one value.
""",
        bad=_attention("param w: int[H] = [1, 2]", mask="window(w)"),
        good=_attention("param w: int[H] = [1, 2]", mask="window(w[h])"),
    ),
    Code(
        code="A305",
        title="a param without a value",
        explanation="A param without a default must be given when the spec is compiled: `attnc.load(path, w=4)`.",
        bad=_attention("param w: int", mask="window(w)"),
        good=_attention("param w: int = 4", mask="window(w)"),
    ),
)


CLAUSES = (
    Code(
        code="A401",
        title="a clause is missing",
        explanation="""
Every map has a `score` and a `normalize`, several branches have an `output`, a recurrence has a `state`, a `step`
and a `read`.
""",
        bad=_construct("attention", "score dot(q, k)"),
        good=_construct("attention", "score dot(q, k)", "normalize softmax"),
    ),
    Code(
        code="A402",
        title="a clause or an emit that is written twice",
        explanation="Only `param`, `input`, `let` and `branch` repeat. Several masks are one, joined by `and` or `or`.",
        bad=_construct("attention", "score dot(q, k)", "mask causal", "mask window(4)", "normalize softmax"),
        good=_attention(mask="causal and window(4)"),
    ),
    Code(
        code="A403",
        title="a clause in the wrong place",
        explanation="""
`state`, `step` and `read` belong to a recurrence; score, mask, normalization, layout, emits, branches and output to
an attention. A branch has a score, a mask, a normalization, lets, and may choose its value. Where there are
branches, each states its own score.
""",
        bad=_attention("branch x { score dot(q, k) normalize softmax }", "output x"),
        good=_construct("attention", "branch x { score dot(q, k) normalize softmax }", "output x"),
    ),
    Code(
        code="A404",
        title="no normalization",
        explanation="""
After `normalize` stands one of the library's (`softmax`, `softmax1`, `sum`, `abs_sum`, `sigmoid`, `relu`, `none`), a
pair `weight(s) = ... divisor(t) = ...`, or a `let` that names a pair. The score is called `s`, the sum `t`. A weight
is a function of its own score: sparsemax and entmax, whose threshold depends on all scores of a row, are no pair.
""",
        bad=_attention(normalize="sofmax"),
        good=_attention(normalize="softmax"),
    ),
    Code(
        code="A405",
        title="a weight or divisor that depends on too much",
        explanation="""
A weight is a function of the score alone, and of params: what depends on the pair or on inputs belongs to the score.
A divisor serves all keys of a query, so it may vary with `b`, `h`, `i` but not with the key.
""",
        bad=_attention(normalize="weight(s) = exp(s) * (i - j) divisor(t) = t"),
        good=_attention(score="dot(q, k) + log(abs(i - j) + 1)", normalize="weight(s) = exp(s) divisor(t) = t"),
    ),
    Code(
        code="A406",
        title="nothing to emit",
        explanation="""
`lse`, `rowmax`, `entropy`, `colsum` and `total` are emitted, with branches as `pos.lse`. `lse` is the logarithm of a
sum of exponentials, so its weight is one.
""",
        bad=_attention("emit lse", normalize="sum"),
        good=_attention("emit total", normalize="sum"),
    ),
    Code(
        code="A407",
        title="which value is summed is not clear",
        explanation="""
A map sums the one derived value, or else the one plain value. Where there are several, the branch chooses:
`branch x { ... value v2 }`.
""",
        bad=_attention("value v1, v2"),
        good=_construct(
            "attention",
            "value v1, v2",
            "branch x { score dot(q, k) normalize softmax value v1 }",
            "branch y { score dot(q, k) mask causal normalize softmax value v2 }",
            "output x + y",
        ),
    ),
    Code(
        code="A408",
        title="no key-value layout",
        explanation="""
`kv contiguous`, `kv packed`, `kv paged(page = 16)` or `kv latent` (the value is a slice of the key), then, if wanted,
`int8(per = token)`, `int8(per = channel)`, `int4(group = 64)` or `fp8`.
""",
        bad=_attention("kv pagd(page = 16)"),
        good=_attention("kv contiguous"),
    ),
    Code(
        code="A409",
        title="sequences of different lengths",
        explanation="""
Keys and values of one map are equally many: if `e @ k` makes `R` keys of `M`, the value needs the same. Queries
stay `N`: each has its own row of the output.
""",
        bad=_attention("input e: f32[R, M]", "key kp = e @ k", score="dot(q, kp)"),
        good=_attention("input e: f32[R, M]", "key kp = e @ k", "value vp = e @ v", score="dot(q, kp)"),
    ),
    Code(
        code="A410",
        title="which construct is meant is not clear",
        explanation="A file may hold several constructs; whoever compiles one says which by its name.",
        bad=_attention() + _attention().replace("attention a", "attention b"),
        good=_attention(),
    ),
)

_RECURRENCE = _construct("recurrence", "state S[D, E]", "step S + outer(k, v)", "read q @ S")

LATER = (
    Code(
        code="A501",
        title="recurrences do not compile yet",
        explanation="A recurrence is checked in full; code for it comes with a later version.",
        bad=_RECURRENCE,
        good=_attention("let phi(x) = elu(x) + 1", score="dot(phi(q), phi(k))", mask="causal", normalize="sum"),
    ),
    Code(
        code="A502",
        title="this layout does not compile yet",
        explanation="`packed`, `paged` and `latent` are checked in full; code for them comes with a later version.",
        bad=_attention("kv paged(page = 16)"),
        good=_attention("kv contiguous"),
    ),
    Code(
        code="A503",
        title="this storage type does not compile yet",
        explanation="`int8`, `int4` and `fp8` are checked in full; code for them comes with a later version.",
        bad=_attention("kv contiguous fp8"),
        good=_attention("kv contiguous"),
    ),
    Code(
        code="A504",
        title="a random pattern with no compiled form",
        explanation="""
The blocks of `random` are drawn once a call, as many for each block of queries, and every pair is compared with
them: the count (at most 256), the block and the seed are constants, and the span does not depend on the pair.
""",
        bad=_attention(mask="random(h + 1, block = 64, seed = 0)"),
        good=_attention("param r: int = 3", mask="random(r, block = 64, seed = 0)"),
    ),
    Code(
        code="A505",
        title="more arguments than an operator of PyTorch may have",
        explanation="""
Each compiled op is two operators of PyTorch's dispatcher, and those take at most 64 arguments: a spec's vectors and
inputs, the sizes that inputs name, a dozen numbers of each call and, of each map, the results that its gradient needs.
""",
        bad=_attention(
            "input slope: f32[H]",
            *(f"input shift{n}: f32" for n in range(50)),
            score="dot(q, k) - slope[h] * (i - j)" + "".join(f" + shift{n}" for n in range(50)),
            mask="causal",
        ),
        good=_attention(
            "input slope: f32[H]",
            "input shift: f32[50]",
            score="dot(q, k) - slope[h] * (i - j) + shift[i % 50]",
            mask="causal",
        ),
    ),
)

WARNINGS = (
    Code(
        code="W001",
        title="a name that is never used",
        explanation="A param, input, vector, let or branch has no effect: remove it. `--deny warnings` refuses it.",
        bad=_attention("param w: int = 4", mask="causal"),
        good=_attention("param w: int = 4", mask="causal and window(w)"),
    ),
    Code(
        code="W002",
        title="a mask that is always empty",
        explanation="""
No pair of a query and a key is live, whatever the lengths, offsets and inputs are: the output is 0. A warning about a
mask is told only if it is proved; one that holds for the params' values, not for all, names them.
""",
        bad=_attention(mask="window(2) and i - j > 5"),
        good=_attention(mask="window(9) and i - j > 5 or i == j"),
    ),
    Code(
        code="W003",
        title="a mask that is always full",
        explanation="""
Every pair is live, whatever the lengths, offsets and inputs are: no mask at all says the same.
""",
        bad=_attention(mask="causal or true"),
        good=_attention(),
    ),
    Code(
        code="W004",
        title="a clause of a mask that can never matter",
        explanation="""
With this clause or without it the same pairs are live. In an `and` the other clauses demand what it demands, in an `or`
they let through what it lets through; or it holds for every pair, or for none.
""",
        bad=_attention(mask="window(5) or window(9)"),
        good=_attention(mask="window(9)"),
    ),
    Code(
        code="W005",
        title="a query that never sees a key",
        explanation="""
In self-attention (as many keys as queries, no offsets) of any length the first queries, or the last, have no live key:
their output is 0 and their `lse` is -inf. `j < i` forgets the query's own key. Of several branches none has a key.
""",
        bad=_attention(mask="j < i"),
        good=_attention(mask="j <= i"),
    ),
    Code(
        code="W006",
        title="index arithmetic that may leave 32 bits",
        explanation="""
Positions and sizes reach 536,870,912 (2 ** 29) in a kernel with 32-bit indices, and this reaches farther. It is
computed in 64 bits, as is what is made of it, so that it is right at any length; on a GPU 64-bit integers are slow.
Nothing else is computed in 64 bits.
""",
        bad=_attention(score="dot(q, k) - i * j"),
        good=_attention(score="dot(q, k) - i % 64 * (j % 64)"),
    ),
    Code(
        code="W007",
        title="a clause too opaque for exact tiles",
        explanation="""
The analysis of masks solves comparisons of sums, quotients, remainders of `i - j`, `min`, `max`, `abs` and `where`, and
of what is read at one position. This clause is beyond it (the label says why), so tiles that it empties may be computed
all the same, and tiles that it fills are masked pair by pair. The result is right; it costs more than it needs.
""",
        bad=_attention(mask="max(i, j) % 64 < 8 or i == j"),
        good=_attention(mask="i % 64 < 8 and j % 64 < 8 or i == j"),
    ),
    Code(
        code="W008",
        title="an index that is always outside its axis",
        explanation="""
An index outside its axis reads the nearest element, so `x[-1]` is `x[0]`, not the last: nothing counts from the end.
Told where it is outside in every call; `op.reference(..., check=True)` finds what is outside in one call.
""",
        bad=_attention("input x: f32[S]", score="dot(q, k) * x[-1]"),
        good=_attention("input x: f32[S]", score="dot(q, k) * x[S - 1]"),
    ),
)

CHECK: tuple[Code, ...] = (*NAMES, *TYPES, *PARAMS, *CLAUSES, *LATER, *WARNINGS)

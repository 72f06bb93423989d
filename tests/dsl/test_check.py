"""AST -> IR: what specs mean."""

from __future__ import annotations

import pytest

from attnc.dsl import ir
from attnc.dsl.construct import Recurrence
from attnc.dsl.ir import Fn, Kind, Side
from attnc.dsl.print_ir import print_ir
from attnc.dsl.sizes import canonical, size_text
from tests.dsl.specs import attention, compiled, fault, faults, spec, unspecialized

AT_I, AT_J, H, B = (ir.Index(kind=Kind.INT, axis=axis) for axis in ("i", "j", "h", "b"))
Q_OFFSET, KV_OFFSET = (ir.Offset(kind=Kind.INT, side=side) for side in (Side.QUERY, Side.KEY))
D, E, M, N, R = (ir.Size(kind=Kind.INT, name=name) for name in "DEMNR")
Q, K = (
    ir.Vector(kind=Kind.FLOAT, dims=(D,), name="q", side=Side.QUERY),
    ir.Vector(kind=Kind.FLOAT, dims=(D,), name="k", side=Side.KEY),
)
DOT = ir.Dot(kind=Kind.FLOAT, left=Q, right=K)


def integer(value: int) -> ir.Expr:
    return ir.Const(kind=Kind.INT, value=value)


def real(value: float) -> ir.Expr:
    return ir.Const(kind=Kind.FLOAT, value=value)


def apply(kind: Kind, fn: Fn, *args: ir.Expr, dims: tuple[ir.Expr, ...] = ()) -> ir.Expr:
    return ir.Apply(kind=kind, fn=fn, args=args, dims=dims)


def score(text: str, *clauses: str) -> ir.Expr:
    return attention(spec(*clauses, score=text)).branches[0].score


def mask(text: str, *clauses: str) -> ir.Expr:
    return attention(spec(*clauses, mask=text)).branches[0].mask


def test_the_dense_spec() -> None:
    made = attention(spec(score="dot(q, k) / sqrt(D)"))
    root = apply(Kind.FLOAT, Fn.SQRT, apply(Kind.FLOAT, Fn.FLOAT, D))
    assert made.branches[0].score == apply(Kind.FLOAT, Fn.DIV, DOT, root)
    assert made.branches[0].mask == apply(Kind.BOOL, Fn.LE, AT_J, AT_I)
    assert [(vector.name, vector.role, vector.dim) for vector in made.vectors] == [
        ("q", "query", D), ("k", "key", D), ("v", "value", E),
    ]  # fmt: skip
    assert made.tokens == () and made.branches[0].value == "v" and made.branches[0].keys == M
    assert made.output == ir.Symbol(kind=Kind.FLOAT, dims=(E,), name="out")


def test_a_spec_without_a_mask_sees_all_keys() -> None:
    made = attention("attention a { score dot(q, k) normalize softmax }")
    assert made.branches[0].mask == ir.Const(kind=Kind.BOOL, value=True)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("i + j", Kind.INT), ("i + 1.0", Kind.FLOAT), ("i / j", Kind.FLOAT), ("i // j", Kind.INT), ("i % 2", Kind.INT),
        ("i ** 2", Kind.INT), ("i ** -2", Kind.FLOAT), ("i ** j", Kind.FLOAT), ("2.0 ** 2", Kind.FLOAT),
        ("min(i, j, 2)", Kind.INT), ("max(i, 0.5)", Kind.FLOAT), ("clamp(i, 0, 4)", Kind.INT), ("abs(i - j)", Kind.INT),
        ("-i", Kind.INT), ("sign(i)", Kind.INT), ("exp(i)", Kind.FLOAT), ("floor(i)", Kind.INT),
        ("floor(i / 2)", Kind.FLOAT), ("int(i / 2)", Kind.INT), ("where(i < j, i, 1.0)", Kind.FLOAT),
        ("relu(i)", Kind.FLOAT), ("i < j", Kind.BOOL), ("where(i < j, i < 2, j < 2)", Kind.BOOL), ("+i", Kind.INT),
        ("(i < j) == (j < 3)", Kind.BOOL), ("D", Kind.INT), ("q_offset", Kind.INT), ("inf", Kind.FLOAT),
    ],
)  # fmt: skip
def test_kinds(text: str, kind: Kind) -> None:
    """Seen through a let, which keeps the kind; a score is a float, a mask a truth value."""
    if kind is Kind.BOOL:
        assert mask(f"({text})").kind is Kind.BOOL
        assert fault(spec(score=f"dot(q, k) + ({text})"))[0] == "A201"
        return
    found = score(text)
    converted = isinstance(found, ir.Apply) and found.fn is Fn.FLOAT
    assert converted is (kind is Kind.INT)


def test_an_int_meets_a_float_by_a_written_conversion() -> None:
    assert score("dot(q, k) + i") == apply(Kind.FLOAT, Fn.ADD, DOT, apply(Kind.FLOAT, Fn.FLOAT, AT_I))
    assert score("dot(q, k) + 3") == apply(Kind.FLOAT, Fn.ADD, DOT, real(3.0))
    assert mask("i < 2.5") == apply(Kind.BOOL, Fn.LT, apply(Kind.FLOAT, Fn.FLOAT, AT_I), real(2.5))


def test_a_chained_comparison_shares_its_operands() -> None:
    distance = apply(Kind.INT, Fn.SUB, AT_I, AT_J)
    low, high = apply(Kind.BOOL, Fn.LE, integer(0), distance), apply(Kind.BOOL, Fn.LT, distance, integer(4))
    assert mask("0 <= i - j < 4") == apply(Kind.BOOL, Fn.AND, low, high)


def test_precedence_is_pythons() -> None:
    assert mask("not i < j and j < 3 or i == 0") == mask("((not (i < j)) and (j < 3)) or (i == 0)")
    assert score("-i ** 2 * 3") == score("(-(i ** 2)) * 3")
    assert score("2 ** 3 ** 2") == score("2 ** (3 ** 2)")


def test_positions_become_rows() -> None:
    """An axis N is read at the index minus q_offset, M at the index minus kv_offset, any other at the index itself."""
    query_row, key_row = apply(Kind.INT, Fn.SUB, AT_I, Q_OFFSET), apply(Kind.INT, Fn.SUB, AT_J, KV_OFFSET)
    assert score("x[b, h, i, j]", "input x: f32[B, H, N, M]") == ir.Load(
        kind=Kind.FLOAT, tensor="x", index=(B, H, query_row, key_row)
    )
    assert score("x[i]", "input x: f32[M]") == ir.Load(
        kind=Kind.FLOAT, tensor="x", index=(apply(Kind.INT, Fn.SUB, AT_I, KV_OFFSET),)
    )
    relative = apply(Kind.INT, Fn.ADD, apply(Kind.INT, Fn.SUB, AT_I, AT_J), M)
    assert score("x[h, i - j + M]", "input x: f32[H, 2 * M]") == ir.Load(
        kind=Kind.FLOAT, tensor="x", index=(H, relative)
    )


def test_a_scalar_input() -> None:
    assert score("x", "input x: f32") == ir.Load(kind=Kind.FLOAT, tensor="x", index=())


def test_inputs_know_their_shape_and_gradient() -> None:
    made = attention(
        spec(
            "input x: bf16[H, 2 * M]", "input y: f64[R, D] nograd", "input z: i32[R + 1, S]",
            score="x[h, 0] + y[0, 0] + z[0, 0]",
        )
    )  # fmt: skip
    x, y, z = made.inputs
    assert (x.dtype, x.kind, x.differentiable, [size_text(axis) for axis in x.axes]) == (
        "bf16", Kind.FLOAT, True, ["H", "2 * M"],
    )  # fmt: skip
    assert (y.dtype, y.differentiable) == ("f64", False)
    assert (z.dtype, z.kind, z.differentiable) == ("i32", Kind.INT, False)
    assert made.sizes == ("R", "S")


def test_lets_serve_before_they_are_written_and_functions_take_vectors_and_ints() -> None:
    early = score("near(i, 4) * dot(f(q), k)", "let f(x) = x * two", "let two = 2", "let near(a, w) = a // w")
    block = apply(Kind.FLOAT, Fn.FLOAT, apply(Kind.INT, Fn.FLOORDIV, AT_I, integer(4)))
    q_1 = ir.Vector(kind=Kind.FLOAT, dims=(D,), name="q_1", side=Side.QUERY)
    assert early == apply(Kind.FLOAT, Fn.MUL, block, ir.Dot(kind=Kind.FLOAT, left=q_1, right=K))


def test_function_parameters_have_types_and_defaults() -> None:
    clauses = "let near(w: float, n: int = 2 where n >= 1) = abs(i - j) <= w * n"
    assert mask("near(3)", clauses) == mask("abs(i - j) <= 3.0 * 2")
    assert mask("near(n = 5, w = 3.5)", clauses) == mask("abs(i - j) <= 3.5 * 5")
    assert fault(spec(clauses, mask="near(3, 1.5)")) == ("A201", "1.5")
    assert fault(spec(clauses, mask="near(3, 0)")) == ("A302", "0")


def test_equal_calls_are_written_out_once() -> None:
    """Sixty doublings of a shared argument stay sixty nodes."""
    lets = [f"let f{n}(x) = f{n - 1}(x) + f{n - 1}(x)" for n in range(1, 61)]
    assert len(ir.postorder(score("f60(dot(q, k))", "let f0(x) = x", *lets))) == 63


# --- vectors -----------------------------------------------------------------------------------


def test_query_and_key_sides_are_put_in_order() -> None:
    assert score("dot(k, q)") == DOT


def test_features_become_tokens() -> None:
    made = attention(spec("let phi(x) = elu(x) + 1", score="dot(phi(q), phi(k))", normalize="sum"))
    q_1, k_1 = made.tokens
    assert (q_1.name, q_1.side, q_1.heads, q_1.length, q_1.dim) == ("q_1", Side.QUERY, "H", N, D)
    assert (k_1.name, k_1.side, k_1.heads, k_1.length, k_1.dim) == ("k_1", Side.KEY, "G", M, D)
    elu = apply(Kind.FLOAT, Fn.ELU, K, dims=(D,))
    assert k_1.expr == apply(Kind.FLOAT, Fn.ADD, elu, real(1.0), dims=(D,))


def test_performer() -> None:
    made = attention(
        spec(
            "input omega: f32[R, D]", "let phi(x) = exp(omega @ x - dot(x, x) / 2) / sqrt(R)",
            score="dot(phi(q / D ** 0.25), phi(k / D ** 0.25))",
        )
    )  # fmt: skip
    assert [(token.name, token.dim) for token in made.tokens] == [("q_1", R), ("k_1", R)]
    assert any(isinstance(node, ir.MatMul) and node.over == "dims" for node in ir.postorder(made.tokens[0].expr))


def test_linformer_projects_along_the_keys() -> None:
    made = attention(
        "attention a { input e: f32[R, M] input f: f32[R, M] key kp = e @ k value vp = f @ v "
        "score dot(q, kp) / sqrt(D) normalize softmax }"
    )
    kp, vp = made.tokens
    assert (kp.length, kp.dim, vp.length, vp.dim) == (R, D, R, E)
    assert made.branches[0].value == "vp" and made.branches[0].keys == R
    assert [vector.name for vector in made.vectors] == ["q", "k", "v"]


@pytest.mark.parametrize(
    ("clauses", "vectors"),
    [
        ("key row value c = row[:r]", ["q", "row"]),
        ("key row value c = row[:r] + 0 * v[:r]", ["q", "row", "v"]),
        ("let cut(x) = x[:r] key row value c = cut(v)", ["q", "row", "v"]),
        ("key row, c = row[:r] value v", ["q", "row", "v"]),
    ],
)
def test_the_usual_value_is_brought_where_something_reads_it(clauses: str, vectors: list[str]) -> None:
    """Multi-head latent attention: the value is a part of the key's row, and a call brings nothing besides."""
    made = attention(f"attention a {{ param r: int = 4 {clauses} score dot(q, row) normalize softmax }}")
    assert [vector.name for vector in made.vectors] == vectors


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("query q[R] key k[R] score dot(q, k) / sqrt(D)", "D"),
        ("key row value c = row[:4] score dot(q, row) / sqrt(E)", "E"),
    ],
)
def test_a_dim_that_no_vector_has_is_told(text: str, size: str) -> None:
    (fault,) = faults(f"attention a {{ {text} normalize softmax }}")
    assert (fault.code, fault.message) == ("A210", f"no shape tells what `{size}` is")


def test_a_token_scalar_is_read_at_its_row() -> None:
    made = attention(spec(score="dot(q, k) - dot(k, k) / 2 - dot(u[h], q)", mask="causal").replace(
        "score", "input u: f32[H, D] score"))  # fmt: skip
    k_1, q_1 = made.tokens
    assert (k_1.name, k_1.dim, k_1.heads) == ("k_1", None, "G")
    assert (q_1.name, q_1.dim, q_1.heads) == ("q_1", None, "H")
    loads = {node.tensor: node for node in ir.postorder(made.branches[0].score) if isinstance(node, ir.Load)}
    assert loads["k_1"].index == (B, H, apply(Kind.INT, Fn.SUB, AT_J, KV_OFFSET))
    assert loads["q_1"].index == (B, H, apply(Kind.INT, Fn.SUB, AT_I, Q_OFFSET))


def test_a_key_that_varies_with_the_head_has_all_heads() -> None:
    made = attention(spec("input u: f32[H]", "key kh = k * u[h]", score="dot(q, l2norm(kh)) + dot(q, k * 2)"))
    assert {token.name: token.heads for token in made.tokens} == {"kh": "H", "kh_1": "H", "k_1": "G"}


def test_new_names_avoid_those_of_the_spec() -> None:
    made = attention(spec("param q_1: float = 2.0", score="dot(q * q_1, k)"))
    assert [token.name for token in made.tokens] == ["q_2"]


def test_equal_token_values_are_computed_once() -> None:
    made = attention(spec("key kn = l2norm(k)", score="dot(q, l2norm(k)) + dot(l2norm(q), kn) * dot(l2norm(q), kn)"))
    assert [token.name for token in made.tokens] == ["kn", "q_1"]


def test_derived_vectors_that_nothing_uses_are_left_out_with_a_warning() -> None:
    text = spec("key kn = l2norm(k)")
    assert attention(text).tokens == ()


def test_declared_dims() -> None:
    made = attention(
        "attention a { query q, qr[R] key k, kr[R] value v[64] score dot(q, k) + dot(qr, kr) normalize softmax }"
    )
    assert [(vector.name, size_text(vector.dim)) for vector in made.vectors] == [
        ("q", "D"), ("qr", "R"), ("k", "D"), ("kr", "R"), ("v", "64"),
    ]  # fmt: skip
    assert made.sizes == ("R",)
    assert size_text(made.output.dims[0]) == "64"


def test_slices_and_concat_keep_count() -> None:
    made = attention(spec(score="dot(q, concat(k[:64], rope(k[64:], j)))"))
    assert made.tokens[0].dim == D
    assert fault(spec(score="dot(q, k[:64])"))[0] == "A202"
    made = attention("attention a { query q[576] key k[576] value c = k[:512] score dot(q, k) normalize softmax }")
    assert made.branches[0].value == "c"
    assert size_text(made.output.dims[0]) == "512"


def test_rope_and_norms() -> None:
    made = attention(
        spec("input w: f32[D]", score="dot(rope(rmsnorm(q, w), i, interleaved = true), rope(l2norm(k), j, base = 5))")
    )
    q_1, k_1 = (token.expr for token in made.tokens)
    assert isinstance(q_1, ir.Rope) and q_1.interleaved and q_1.base == real(10000.0)
    assert q_1.position == apply(Kind.FLOAT, Fn.FLOAT, AT_I)
    assert isinstance(q_1.operand, ir.Normed) and q_1.operand.weight is not None and q_1.operand.eps == real(1e-6)
    assert isinstance(k_1, ir.Rope) and not k_1.interleaved and k_1.base == real(5.0)
    assert isinstance(k_1.operand, ir.Normed) and k_1.operand.fn == "l2norm" and k_1.operand.eps == real(1e-12)


# --- branches, emits, normalizations ---------------------------------------------------------------


def test_differential() -> None:
    made = attention(
        "attention a { query q1, q2 key k1, k2 value v input lam: f32[H] "
        "branch pos { score dot(q1, k1) mask causal normalize softmax } "
        "branch neg { score dot(q2, k2) mask causal normalize softmax1 } "
        "output pos - lam[h] * neg emit pos.lse, neg.total }"
    )
    assert [branch.name for branch in made.branches] == ["pos", "neg"]
    assert [vector.name for vector in made.vectors] == ["q1", "q2", "k1", "k2", "v"]
    assert [(emit.name, emit.branch, emit.what) for emit in made.emits] == [
        ("pos_lse", "pos", "lse"), ("neg_total", "neg", "total"),
    ]  # fmt: skip


def test_branches_choose_their_value_and_have_lets() -> None:
    made = attention(
        "attention a { value v1, v2 let z = 2 "
        "branch x { let y = dot(q, k) * z score y normalize softmax value v1 } "
        "branch w { let y = dot(q, k) score y normalize softmax value v2 } output x + w }"
    )
    assert [branch.value for branch in made.branches] == ["v1", "v2"]
    assert made.branches[0].score == apply(Kind.FLOAT, Fn.MUL, DOT, real(2.0))


def test_emits_of_a_spec_without_branches() -> None:
    made = attention("attention a { score dot(q, k) normalize softmax emit lse, rowmax, entropy, colsum, total }")
    assert [(emit.name, emit.branch) for emit in made.emits] == [
        ("lse", "out"), ("rowmax", "out"), ("entropy", "out"), ("colsum", "out"), ("total", "out"),
    ]  # fmt: skip


S, T = (ir.Symbol(kind=Kind.FLOAT, name=name) for name in "st")


@pytest.mark.parametrize(
    ("text", "weight", "divisor"),
    [
        ("softmax", apply(Kind.FLOAT, Fn.EXP, S), T),
        ("softmax(sink = 0)", apply(Kind.FLOAT, Fn.EXP, S),
         apply(Kind.FLOAT, Fn.ADD, T, apply(Kind.FLOAT, Fn.EXP, real(0.0)))),
        ("softmax1", apply(Kind.FLOAT, Fn.EXP, S), apply(Kind.FLOAT, Fn.ADD, T, real(1.0))),
        ("sum", S, T),
        ("abs_sum", S, apply(Kind.FLOAT, Fn.MAX, apply(Kind.FLOAT, Fn.ABS, T), real(1.0))),
        ("sigmoid", apply(Kind.FLOAT, Fn.SIGMOID, S), real(1.0)),
        ("relu", apply(Kind.FLOAT, Fn.RELU, S), real(1.0)),
        ("none", S, real(1.0)),
        ("weight(s) = relu(s) ** 2 divisor(t) = max(t, 1e-6)",
         apply(Kind.FLOAT, Fn.POW, apply(Kind.FLOAT, Fn.RELU, S), real(2.0)),
         apply(Kind.FLOAT, Fn.MAX, T, real(1e-6))),
    ],
)  # fmt: skip
def test_normalizations(text: str, weight: ir.Expr, divisor: ir.Expr) -> None:
    made = attention(spec(normalize=text)).branches[0].normalization
    assert (made.weight, made.divisor) == (weight, divisor)


def test_a_named_pair_and_a_function_of_pairs() -> None:
    pair = "let mine(p: float) = weight(s) = relu(s) ** p divisor(t) = max(t, 1)"
    made = attention(spec(pair, normalize="mine(2)")).branches[0].normalization
    assert (made.name, made.weight) == ("mine", apply(Kind.FLOAT, Fn.POW, apply(Kind.FLOAT, Fn.RELU, S), real(2.0)))


def test_a_sink_reads_inputs_at_the_row() -> None:
    made = attention(spec("input sinks: f32[H]", normalize="softmax(sink = sinks[h])"))
    assert ir.Load(kind=Kind.FLOAT, tensor="sinks", index=(H,)) in ir.postorder(made.branches[0].normalization.divisor)


# --- recurrences and layouts ------------------------------------------------------------------------


def test_gated_delta() -> None:
    made = compiled(
        "recurrence gated_delta { input a: f32[B, H, N] input beta: f32[B, H, N] state S[D, E] "
        "step exp(a) * (S - beta * outer(k, k @ S)) + beta * outer(k, v) read q @ S }"
    )
    assert isinstance(made, Recurrence)
    assert made.state_dims == (D, E) and made.step.dims == (D, E) and made.read.dims == (E,)
    at_token = ir.Load(kind=Kind.FLOAT, tensor="a", index=(B, H, apply(Kind.INT, Fn.SUB, AT_I, Q_OFFSET)))
    assert at_token in ir.postorder(made.step)


@pytest.mark.parametrize(
    ("text", "kind", "args", "storage", "storage_args"),
    [
        ("contiguous", "contiguous", (), None, ()),
        ("packed", "packed", (), None, ()),
        ("paged(page = 16)", "paged", (("page", 16),), None, ()),
        ("paged(page = 16) int8(per = token)", "paged", (("page", 16),), "int8", (("per", "token"),)),
        ("contiguous int4(group = 64)", "contiguous", (), "int4", (("group", 64),)),
        ("packed fp8", "packed", (), "fp8", ()),
    ],
)
def test_layouts(
    text: str, kind: str, args: tuple[object, ...], storage: str | None, storage_args: tuple[object, ...]
) -> None:
    layout = attention(spec(f"kv {text}")).layout
    assert (layout.kind, layout.args, layout.storage, layout.storage_args) == (kind, args, storage, storage_args)


def test_a_latent_layout_takes_its_value_from_the_key() -> None:
    head = "attention a { query q[576] key k[576] "
    tail = "score dot(q, k) normalize softmax kv latent }"
    assert attention(head + "value c = k[:512] " + tail).layout.kind == "latent"
    assert fault(head + tail)[0] == "A408"


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["self", "lambda", "tl", "torch", "x__", "_", "None", "def", "i32"])
def test_other_languages_words_are_ordinary_names(name: str) -> None:
    assert score(f"dot(q, k) * {name}", f"input {name}: f32")


@pytest.mark.parametrize("name", ["b", "i", "B", "D", "out", "q_offset", "backend", "window", "softmax", "exp", "dot"])
@pytest.mark.parametrize("clause", ["param {}: int = 1", "input {}: f32", "let {} = 1", "let f({}) = 1", "query {}"])
def test_taken_names(name: str, clause: str) -> None:
    assert "A102" in {item.code for item in faults(spec(clause.format(name)))}


def test_the_library_is_exempt_from_shadowing() -> None:
    assert mask("window(w) and block(n)", "param l: int = 1", "param r: int = 2", "let w = l + r", "let n = r")


def test_default_vectors_give_way_to_declared_ones() -> None:
    assert attention("attention a { query x key y score dot(x, y) * q normalize softmax input q: f32 }")


def test_all_faults_are_told_at_once_in_the_order_of_the_text() -> None:
    text = spec("param w: string = 1", "let u = nothing", score="dot(q, v) + wat", mask="j + 1", normalize="sofmax")
    assert [item.code for item in faults(text)] == ["A208", "A101", "A202", "A101", "A201", "A404"]


def test_a_fault_does_not_cascade() -> None:
    lets = "let a = nothing + 1", "let c = a * 2", "let d(x) = c + x"
    assert fault(spec(*lets, score="dot(q, k) + d(a) + c"))[0] == "A101"


def test_near_misses_are_suggested() -> None:
    (found,) = faults(spec(mask="widow(4)"))
    assert found.help == "did you mean `window`?"
    (found,) = faults(spec(score="dot(q, k) / sqrt(d)"))
    assert found.help == "did you mean `D`?"


@pytest.mark.parametrize("score", ["cumsum(dot(q, k))", "dot(q, k) - softmax(i)", "dot(q, k) / sum"])
def test_what_runs_over_other_pairs_is_told_so(score: str) -> None:
    (found,) = faults(spec(score=score))
    assert found.help == "an expression is of one query and one key: nothing in it runs over others"


def test_print_ir_is_deterministic_and_numbers_shared_nodes_once() -> None:
    text = spec("param w: int = 4", score="dot(q, k) * dot(q, k)", mask="window(w)")
    printed = print_ir(attention(text))
    assert printed == print_ir(attention(text))
    assert printed.count("dot q k") == 1
    assert "require" not in printed and "require w >= 0" in print_ir(unspecialized(text))


def test_sizes_have_one_form() -> None:
    def plus(x: ir.Expr, y: ir.Expr) -> ir.Expr:
        return apply(Kind.INT, Fn.ADD, x, y)

    def minus(x: ir.Expr, y: ir.Expr) -> ir.Expr:
        return apply(Kind.INT, Fn.SUB, x, y)

    assert canonical(plus(integer(64), minus(D, integer(64)))) == D
    assert canonical(plus(R, D)) == canonical(plus(D, R))
    assert size_text(canonical(plus(plus(R, integer(1)), R))) == "(2 * R) + 1"
    assert canonical(minus(R, R)) == integer(0)
    assert canonical(apply(Kind.INT, Fn.FLOORDIV, integer(9), integer(2))) == integer(4)


def test_matrices_of_a_recurrence() -> None:
    head = "recurrence r { input a: f32[B, H, N] input m: f32[R, D] state S[D, E] step exp(a) * S + outer(k, v) read "
    for text, size in (("q @ S", "E"), ("(exp(a) * S) @ v", "D"), ("m @ q", "R"), ("k @ S + v", "E")):
        made = compiled(f"{head}{text} }}")
        assert isinstance(made, Recurrence) and [size_text(dim) for dim in made.read.dims] == [size]
    for text in ("v @ S", "S @ k", "S @ S", "q @ k"):
        assert fault(f"{head}{text} }}")[0] in ("A202", "A206")

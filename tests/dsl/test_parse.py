"""Text -> AST: every clause, precedence, spans; and every kind of syntax fault at its place."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given

from attnc.dsl.diagnostics import SpecError
from attnc.dsl.parse import parse
from attnc.dsl.print_ast import prefix, print_ast
from attnc.dsl.source import Source, Span, read_source
from attnc.dsl.syntax import Binary, Call, Comparison, LetClause, ParamClause, ScoreClause
from tests.dsl.shape import read
from tests.dsl.texts import texts

PAGE = Path(__file__).parents[2] / "docs" / "language.md"


def clauses(text: str) -> list[str]:
    """The body of an attention as print_ast shows it."""
    return [line.strip() for line in print_ast(read("attention a { " + text + " }")).splitlines()[1:]]


def tree(expression: str) -> str:
    (construct,) = read("attention a { score " + expression + " }").constructs
    (clause,) = construct.clauses
    assert isinstance(clause, ScoreClause)
    return prefix(clause.value)


def faults(text: str, *, library: bool = False) -> list[tuple[str, str]]:
    """Each fault's code and the text that it underlines."""
    with pytest.raises(SpecError) as caught:
        parse(Source(name="test.attn", text=text), library=library)
    return [(item.code, text[item.span.start : item.span.end]) for item in caught.value.diagnostics]


def messages(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        read(text)
    return [item.message for item in caught.value.diagnostics]


# --- what parses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("param w: int = 256 where w >= 0", ["param w: int = 256 where (compare >= w 0)"]),
        ("param w: int where (w >= 0)", ["param w: int where (compare >= w 0)"]),
        ("param d: int[H] = [1, 2, 4]", ["param d: int[H] = (list 1 2 4)"]),
        ("param c: float = -inf", ["param c: float = (- inf)"]),
        ("input x: f32[H, 2 * M] nograd", ["input x: f32[H, (* 2 M)] nograd"]),
        ("input tau: f32", ["input tau: f32"]),
        ("query q1, q2  key k1, k2  value v", ["query q1, q2", "key k1, k2", "value v"]),
        ("query q[64], qr[R]", ["query q[64], qr[R]"]),
        ("key kp = e @ k   value vp = f @ v", ["key kp = (@ e k)", "value vp = (@ f v)"]),
        ("let a = 1 let f() = 2", ["let a = 1", "let f() = 2"]),
        (
            "let window(l: int where l >= 0, r: int = l where r >= 0) = i - l <= j",
            ["let window(l: int where (compare >= l 0), r: int = l where (compare >= r 0)) = (compare <= (- i l) j)"],
        ),
        (
            "let f(x) = weight(s) = relu(s) ** 2 divisor(t) = max(t, 1e-6)",
            ["let f(x) = weight(s) = (** (call relu s) 2) divisor(t) = (call max t 1e-6)"],
        ),
        ("normalize weight(s) = s divisor(t) = 1", ["normalize weight(s) = s divisor(t) = 1"]),
        ("normalize softmax(sink = e)", ["normalize (call softmax (= sink e))"]),
        ("kv contiguous", ["kv contiguous"]),
        ("kv paged(page = 16) int8(per = token)", ["kv paged(page = 16) int8(per = token)"]),
        ("kv latent fp8 emit lse, pos.lse", ["kv latent fp8", "emit lse, pos.lse"]),
        ("branch pos { score 1 } output pos", ["branch pos", "score 1", "output pos"]),
        ("state S[D, E] step S read q @ S", ["state S[D, E]", "step S", "read (@ q S)"]),
        (
            "score f(x, y = 1,) mask x[1, :2, 3:, :,]",
            ["score (call f x (= y 1))", "mask (at x 1 (: _ 2) (: 3 _) (: _ _))"],
        ),
        ("mask where(a < b, not a, true)", ["mask (call where (compare < a b) (not a) true)"]),
        (
            "score self + lambda + tl + global + random + block + abs_sum + nan + scores",
            ["score (+ (+ (+ (+ (+ (+ (+ (+ self lambda) tl) global) random) block) abs_sum) nan) scores)"],
        ),
    ],
)
def test_clauses(text: str, printed: list[str]) -> None:
    assert clauses(text) == printed


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("a or b or c and not d", "(or (or a b) (and c (not d)))"),
        ("not a == b", "(not (compare == a b))"),
        ("not not a", "(not (not a))"),
        ("0 <= i - j < w", "(compare <= < 0 (- i j) w)"),
        ("(a < b) < c", "(compare < (compare < a b) c)"),
        ("a - b - c", "(- (- a b) c)"),
        ("a / b * c // d % e @ f", "(@ (% (// (* (/ a b) c) d) e) f)"),
        ("a + b * c", "(+ a (* b c))"),
        ("-a ** b", "(- (** a b))"),
        ("a ** -b ** c", "(** a (- (** b c)))"),
        ("-a * b", "(* (- a) b)"),
        ("- + -a", "(- (+ (- a)))"),
        ("a ** b ** c", "(** a (** b c))"),
        ("f(x)[0].y", "(. (at (call f x) 0) y)"),
        ("-f(x)[0] ** 2", "(- (** (at (call f x) 0) 2))"),
        ("1.5e3 + .5 + 1. + inf", "(+ (+ (+ 1.5e3 .5) 1.) inf)"),
    ],
)
def test_precedence_is_pythons(text: str, printed: str) -> None:
    assert tree(text) == printed


def test_literals_have_their_values() -> None:
    (construct,) = read("attention a { param x: int = 007 param y: float = 2.5e-3 param z: float = inf }").constructs
    values = [clause.default for clause in construct.clauses if isinstance(clause, ParamClause)]
    assert [(type(v.value), v.value) for v in values] == [(int, 7), (float, 0.0025), (float, float("inf"))]  # type: ignore[union-attr]
    assert tree("9223372036854775807") == "9223372036854775807"


def test_every_example_of_the_language_page_parses() -> None:
    blocks = re.findall(r"^```\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    names = [construct.name.text for block in blocks for construct in read(block).constructs]
    assert names[0] == "longformer"
    assert set(names) >= {
        "alibi",
        "softcap",
        "differential",
        "linear",
        "performer",
        "linformer",
        "mamba2",
        "gated_delta",
    }


def test_the_library_may_have_lets_at_the_top() -> None:
    text = "let causal = j <= i\nlet sum = weight(s) = s divisor(t) = t"
    assert [let.name.text for let in read(text, library=True).lets] == ["causal", "sum"]
    assert faults(text) == [("A007", "causal"), ("A007", "sum")]


def test_spans_are_tight() -> None:
    text = """attention a {
  score ( f ( x , y = 2 ) + -z ) * ( w )
  mask 0 <= i < ( n )  param p: int = ( 3 ) where ( p > 0 )
}"""
    (construct,) = read(text).constructs

    def under(span: Span) -> str:
        return text[span.start : span.end]

    score, mask, param = construct.clauses
    assert under(construct.span) == text
    assert isinstance(score, ScoreClause) and isinstance(score.value, Binary)
    product = score.value
    assert under(score.span) == "score ( f ( x , y = 2 ) + -z ) * ( w )"
    assert under(product.span) == "( f ( x , y = 2 ) + -z ) * ( w )"
    assert under(product.op_span) == "*"
    assert under(product.left.span) == "f ( x , y = 2 ) + -z"  # without its parentheses
    assert under(product.right.span) == "w"
    assert isinstance(product.left, Binary) and isinstance(product.left.left, Call)
    call = product.left.left
    assert under(call.function.span) == "f"
    assert [under(argument.span) for argument in call.args] == ["x", "y = 2"]
    assert under(product.left.right.span) == "-z"
    relation = mask.value  # type: ignore[union-attr]
    assert isinstance(relation, Comparison)
    assert under(relation.span) == "0 <= i < ( n )"
    assert [under(span) for span in relation.op_spans] == ["<=", "<"]
    assert isinstance(param, ParamClause) and param.default is not None and param.where is not None
    assert (under(param.span), under(param.name.span)) == ("param p: int = ( 3 ) where ( p > 0 )", "p")
    assert (under(param.default.span), under(param.where.span)) == ("3", "p > 0")


@given(text=texts())
def test_spans_of_random_texts_nest(text: str) -> None:
    """A clause's span starts with its keyword and lies within its construct's."""
    for construct in read(text).constructs:
        assert text[construct.span.start :].startswith(construct.word)
        assert text[construct.span.end - 1] == "}"
        at = construct.name.span.end
        for clause in construct.clauses:
            assert at <= clause.span.start < clause.span.end < construct.span.end
            at = clause.span.end
            if isinstance(clause, LetClause):
                assert text[clause.name.span.start : clause.name.span.end] == clause.name.text


# --- what does not ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("attention a { param w int = 3 score 1 }", "expected `:` after the param's name, found `int`"),
        ("attention { score 1 }", "expected a name after `attention`, found `{`"),
        ("attention a score 1", "expected `{` after the attention's name, found the keyword `score`"),
        ("attention a { score }", "expected an expression after `score`, found `}`"),
        ("attention a { score q k }", "expected an operator, a clause or `}` after `q`, found `k`"),
        ("attention a { mask a = b }", "expected an operator, a clause or `}` after `a`, found `=`"),
        ("attention a { let f(x, = 3 }", "expected a name or `)` after `,`, found `=`"),
        ("attention a { let f = weight(s) = 1 mask b }",
         "expected `divisor(t) = ...` after `1`, found the keyword `mask`"),
        ("attention a { normalize 2 * x }", "expected a name or `weight(s) = ...` after `normalize`, found `2`"),
        ("attention a { mask [1] }", "expected an expression after `mask`, found `[`"),
        ("attention a { mask f(x] }", "expected an operator, `=`, `,` or `)` after `x`, found `]`"),
        ("attention a { param w: int nograd }",
         "expected a clause, `=` or `}` after the type `int`, found the keyword `nograd`"),
        ("attention", "expected a name after `attention`, found the end of the file"),
        ("score 1", "expected `attention` or `recurrence`, found the keyword `score`"),
        ("attention a { branch b { branch c { score 1 } } }", "a branch stands inside a branch"),
        ("attention a { scor 1 }", "there is no clause `scor`"),
        ("attention a { score 1 zzz 2 }", "expected an operator, a clause or `}` after `1`, found `zzz`"),
        ("attention a { zzz 2 score 1 }", "there is no clause `zzz`"),
        ("attention a { mask a AND b }", "there is no keyword `AND`"),
        ("attention a { input mask: f32 }", "`mask` is a keyword and cannot be a name"),
        ("attention a { score (1 + 2 mask b }", "this `(` is never closed"),
        ("attention a { score 1) }", "this `)` closes nothing"),
        ("attention a { score 1", "this `{` is never closed"),
        ("attention a { score 1 } }", "this `}` closes nothing"),
        ("attention a { score 9223372036854775808 }", "this integer is larger than 2**63 - 1"),
        ("attention a { score 1e400 }", "this number is larger than any float"),
        ("attention a { score é }", "the letter `é` cannot be part of a name"),
        ("attention a { score 1 ; }", "the character `;` is not part of the language"),
        ("attention a { score \x00 1 }", "the character U+0000 (a control character) is not part of the language"),
        ("attention a { score\u00a01 }", "the character U+00A0 (no-break space) is not part of the language"),
        ("attention a { score 1 } # \x00", "the character U+0000 (a control character) is not part of the language"),
        ("attention a { score 1 } # \udcff", "the byte 0xff is not UTF-8 text"),
        ("", "the file holds no construct"),
        ("# nothing", "the file holds no construct"),
        ("let a = 1", "the let `a` stands outside a construct"),
    ],
)  # fmt: skip
def test_one_fault_is_one_message(text: str, expected: str) -> None:
    assert messages(text) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("attention a { scor x maks y normalise z }", [("A003", "scor"), ("A003", "maks"), ("A003", "normalise")]),
        ("attention a { score q k mask (b normalize 1 }", [("A001", "k"), ("A004", "("), ("A001", "1")]),
        ("attention a { score , } attention b { score ; } attention c {",
         [("A001", ","), ("A002", ";"), ("A004", "{")]),
        ("attention a { score x ≤ y && z mask ! w }", [("A002", "≤"), ("A002", "&&"), ("A002", "!")]),
        ("attention a { score 99999999999999999999 + 1e999 mask f(x=) }",
         [("A006", "99999999999999999999"), ("A006", "1e999"), ("A001", ")")]),
        ("attention a { score a b c d e f mask g }", [("A001", "b")]),  # one a clause
        ("attention a { mask i ≤ j normalise x AND y }", [("A002", "≤"), ("A003", "normalise"), ("A003", "AND")]),
        ("attention a { score x ? y : z mask g }", [("A002", "?")]),  # and none beside a foreign character
        ("attenton a { score 1 mask , }", [("A003", "attenton"), ("A001", ",")]),
        ("attention a { input score: f32[N] mask , }", [("A005", "score"), ("A001", ",")]),
        ("attention a { branch b { branch c { score , } score , } mask , }",
         [("A001", "branch"), ("A001", ","), ("A001", ",")]),
    ],
)  # fmt: skip
def test_every_clause_tells_its_first_fault(text: str, expected: list[tuple[str, str]]) -> None:
    assert faults(text) == expected


@pytest.mark.parametrize(
    ("text", "help"),
    [
        ("attention a { maks causal }", "did you mean `mask`?"),
        ("attention a { mask a = b }", "equality is written `==`"),
        ("attention a { mask (f)(x) }", "only a function's name can be called; a product is written `*`"),
        ("attention a { score 2x }", "a product is written `2 * x`"),
        ("attention a { score 1 if b else 2 }", "a choice is written `where(condition, x, y)`"),
        ("attention a { mask [1] }", "a list stands only as the default of a param with one entry a head"),
        ("attention a { param w int }", "`param` is written `param w: int = 256 where w >= 0`"),
        ("attention a { normalize weight(s) = s }", "a pair is written `weight(s) = relu(s) divisor(t) = max(t, 1)`"),
        ("attention a { normalize divisor(t) = t }", "a pair is written `weight(s) = relu(s) divisor(t) = max(t, 1)`"),
        ("attention a { score x ≤ y }", "write `<=`"),
        ("attention a { score x ^ 2 }", "write `**` for a power"),
    ],
)
def test_the_help_names_the_fix(text: str, help: str) -> None:
    with pytest.raises(SpecError) as caught:
        read(text)
    assert [item.help for item in caught.value.diagnostics] == [help]


def test_the_number_of_faults_is_bounded() -> None:
    with pytest.raises(SpecError) as caught:
        read("attention a { " + "score , " * 1000 + "}")
    assert len(caught.value.diagnostics) == 100


# --- files ------------------------------------------------------------------------------------


def test_read_source_takes_any_line_end_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.attn"
    path.write_bytes(b"\xef\xbb\xbfattention a {\r\n  score 1 # c\r  mask b\n}\r\n")
    source = read_source(path)
    assert source.name == str(path)
    assert source.text == "attention a {\n  score 1 # c\n  mask b\n}\n"
    file = parse(source)
    assert [comment.text for comment in file.comments] == ["# c"]
    assert [len(construct.clauses) for construct in file.constructs] == [2]
    assert read_source("-", b"x") == Source(name="-", text="x")


def test_threads_share_the_tables() -> None:
    text = "attention a { " + "score dot(q, k) / sqrt(D) mask causal " * 50 + "}"
    with ThreadPoolExecutor(4) as pool:
        printed = list(pool.map(lambda _: print_ast(read(text)), range(8)))
    assert len(set(printed)) == 1


def test_comments_know_their_place() -> None:
    text = "# own \nattention a { # trailing\n  # indented\n  score 1 #last\n}"
    found = [(comment.text, comment.own_line) for comment in read(text).comments]
    assert found == [("# own", True), ("# trailing", False), ("# indented", True), ("#last", False)]

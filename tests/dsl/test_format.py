"""The canonical text: exact on chosen inputs, and its laws on random ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given

from attnc.dsl.diagnostics import SpecError
from attnc.dsl.format import WIDTH, format_source
from attnc.dsl.source import Source
from attnc.dsl.syntax import ScoreClause
from attnc.dsl.text import expression
from tests.dsl.shape import ordered, read
from tests.dsl.texts import EXPRESSIONS, texts

PAGE = Path(__file__).parents[2] / "docs" / "language.md"


def formatted(text: str) -> str:
    return format_source(Source(name="test.attn", text=text))


def score(expression: str) -> str:
    """An expression as the formatter prints it."""
    lines = formatted("attention a { score " + expression + " }").splitlines()
    return lines[1].removeprefix("  score     ")


def test_canonical_order_alignment_and_blank_lines() -> None:
    text = """

attention   a{ normalize softmax(sink=e)   score dot( q,k )
  param w:int=256 where(w>=0)


  input e:f32[ H ]nograd emit lse,rowmax


  mask causal   kv paged(page=16)int8(per=token) let f(x,y:int=2)=x+y
  query q1,q2[64] key kp=e@k value v }
recurrence r { read q@S step exp(a)*S+outer(k,v) state S[D,E] input a:f32[B,H,N] }
"""
    assert (
        formatted(text)
        == """\
attention a {
  param w: int = 256 where w >= 0

  input e: f32[H] nograd
  query q1, q2[64]
  key   kp = e @ k
  value v
  let f(x, y: int = 2) = x + y
  score     dot(q, k)

  mask      causal
  normalize softmax(sink = e)
  kv        paged(page = 16) int8(per = token)
  emit      lse, rowmax
}

recurrence r {
  input a: f32[B, H, N]
  state S[D, E]
  step  exp(a) * S + outer(k, v)
  read  q @ S
}
"""
    )


def test_lets_keep_their_order_and_branches_are_blocks() -> None:
    text = "attention a { output p - n branch p { normalize none score 1 } branch n {} let z = 1 let a_ = z }"
    assert (
        formatted(text)
        == """\
attention a {
  let z = 1
  let a_ = z
  branch p {
    score     1
    normalize none
  }
  branch n {}
  output    p - n
}
"""
    )


def test_comments_stay_with_what_they_are_about() -> None:
    text = """\
# About the file.

# About a.
attention a { # opening
  normalize softmax # the weights
  # Two lines
  # on the score.
  score x # first
    + y # last

  # Before the mask,

  # twice.
  mask causal
  # Nothing follows.
} # closing
# The end.
"""
    assert (
        formatted(text)
        == """\
# About the file.

# About a.
attention a {  # opening
  # Two lines
  # on the score.
  # first
  score     x + y  # last

  # Before the mask,

  # twice.
  mask      causal
  normalize softmax  # the weights
  # Nothing follows.
}  # closing
# The end.
"""
    )


def test_comments_in_a_header_move_above_it() -> None:
    assert formatted("attention # one\n a # two\n { # three\n score 1 }") == (
        "# one\n# two\nattention a {  # three\n  score     1\n}\n"
    )


def test_long_chains_break_before_their_operators() -> None:
    terms = [f"window({name * 12})" for name in "abcdefghi"]
    text = "attention a { mask " + " and ".join(terms[:6]) + " or " + " or ".join(terms[6:]) + " normalize sum }"
    assert formatted(text) == (
        "attention a {\n"
        "  mask      window(aaaaaaaaaaaa)\n"
        "              and window(bbbbbbbbbbbb)\n"
        "              and window(cccccccccccc)\n"
        "              and window(dddddddddddd)\n"
        "              and window(eeeeeeeeeeee)\n"
        "              and window(ffffffffffff)\n"
        "            or window(gggggggggggg)\n"
        "            or window(hhhhhhhhhhhh)\n"
        "            or window(iiiiiiiiiiii)\n"
        "  normalize sum\n"
        "}\n"
    )
    sums = "attention a { score " + " + ".join("x" * 30 for _ in range(4)) + " }"
    assert formatted(sums).splitlines()[2] == "            + " + "x" * 30
    wide = "weight(s) = " + "s" * 50 + " divisor(t) = " + "t" * 50
    assert formatted("attention a { let f(x) = " + wide + " normalize " + wide + " }") == (
        "attention a {\n"
        "  let f(x) =\n"
        f"    weight(s) = {'s' * 50}\n"
        f"    divisor(t) = {'t' * 50}\n"
        f"  normalize weight(s) = {'s' * 50}\n"
        f"            divisor(t) = {'t' * 50}\n"
        "}\n"
    )


def test_a_long_let_begins_on_its_own_line() -> None:
    call = "drawn(h, i // block, j // block, r, seed, (span + block - 1) // block)"
    text = "let random(r: int where r >= 1, block: int where block >= 1, seed: int) = " + call
    assert format_source(Source(name="std.attn", text=text), library=True) == (
        f"let random(r: int where r >= 1, block: int where block >= 1, seed: int) =\n  {call}\n"
    )
    assert formatted("attention a { let a = " + "b" * 60 + " or " + "c" * 60 + " }").splitlines()[1:4] == [
        "  let a =",
        "    " + "b" * 60,
        "    or " + "c" * 60,
    ]


def test_a_line_of_exactly_the_width_stays() -> None:
    head = "  mask      "
    fits = "a" * (WIDTH - len(head) - 5) + " or b"
    assert formatted("attention a { mask " + fits + "}").splitlines()[1] == head + fits
    assert len(formatted("attention a { mask a" + fits + "}").splitlines()) == 4


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("((a+b))*c", "(a + b) * c"),
        ("(a*b)+c", "a * b + c"),
        ("a-(b-c)", "a - (b - c)"),
        ("(a-b)-c", "a - b - c"),
        ("a**(b**c)", "a ** b ** c"),
        ("(a**b)**c", "(a ** b) ** c"),
        ("-(a**b)", "-a ** b"),
        ("(-a)**b", "(-a) ** b"),
        ("a**(-b)", "a ** -b"),
        ("-(a*b)", "-(a * b)"),
        ("(-a)*b", "-a * b"),
        ("a*(-b)", "a * -b"),
        ("-(-a)", "--a"),
        ("not(a==b)", "not a == b"),
        ("(not a)==b", "(not a) == b"),
        ("not(a and b)", "not (a and b)"),
        ("(not a)and b", "not a and b"),
        ("a or(b and c)", "a or b and c"),
        ("(a or b)and c", "(a or b) and c"),
        ("(a<b)<c", "(a < b) < c"),
        ("(a<b)==(c<d)", "(a < b) == (c < d)"),
        ("0<=(i-j)<w", "0 <= i - j < w"),
        ("(a@b)[0]", "(a @ b)[0]"),
        ("(f(x))[0]", "f(x)[0]"),
        ("(1).x", "(1).x"),
        ("(a).x", "a.x"),
        ("k[ :512 ,1: , : ,a:b]", "k[:512, 1:, :, a:b]"),
        ("f(x,y,)", "f(x, y)"),
        ("where((a),b,c)", "where(a, b, c)"),
    ],
)
def test_the_fewest_parentheses(written: str, canonical: str) -> None:
    assert score(written) == canonical
    assert ordered(read(f"attention a {{ score {written} }}")) == ordered(read(f"attention a {{ score {canonical} }}"))


def test_the_library_formats_with_its_lets_at_the_top() -> None:
    text = "let a = 1\n\n\nlet b(x) = x # b\nlet c = 2\nattention m { score a }\nlet d = 3"
    assert format_source(Source(name="std.attn", text=text), library=True) == (
        "let a = 1\n\nlet b(x) = x  # b\nlet c = 2\n\nattention m {\n  score     a\n}\n\nlet d = 3\n"
    )


def test_the_examples_of_the_language_page_keep_their_trees() -> None:
    blocks = re.findall(r"^```\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 2
    for block in blocks:
        once = formatted(block)
        assert ordered(read(once)) == ordered(read(block))
        assert formatted(once) == once
    assert formatted(blocks[0]) == blocks[0]  # the page's first example is canonical


@given(text=texts())
def test_formatting_keeps_the_tree_and_every_comment_and_settles(text: str) -> None:
    once = formatted(text)
    assert ordered(read(once)) == ordered(read(text))
    assert sorted(c.text for c in read(once).comments) == sorted(c.text for c in read(text).comments)
    assert formatted(once) == once
    assert "\n\n\n" not in once
    assert not any(line != line.rstrip() for line in once.split("\n"))
    assert once.endswith("\n") and not once.startswith("\n") and not once.endswith("\n\n")


@given(tokens=EXPRESSIONS)
def test_every_pair_of_parentheses_is_needed(tokens: list[str]) -> None:
    """Without it the text has another tree or none."""
    file = read(f"attention a {{ score {' '.join(tokens)} }}")
    (clause,) = file.constructs[0].clauses
    assert isinstance(clause, ScoreClause)
    line = expression(clause.value)
    for start, end in _pairs(line):
        bare = line[:start] + line[start + 1 : end] + line[end + 1 :]
        try:
            assert ordered(read(f"attention a {{ score {bare} }}")) != ordered(file), line
        except SpecError:
            continue


def _pairs(line: str) -> list[tuple[int, int]]:
    """Where parentheses that are not a call's open and close."""
    opened: list[int] = []
    pairs: list[tuple[int, int]] = []
    for place, char in enumerate(line):
        if char == "(":
            opened.append(place)
        elif char == ")":
            start = opened.pop()
            if start == 0 or not (line[start - 1].isalnum() or line[start - 1] == "_"):
                pairs.append((start, place))
    return pairs

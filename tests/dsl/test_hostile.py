"""Whatever the bytes: a tree or SpecError, soon. Nothing else escapes, nothing recurses."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from attnc.dsl.codes import CODES
from attnc.dsl.diagnostics import SpecError
from attnc.dsl.format import format_source
from attnc.dsl.parse import LARGEST_TEXT, parse
from attnc.dsl.print_ast import print_ast
from attnc.dsl.render import render
from attnc.dsl.source import Source, read_source
from tests.dsl.texts import CONSTRUCTS

SECONDS = 20  # of CPU time; each case takes about one, the largest texts four

TOKENS = """
attention recurrence param input query key value let score mask normalize kv emit branch output state step read nograd
where weight divisor and or not true false inf x i 1 2.5 99999999999999999999 1e999 ( ) [ ] { } : , . = + - * / // % **
@ == != < <= > >= ! & é \x00 #
"""
WORDS = st.sampled_from([*re.findall(r"\S+", TOKENS), "\n"])


def outcome(content: bytes) -> str:
    """The tree, or the faults: codes that exist, places inside the text."""
    source = read_source("hostile.attn", content)
    try:
        return print_ast(parse(source))
    except SpecError as error:
        assert error.diagnostics
        for item in error.diagnostics:
            assert item.code in CODES and item.message
            assert 0 <= item.span.start <= item.span.end <= len(source.text)
        shown = render(source, error.diagnostics, style="full", color=False)
        shown.encode("utf-8")
        return shown


@contextmanager
def soon() -> Iterator[None]:
    start = time.process_time()
    yield
    assert time.process_time() - start < SECONDS


@given(content=st.binary(max_size=300))
@example(content=b"")
@example(content=b"\xef\xbb\xbf")
@example(content=b"\xff\xfea\x00t\x00")
@example(content=b"\x00")
@example(content="attention é {".encode("latin-1"))
def test_any_bytes(content: bytes) -> None:
    outcome(content)


@given(text=st.text(max_size=300))
def test_any_text(text: str) -> None:
    outcome(text.encode("utf-8", "surrogatepass"))


@given(words=st.lists(WORDS, max_size=60))
def test_any_tokens(words: list[str]) -> None:
    outcome(("attention a { " + " ".join(words)).encode())
    outcome("".join(words).encode())


@given(tokens=CONSTRUCTS, place=st.integers(0, 10**6), word=WORDS, drop=st.booleans())
def test_a_token_changed_in_a_good_text(tokens: list[str], place: int, word: str, drop: bool) -> None:
    place %= len(tokens)
    changed = [*tokens[:place], *([] if drop else [word]), *tokens[place + 1 :]]
    outcome(" ".join(changed).encode())
    outcome(" ".join([*tokens[:place], word, *tokens[place:]]).encode())


@pytest.mark.parametrize(
    "expression",
    [
        "(" * 10_000 + "x" + ")" * 10_000,
        "(1 + " * 3_000 + "x" + ")" * 3_000,
        "f(" * 3_000 + "x" + ")" * 3_000,
        "a[" * 3_000 + "0" + "]" * 3_000,
        "-" * 3_000 + "x",
        "not " * 3_000 + "x",
        "2 ** " * 3_000 + "x",
        "x" + " + x" * 5_000,
        "x" + " < x" * 5_000,
        "x" + ".y" * 3_000,
        "x" + "[0]" * 3_000,
        "f(" + "x, " * 3_000 + "x)",
        "where(a, b, " * 5_000 + "x" + ")" * 5_000,
    ],
    ids=lambda text: f"{text[:8]}...",
)
def test_deep_and_long_expressions(expression: str) -> None:
    source = Source(name="deep.attn", text="attention a { score " + expression + " }")
    with soon():
        printed = print_ast(parse(source))
        canonical = Source(name="deep.attn", text=format_source(source))
        assert print_ast(parse(canonical)) == printed
        assert format_source(canonical) == canonical.text


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("attention a { score " + "(" * 10_000, "A004"),
        ("attention a { score " + ")" * 10_000, "A004"),
        ("attention a { score " + "(" * 10_000 + "]" * 10_000, "A001"),
        ("attention a { " * 10_000, "A001"),
        ("attention a { branch b { " * 5_000, "A001"),
        ("{" * 100_000, "A001"),
        ("}" * 100_000, "A004"),
        ("a " * 100_000, "A001"),
        ("attention a { score 1" + "0" * 100_000 + " }", "A006"),
        ("attention a { score " + "9" * 100_000 + ".0 }", "A006"),
        ("attention a { score 1e" + "9" * 100_000 + " }", "A006"),
        ("attention a { " + "score a b mask c d " * 20_000 + " }", "A001"),
        ("attention a { " + "mask a ? b c " * 20_000 + " }", "A002"),
        ("\x00" * 100_000, "A002"),
        ("\x00 " * 100_000, "A002"),
        ("é\n" * 100_000, "A002"),
        ("#" * 100_000, "A008"),
        ("\n" * 100_000, "A008"),
        ("attention " + "a" * 100_000 + " { score , }", "A001"),
        ("# \udcff" * 10_000, "A009"),
    ],
    ids=lambda text: f"{text[:12]!a}...",
)
def test_bad_and_long(text: str, code: str) -> None:
    with soon(), pytest.raises(SpecError) as caught:
        parse(Source(name="bad.attn", text=text))
    assert caught.value.diagnostics[0].code == code
    assert len(caught.value.diagnostics) <= 100
    assert len(str(caught.value)) < 200_000


def test_ten_megabytes_are_refused_at_once() -> None:
    line = b"  param w: int = 256  # and again\n"
    content = b"attention a {\n" + line * (10_000_000 // len(line)) + b"}\n"
    with soon(), pytest.raises(SpecError, match="more than the 262,144 that a spec may"):
        parse(read_source("large.attn", content))


def test_a_hundred_thousand_terms_parse() -> None:
    with soon():
        (construct,) = parse(
            Source(name="long.attn", text="attention a { score x" + " + x" * 100_000 + " }")
        ).constructs
    assert construct.span.end == 400_023


def test_the_largest_text_parses() -> None:
    clause = "  param w: int = 256\n"
    count = (LARGEST_TEXT - len("attention a {}")) // len("paramw:int=256")
    source = Source(name="large.attn", text="attention a {\n" + clause * count + "}\n")
    with soon():
        (construct,) = parse(source).constructs
        assert len(construct.clauses) == count

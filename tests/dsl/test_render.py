"""Diagnostics as text, exactly; and every code's examples."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnc.codegen import pipeline
from attnc.codegen.lint import lint
from attnc.dsl.check import check
from attnc.dsl.codes import CODES, explain
from attnc.dsl.diagnostics import Diagnostic, Severity, SpecError
from attnc.dsl.frontend import choose
from attnc.dsl.parse import parse
from attnc.dsl.render import Style, render
from attnc.dsl.source import Source, Span
from attnc.dsl.specialize import specialize


def fault(text: str, under: str, *, label: str = "", help: str = "", count: int = 1) -> Diagnostic:
    """A fault at the ``count``-th occurrence of a part of the text."""
    start = -1
    for _ in range(count):
        start = text.index(under, start + 1)
    return Diagnostic(
        code="A001",
        message="something is wrong",
        span=Span(start=start, end=start + len(under)),
        label=label,
        help=help,
    )


def full(text: str, *items: Diagnostic) -> str:
    return render(Source(name="a.attn", text=text), items, style="full", color=False)


# --- full -------------------------------------------------------------------------------------


def test_full_has_place_line_carets_label_and_help() -> None:
    text = "attention a {\n  score dot(q, k\n}\n"
    assert (
        full(text, fault(text, "(", label="still open", help="close it"))
        == """\
error[A001]: something is wrong
 --> a.attn:2:12
  |
2 |   score dot(q, k
  |            ^ still open
  |
  = help: close it
"""
    )


def test_full_without_label_and_help_ends_at_the_carets() -> None:
    text = "score abc"
    assert full(text, fault(text, "abc")).splitlines()[-1] == "  |       ^^^"


def test_several_are_parted_by_a_blank_line() -> None:
    text = "a b"
    assert full(text, fault(text, "a"), fault(text, "b")).count("\n\nerror[A001]") == 1


def test_the_gutter_is_as_wide_as_the_line_number() -> None:
    text = "\n" * 99 + "here"
    assert (
        full(text, fault(text, "here"))
        == """\
error[A001]: something is wrong
   --> a.attn:100:1
    |
100 | here
    | ^^^^
"""
    )


def test_tabs_and_wide_and_combining_characters_keep_the_carets_in_place() -> None:
    text = "\tx 日本 e\u0301 here"
    lines = full(text, fault(text, "here", label="so")).splitlines()
    assert lines[3] == "1 |     x 日本 e\u0301 here"
    assert lines[4] == "  | " + " " * (4 + 2 + 4 + 1 + 1 + 1) + "^^^^ so"
    assert full(text, fault(text, "日本")).splitlines()[4] == "  |       ^^^^"
    assert full(text, fault(text, "\t")).splitlines()[4] == "  | ^^^^"


def test_what_a_terminal_would_act_on_is_shown_as_a_mark() -> None:
    text = "a \x1b[31m \x00 \u202e \udcff b"
    shown = full(text, fault(text, "b"))
    assert "1 | a \ufffd[31m \ufffd \ufffd \ufffd b" in shown
    shown.encode("utf-8")


def test_a_span_over_two_lines_underlines_both() -> None:
    text = "score (a +\n   b) * c"
    item = Diagnostic(code="A001", message="m", span=Span(start=6, end=16), label="all of it")
    assert (
        full(text, item)
        == """\
error[A001]: m
 --> a.attn:1:7
  |
1 | score (a +
  |       ^^^^
2 |    b) * c
  |    ^^ all of it
"""
    )


def test_a_span_over_many_lines_leaves_out_the_middle() -> None:
    text = "one\ntwo\nthree\nfour"
    item = Diagnostic(code="A001", message="m", span=Span(start=0, end=len(text)))
    assert full(text, item).splitlines()[3:] == ["1 | one", "  | ^^^", "...", "4 | four", "  | ^^^^"]


@pytest.mark.parametrize("text", ["", "\n", "a", "a\n", "a\n\n", "a\r\n"])
def test_the_end_of_any_file_can_be_pointed_at(text: str) -> None:
    item = Diagnostic(code="A001", message="m", span=Span(start=len(text), end=len(text)))
    assert full(text, item).splitlines()[-1].endswith("^")


def test_a_long_line_is_cropped_around_the_span() -> None:
    text = "x" * 500 + "here" + "y" * 500
    lines = full(text, fault(text, "here")).splitlines()
    assert lines[3] == "1 | …" + "x" * 30 + "here" + "y" * 66 + "…"
    assert lines[4] == "  | " + " " * 31 + "^^^^"
    assert full(text, fault(text, "x")).splitlines()[3] == "1 | " + "x" * 100 + "…"
    assert full(text, fault(text, "y", count=500)).splitlines()[3].endswith("y" * 100)
    wide = Diagnostic(code="A001", message="m", span=Span(start=0, end=len(text)))
    assert full(text, wide).splitlines()[4] == "  | " + "^" * 101


def test_a_warning_is_called_one_and_colour_is_only_on_request() -> None:
    text = "a"
    item = Diagnostic(code="W001", message="m", span=Span(start=0, end=1), severity=Severity.WARNING, help="h")
    assert full(text, item).startswith("warning[W001]: m\n")
    source = Source(name="a.attn", text=text)
    for style in ("full", "concise"):
        plain = render(source, [item], style=style, color=False)
        colored = render(source, [item], style=style, color=True)
        assert "\x1b" not in plain and "\x1b[1;33m" in colored
        for code in ("\x1b[0m", "\x1b[1m", "\x1b[1;33m", "\x1b[1;34m", "\x1b[1;36m"):
            colored = colored.replace(code, "")
        assert colored == plain


# --- the other styles -------------------------------------------------------------------------


def test_concise_is_a_line_each() -> None:
    text = "a\nbc"
    items = [fault(text, "a"), fault(text, "c", help="do that")]
    assert render(Source(name="a.attn", text=text), items, style="concise") == (
        "a.attn:1:1: error[A001]: something is wrong\n"
        "a.attn:2:2: error[A001]: something is wrong (help: do that)\n"
    )  # fmt: skip


def test_json_is_an_array_of_objects() -> None:
    text = "a\nbc"
    assert json.loads(render(Source(name="é.attn", text=text), [fault(text, "bc", label="l")], style="json")) == [
        {
            "code": "A001",
            "severity": "error",
            "message": "something is wrong",
            "label": "l",
            "help": None,
            "file": "é.attn",
            "start": {"line": 2, "column": 1, "offset": 2},
            "end": {"line": 2, "column": 3, "offset": 4},
        }
    ]
    assert json.loads(render(Source(name="a", text=""), [], style="json")) == []


def test_github_annotations_are_escaped() -> None:
    text = "a\nbc"
    item = Diagnostic(code="A001", message="100% wrong,\nreally: yes", span=Span(start=2, end=4), help="h")
    assert render(Source(name="x,y:z.attn", text=text), [item], style="github") == (
        "::error file=x%2Cy%3Az.attn,line=2,col=1,endLine=2,endColumn=3,title=attnc A001"
        "::100%25 wrong,%0Areally: yes%0Ahelp: h\n"
    )


@given(
    text=st.text(max_size=200),
    start=st.integers(0, 200),
    length=st.integers(0, 200),
    style=st.sampled_from(["full", "concise", "json", "github"]),
)
def test_any_span_of_any_text_renders(text: str, start: int, length: int, style: Style) -> None:
    start = min(start, len(text))
    item = Diagnostic(
        code="A001", message=text[:9], span=Span(start=start, end=min(start + length, len(text))), label="l"
    )
    shown = render(Source(name="a.attn", text=text), [item], style=style)
    shown.encode("utf-8")
    if style in ("concise", "github"):
        assert len(shown.splitlines()) == 1
    if style == "full":
        assert "^" in shown and "l" in shown.splitlines()[-1]


# --- the codes --------------------------------------------------------------------------------


def test_codes_are_in_order_and_complete() -> None:
    assert list(CODES) == sorted(CODES)
    for name, code in CODES.items():
        assert name == code.code
        assert code.title and code.explanation.strip() and not code.title.endswith(".")


@pytest.mark.parametrize("name", sorted(CODES))
def test_the_bad_example_has_this_fault_alone_and_the_good_one_none(name: str) -> None:
    code = CODES[name]
    bad = found(code.bad)
    assert {item.code for item in bad} == {name}
    assert found(code.good) == ()
    for style in ("full", "concise", "json", "github"):
        shown = render(Source(name="bad.attn", text=code.bad), bad, style=style)
        assert name in shown
        shown.encode("utf-8")


@pytest.mark.parametrize("name", sorted(CODES))
def test_every_code_is_explained(name: str) -> None:
    shown = explain(CODES[name])
    shown.encode("utf-8")
    assert shown.startswith(f"{name}: ") and "Wrong:" in shown and "Right:" in shown
    assert len(shown.splitlines()) < 100


def found(text: str) -> tuple[Diagnostic, ...]:
    """What every stage up to the emitted code's mathematics says about a text."""
    source = Source(name="example.attn", text=text)
    try:
        result = check(parse(source))
        construct = choose(source, result.constructs, None)
        specialized = specialize(construct, {})
        pipeline.compile(specialized)
    except SpecError as error:
        return error.diagnostics
    return (*result.warnings, *lint(construct, specialized))

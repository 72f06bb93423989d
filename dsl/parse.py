"""Text -> AST."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from lark import Lark, UnexpectedInput

from attnc.dsl import syntax
from attnc.dsl.build import Builder, Parsed
from attnc.dsl.diagnostics import Diagnostic, SpecError
from attnc.dsl.source import Source, Span

_COMMENT = re.compile(r"#[^\n]*")


def parse(source: Source, *, library: bool = False) -> syntax.File:
    """The AST of a text; ``library`` admits lets outside a construct. Raises SpecError and nothing else."""
    comments = _comments(source)
    text = _COMMENT.sub(lambda found: " " * len(found.group()), source.text)
    try:
        parsed = _parser().parse(text)
    except UnexpectedInput as error:
        at = Span(start=error.pos_in_stream or 0, end=(error.pos_in_stream or 0) + 1)
        raise SpecError(source, (Diagnostic(code="A001", message="this is not expected here", span=at),)) from None
    assert isinstance(parsed, Parsed)
    if parsed.lets and not library:
        raise SpecError(
            source, (Diagnostic(code="A007", message="a let stands inside a construct", span=parsed.lets[0].span),)
        )
    return parsed.file(source, comments)


def _comments(source: Source) -> tuple[syntax.Comment, ...]:
    """Every comment. A text holds no strings, so ``#`` always starts one."""
    found: list[syntax.Comment] = []
    for match in _COMMENT.finditer(source.text):
        text = match.group().rstrip()
        start = match.start()
        line_start = source.text.rfind("\n", 0, start) + 1
        own_line = not source.text[line_start:start].strip()
        found.append(syntax.Comment(text=text, own_line=own_line, span=Span(start=start, end=start + len(text))))
    return tuple(found)


@cache
def _parser() -> Lark:
    """The tables, made once a process: immutable from then on."""
    grammar = files("attnc.dsl").joinpath("grammar.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", lexer="basic", start="file", keep_all_tokens=True, transformer=Builder())

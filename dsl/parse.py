"""Text -> AST. Faults of the text's bytes and characters are found here, those of its grammar in recover.py."""

from __future__ import annotations

import io
import pickle
import re
import sys
import unicodedata
from functools import cache
from pkgutil import get_data

import lark
from lark import Lark

from attnc.dsl import store, syntax
from attnc.dsl.build import Builder
from attnc.dsl.diagnostics import Diagnostic, SpecError
from attnc.dsl.recover import MOST_FAULTS, parse_tokens
from attnc.dsl.source import Source, Span

LARGEST_TEXT = 256 * 1024  # characters but for blanks, which fmt may add; the longest published spec has a thousand

_COMMENT = re.compile(r"#[^\r\n]*")
_TEXT = re.compile(r"[^\x00-\x08\x0b\x0e-\x1f\x7f]")  # what a comment may hold: all but control characters
_SURROGATES = re.compile(r"[\ud800-\udfff]+")
_FOREIGN = re.compile(r"[^A-Za-z0-9_ \t\r\n\f()\[\]{}:,.=+\-*/%@<>!]+|!(?!=)")
# What a foreign character most likely means. The stand-in keeps the parser on its way past the fault.
_MEANT = {
    "≤": ("+", "write `<=`"),
    "≥": ("+", "write `>=`"),
    "≠": ("+", "write `!=`"),
    "−": ("-", "write the minus sign of the keyboard, `-`"),
    "–": ("-", "write the minus sign of the keyboard, `-`"),
    "×": ("*", "write `*`"),
    "·": ("*", "write `*`, or `dot(x, y)`"),
    "÷": ("/", "write `/`"),
    "&": ("+", "write `and`"),
    "∧": ("+", "write `and`"),
    "|": ("+", "write `or`; a magnitude is `abs(x)`"),
    "∨": ("+", "write `or`"),
    "!": ("-", "write `not`"),
    "¬": ("-", "write `not`"),
    "~": ("-", "write `not`"),
    "^": ("+", "write `**` for a power"),
    "∞": ("0", "write `inf`"),
    ";": (" ", "a clause ends where the next one begins; nothing separates them"),
    "\\": (" ", "a line break needs no mark"),
    '"': (" ", "there are no strings in .attn"),
    "'": (" ", "there are no strings in .attn"),
    "?": (" ", "a choice is written `where(condition, x, y)`"),
}


def parse(source: Source, *, library: bool = False) -> syntax.File:
    """The AST of a text; ``library`` admits lets outside a construct. Raises SpecError and nothing else."""
    if fault := _unreadable(source.text):
        raise SpecError(source, (fault,))
    comments = _comments(source.text)
    text = without_comments(source.text)
    faults = [_foreign(match) for match in _FOREIGN.finditer(text)]
    parsed, more = parse_tokens(_parser(), _FOREIGN.sub(_stand_in, text), [fault.span.start for fault in faults])
    faults += more
    if parsed is not None and not library:
        faults += [_loose_let(let) for let in parsed.lets]
        if not parsed.constructs and not parsed.lets and not faults:
            faults.append(_nothing(text))
    if faults or parsed is None:
        raise SpecError(source, tuple(sorted(faults, key=lambda fault: fault.span.start)[:MOST_FAULTS]))
    return parsed.file(source, comments)


def without_comments(text: str) -> str:
    """The text with every comment blanked, so that places stay, but for control characters: no file of code that
    quotes the spec could hold them."""
    return _COMMENT.sub(lambda comment: _TEXT.sub(" ", comment.group()), text)


def _unreadable(text: str) -> Diagnostic | None:
    size = sum(map(len, text.split()))
    if size > LARGEST_TEXT:
        return Diagnostic(
            code="A010",
            message=f"the file holds {size:,} characters, more than the {LARGEST_TEXT:,} that a spec may",
            span=Span(start=0, end=0),
            help="write what repeats as a function, a list param or an input",
        )
    if match := _SURROGATES.search(text):
        code = ord(match.group()[0])
        what = f"the byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else "a lone surrogate"
        return Diagnostic(
            code="A009",
            message=f"{what} is not UTF-8 text",
            span=Span(start=match.start(), end=match.end()),
            label="not a character",
            help="save the file as UTF-8",
        )
    return None


def _comments(text: str) -> tuple[syntax.Comment, ...]:
    """Every comment. A text holds no strings, so ``#`` always starts one."""
    found: list[syntax.Comment] = []
    for match in _COMMENT.finditer(text):
        body, start = match.group().rstrip(), match.start()
        own_line = not text[text.rfind("\n", 0, start) + 1 : start].strip()
        found.append(syntax.Comment(text=body, own_line=own_line, span=Span(start=start, end=start + len(body))))
    return tuple(found)


def _foreign(match: re.Match[str]) -> Diagnostic:
    char = match.group()[0]
    if char.isalnum():
        what, help = f"the letter `{char}` cannot be part of a name", "names are written with a-z, A-Z, 0-9 and `_`"
    elif char.isprintable() and not unicodedata.combining(char):
        what, help = f"the character `{char}` is not part of the language", _MEANT.get(char, ("", ""))[1]
    else:
        known = unicodedata.name(char, "a control character").lower()
        what = f"the character U+{ord(char):04X} ({known}) is not part of the language"
        help = "write a plain space" if char.isspace() else ""
    return Diagnostic(
        code="A002", message=what, span=Span(start=match.start(), end=match.end()), label="not expected here", help=help
    )


def _stand_in(match: re.Match[str]) -> str:
    """As many characters that the grammar knows, so that places stay and one slip is one fault."""
    found = match.group()
    if all(char.isalnum() for char in found):
        return "_" * len(found)
    return _MEANT.get(found[0], (" ", ""))[0] + " " * (len(found) - 1)


def _loose_let(let: syntax.LetClause) -> Diagnostic:
    return Diagnostic(
        code="A007",
        message=f"the let `{let.name.text}` stands outside a construct",
        span=let.name.span,
        label="not inside `attention` or `recurrence`",
        help="move it between the braces of the construct that uses it",
    )


def _nothing(text: str) -> Diagnostic:
    return Diagnostic(
        code="A008",
        message="the file holds no construct",
        span=Span(start=len(text), end=len(text)),
        help="begin with `attention name { score dot(q, k) / sqrt(D)  normalize softmax }`",
    )


@cache
def _parser() -> Lark:
    """The parser, made once a process and never changed. Its tables are made once a machine: that takes longer than
    all else that a small spec needs."""
    grammar = get_data("attnc.dsl", "grammar.lark")
    assert grammar is not None, "the loader of a package reads its files"
    name = store.key(grammar, lark.__version__, sys.version_info[:2]) + ".lalr"
    tables = store.load(name)
    if tables is None:
        tables = _tables(grammar.decode("utf-8"))
        store.keep(name, tables)
    saved = pickle.loads(tables)
    # As the stand-alone parsers do that lark writes: Lark.load would leave no way to name the transformer.
    made: Lark = Lark._load_from_dict(saved["data"], saved["memo"], transformer=Builder())  # type: ignore[no-untyped-call]
    return made


def _tables(grammar: str) -> bytes:
    tables = io.BytesIO()
    Lark(grammar, parser="lalr", lexer="basic", start="file", keep_all_tokens=True).save(tables)
    return tables.getvalue()

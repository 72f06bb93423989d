"""The canonical text of a spec.

Clauses stand one a line in the order of the language page, indented by two. The values of score, mask, normalize,
kv, emit and output are aligned, so are those of query, key, value and of state, step, read. Lines longer than 100
columns break before the ``or``, ``and``, ``+`` or ``-`` of their outermost chain, a pair before ``divisor``, a let
first of all after its ``=``. At most one blank line stays where some were. Comments stay: one at a line's end with
what it follows, one on its own line with what it precedes, one inside a clause moves above that clause.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from attnc.dsl import syntax, text
from attnc.dsl.parse import parse, without_comments
from attnc.dsl.source import Source

WIDTH = 100
INDENT = "  "

# The canonical order. The number is the column that the clause's value is aligned to.
_WORDS = {
    "param": 0, "input": 0, "query": 6, "key": 6, "value": 6, "let": 0, "state": 6, "step": 6, "read": 6,
    "score": 10, "mask": 10, "normalize": 10, "kv": 10, "emit": 10, "branch": 0, "output": 10,
}  # fmt: skip
_ORDER = {word: place for place, word in enumerate(_WORDS)}

Item = syntax.Construct | syntax.Clause


def format_source(source: Source, *, library: bool = False) -> str:
    """The canonical text. Formatting it again changes nothing; its tree is that of ``source`` but for places and
    the order of clauses. A text that does not parse raises SpecError."""
    file = parse(source, library=library)
    body = _Notes(source=source, comments=file.comments).read(file)
    lines: list[str] = []
    before: Item | None = None
    for item, notes in body.items:
        apart = isinstance(item, syntax.Construct) or isinstance(before, syntax.Construct)
        lines += _item_lines(item, notes, "", blank=before is not None and (apart or None))
        before = item
    lines += _comment_lines(body.end, "", first=not lines)
    return "\n".join(lines) + "\n"


# --- comments ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A comment on its own line, and whether a blank line stands before it."""

    text: str
    blank: bool


@dataclass(kw_only=True)
class _Body:
    """The items between two braces, each with its comments; ``end``: those after the last."""

    items: list[tuple[Item, _Attached]]
    end: list[_Line] = field(default_factory=list)


@dataclass(kw_only=True)
class _Attached:
    """The comments of one item. ``opening`` follows its ``{``, ``trailing`` its end; ``body``: inside its braces."""

    blank: bool
    above: list[_Line] = field(default_factory=list)
    inside: list[str] = field(default_factory=list)
    opening: str = ""
    trailing: str = ""
    body: _Body | None = None

    def leading(self) -> tuple[list[_Line], bool]:
        """The lines above the item, and whether a blank line stands between them and it."""
        if not self.above and self.inside:
            first, *others = self.inside
            return [_Line(text=first, blank=self.blank), *(_Line(text=other, blank=False) for other in others)], False
        return self.above + [_Line(text=inner, blank=False) for inner in self.inside], self.blank


class _Notes:
    """Finds what each comment belongs to: one pass over the items and the comments, both in order."""

    def __init__(self, *, source: Source, comments: Sequence[syntax.Comment]) -> None:
        self.text = source.text
        self.bare = without_comments(source.text)
        self.comments = list(reversed(comments))  # a stack: the next one last

    def read(self, file: syntax.File) -> _Body:
        items: list[Item] = [*file.constructs, *file.lets]
        body, _ = self._body(sorted(items, key=lambda item: item.span.start), len(self.text))
        return body

    def _body(self, items: Sequence[Item], end: int) -> tuple[_Body, str]:
        """The items of a body that ends at ``end``, and the comment that follows its ``{``."""
        body = _Body(items=[])
        opening = ""
        for item in items:
            above, after = self._gap(item.span.start)
            opening = self._follow(body, opening, after)
            notes = _Attached(blank=self._blank_before(item.span.start), above=above)
            self._within(item, notes)
            body.items.append((item, notes))
        body.end, after = self._gap(end)
        return body, self._follow(body, opening, after)

    def _follow(self, body: _Body, opening: str, after: str) -> str:
        """Give a comment that follows something on its line to that: the last item, or the ``{``."""
        if after and body.items:
            body.items[-1][1].trailing = after
        return after if after and not body.items else opening

    def _gap(self, end: int) -> tuple[list[_Line], str]:
        """The comments before ``end``: those on lines of their own, and the one that follows what was before."""
        own: list[_Line] = []
        after = ""
        for comment in self._until(end):
            if comment.own_line:
                own.append(_Line(text=comment.text, blank=self._blank_before(comment.span.start)))
            else:
                after = comment.text
        return own, after

    def _within(self, item: Item, notes: _Attached) -> None:
        match item:
            case (
                syntax.Construct(name=name, clauses=clauses, span=span)
                | syntax.BranchClause(name=name, clauses=clauses, span=span)
            ):
                opened = self.bare.index("{", name.span.end)
                notes.inside += [comment.text for comment in self._until(opened)]
                notes.body, notes.opening = self._body(clauses, span.end - 1)
            case _:
                notes.inside += [comment.text for comment in self._until(item.span.end)]

    def _until(self, end: int) -> list[syntax.Comment]:
        found: list[syntax.Comment] = []
        while self.comments and self.comments[-1].span.start < end:
            found.append(self.comments.pop())
        return found

    def _blank_before(self, at: int) -> bool:
        start = at
        while start > 0 and self.text[start - 1].isspace():
            start -= 1
        return self.text.count("\n", start, at) > 1


# --- layout -----------------------------------------------------------------------------------


def _comment_lines(comments: Sequence[_Line], indent: str, *, first: bool) -> list[str]:
    lines: list[str] = []
    for comment in comments:
        lines += [""] if comment.blank and not (first and not lines) else []
        lines.append(indent + comment.text)
    return lines


def _item_lines(item: Item, notes: _Attached, indent: str, *, blank: bool | None) -> list[str]:
    """An item with its comments. ``blank``: whether a blank line goes before; None as it was."""
    leading, gap = notes.leading()
    lines = _comment_lines(leading, indent, first=True)
    lines += [""] if gap and lines else []
    was = leading[0].blank if leading else gap
    match item:
        case syntax.Construct(word=word, name=name):
            lines += _braced(f"{word} {name.text}", notes, indent)
        case syntax.BranchClause(name=name):
            lines += _braced(f"branch {name.text}", notes, indent)
        case _:
            lines += _clause_lines(item, indent)
    lines[-1] += f"  {notes.trailing}" if notes.trailing else ""
    return ["", *lines] if (was if blank is None else blank) else lines


def _braced(head: str, notes: _Attached, indent: str) -> list[str]:
    assert notes.body is not None
    lines: list[str] = []
    for item, inner in sorted(notes.body.items, key=lambda entry: _place(entry[0])):
        lines += _item_lines(item, inner, indent + INDENT, blank=None if lines else False)
    lines += _comment_lines(notes.body.end, indent + INDENT, first=not lines)
    if not lines and not notes.opening:
        return [f"{indent}{head} {{}}"]
    opening = f"  {notes.opening}" if notes.opening else ""
    return [f"{indent}{head} {{{opening}", *lines, f"{indent}}}"]


def _place(item: Item) -> int:
    """Where an item stands among its neighbours; constructs stay as they are."""
    return 0 if isinstance(item, syntax.Construct) else _ORDER[text.word(item)]


def _clause_lines(clause: text.Plain, indent: str) -> list[str]:
    word = text.word(clause)
    head = indent + word.ljust(_WORDS[word] - 1) + " "
    line = head + text.value(clause)
    if len(line) <= WIDTH:
        return [line]
    match clause:
        case syntax.LetClause(value=value):
            inner = indent + INDENT
            return [f"{head}{text.signature(clause)} =", *_broken(inner, value, inner)]
        case (
            syntax.ScoreClause(value=value)
            | syntax.MaskClause(value=value)
            | syntax.NormalizeClause(value=value)
            | syntax.OutputClause(value=value)
            | syntax.StepClause(value=value)
            | syntax.ReadClause(value=value)
        ):
            return _broken(head, value, " " * len(head))
        case _:
            return [line]


def _broken(head: str, value: syntax.Expr | syntax.Pair, indent: str) -> list[str]:
    """A value after its head, on more lines if one is too short: a pair on two, a chain with one operand a line.
    An operand of ``or`` that is an ``and`` breaks once more if it is too long itself."""
    line = head + text.body_text(value)
    if len(line) <= WIDTH:
        return [line]
    if isinstance(value, syntax.Pair):
        weight, divisor = text.pair(value)
        return [head + weight, indent + divisor]
    lines: list[str] = []
    outermost = text.level(value)
    for op, operand in text.chain(value):
        start = f"{indent}{op} " if op else head
        if outermost == text.OR and text.level(operand) == text.AND:
            lines += _broken(start, operand, indent + INDENT)
        else:
            lines.append(start + text.expression(operand, outermost + 1 if op else outermost))
    return lines

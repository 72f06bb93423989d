"""The parser's loop: feeds tokens to lark's LALR machine, names each fault and goes on at the next clause.

After the first fault no tree is built any more; the machine only finds further faults. A fault is mended
where the mend is plain (a keyword misspelt, a keyword where a name belongs) and else skipped: tokens up to the
next one that an enclosing rule can shift. Within one clause only the first fault is told.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from difflib import get_close_matches

from lark import Lark, Token, UnexpectedToken
from lark.lexer import PatternStr
from lark.parsers.lalr_analysis import Shift
from lark.parsers.lalr_interactive_parser import InteractiveParser

from attnc.dsl import expect
from attnc.dsl.build import Parsed, token_span
from attnc.dsl.diagnostics import Diagnostic
from attnc.dsl.source import Span

MOST_FAULTS = 100
LARGEST_INT = 2**63 - 1

_STARTS = {word.upper() for word in (*expect.FORMS, *expect.CONSTRUCTS)}
_RESUME = _STARTS | {"RBRACE"}
_MATES = {"(": ")", "[": "]", "{": "}"}
_CLOSING = {"LPAR": "RPAR", "LSQB": "RSQB", "LBRACE": "RBRACE"}


def parse_tokens(parser: Lark, text: str, blanked: list[int]) -> tuple[Parsed | None, list[Diagnostic]]:
    """The tree of a text, or the faults in it. ``blanked``: where characters were already faulted, in order;
    the clauses they stand in get no further fault."""
    machine = parser.parse_interactive(text)
    tokens = list(machine.lexer_thread.lex(machine.parser_state))  # type: ignore[no-untyped-call]  # lark's own
    end = tokens[-1].end_pos if tokens else 0
    tokens.append(Token(expect.END, "", start_pos=end, end_pos=end))
    keywords = {
        terminal.name: terminal.pattern.value
        for terminal in parser.terminals
        if isinstance(terminal.pattern, PatternStr) and terminal.pattern.value.isalpha()
    }
    return _Loop(machine=machine, tokens=tokens, keywords=keywords, blanked=blanked).run()


@dataclass(kw_only=True)
class _Loop:
    machine: InteractiveParser
    tokens: list[Token]
    keywords: dict[str, str]  # token type -> word
    blanked: list[int]
    faults: list[Diagnostic] = field(default_factory=list)
    quiet: bool = False  # this clause's fault is told already

    def run(self) -> tuple[Parsed | None, list[Diagnostic]]:
        at = skipped = mends = 0
        result: object = None
        while at < len(self.tokens):
            token = self.tokens[at]
            while skipped < len(self.blanked) and self.blanked[skipped] < token_span(token).start:
                skipped += 1
                self.quiet = True
            if token.type in ("INT", "FLOAT") and (fault := _number(token)):
                self.faults.append(fault)
                self.tokens[at] = token = token.update(value="0")
            try:
                result = self.machine.feed_token(token)
            except UnexpectedToken:
                if mends == MOST_FAULTS:
                    break
                mends += 1
                at = self._mend(at)
                continue
            at += 1
            if token.type in _RESUME:
                self.quiet = False
        return result if isinstance(result, Parsed) and not self.faults else None, self.faults

    def _mend(self, at: int) -> int:
        """Tell the fault at a token and make the machine ready for some token from there on: its place."""
        state = self.machine.parser_state
        state.parse_conf = copy(state.parse_conf)
        state.parse_conf.callbacks = {}  # from here on the tree is of no use
        token = self.tokens[at]
        accepted: set[str] = self.machine.accepts()  # type: ignore[no-untyped-call]  # lark's own
        mended = self._respelt(at, accepted)
        if mended is not None:
            word = self.keywords[mended.type]
            self.quiet = self.quiet and mended.type not in _RESUME  # a clause of its own
            kind = "clause" if word in expect.FORMS else "keyword"
            self._tell("A003", f"there is no {kind} `{token}`", token_span(token), help=f"did you mean `{word}`?")
            self.tokens[at] = mended
            return at
        half = token.type == "DIVISOR" and "WEIGHT" in accepted  # of a pair
        if "NAME" in accepted and token.type in self.keywords and not half:
            name = token.update(type="NAME")
            following = self.tokens[at + 1]
            if following.type not in _RESUME | {"NAME"} and self._takes(name, following):
                self._tell(
                    "A005", f"`{token}` is a keyword and cannot be a name", token_span(token), label="reserved word",
                    help=f"choose another name, such as `{token}_`",
                )  # fmt: skip
                self.tokens[at] = name
                return at
        self._name_fault(at, accepted)
        self.quiet = True
        return self._skip(at)

    def _respelt(self, at: int, accepted: set[str]) -> Token | None:
        """The token as the keyword that it nearly is, if the text then goes on."""
        token = self.tokens[at]
        if token.type != "NAME":
            return None
        types = {self.keywords[kind]: kind for kind in sorted(accepted) if kind in self.keywords}
        for word in get_close_matches(token.lower(), types, n=3, cutoff=0.7):
            mended = token.update(type=types[word])
            if self._takes(mended, self.tokens[at + 1]):
                return mended
        return None

    def _takes(self, *tokens: Token) -> bool:
        """Whether the machine could go on with these tokens."""
        trial = self.machine.copy(deepcopy_values=False)  # type: ignore[no-untyped-call]  # lark's own
        try:
            for token in tokens:
                trial.feed_token(token)
        except UnexpectedToken:
            return False
        return True

    def _name_fault(self, at: int, accepted: set[str]) -> None:
        token, span = self.tokens[at], token_span(self.tokens[at])
        start = next((place for place in range(at - 1, -1, -1) if self.tokens[place].type in _STARTS), 0)
        inner = _unclosed(self.tokens[start:at], ("LPAR", "LSQB"))
        opened = inner
        if inner is None and token.type in ("RBRACE", expect.END):
            opened = _unclosed(self.tokens[:at], ("LBRACE",))
        if opened is not None and (token.type == expect.END or (inner is not None and token.type in _RESUME)):
            where = "the end of the file" if token.type == expect.END else f"`{token}`"
            self._tell(
                "A004", f"this `{opened}` is never closed", token_span(opened),
                label=f"still open at {where}", help=f"close it with `{_MATES[str(opened)]}`",
            )  # fmt: skip
        elif token.type in _CLOSING.values() and opened is None:
            self._tell("A004", f"this `{token}` closes nothing", span, label="no bracket is open here")
        elif token.type == "NAME" and "SCORE" in accepted and "PLUS" not in accepted:
            self._tell("A003", f"there is no clause `{token}`", span, help=f"clauses are {', '.join(expect.FORMS)}")
        elif self._in_branch(token):
            self._tell(
                "A001", "a branch stands inside a branch", span, help="branches stand side by side in a construct"
            )
        else:
            after = f" after {expect.role(self.tokens, at)}" if at else ""
            self._tell(
                "A001",
                f"expected {expect.wanted(accepted)}{after}, found {expect.found(token, self.keywords)}",
                span,
                label="not expected here",
                help=expect.hint(self.tokens, at, accepted),
            )

    def _skip(self, at: int) -> int:
        """Pop the machine to where it can shift the next clause keyword, ``}`` or construct; that token's place.
        A branch inside a branch is passed over whole."""
        if self._in_branch(self.tokens[at]):
            self._pop(self._depth("SCORE"))
            return self._after_braces(at)
        for place in range(at, len(self.tokens)):
            kind = self.tokens[place].type
            if kind in _RESUME and (depth := self._depth(kind)):
                self._pop(depth)
                return place
        return len(self.tokens)

    def _in_branch(self, token: Token) -> bool:
        """Whether this is a branch where other clauses may stand, but no branch."""
        return token.type == "BRANCH" and self._depth("SCORE") > self._depth("BRANCH")

    def _depth(self, kind: str) -> int:
        """How much of the state stack may stay for a token of this kind to be shifted; 0: none would do."""
        state = self.machine.parser_state
        states = state.parse_conf.parse_table.states
        for depth in range(len(state.state_stack), 0, -1):
            action = states[state.state_stack[depth - 1]].get(kind)
            if action is not None and action[0] is Shift:
                return depth
        return 0

    def _pop(self, depth: int) -> None:
        state = self.machine.parser_state
        del state.state_stack[depth:]
        del state.value_stack[depth - 1 :]

    def _after_braces(self, at: int) -> int:
        """The place after the ``}`` that closes the next ``{``."""
        level = 0
        for place in range(at, len(self.tokens)):
            level += {"LBRACE": 1, "RBRACE": -1}.get(self.tokens[place].type, 0)
            if level <= 0 and self.tokens[place].type == "RBRACE":
                return place + 1
        return len(self.tokens) - 1

    def _tell(self, code: str, message: str, span: Span, *, label: str = "", help: str = "") -> None:
        if not self.quiet:
            self.faults.append(Diagnostic(code=code, message=message, span=span, label=label, help=help))


def _unclosed(tokens: list[Token], opening: tuple[str, ...]) -> Token | None:
    """The last bracket of these kinds that nothing closes."""
    opened: list[Token] = []
    for token in tokens:
        if token.type in opening:
            opened.append(token)
        elif opened and token.type == _CLOSING[opened[-1].type]:
            opened.pop()
    return opened[-1] if opened else None


def _number(token: Token) -> Diagnostic | None:
    """The fault of a literal that no type holds."""
    if token.type == "INT":
        digits = token.lstrip("0")
        if len(digits) > 19 or int(digits or "0") > LARGEST_INT:
            return Diagnostic(
                code="A006",
                message="this integer is larger than 2**63 - 1",
                span=token_span(token),
                label="does not fit 64 bits",
                help="write a float, such as `1e20`, where a float is meant",
            )
    elif float(token) == float("inf"):
        return Diagnostic(
            code="A006",
            message="this number is larger than any float",
            span=token_span(token),
            label="overflows float64",
            help="infinity is written `inf`",
        )
    return None

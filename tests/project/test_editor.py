"""The TextMate grammar: its words are the language's, and it names every token of every spec of the zoo."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from attnc.dsl.declare import INPUT_KINDS
from attnc.dsl.library import BUILTINS, standard_library
from attnc.dsl.names import INDICES, OFFSETS, SIZES

ROOT = Path(__file__).resolve().parents[2]
GRAMMAR = json.loads((ROOT / "docs" / "editor" / "attn.tmLanguage.json").read_text(encoding="utf-8"))
SYNTAX = (ROOT / "dsl" / "grammar.lark").read_text(encoding="utf-8")
SPECS = sorted((ROOT / "examples" / "zoo").glob("*.attn"))


def words(scope: str) -> set[str]:
    """The alternatives of the one pattern of a scope that is a list of words."""
    (found,) = (
        re.search(r"\(((?:\w+\|)+\w+)\)", rule["match"]) for rule in GRAMMAR["patterns"] if rule.get("name") == scope
    )
    assert found is not None
    return set(found[1].split("|"))


def test_words_are_the_languages() -> None:
    library = standard_library()
    keywords = set(re.findall(r'"([a-z]+)"', SYNTAX))
    operators, constants = {"and", "or", "not", "where"}, {"true", "false", "inf"}
    assert words("keyword.operator.word.attn") == operators and words("constant.language.attn") == constants
    assert words("keyword.control.attn") == keywords - operators - constants
    assert words("support.function.attn") == set(BUILTINS)
    assert words("support.function.library.attn") == {*library.masks, *library.normalizations}
    assert words("storage.type.attn") == {*INPUT_KINDS, "int", "float"}
    assert words("variable.language.attn") == {*INDICES, *SIZES, *OFFSETS}


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_only_names_of_the_specs_own_have_no_scope(path: Path) -> None:
    """As an editor reads a line: the leftmost match, the first rule of those."""
    rules = [re.compile(rule["match"]) for rule in GRAMMAR["patterns"]]
    for line in path.read_text(encoding="utf-8").splitlines():
        at, plain = 0, ""
        while at < len(line):
            matches = [found for rule in rules if (found := rule.search(line, at))]
            first = min(matches, key=re.Match.start, default=None)
            plain += line[at:] if first is None else line[at : first.start()] + " "
            at = len(line) if first is None else first.end()
        assert re.fullmatch(r"[A-Za-z_0-9\s]*", plain), f"{line!r} leaves {plain!r}"

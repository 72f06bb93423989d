"""Every spec of examples/zoo against an authority outside this project, forward and all gradients."""

from __future__ import annotations

import pytest
import torch

from attnc import cli
from attnc.dsl.check import check
from attnc.dsl.format import format_source
from attnc.dsl.parse import parse
from attnc.dsl.source import Source
from attnc.testing.tolerance import assert_close
from tests.zoo.__main__ import DOCS, main, printed
from tests.zoo.entries import ENTRIES
from tests.zoo.gallery import page
from tests.zoo.registry import ZOO, Compared, Entry, note

NAMES = sorted(ENTRIES)


def test_every_spec_is_an_entry() -> None:
    assert [path.stem for path in sorted(ZOO.glob("*.attn"))] == NAMES


def test_specs_are_fuzzed_by_name_and_the_worst_status_told(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[str]] = []
    monkeypatch.setattr(cli, "main", lambda argv: made.append(argv) or int(len(made) == 1))
    options = ["--backend", "native", "--seed", "7"]
    assert main(["dense", "causal", "--fuzz", *options]) == 1
    assert made == [["fuzz", str(ZOO / f"{name}.attn"), *options] for name in ("dense", "causal")]


@pytest.mark.parametrize("name", NAMES)
def test_text(name: str) -> None:
    """No faults, no warnings, canonical; paper, equation and cost above, one construct named like the file."""
    entry = ENTRIES[name]
    source = Source(name=f"{name}.attn", text=entry.text)
    result = check(parse(source))
    assert [construct.name for construct in result.constructs] == [name]
    assert not result.warnings
    assert format_source(source) == source.text
    assert any(year in entry.note.paper for year in map(str, range(2014, 2027)))


def close(entry: Entry, compared: Compared, dtype: torch.dtype) -> None:
    length = max(x.shape[:-1].numel() for x in compared.theirs.values())
    for what, expected in compared.theirs.items():
        assert_close(compared.mine[what], expected, dtype=dtype, length=length, what=f"{entry.name}: {what}")


@pytest.mark.parametrize("name", NAMES)
def test_native(name: str) -> None:
    """float32, what CPU tensors run by default."""
    entry = ENTRIES[name]
    close(entry, entry.compared(backend="native", dtype=torch.float32), torch.float32)


@pytest.mark.parametrize("name", NAMES)
def test_eager(name: str) -> None:
    """In the authority's own precision: where that is float64 nothing hides in rounding."""
    entry = ENTRIES[name]
    dtype = entry.trial().dtype
    close(entry, entry.compared(backend="eager", dtype=dtype), dtype)


def test_a_wrong_spec_is_told() -> None:
    """One key too many in the window, a slope halved: neither passes for rounding."""
    wrong = {"sliding": {"w": 10}, "softcap": {"cap": 2.1}}
    for name, params in wrong.items():
        trial = ENTRIES[name].trial()
        compared = trial.run(ENTRIES[name].op(**params), backend="eager", dtype=trial.dtype)
        with pytest.raises(AssertionError, match=f"{name}: out"):
            close(ENTRIES[name], compared, trial.dtype)


def test_the_gallery_is_up_to_date() -> None:
    """All but the digits of the errors, which tests above hold to the tolerance."""
    text = (DOCS / "gallery.md").read_text(encoding="utf-8")
    found = printed()
    assert sorted(found) == NAMES, "run python -m tests.zoo --gallery"
    assert all(float(x) < 1e-4 for pair in found.values() for x in pair)
    made, pictures = page(found)
    assert made == text, "run python -m tests.zoo --gallery"
    drawn = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "gallery").glob("*.svg")}
    assert drawn == pictures, "run python -m tests.zoo --gallery"


def test_notes_are_read() -> None:
    made = note("# A thing.\n# Paper: Who,\n#   2020.\n# Equation: a = b.\n# Cost: none.\nattention a {}\n")
    assert (made.summary, made.paper, made.equation, made.cost) == ("A thing.", "Who, 2020.", "a = b.", "none.")
    with pytest.raises(ValueError, match="expected a sentence, then Paper:"):
        note("# A thing.\n# Paper: Who, 2020.\nattention a {}\n")

"""Goldens: a stage's text for an example, kept in tests/goldens/<name>.<stage> and compared byte for byte.

``pytest --update-golden`` rewrites them. Which goldens must exist follows from ``examples/zoo/*.attn``, so that one
whose example or construct is gone is found (tests/project/test_goldens.py). What every module holds alike, the C++ that
no spec changes and the builder of native code, is one line in a golden that says where it stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from attnc.codegen.native.embed import builder
from attnc.dsl.parse import parse
from attnc.dsl.source import Source

ROOT = Path(__file__).resolve().parents[1]
GOLDENS = ROOT / "tests" / "goldens"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One stage of an example: of the file for ``ast``, of one construct for the others."""

    example: Path
    construct: str | None
    stage: str

    @property
    def path(self) -> Path:
        return GOLDENS / f"{self.construct or self.example.stem}.{self.stage}"


# Whose emitted module is kept whole: intervals and a loop of each kind, gradients of inputs, several maps, several
# passes with residue classes.
EMITTED = ("alibi", "differential", "longformer", "sinks", "sparse_strided")


def cases() -> Iterator[Case]:
    """Every stage of every example but the last, which is kept for a few: a thousand lines each."""
    for example in sorted((ROOT / "examples" / "zoo").glob("*.attn")):
        yield Case(example=example, construct=None, stage="ast")
        parsed = parse(Source(name=example.name, text=example.read_text(encoding="utf-8")))
        for construct in parsed.constructs:
            for stage in ("ir", "plan", "py") if construct.name.text in EMITTED else ("ir", "plan"):
                yield Case(example=example, construct=construct.name.text, stage=stage)


@cache
def _alike() -> dict[str, str]:
    """Where the texts stand that every module holds alike."""
    folder = ROOT / "codegen" / "templates" / "native"
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.cpp.j2"))}
    constant = {name: text for name, text in texts.items() if "{{ " not in text and "{% " not in text}
    places = {f"codegen/templates/native/{name}": text for name, text in constant.items()}
    return {"codegen/native/build.py": builder()} | places


def compare(path: Path, text: str, *, update: bool) -> None:
    """The golden says ``text``; with ``update`` it is made to."""
    if path.suffix == ".py":
        for place, constant in _alike().items():
            text = text.replace(constant.strip("\n"), f"<{place}>")
    if update:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"no golden {path.relative_to(ROOT)}: run pytest --update-golden"
    assert text == path.read_text(encoding="utf-8"), f"{path.relative_to(ROOT)} differs: pytest --update-golden"

"""The folder that lets mypy and import-linter follow the mapped packages stands for every file of the front door."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_typing_folder_names_everything() -> None:
    linked = {path.name: path.resolve() for path in (ROOT / "tests" / "_typing" / "attnc").iterdir()}
    expected = {room: ROOT / room for room in ("dsl", "codegen", "runtime")}
    expected |= {path.name: path for path in (ROOT / "attnc").iterdir() if path.name != "__pycache__"}
    linked.pop("__pycache__", None)
    assert linked == expected

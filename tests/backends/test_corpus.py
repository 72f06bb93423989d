"""Calls that once failed, made again: ``attnc fuzz --replay tests/corpus``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attnc.cli import main

CORPUS = Path(__file__).resolve().parents[1] / "corpus"


def test_each_says_what_was_wrong() -> None:
    for path in CORPUS.glob("*.json"):
        assert json.loads(path.read_text(encoding="utf-8"))["was"].endswith("."), path


def test_past_failures_are_mended(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["fuzz", "--replay", str(CORPUS)])
    told = capsys.readouterr().out
    assert status == 0, told
    assert told.count("equal to the reference") == len(list(CORPUS.glob("*.json"))) > 0

"""Every stage of every example against its golden, through the command line; no golden without an example."""

from __future__ import annotations

import pytest

from attnc.cli import main
from tests.golden import GOLDENS, Case, cases, compare


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.path.name)
def test_stage(
    case: Case, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    monkeypatch.chdir(case.example.parent)  # the name in a generated header is then the same everywhere
    name = ["--name", case.construct] if case.construct is not None else []
    status = main(["compile", case.example.name, "--emit", case.stage, *name])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    compare(case.path, captured.out, update=pytestconfig.getoption("--update-golden"))


def test_no_golden_is_orphaned(pytestconfig: pytest.Config) -> None:
    orphans = set(GOLDENS.glob("*")) - {case.path for case in cases()}
    if pytestconfig.getoption("--update-golden"):
        for path in orphans:
            path.unlink()
    else:
        assert orphans == set()

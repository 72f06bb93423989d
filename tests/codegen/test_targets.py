"""The table of targets: every number with its source, a user's own beside it, faults told by their place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from attnc.codegen.lower import lower
from attnc.codegen.plan import plan
from attnc.codegen.planner.targets import FAMILY, GENERIC, Gpu, TargetError, targets
from attnc.dsl.frontend import compilable, compile_text
from attnc.dsl.source import Source

ROOT = Path(__file__).parents[2]
DATA = ROOT / "codegen" / "data"
ALL = targets().names
TEXT = (ROOT / "examples" / "zoo" / "causal.attn").read_text()
CAUSAL = lower(compilable(compile_text(Source(name="<text>", text=TEXT), {})))


def test_every_number_has_its_source() -> None:
    text = (DATA / "targets.toml").read_text()
    tags = set(targets().sources)
    for line in text[text.index("[architecture") :].splitlines():
        if "=" not in line.split("#")[0] or line.startswith(("title", "architecture", "matrix", "[")):
            continue
        comment = line.partition("#")[2]
        words = set(re.findall(r"[a-z][a-z0-9-]+", comment))
        assert words & tags or "the example" in comment or "channels" in comment, f"no source: {line}"


def test_what_the_issue_names_is_there() -> None:
    products = {"a100", "l4", "rtx4090", "h100", "h200", "b200", "rtx5090", "mi300x", "t4", "avx2", "avx512"}
    assert products | {GENERIC, "sm_75", "sm_80", "sm_89", "sm_90", "sm_100", "sm_120", "gfx942"} <= set(ALL)
    assert targets().find("h100").tflops("bf16") == pytest.approx(989.4, rel=1e-3)
    assert targets().find("mi300x").tflops("bf16") == pytest.approx(1307.4, rel=1e-3)
    assert targets().find("b200").tflops("bf16") == pytest.approx(2250, rel=5e-3)


def test_an_architecture_is_the_least_of_its_products() -> None:
    known = targets()
    family, h100, h200 = (known.find(name) for name in ("sm_90", "h100", "h200"))
    assert isinstance(family, Gpu) and isinstance(h100, Gpu) and isinstance(h200, Gpu)
    assert family.bandwidth_gbs == min(h100.bandwidth_gbs, h200.bandwidth_gbs) == 3350
    assert {gpu.architecture for gpu in known.members(GENERIC)} == set(FAMILY)


MINE = """
[target.mine]
architecture = "sm_90"
sms = 100
clock_ghz = 1.5
l2 = 30000000
bandwidth_gbs = 2000
memory_gib = 48
shared_block = 100000
"""


def test_a_user_adds_a_target(tmp_path: Path) -> None:
    (tmp_path / "more.toml").write_text(MINE)
    known = targets(tmp_path / "more.toml")
    found = known.find("mine")
    assert isinstance(found, Gpu) and found.shared_block == 100000 and found.matrix == "wgmma"
    for row in plan(CAUSAL, "mine", known).rows:
        assert row.choice is None or row.choice.budget.shared_bytes <= 100000
    with pytest.raises(TargetError, match="unknown target 'mine'; known are generic"):
        targets().find("mine")


def test_the_users_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "attnc").mkdir()
    (tmp_path / "attnc" / "targets.toml").write_text(MINE)
    assert "mine" in targets().names
    assert plan(CAUSAL, "mine").machine.name == "mine"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[target.x]\nsms = 1", "architecture: None is not known; known are sm_75"),
        (MINE.replace("sms = 100", 'sms = "many"'), "`sms` is a whole number, positive, not 'many'"),
        (MINE.replace("sms = 100", "sms = 0"), "`sms` is a whole number, positive, not 0"),
        (MINE.replace("sms = 100\n", ""), "lacks `sms`"),
        (MINE + "cores = 3", "`cores` is not known; known are"),
        (MINE + "tensor = { bf16 = 1 }", "`tensor` gives a positive rate for each of f16, bf16, f32, f64"),
        (MINE + "clock_ghz = 2", "Cannot overwrite a value"),
        (MINE.replace("mine", "sm_90"), "'sm_90' names an architecture"),
        ("[gpu.x]", r"\[gpu\] is no table of targets"),
        ("[cpu.x]\nlanes = 8", "lacks `fma_units`"),
        ("target = 3", r"write \[target.NAME\]"),
    ],
)
def test_a_faulty_table_says_where(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(TargetError, match=f"bad.toml.*{says}"):
        targets(tmp_path / "bad.toml")


def test_no_tile_is_an_error_of_the_call(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(MINE.replace("shared_block = 100000", "shared_block = 20000"))
    known = targets(tmp_path / "small.toml")
    assert plan(CAUSAL, "mine", known).row("query", "f32", 1024).choice is None

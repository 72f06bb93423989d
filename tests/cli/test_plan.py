"""plan with a shape, and targets: text, JSON, users' tables, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attnc.cli import main

Capture = pytest.CaptureFixture[str]
SPEC = "attention local {\n  param w: int\n  score dot(q, k)\n  mask abs(i - j) <= w\n  normalize softmax\n}\n"
PLAN = ["plan", "local.attn", "--param", "w=4"]
MINE = '[target.mine]\narchitecture = "sm_90"\nsms = 9\nclock_ghz = 1\nl2 = 1\nbandwidth_gbs = 100\nmemory_gib = 1\n'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("local.attn").write_text(SPEC)
    Path("dense.attn").write_text("attention dense { score dot(q, k)  normalize softmax }")
    Path("mine.toml").write_text(MINE)


def test_a_shape_is_priced(capsys: Capture) -> None:
    assert main([*PLAN, "--target", "h100", "--shape", "B=2,H=8,G=2,N=1024,D=96", "--dtype", "f16"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("local for h100 (NVIDIA H100 SXM), f16, B=2 H=8 G=2 N=1024 M=1024 D=96 E=96\n")
    for says in (
        "bytes of 232,448 a block",
        "keys and values x",
        "of 255 a thread",
        "an SM (limit: ",
        "empty, not visited (exact)",
        "FLOP executed",
        "roofline:",
        "computed as 64 + 32, ",
        "KV cache of a layer: 768 bytes a token, 1.57 MB for B=2, M=1,024",
        "By the model, not run",
        "--verify compiles this one",
    ):
        assert says in text, says


def test_json_has_all_of_it(capsys: Capture) -> None:
    assert main([*PLAN, "--target", "mi300x", "--shape", "H=8,N=512,D=64", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["shape"] == {"B": 1, "H": 8, "G": 8, "N": 512, "M": 512, "D": 64, "E": 64}
    assert found["target"]["sms"] == 304 and found["target"]["tensor"]["bf16"] == 1024 and not found["verified"]
    assert [kernel["pass"] for kernel in found["kernels"]] == ["forward", "query", "key"]
    for kernel in found["kernels"]:
        lines = kernel["model"]["shared"]
        assert sum(line["amount"] for line in lines) == kernel["model"]["shared_bytes"] <= 65536
        assert kernel["tiles"]["exact"] and kernel["flop"]["useful"] <= kernel["flop"]["executed"]
    assert found["kv_cache"] == {"bytes_a_token": 8 * 128 * 2, "bytes": 8 * 128 * 2 * 512}


def test_programs_that_share_keys_are_told(capsys: Capture) -> None:
    shape = ["--target", "h100", "--shape", "H=8,N=1,M=65536,D=64"]
    assert main(["plan", "dense.attn", *shape]) == 0
    assert "128, 16 share a query's keys, merged in PyTorch; " in capsys.readouterr().out
    assert main(["plan", "dense.attn", *shape, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)["kernels"]
    assert found[0]["launches"] == [{"programs": 128, "splits": 16}]
    assert all(launch["splits"] == 1 for kernel in found[1:] for launch in kernel["launches"])


def test_a_processor(capsys: Capture) -> None:
    assert main([*PLAN, "--target", "avx2", "--shape", "H=8,N=512,D=64"]) == 0
    assert "on a processor the blocked PyTorch code runs" in capsys.readouterr().out


def test_targets_are_listed(capsys: Capture) -> None:
    assert main(["targets", "--targets", "mine.toml"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n{name} " in text for name in ("generic", "h100", "sm_90", "mi300x", "avx512", "mine"))
    assert main(["targets", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["targets"]["h100"]["bandwidth_gbs"] == 3350 and "h100" in found["sources"]


def test_a_users_table_serves_plan_and_compile(capsys: Capture) -> None:
    assert main([*PLAN, "--target", "mine", "--targets", "mine.toml", "--shape", "H=1,N=64,D=64"]) == 0
    assert main(["compile", *PLAN[1:], "--target", "mine", "--targets", "mine.toml"]) == 0
    assert "for mine; spec" in capsys.readouterr().out
    assert main(["compile", *PLAN[1:], "--target", "mine"]) == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--shape", "N=4,D=16"], "--shape lacks H"),
        (["--shape", "H=4,N=4,D=16,Q=2"], "--shape: `Q=2` is no size"),
        (["--shape", "H=4,N=4,D=16,H=2"], "--shape: `H` is given twice"),
        (["--shape", "H=4,N=-4,D=16"], "--shape: N is `-4`, which is no whole number"),
        (["--shape", "H=4,G=3,N=4,D=16"], "--shape: H = 4 query heads are no multiple of G = 3"),
        (["--shape", "H=4,N=4,D=16", "--target", "generic"], "--shape is priced for one target"),
        (["--verify"], "need a --shape"),
        (["--target", "h1000"], "--target: unknown target 'h1000'; known are generic, sm_75"),
        (["--targets", "local.attn"], "targets: local.attn: "),
        (["--targets", "none.toml"], "none.toml: No such file or directory"),
    ],
)
def test_what_is_refused(options: list[str], says: str, capsys: Capture) -> None:
    assert main([*PLAN, "--target", "h100", *options]) == 2
    assert says in capsys.readouterr().err


def test_a_window_beyond_the_length_of_the_shape_is_told(capsys: Capture) -> None:
    assert main([*PLAN, "--target", "h100", "--shape", "H=8,N=5,D=64"]) == 0
    assert "holds for every pair, at w = 4, N = 5, M = 5" in capsys.readouterr().err
    assert main([*PLAN, "--target", "h100", "--shape", "H=8,N=6,D=64"]) == 0
    assert capsys.readouterr().err == ""

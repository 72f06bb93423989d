"""The programs in examples/ run, and find what they promise to find; they assert it themselves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(cache: Path, program: str, *arguments: str) -> tuple[str, str]:
    """Standard output and standard error of a program that exits with 0."""
    command = [sys.executable, EXAMPLES / program, *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"ATTNC_CACHE_DIR": str(cache), "PYTHONUTF8": "1"}
    environment["OMP_NUM_THREADS"] = "1"  # threads of tests side by side would wait for each other
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return done.stdout, done.stderr


def test_minilm(tmp_path: Path) -> None:
    """Embeddings, neighbours and losses through the op are those of transformers' attention."""
    out, progress = run(tmp_path, "minilm.py", "--steps", "2")
    apart = re.search(r"embeddings differ by at most (\S+) before and (\S+) after tuning, losses by (\S+)", out)
    assert apart and all(float(value) <= 1e-5 for value in apart.groups())
    assert "34 of 34 sentences have the one that means the same nearest" in out
    assert "the same for all 34" in out
    assert "2/2" in progress


def test_train_char(tmp_path: Path) -> None:
    out, progress = run(tmp_path, "train_char.py", "--steps", "40")
    found = re.search(r"bits a character: (\S+) in the first 4 steps, (\S+) in the last 4", out)
    assert found and float(found[2]) < float(found[1]) - 1
    assert re.search(r"a step: \S+ ms, through scaled_dot_product_attention with a dense mask \S+ ms", out)
    assert "40/40" in progress

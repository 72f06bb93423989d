"""Emitted kernels compile to machine code for GPUs that are not here: every example, and every target. What runs on no
GPU is not called run; the kernels' results are tested in Triton's interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# Each costs 5 to 10 s. Specs that came to the zoo later bring the compiler no mechanism that these lack.
EXAMPLES = (
    "alibi", "bigbird", "block_local", "causal", "dense", "differential", "dilated", "document", "gqa", "linear",
    "linformer", "longformer", "native_sparse", "padded", "performer", "prefix_lm", "qk_norm", "retention", "rope",
    "sigmoid", "sinks", "sliding", "softcap", "sparse_fixed", "sparse_strided", "streaming", "t5_bias",
)  # fmt: skip
TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
SHARED = {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "sm_100": 227 * 1024, "gfx942": 64 * 1024}

# Every example once, targets in turn; every target; float32, and head dims that are no power of two or large.
JOBS = [f"{TARGETS[number % 4]}:bf16:64:{example}" for number, example in enumerate(EXAMPLES)]
JOBS += ["sm_100:bf16:128:causal", "gfx942:bf16:128:causal"]
JOBS += ["sm_90:bf16:96:alibi", "sm_80:f32:64:sigmoid", "gfx942:f16:96:sliding"]


def compiled() -> dict[str, dict[str, Any]]:
    """The results of all jobs, from two processes without TRITON_INTERPRET."""
    env = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    paths = [str(ROOT / "tests" / "_typing"), str(ROOT)]
    env["PYTHONPATH"] = os.pathsep.join(paths)
    command = [sys.executable, "-P", "-m", "tests.backends.aot_worker"]
    running = [
        subprocess.Popen([*command, *JOBS[part::2]], env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for part in range(2)
    ]
    found: dict[str, dict[str, Any]] = {}
    for process in running:
        text, _ = process.communicate(timeout=900)
        assert process.returncode == 0
        for line in text.splitlines():
            made = json.loads(line)
            found[made["job"]] = made
    return found


def test_every_kernel_compiles() -> None:
    """One test, so that a parallel run compiles everything once."""
    found = compiled()
    assert sorted(found) == sorted(JOBS)
    assert {job: made["error"] for job, made in found.items() if "error" in made} == {}
    for job, made in found.items():
        names = [kernel["kernel"] for kernel in made["kernels"]]
        for step in ("forward", "query", "key"):
            assert any(f"_{step}_kernel" in name for name in names), (job, names)
        for kernel in made["kernels"]:
            assert kernel["magic"] == "7f454c46", "an ELF file, as cubin and hsaco are"
            assert kernel["shared"] <= SHARED[job.split(":")[0]], (job, kernel)

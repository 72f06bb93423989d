"""Scores with tanh: NVIDIA's instruction for 16-bit vectors, and for nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json
from attnc.dsl.frontend import compile_text
from attnc.dsl.source import Source
from attnc.runtime.aot import compile_kernels
spec = "attention spec { score 5 * tanh(dot(q, k) / 5)  normalize softmax }"
construct = compile_text(Source(name="spec.attn", text=spec), {})
found = {}
for target, dtype in (("sm_90", "bf16"), ("sm_90", "f32"), ("gfx942", "bf16")):
    (made,) = compile_kernels(construct, target, dtype, 16, passes=("forward",))
    found[f"{target} {dtype}"] = "tanh.approx.f32" in made.texts["ptx" if target == "sm_90" else "amdgcn"]
print(json.dumps(found))
"""


def test_hardware_tanh() -> None:
    env = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    env["PYTHONPATH"] = os.pathsep.join((str(ROOT / "tests" / "_typing"), str(ROOT)))
    made = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=env, cwd="/", capture_output=True, text=True, timeout=300
    )
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout) == {"sm_90 bf16": True, "sm_90 f32": False, "gfx942 bf16": False}

"""Compiles examples' kernels to machine code and prints a line of JSON for each: run in a process of its own, without
TRITON_INTERPRET. Arguments: target:dtype:dim:example ..."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path


def main(jobs: list[str]) -> None:
    from attnc.dsl.frontend import compile_text
    from attnc.dsl.source import Source
    from attnc.runtime.aot import compile_kernels

    for job in jobs:
        target, dtype, dim, example = job.split(":")
        path = Path(__file__).parents[2] / "examples" / "zoo" / f"{example}.attn"
        start = time.perf_counter()
        try:
            construct = compile_text(Source(name=path.name, text=path.read_text()), {})
            found = [
                {"kernel": made.kernel, "size": len(made.binary), "magic": made.binary[:4].hex(), "shared": made.shared}
                for made in compile_kernels(construct, target, dtype, int(dim))
            ]
            print(json.dumps({"job": job, "kernels": found, "seconds": time.perf_counter() - start}), flush=True)
        except Exception as error:  # reported to the test, which fails by name
            print(json.dumps({"job": job, "error": f"{type(error).__name__}: {error}"}), flush=True)


if __name__ == "__main__":
    os.environ.pop("TRITON_INTERPRET", None)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        main(sys.argv[1:])

"""How long a spec takes to become source, and a compiled one to load: medians over fresh processes.

    python benchmarks/frontend.py [--runs 7] [FILE.attn ...]

    imports   the compiler's modules, with their bytecode at hand, as where a package is installed
    cold      text to source on a machine that never ran attnc: grammar tables and templates are made, and kept
    tables    text to source with those at hand
    load      after torch is imported: import attnc and load a spec that was compiled before

Each cell is milliseconds of processor time / of wall clock; where they differ, the machine was busy.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "zoo"

CLOCK = """
import json, sys, time
from pathlib import Path
def now(): return time.process_time() * 1e3, time.perf_counter() * 1e3
def since(start): return [after - before for before, after in zip(start, now())]
"""
COMPILE = f"""{CLOCK}
start = now()
from attnc.codegen.pipeline import compile
from attnc.dsl.frontend import compile_text
from attnc.dsl.source import Source
imports, start = since(start), now()
compile(compile_text(Source(name=sys.argv[1], text=Path(sys.argv[1]).read_text(encoding="utf-8")), {{}}))
print(json.dumps({{"imports": imports, "compile": since(start)}}))
"""
LOAD = f"""{CLOCK}
import torch
start = now()
import attnc
attnc.load(sys.argv[1])
print(json.dumps({{"load": since(start)}}))
"""

Times = tuple[float, float]  # processor, wall clock


def run(program: str, path: Path, folder: Path, store: Path) -> Mapping[str, Times]:
    """What one fresh process measured. Bytecode lies in ``folder``, attnc's files in ``store``."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder / "bytecode"), "ATTNC_CACHE_DIR": str(store)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Times] = json.loads(done.stdout)
    return found


def cell(times: list[Times]) -> str:
    return " / ".join(f"{median(column):5.0f}" for column in zip(*times, strict=True))


def measure(path: Path, runs: int, folder: Path, torch: bool) -> dict[str, str]:
    store = folder / "store"
    run(COMPILE, path, folder, store)  # bytecode and tables for the others
    warm = [run(COMPILE, path, folder, store) for _ in range(runs)]
    cold = [run(COMPILE, path, folder, folder / f"cold-{path.stem}-{number}") for number in range(runs)]
    row = {
        "imports": cell([item["imports"] for item in (*warm, *cold)]),
        "cold": cell([item["compile"] for item in cold]),
        "tables": cell([item["compile"] for item in warm]),
    }
    if torch:
        run(LOAD, path, folder, store)  # compiles it
        row["load"] = cell([run(LOAD, path, folder, store)["load"] for _ in range(runs)])
    return row


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("attnc", "lark", "jinja2", "torch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def processor() -> str:
    """The processor's name, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=sorted(EXAMPLES.glob("*.attn")))
    parser.add_argument("--runs", type=int, default=7, help="processes for each cell (7)")
    options = parser.parse_args()
    found = versions()
    print(f"{processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}")
    print(", ".join(f"{name} {number}" for name, number in found.items()) + f"; medians of {options.runs} processes")
    if hasattr(os, "getloadavg"):
        print(f"load average before: {os.getloadavg()[0]:.1f}")
    columns = ("imports", "cold", "tables", *(["load"] if found["torch"] != "none" else []))
    print(f"\n{'ms, processor / wall':20}" + "".join(f"{name:>16}" for name in columns))
    with tempfile.TemporaryDirectory() as folder:
        for path in options.files:
            row = measure(path, options.runs, Path(folder), "load" in columns)
            print(f"{path.stem:20}" + "".join(f"{row[name]:>16}" for name in columns), flush=True)


if __name__ == "__main__":
    main()

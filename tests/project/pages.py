"""Pages whose blocks are run: specs under their names, commands that print what follows them, Python as a program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def blocks(page: Path) -> list[tuple[str, str]]:
    """``(language, text)`` of each fenced block, in order."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def run(*command: str, cwd: Path) -> str:
    """What a command prints, in this environment: its programs first."""
    environment = os.environ | {
        "PATH": f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}",
        "ATTNC_CACHE_DIR": str(cwd / "cache"),
    }
    for name in ("TRITON_INTERPRET", "MAKELEVEL", "MAKEFLAGS", "MFLAGS", "VENV"):  # as in a reader's shell
        environment.pop(name, None)
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}"
    return done.stdout


def run_blocks(found: list[tuple[str, str]], folder: Path) -> None:
    """Save the specs; run the commands in order, comparing what they print if it follows; then Python, as a program."""
    for language, text in found:
        if language == "attn":
            name = re.findall(r"^(?:attention|recurrence) (\w+)", text, flags=re.MULTILINE)[0]
            (folder / f"{name}.attn").write_text(text, encoding="utf-8")
            run("attnc", "fmt", "--check", f"{name}.attn", cwd=folder)
            run("attnc", "compile", f"{name}.attn", "-o", "compiled.py", cwd=folder)
    for (language, text), (following, picture) in pairwise([*found, ("", "")]):
        if language == "bash":
            lines = [line for line in text.splitlines() if not line.startswith("make test")]  # it runs this very test
            printed = run("bash", "-euc", "\n".join(lines), cwd=folder)
            if following == "text":
                assert printed == picture
    run(sys.executable, "-c", "\n".join(text for language, text in found if language == "python"), cwd=folder)


def broken_links(page: Path) -> list[str]:
    """Links of a page to files that are not there."""
    prose = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", prose)
    return [target for target in targets if "://" not in target and not (page.parent / target).exists()]

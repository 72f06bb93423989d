"""The zoo's table: python -m tests.zoo [NAME ...]; its page: python -m tests.zoo --gallery [NAME ...]; attnc fuzz of
all of it: python -m tests.zoo [NAME ...] --fuzz OPTIONS."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from attnc import cli
from tests.zoo.entries import ENTRIES
from tests.zoo.gallery import cost, errors, page, percent

DOCS = Path(__file__).resolve().parents[2] / "docs"
ROW = "{:<18} {:>5} {:>8} {:>8} {:>9} {:>9}  {}"


def table(names: list[str]) -> None:
    print(ROW.format("mechanism", "lines", "cost", "live", "forward", "gradient", "authority"))
    for name in names:
        entry = ENTRIES[name]
        price = cost(entry)
        forward, gradient = errors(entry)
        print(
            ROW.format(
                name, entry.lines, percent(price.tiles), percent(price.pairs), forward, gradient, entry.authority
            ),
            flush=True,
        )


def printed() -> dict[str, tuple[str, str]]:
    """The errors that the page has now, by entry."""
    text = (DOCS / "gallery.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\w+)\]\(#\w+\) .* \| (\S+) \| (\S+) \|$", text, flags=re.M)
    return {name: (forward, gradient) for name, forward, gradient in rows}


def write(names: list[str]) -> None:
    """docs/gallery.md and the pictures in docs/gallery; pictures that no entry has any more are removed. Where names
    are given these alone are tried; other entries keep the errors that the page has."""
    kept = printed() if names else {}
    tried = {name: errors(ENTRIES[name]) for name in names or ENTRIES}
    text, pictures = page({**kept, **tried})
    (DOCS / "gallery.md").write_text(text, encoding="utf-8")
    folder = DOCS / "gallery"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.svg"):
        if old.name not in pictures:
            old.unlink()
    for name, drawn in pictures.items():
        (folder / name).write_text(drawn, encoding="utf-8")


def fuzz(names: list[str], options: list[str]) -> int:
    """Fuzz specs one after the other; the worst exit status."""
    worst = 0
    for name in names:
        print(f"{name}: ", end="", flush=True)
        worst = max(worst, cli.main(["fuzz", str(ENTRIES[name].path), *options]))
    return worst


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *ENTRIES], help="entries; all without", metavar="NAME")
    parser.add_argument("--gallery", action="store_true", help="write docs/gallery.md and its pictures")
    parser.add_argument(
        "--fuzz", nargs=argparse.REMAINDER, metavar="OPTION", help="attnc fuzz each, with these options"
    )
    args = parser.parse_args(argv)
    if args.fuzz is not None:
        return fuzz(args.names or list(ENTRIES), args.fuzz)
    if args.gallery:
        write(args.names)
    else:
        table(args.names or list(ENTRIES))
    return 0


if __name__ == "__main__":
    sys.exit(main())

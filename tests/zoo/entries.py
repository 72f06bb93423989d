"""All entries of the zoo, by name."""

from __future__ import annotations

from tests.zoo import heads, normalizations, patterns, scores
from tests.zoo.registry import Entry

GROUPS = {
    "Which keys": patterns,
    "Scores": scores,
    "Normalizations": normalizations,
    "Heads and branches": heads,
}
"""Modules under the gallery's headings. A module's entries are in the order in which they are written."""


def grouped() -> dict[str, list[Entry]]:
    return {title: [x for x in vars(module).values() if isinstance(x, Entry)] for title, module in GROUPS.items()}


ENTRIES = {entry.name: entry for group in grouped().values() for entry in group}

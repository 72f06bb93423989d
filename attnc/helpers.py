"""What users of specs compute beside them: slopes of ALiBi, features of Performer, buckets of Reformer, blocks of NSA
and MoBA, ancestors in a tree of guesses, evictions of H2O, and the merge of results over parts of the keys."""

from __future__ import annotations

from attnc.runtime.helpers import (
    Selected,
    alibi_slopes,
    heavy_hitters,
    lsh_order,
    merge,
    moba_blocks,
    nsa_blocks,
    orthogonal_features,
    tree_ancestors,
)

__all__ = [
    "Selected",
    "alibi_slopes",
    "heavy_hitters",
    "lsh_order",
    "merge",
    "moba_blocks",
    "nsa_blocks",
    "orthogonal_features",
    "tree_ancestors",
]

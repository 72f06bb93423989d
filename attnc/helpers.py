"""What users of specs compute beside them: slopes of ALiBi, buckets of Reformer, blocks of NSA, evictions of H2O."""

from __future__ import annotations

from attnc.runtime.helpers import alibi_slopes

__all__ = ["alibi_slopes"]

"""Moved: attnc.testing.tolerance."""

from attnc.testing.tolerance import assert_close, tolerance, unit_roundoff

__all__ = ["assert_close", "tolerance", "unit_roundoff"]

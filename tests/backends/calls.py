"""Moved: attnc.testing.call."""

from attnc.testing.call import Call, check, cotangents, make, outcome, terms, vector_shapes

__all__ = ["Call", "check", "cotangents", "make", "outcome", "terms", "vector_shapes"]

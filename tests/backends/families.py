"""Moved: attnc.testing.family."""

from attnc.testing.family import Family, Shape, calls, families, shapes

__all__ = ["Family", "Shape", "calls", "families", "shapes"]

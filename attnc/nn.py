"""Layers around ops."""

from __future__ import annotations

from attnc.runtime.nn import Attention

__all__ = ["Attention"]

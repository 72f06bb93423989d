"""Specs as attention implementations of Hugging Face transformers: ``register(name, spec, **params)``."""

from __future__ import annotations

try:
    from attnc.runtime.transformers import register
except ImportError as error:
    raise ImportError("attnc.integrations needs transformers >= 5.4: pip install 'attnc[transformers]'") from error

__all__ = ["register"]

"""Specs as attention implementations of Hugging Face transformers: ``register(name, spec, **params)``, then
``set_attn_implementation(model, name)``."""

from __future__ import annotations

try:
    from attnc.runtime.adapters import set_attn_implementation
    from attnc.runtime.transformers import register
except ImportError as error:
    raise ImportError("attnc.integrations needs transformers >= 5.4: pip install 'attnc[transformers]'") from error

__all__ = ["register", "set_attn_implementation"]

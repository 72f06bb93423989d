"""``import attnc.importer`` makes ``.attn`` files importable: ``import specs.longformer``."""

from __future__ import annotations

from attnc.runtime.importer import install

install()

"""The checker's codes (A1xx names, A2xx types and shapes, A3xx params, A4xx clauses, A5xx not compiled, W0xx)."""

from __future__ import annotations

from attnc.dsl.code import Code

CHECK: tuple[Code, ...] = ()

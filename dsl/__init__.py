"""The language: text -> AST -> typed IR. Knows nothing of torch, triton or jinja."""

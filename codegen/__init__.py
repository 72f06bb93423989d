"""The compiler: typed IR -> analysis -> plan -> source text. Knows nothing of torch; runs without a GPU."""

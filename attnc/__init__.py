"""attnc: a compiler from attention specs to fused kernels."""

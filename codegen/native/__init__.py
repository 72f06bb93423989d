"""C++ for CPU tensors: what it is printed from, and how a generated module builds it."""

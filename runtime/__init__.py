"""The runtime: source text -> loaded op -> autograd and dispatch, and the dense reference."""

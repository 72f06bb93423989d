"""What attnc does, on one page: compile a spec, run it forward and backward, compare with the definition.

The input is real if small: the characters of this repository's README through an embedding and three projections
with fixed random weights. Exits with an error if the op and its reference differ by more than rounding.
"""

from __future__ import annotations

from pathlib import Path

import torch

import attnc
from attnc.show import live, terminal

HERE = Path(__file__).parent
N, HEADS, DIM = 512, 4, 64


def main() -> None:
    torch.manual_seed(0)
    op = attnc.load(HERE / "zoo" / "longformer.attn", w=48, g=16)
    print(f"{op}\n{len(op.source().splitlines())} lines of Python were generated for {op!r}\n")

    letters = torch.tensor(list((HERE.parent / "README.md").read_bytes()[:N]))
    tokens = torch.nn.Embedding(256, HEADS * DIM)(letters)
    projected = torch.nn.Linear(HEADS * DIM, 3 * HEADS * DIM)(tokens)
    q, k, v = (part.reshape(1, N, HEADS, DIM).transpose(1, 2).detach() for part in projected.chunk(3, dim=-1))

    mine = [x.clone().requires_grad_() for x in (q, k, v)]
    out = op(*mine)
    cotangent = torch.randn_like(out)
    out.backward(cotangent)

    exact = [x.double().requires_grad_() for x in (q, k, v)]
    expected = op.reference(*exact, dtype=torch.float64)
    expected.backward(cotangent.double())

    print(f"q, k, v: {N} characters of README.md, {HEADS} heads of {DIM}, float32")
    print("largest difference from the dense reference in float64:")
    pairs = [("out", out, expected), *((f"d{n}", x.grad, y.grad) for n, x, y in zip("qkv", mine, exact, strict=True))]
    for name, got, wanted in pairs:
        error, scale = (got - wanted).abs().max().item(), wanted.abs().max().item()
        print(f"  {name:3}  {error:.1e}   of values up to {scale:.2f}")
        torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-5)

    rows = op.mask(N)[0, 0].tolist()
    print(f"\nthe mask, queries down, keys across: {100 * live(rows) / N**2:.0f}% of {N} x {N} pairs are live")
    print(terminal(rows, columns=66))


if __name__ == "__main__":
    main()

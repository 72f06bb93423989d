"""Train a tiny language model of characters from scratch, its attention a causal sliding window compiled from a spec.

The text is this repository's README, small enough to learn by heart. The loss, in bits a character, must fall (an
AssertionError otherwise); below the entropy of the characters' frequencies the model has learned to read. At the end
it writes a line, and says how long a step takes, beside one through PyTorch's attention with a dense mask.

    python examples/train_char.py [--steps 500]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from progress import Progress
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

import attnc
from attnc.nn import Attention

HERE = Path(__file__).parent
LENGTH, BATCH, WINDOW = 96, 6, 24
DIM, HEADS, LAYERS = 64, 2, 2


class Block(nn.Module):
    """Attention and a two-layer network, each after a norm and added to what came in."""

    def __init__(self, op: attnc.Op) -> None:
        super().__init__()
        self.attention = Attention(op, DIM, HEADS)
        self.before = nn.LayerNorm(DIM)
        self.network = nn.Sequential(nn.LayerNorm(DIM), nn.Linear(DIM, 4 * DIM), nn.GELU(), nn.Linear(4 * DIM, DIM))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.before(x))
        added: Tensor = self.network(x)
        return x + added


class Model(nn.Module):
    """Characters [B, N] to logits of the next ones [B, N, letters]."""

    def __init__(self, op: attnc.Op, letters: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(letters, DIM)
        self.place = nn.Parameter(torch.zeros(LENGTH, DIM))
        self.blocks = nn.Sequential(*(Block(op) for _ in range(LAYERS)))
        self.read = nn.Sequential(nn.LayerNorm(DIM), nn.Linear(DIM, letters))

    def forward(self, letters: Tensor) -> Tensor:
        x = self.embedding(letters) + self.place[: letters.shape[1]]
        logits: Tensor = self.read(self.blocks(x))
        return logits


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=500)
    steps = parser.parse_args().steps

    torch.manual_seed(0)
    torch.set_num_threads(1)  # tensors this small cost more to share out than to compute
    text = (HERE.parent / "README.md").read_text(encoding="utf-8")
    alphabet = sorted(set(text))
    data = torch.tensor([alphabet.index(letter) for letter in text])
    frequencies = data.bincount() / len(data)
    entropy = -(frequencies * frequencies.log2()).sum().item()

    op = attnc.load(HERE / "zoo" / "sliding.attn", w=WINDOW)
    model = Model(op, len(alphabet))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    weights = sum(parameter.numel() for parameter in model.parameters())
    print(f"{len(text)} characters, {len(alphabet)} of them distinct: {entropy:.2f} bits each by frequency alone")
    print(f"{LAYERS} layers, {weights} weights, {op!r}")

    def trained() -> float:
        starts = torch.randint(len(data) - LENGTH, (BATCH, 1))
        rows = data[starts + torch.arange(LENGTH + 1)]
        loss = cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item() / math.log(2)

    losses = []
    progress = Progress("training", steps)
    for _ in range(steps):
        losses.append(trained())
        progress.advance(f"{losses[-1]:.2f} bits a character")

    tenth = max(1, steps // 10)
    first, last = (sum(part) / tenth for part in (losses[:tenth], losses[-tenth:]))
    print(f"bits a character: {first:.2f} in the first {tenth} steps, {last:.2f} in the last {tenth}")
    print(f"it writes: {continued(model, alphabet, data[: LENGTH // 2])!r}")
    assert last < first, "the loss did not fall"

    mask = op.mask(LENGTH)
    attentions: dict[str, Callable[..., Tensor]] = {
        "op": op,
        "dense": lambda q, k, v, **positions: scaled_dot_product_attention(q, k, v, mask),
    }
    times: dict[str, list[float]] = {name: [] for name in attentions}
    for _ in range(21):  # in turns: a machine that slows down slows both
        for name, attention in attentions.items():
            for block in model.blocks:
                block.attention.op = attention
            began = perf_counter()
            trained()
            times[name].append(perf_counter() - began)
    ours, theirs = (1e3 * median(found) for found in times.values())
    print(f"a step: {ours:.1f} ms, through scaled_dot_product_attention with a dense mask {theirs:.1f} ms")


@torch.no_grad()
def continued(model: Model, alphabet: list[str], prompt: Tensor) -> str:
    """What follows the prompt, the likeliest character each time."""
    letters = prompt[None]
    while letters.shape[1] < LENGTH:
        letters = torch.cat([letters, model(letters)[:, -1:].argmax(-1)], dim=1)
    return "".join(alphabet[letter] for letter in letters[0, len(prompt) :])


if __name__ == "__main__":
    main()

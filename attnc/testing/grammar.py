"""Hypothesis strategies that draw specs from the grammar; ``families`` draws calls of them.

Numbers stay sane by construction: scores of a few units, divisors away from zero. What a score does is otherwise free:
any input in any index shape, any function, masks of the library and raw predicates under and, or, not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

Draw = Callable[[st.SearchStrategy[Any]], Any]
Maker = Callable[[Mapping[str, int], torch.Generator], Tensor]  # an input, of a call's sizes


@dataclass
class Text:
    """A spec as it grows: its declarations, and how to make the inputs that are no plain floats."""

    draw: Draw
    declarations: dict[str, str] = field(default_factory=dict)
    makers: dict[str, Maker] = field(default_factory=dict)
    tables: int = 0
    bounded: bool = False  # every map reads keys below lens[b] only

    def number(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def one_of(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def given(self, name: str, declared: str, maker: Maker | None = None) -> str:
        self.declarations[name] = f"input {name}: {declared}"
        if maker is not None:
            self.makers[name] = maker
        return name


def _floats(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randint(-16, 17, shape, generator=generator).double() / 16


# --- inputs that are no plain floats ------------------------------------------------------------


def _marks(z: Mapping[str, int], generator: torch.Generator) -> Tensor:
    """None, few, many or all positions."""
    share = (0.0, 0.03, 0.3, 1.0)[_coin(generator, 4)]
    return torch.rand((z["B"], z["M"]), generator=generator) < share


def _documents(z: Mapping[str, int], generator: torch.Generator) -> Tensor:
    """Ids in runs of about nine or about two hundred tokens, one time in three in no order."""
    starts = torch.rand((z["B"], z["M"]), generator=generator) < (1 / 9, 1 / 200)[_coin(generator)]
    ids = starts.cumsum(1, dtype=torch.int32)
    return ids[:, torch.randperm(z["M"], generator=generator)] if _coin(generator, 3) == 0 else ids


def _lengths(z: Mapping[str, int], generator: torch.Generator) -> Tensor:
    return torch.randint(0, z["M"] + 1, (z["B"],), generator=generator)


def _coin(generator: torch.Generator, sides: int = 2) -> int:
    return int(torch.randint(0, sides, (), generator=generator))


# --- what a score is made of ------------------------------------------------------------------


def _bias(text: Text) -> str:
    """An input, read in one of the ways that inputs are read."""
    r = text.number(1, 6)
    width = text.number(1, 9)
    shapes = {
        "scalar": ("f32", ""),
        "slope": ("f32[H]", "[h]"),
        "batch": ("f32[B]", "[b]"),
        "row": ("f32[B, H, N]", "[b, h, i]"),
        "rowonly": ("f32[N]", "[i]"),
        "column": ("f32[B, M]", "[b, j]"),
        "keyhead": ("f32[B, H, M]", "[b, h, j]"),
        "pair": ("f32[B, H, N, M]", "[b, h, i, j]"),
        "pairwise": ("f32[N, M]", "[i, j]"),
        "relative": ("f32[H, 2 * M]", "[h, i - j + M]"),
        "near": (f"f32[{2 * r + 1}, H]", f"[clamp(i - j, -{r}, {r}) + {r}, h]"),
        "bucket": (f"f32[H, {width}]", f"[h, abs(i - j) // {r}]"),  # beyond the last: the last
        "phase": (f"f32[{r}, {width}]", f"[i % {r}, (j + h) % {width}]"),
        "halves": ("bf16[H]", "[h]"),
    }
    name = text.one_of(*shapes)
    declared, index = shapes[name]
    unique = f"{name}{r}x{width}" if name in ("near", "bucket", "phase") else name
    maker: Maker | None = None
    if name == "pair":
        ones = (text.one_of(False, True), text.one_of(False, True))

        def maker(z: Mapping[str, int], generator: torch.Generator) -> Tensor:
            return _floats(generator, 1 if ones[0] else z["B"], 1 if ones[1] else z["H"], z["N"], z["M"])

        if "pair" in text.makers:
            maker = text.makers["pair"]
    return text.given(unique, declared, maker) + index


def _flag(text: Text) -> str:
    if text.one_of(False, True):
        text.given("marked", "bool[B, M]", _marks)
        return str(text.one_of("marked[b, j]", "marked[b, i]", "(marked[b, i] and marked[b, j])"))
    return str(text.one_of("i > j", "(i + j) % 3 == 0", "h == 0", "j % 2 == 1", "i >= 2 * j", "b == 0"))


def _atom(text: Text) -> str:
    made = text.one_of(
        lambda: "dot(q, k) / sqrt(D)",
        lambda: "dot(q, k) * 0.25",
        lambda: _bias(text),
        lambda: _bias(text),
        lambda: f"{text.one_of(0.5, -1.0, 2, 0.125)}",
        lambda: f"(i - j) / {text.number(8, 40)}",
        lambda: "abs(i - j) * 0.0625",
        lambda: f"(j % {text.number(2, 5)})",
    )
    return str(made())


def _score(text: Text, depth: int) -> str:
    if depth == 0:
        return _atom(text)
    kind = text.number(0, 6)
    inner = _score(text, depth - 1)
    match kind:
        case 0 | 1:
            return f"({inner} + {_score(text, depth - 1)})"
        case 2:
            return f"({inner} - {_score(text, depth - 1)})"
        case 3:
            return f"({inner} * tanh({_score(text, depth - 1)}))"
        case 4:
            function = text.one_of(
                "tanh({})", "sigmoid({})", "abs({})", "relu({})", "softplus({})", "elu({})", "sin({})", "cos({})",
                "erf({})", "-{}", "exp(-abs({}))", "log1p(exp({}))", "sqrt(abs({}) + 1)", "rsqrt({} ** 2 + 1)",
                "3 * tanh({} / 3)", "log({} ** 2 + 1)", "1 / (abs({}) + 1)", "clamp({}, -2, 2)", "exp2(-abs({}))",
                "(abs({}) + 0.25) ** 1.5",
            )  # fmt: skip
            return str(function.format(inner))
        case 5:
            other = _score(text, depth - 1)
            return str(text.one_of(f"max({inner}, {other})", f"min({inner}, {other})"))
        case _:
            return f"where({_flag(text)}, {inner}, {_score(text, depth - 1)})"


# --- masks --------------------------------------------------------------------------------------


def _table(text: Text) -> str:
    text.tables += 1
    name, block = f"table{text.tables}", text.number(3, 20)
    listed = text.one_of(False, True)
    ones = (text.one_of(False, True), text.one_of(False, True))

    def maker(z: Mapping[str, int], generator: torch.Generator) -> Tensor:
        lead = (1 if ones[0] else z["B"], 1 if ones[1] else z["H"], -(-z["N"] // block))
        blocks = -(-z["M"] // block)
        if listed:
            return torch.randint(-1, blocks, (*lead, 2), generator=generator, dtype=torch.int32)
        return torch.rand((*lead, blocks), generator=generator) < 0.4

    kind = "i32" if listed else "bool"
    text.given(name, f"{kind}[B, H, {name}_rows, {name}_slots]", maker)
    return f"blocks({name}, {block})"


def _predicate(text: Text) -> str:
    n, m = text.number(1, 12), text.number(0, 9)

    def documents() -> str:
        text.given("ids", "i32[B, M]", _documents)
        return "document(ids)"

    def lengths() -> str:
        text.given("lens", "i64[B]", _lengths)
        return "j < lens[b]"

    def marked() -> str:
        text.given("marked", "bool[B, M]", _marks)
        return str(text.one_of("global(marked)", "marked[b, j]", "not marked[b, i]"))

    def widths() -> str:
        text.given("widths", "i32[H]", lambda z, g: torch.randint(0, 20, (z["H"],), generator=g, dtype=torch.int32))
        return "abs(i - j) <= widths[h]"

    return str(
        text.one_of(
            lambda: "causal",
            lambda: f"window({m})",
            lambda: f"window({n}, {m})",
            lambda: f"prefix({n})",
            lambda: f"sink({m})",
            lambda: f"global({m})",
            lambda: f"dilated({m}, {n})",
            lambda: f"dilated({n}, {text.number(2, 6)})",
            lambda: f"strided({n})",
            lambda: f"({text.number(1, 5)} * i - j + {text.one_of('b', 'h', 'M', m)}) % {n} == {m % n}",
            lambda: f"fixed({n}, {min(m, n)})",
            lambda: f"block({n})",
            lambda: f"block_window({n}, {m % 3})",
            lambda: f"random({1 + m % 3}, block = {n + 2}, seed = {m})",
            lambda: f"random(2, block = {n + 2}, seed = {m}, span = 300)",
            documents,
            lengths,
            marked,
            widths,
            lambda: _table(text),
            lambda: f"(i + {n} * j) % {n + 1} == {m % (n + 1)}",
            lambda: f"-{m} <= i - j < {n}",
            lambda: f"j % (h + {n}) == 0",
            lambda: f"i >= {m}",
            lambda: f"j != i + {m}",
            lambda: f"2 * j <= i + {m}",
            lambda: f"i // {n} >= j // {n}",
            lambda: f"(i - j) * (i - j) > {m}",
            lambda: "i < N // 2",
            lambda: "true",
            lambda: "false",
        )()
    )


def _mask(text: Text, depth: int) -> str:
    if depth == 2 and text.number(0, 4) == 0:  # a pass in residue classes beside others
        strided = text.one_of("strided({})", "dilated(5, {})", "(i - j + h) % {} == 1").format(text.number(4, 7))
        return f"({_mask(text, 1)} or ({strided} and {_predicate(text)})) and {_predicate(text)}"
    kind = text.number(0, 5) if depth else 0
    match kind:
        case 0 | 1:
            return _predicate(text)
        case 2 | 3:
            return f"({_mask(text, depth - 1)} and {_mask(text, depth - 1)})"
        case 4:
            return f"({_mask(text, depth - 1)} or {_mask(text, depth - 1)})"
        case _:
            return f"not ({_mask(text, depth - 1)})"


# --- normalizations, emits, branches ---------------------------------------------------------------

_EXPONENTIAL = (
    "softmax",
    "softmax1",
    "softmax(sink = {n})",
    "softmax(sink = sinks[h])",
    "weight(s) = exp({p} * s) divisor(t) = t + {c}",
    "weight(s) = exp(s - {c}) divisor(t) = max(t, {c})",
    "weight(s) = exp(s) divisor(t) = {c} * t + exp({n})",
    "weight(s) = exp(-s) divisor(t) = min(t, {c}) + t / 2",
    "weight(s) = exp(s) divisor(t) = where(t > {c}, 2 * t, t + {c})",
    "weight(s) = exp(s) divisor(t) = t + floors[b, h, i] ** 2",
    "weight(s) = exp(s) divisor(t) = sqrt(t * t + {c})",
)
_POSITIVE = (
    "sigmoid",
    "weight(s) = exp2(s) divisor(t) = t + {c}",
    "weight(s) = softplus(s) + {c} divisor(t) = t",
    "weight(s) = sigmoid(s) + {c} divisor(t) = log1p(t)",
    "weight(s) = tanh(s) + 1.5 divisor(t) = sqrt(t)",
    "weight(s) = s ** 2 + {c} divisor(t) = t + abs(floors[b, h, i])",
    "weight(s) = 1 / (s ** 2 + {c}) divisor(t) = t ** 0.75",
)
_ANY = (
    "abs_sum",
    "relu",
    "none",
    "weight(s) = relu(s) ** 2 divisor(t) = max(t, {c})",
    "weight(s) = tanh(s) * s divisor(t) = 1 + t ** 2",
    "weight(s) = sin(s) divisor(t) = exp(-abs(t)) + {c}",
)


def _normalization(text: Text) -> tuple[str, tuple[str, ...]]:
    """A normalization and what it may emit."""
    kind = text.one_of(0, 0, 1, 2)
    chosen = str(text.one_of(*(_EXPONENTIAL, _POSITIVE, _ANY)[kind]))
    if "sinks" in chosen:
        text.given("sinks", "f32[H]")
    if "floors" in chosen:
        text.given("floors", "f32[B, H, N]")
    text_ = chosen.format(n=text.number(-2, 2), p=text.one_of(0.5, 1, 2), c=text.one_of(0.25, 0.5, 1, 3))
    emits = {0: ("lse", "total", "rowmax", "entropy", "colsum"), 1: ("total", "rowmax", "entropy", "colsum")}
    allowed = emits.get(kind, ("total", "rowmax", "colsum"))
    return text_, tuple(name for name in allowed if "exp2" not in chosen or name != "lse")


def _map(text: Text) -> tuple[str, tuple[str, ...]]:
    normalization, emits = _normalization(text)
    score = _score(text, text.number(0, 3))
    if text.one_of(True, True, True, False) and "dot(" not in score:
        score = f"dot(q, k) / sqrt(D) + {score}"
    mask = _mask(text, text.number(0, 2)) if text.one_of(True, True, True, False) else ""
    if text.bounded:
        text.given("lens", "i64[B]", _lengths)
        mask = f"{mask} and j < lens[b]" if mask else "j < lens[b]"
    mask = f"  mask {mask}" if mask else ""
    chosen = tuple(text.draw(st.lists(st.sampled_from(emits), unique=True, max_size=2)))
    if _KINKS.search(f"{score} {normalization}"):
        score = _TENTHS.sub("(i - j) / 16", score)
    else:
        score = _prepared(text, score)
    return f"score {score}{mask}  normalize {normalization}", chosen


# Where a derivative jumps. Which side a score is on does not depend on rounding, for dots of small dyadic numbers; of
# vectors that are made and rounded it would; and of 2 - 20 / 10, which is not 0 where 20 / 10 is 20 times 0.1, fused.
_KINKS = re.compile(r"\b(max|min|relu|clamp|abs_sum|abs\((?!i - j)|where\(t)")
_TENTHS = re.compile(r"\(i - j\) / \d+")


def _prepared(text: Text, score: str) -> str:
    """Vectors made from others before they meet: positions, norms, feature maps."""
    made = text.one_of(
        "",
        "",
        "",
        "",
        "dot(l2norm(q), l2norm(k)) * 2",
        "dot(elu(q) + 1, elu(k) + 1) / D",
        "dot(concat(q, q), concat(k, tanh(k))) / D",
        "dot(rope(q, i), rope(k, j)) / sqrt(D)",
        "(dot(q, k) - dot(k, k) / 2) / D",
        "dot(q, k) * tanh(dot(q, q) / D) / D",
    )
    return score.replace("dot(q, k) / sqrt(D)", str(made)) if made else score


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a spec as text, and the declarations of the inputs that it reads."""

    text: str
    inputs: str

    def __str__(self) -> str:
        return self.text


@st.composite
def masks(draw: Draw, *, depth: int = 2) -> Part:
    """Masks: predicates of the library and over indices and inputs, under ``and``, ``or``, ``not``."""
    text = Text(draw=draw)
    made = _mask(text, depth)
    return Part(text=made, inputs="  ".join(text.declarations.values()))


@st.composite
def scores(draw: Draw, *, depth: int = 3) -> Part:
    """Scores: products of q and k, inputs read in every way, functions of them."""
    text = Text(draw=draw)
    made = _score(text, depth)
    return Part(text=made, inputs="  ".join(text.declarations.values()))


@st.composite
def normalizations(draw: Draw) -> Part:
    """Normalizations: those of the library, and pairs of weight and divisor."""
    text = Text(draw=draw)
    made, _ = _normalization(text)
    return Part(text=made, inputs="  ".join(text.declarations.values()))


def specs() -> st.SearchStrategy[str]:
    """Specs as text: one or two branches, any score, mask, normalization and emits."""
    return drawn_specs().map(lambda drawn: drawn[0])


@st.composite
def drawn_specs(draw: Draw) -> tuple[str, Text]:
    """A spec's text and how to make its inputs."""
    text = Text(draw=draw)
    text.bounded = text.one_of(False, False, False, True)
    if text.one_of(True, True, True, False):
        body, emits = _map(text)
        tail = f"  emit {', '.join(emits)}" if emits else ""
    else:
        (first, emits), (second, more) = _map(text), _map(text)
        outputs = ["x - 0.5 * y", "x * tanh(y)", "x + y * mix[h]", "where(i % 2 == 0, x, y)", "x"]
        output = text.one_of(*outputs)
        if "mix" in output:
            text.given("mix", "f32[H]")
        body = f"branch x {{ {first} }}  branch y {{ {second} }}  output {output}"
        named = [*(f"x.{name}" for name in emits), *(f"y.{name}" for name in more)]
        tail = f"  emit {', '.join(named)}" if named else ""
    declared = "  ".join(text.declarations.values())
    return f"attention spec {{ {declared}  {body}{tail} }}", text

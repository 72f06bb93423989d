"""What a kernel does, counted from the lowered program: tiles that stay and that move, operations of a pair."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from attnc.codegen.build import TRUE
from attnc.codegen.exponent import exponent, pulled, regrouped
from attnc.codegen.lower import G
from attnc.codegen.program import DrawnTable, Group, Program
from attnc.dsl.ir import (
    Apply,
    Const,
    Drawn,
    Expr,
    Fn,
    Index,
    Kind,
    Listed,
    Load,
    Offset,
    Size,
    Symbol,
    children,
    dependencies,
    postorder,
)

Pass = Literal["forward", "query", "key"]
PASSES: tuple[Pass, ...] = ("forward", "query", "key")

# Instructions on the special-function unit that an operation takes, beside its ordinary ones.
_SPECIAL = {
    Fn.EXP: 1, Fn.EXP2: 1, Fn.EXPM1: 2, Fn.LOG: 1, Fn.LOG1P: 2, Fn.SQRT: 1, Fn.RSQRT: 1, Fn.DIV: 1,
    Fn.SIGMOID: 2, Fn.ELU: 3, Fn.SOFTPLUS: 4, Fn.POW: 2, Fn.SIN: 1, Fn.COS: 1, Fn.ERF: 1,
}  # fmt: skip
_VECTOR = {
    Fn.SIGMOID: 3, Fn.ELU: 8, Fn.SOFTPLUS: 8, Fn.POW: 12, Fn.EXPM1: 6, Fn.LOG1P: 6, Fn.ERF: 12, Fn.DIV: 2,
    Fn.SIN: 8, Fn.COS: 8, Fn.CLAMP: 2,
}  # fmt: skip


_BYTES = {"bool": 1, "i8": 1, "i16": 2, "i32": 4, "i64": 8, "u8": 1, "f16": 2, "bf16": 2, "f32": 4, "f64": 8}


@dataclass(frozen=True, kw_only=True)
class Work:
    """One kernel's work. ``held`` and ``moved``: how many vectors a row of the axis has that stays in the block and of
    the one that streams through it; ``totals``: how many sums of vectors a row of the first has; ``scores``: tiles of
    pairs alive at once; ``products``: matrix products of a tile; ``scored``: scores are among them; ``apart``: for
    gradients of inputs alone; ``wide``: weights stay float32; ``streamed``: bytes of inputs that a row of the moved
    axis reads; ``copied``: those that a pair reads and that are copied ahead, as vectors are; ``begun``: those that a
    product begins with; ``paired``: the most that another input of a pair has, ``gathered`` that one of a row of the
    held axis; ``stored``: bytes of an element of what
    leaves the kernel, 0 for those of a vector's;
    ``described``: vectors are read in blocks of rows, as descriptors give them, where the target has descriptors;
    ``waits``: which of the moved ones are read, an input says row by row.
    The rest is per pair: ``vector`` float32 operations, ``special`` ones, ``tanh`` (one or many, as the target has it),
    ``integer`` ones, and ``mask`` ones that a partial tile adds."""

    step: Pass
    queries: int
    keys: int
    maps: int
    dots: int
    held: int
    moved: int
    totals: int
    scores: int
    products: int
    scored: bool
    apart: bool
    wide: bool
    statistics: int
    strips: int
    streamed: int
    gathered: int
    paired: int
    copied: int
    begun: int
    stored: int
    asked: int
    added: int
    described: bool
    waits: bool
    vector: float
    special: float
    tanh: float
    integer: float
    mask: float

    @cached_property
    def pair(self) -> tuple[float, ...]:
        """Operations of a pair, for each map: float32, special, tanh, integer, and the mask's."""
        return tuple(count / self.maps for count in (self.vector, self.special, self.tanh, self.integer, self.mask))

    @cached_property
    def plain(self) -> bool:
        """Whether the kernel has the structure that the calibration compiled: one query, key, value and weight."""
        single = self.queries == self.keys == self.maps == self.dots == 1
        return single and not (self.wide or self.strips or self.streamed or self.gathered or self.pairwise)

    @cached_property
    def pairwise(self) -> bool:
        """Whether a pair reads inputs of its own."""
        return bool(self.paired or self.copied or self.begun)


@dataclass(frozen=True, kw_only=True)
class _Counts:
    vector: float
    special: float
    tanh: float
    integer: float


class _Read(NamedTuple):
    """An input or table that pairs read: bytes, axes (of i and j), kind, whether it may be copied ahead, and whether a
    product begins with it."""

    bytes: int
    axes: str
    kind: Kind
    ahead: bool
    begins: bool


@dataclass(frozen=True, kw_only=True)
class _Pairs:
    """What a group does for a pair, counted once for all passes."""

    score: _Counts
    backward: _Counts
    mask: float
    scored: bool
    apart: bool
    reads: list[_Read]


def works(program: Program) -> dict[Pass, Work]:
    """The heaviest group's of every pass: one table of tiles serves them all."""
    counted = [(group, _pairs(program, group)) for group in program.groups]
    return {
        step: max(
            (_work(group, pairs, step, single=program.single) for group, pairs in counted),
            key=lambda item: (item.products, item.vector),
        )
        for step in PASSES
    }


def work(program: Program, step: Pass) -> Work:
    """The heaviest group's of one pass."""
    return works(program)[step]


def of_group(program: Program, group: Group, step: Pass) -> Work:
    """One group's work in one pass."""
    return _work(group, _pairs(program, group), step, single=program.single)


def _pairs(program: Program, group: Group) -> _Pairs:
    # A uniform scale of scores is folded into the exponent, one of gradients is multiplied after the loop.
    scores = [exponent(item.score).rest if item.exponential else item.weight for item in group.maps]
    gradients = [
        pulled(regrouped(part), frozenset())[0]
        for item in group.maps
        for part in item.dot_gradients
        if part != Const(kind=Kind.FLOAT, value=0.0)
    ]
    of_dots = any(item.exponential or _scored(item.dot_gradients) for item in group.maps)
    of_inputs = any(_scored([part.value for part in item.input_gradients]) for item in group.maps)
    return _Pairs(
        score=_count(scores),
        backward=_count([*scores, *gradients]),
        mask=_count([item.mask for item in group.maps]).integer,
        scored=of_dots or of_inputs,
        apart=of_inputs and not of_dots,
        reads=_reads(program, group, scores),
    )


def _work(group: Group, pairs: _Pairs, step: Pass, *, single: bool) -> Work:
    backward = pairs.backward if step != "forward" else pairs.score
    maps = len(group.maps)
    exponential = sum(item.exponential for item in group.maps)
    # Online softmax: subtract and sum, the maximum is an integer unit's; the backward: subtract, subtract, multiply.
    vector = (2 if step == "forward" else 3) * maps + backward.vector
    reads = pairs.reads
    pairwise = [read for read in reads if read.axes == "ij"]
    queries, keys, dots = len(group.queries), len(group.keys), len(group.dots)
    by_query = step != "key"
    live, axis = (group.key_mask, "j") if by_query else (group.query_mask, "i")
    scored = step != "query" or pairs.scored
    return Work(
        step=step,
        queries=queries,
        keys=keys,
        maps=maps,
        dots=dots,
        held=queries * scored + (maps if step == "query" else 0) if by_query else keys + 1,
        moved=keys + 1 if by_query else queries + maps,
        totals={"forward": maps, "query": queries, "key": keys + 1}[step],
        scores=dots * scored + (0 if step == "forward" else maps),
        products={"forward": dots + maps, "query": dots * scored + dots + maps, "key": 2 * dots + 2 * maps}[step],
        scored=scored,
        apart=step == "query" and pairs.apart,
        wide=exponential < maps,
        statistics=sum(2 if item.plain else 2 + item.exponential for item in group.maps),
        streamed=sum(read.bytes for read in reads if read.axes == ("i" if step == "key" else "j")),
        gathered=max((read.bytes for read in reads if read.axes == ("j" if step == "key" else "i")), default=0),
        paired=max((read.bytes for read in pairwise if not read.ahead), default=0),
        copied=sum(read.bytes for read in pairwise if read.ahead and not read.begins),
        begun=sum(read.bytes for read in pairwise if read.ahead and read.begins),
        stored=4 if group.partial or (step == "forward" and not single) else 0,
        asked=sum(read.kind is not Kind.FLOAT for read in pairwise),
        added=sum(read.kind is Kind.FLOAT for read in pairwise),
        described=group.step == 1 and live == TRUE,
        waits=any(isinstance(node, Load) and axis in dependencies(*node.index) for node in postorder(live)),
        strips=sum(part.read.reach == "pair" for item in group.maps for part in item.input_gradients),
        vector=vector,
        special=exponential + backward.special,
        tanh=backward.tanh,
        integer=1.0 * maps + backward.integer,
        mask=2 * maps + pairs.mask,
    )


def _scored(cotangents: Iterable[Expr]) -> bool:
    """Whether cotangents depend on the scores: those of a linear weight's dots do not."""
    return any(isinstance(node, Symbol) and node != G for node in postorder(*cotangents))


def _reads(program: Program, group: Group, scores: list[Expr]) -> list[_Read]:
    sizes = {item.name: _BYTES[item.dtype] for item in program.attention.inputs}
    sizes |= {table.name: _BYTES["i64" if isinstance(table, DrawnTable) else "bool"] for table in program.tables}
    first = {load for node in postorder(*scores) for load in _first_added(node)}
    found = []
    for load in group.reads:
        axes = "".join(axis for axis in ("i", "j") if axis in dependencies(*load.index))
        bytes = sizes.get(load.tensor, 4)
        ahead = bytes >= 4 or _along_keys(load)  # no copy of a thread has less than four bytes
        found.append(_Read(bytes, axes, load.kind, ahead, load in first))
    return found


def _first_added(node: Expr) -> Iterator[Load]:
    """An input that is added to a bare product: Triton lets the product begin with it."""
    match node:
        case Apply(fn=Fn.ADD, args=(Symbol(), Load() as load)) | Apply(fn=Fn.ADD, args=(Load() as load, Symbol())):
            yield load


def _along_keys(load: Load) -> bool:
    """Whether keys that are neighbours read neighbours: the last index is j plus what no key changes."""
    if not load.index:  # one number for all
        return False
    *first, last = load.index
    terms = last.args if isinstance(last, Apply) and last.fn in (Fn.ADD, Fn.SUB) else (last,)
    fixed = not {"j"} & dependencies(*first, *terms[1:])
    return isinstance(terms[0], Index) and terms[0].axis == "j" and fixed


def _count(roots: Iterable[Expr]) -> _Counts:
    """Operations that every pair takes: those that vary with i and with j."""
    varies: dict[Expr, int] = {}
    vector = special = tanh = integer = 0.0
    for node in postorder(*roots):
        match node:
            case Index(axis="i"):
                found = 1
            case Index(axis="j"):
                found = 2
            case Symbol(kind=Kind.FLOAT):  # a dot, a score, its cotangent
                found = 3
            case Drawn() | Listed():
                found = 3
                integer += 4
            case Const() | Size() | Offset():
                found = 0
            case _:
                found = 0
                for child in children(node):
                    found |= varies[child]
        varies[node] = found
        if found != 3 or not isinstance(node, Apply | Load):
            continue
        if isinstance(node, Load):
            integer += 2
        elif node.fn is Fn.TANH:
            tanh += 1
        elif node.kind is Kind.FLOAT:
            vector += _VECTOR.get(node.fn, 1)
            special += _SPECIAL.get(node.fn, 0)
        else:
            integer += 4 if node.fn in (Fn.FLOORDIV, Fn.MOD) else 1
    return _Counts(vector=vector, special=special, tanh=tanh, integer=integer)

"""What integers can be: numeric ranges, symbolic enclosures, proofs of ``x <= y``.

Numeric ranges decide the width of index arithmetic (``needs_int64``). They assume that positions, sizes and offsets
stay within LIMIT, which whoever launches a kernel with 32-bit indices has to check (wider calls use 64 bits
throughout). Symbolic enclosures say how far an expression reaches while its indices run over a tile or a tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from attnc.codegen.build import apply, const, index, maximum, neg, offset, size, sub, symbol
from attnc.codegen.integers import Affine, affine, collect, number, to_expr
from attnc.codegen.simplify import simplify
from attnc.dsl.ir import (
    Apply,
    Const,
    Expr,
    Fn,
    Index,
    Kind,
    Load,
    Offset,
    Side,
    Size,
    Symbol,
    Table,
    children,
    postorder,
    substitute,
)

Range = tuple[int, int]
Ends = tuple[Expr | None, Expr | None]

LIMIT = 2**29  # a sum of three positions and sizes, such as i - j + M, still fits 32 bits
LIMIT_TEXT = f"2**{LIMIT.bit_length() - 1}"
_BATCHES = 2**20
INT32: Range = (-(2**31), 2**31 - 1)
INT64: Range = (-(2**63), 2**63 - 1)

_I, _J = index("i"), index("j")
_Q_OFFSET, _KV_OFFSET = offset(Side.QUERY), offset(Side.KEY)
_NEVER_EMPTY = ("B", "H", "G", "N", "M", "D", "E")  # an element is read, so there is a row to read it for
_PROOF_DEPTH = 6  # how many choices a proof splits on the way
_FLOOR_COST = 3  # of them, for dropping a floor: that loses too much to be done often


# --- numeric ranges ------------------------------------------------------------------------------


def int_range(expr: Expr, env: Mapping[Expr, Range] | None = None) -> Range:
    """The least and greatest value of an INT expression; ``env`` narrows nodes (loads of i32, say)."""
    return _ranges((expr,), env or {})[expr]


def holds_zero(expr: Expr) -> bool:
    """Whether an INT expression may be 0: as a divisor it needs care, for ``x // 0 = 0`` and ``x % 0 = x``."""
    low, high = int_range(expr)
    return low <= 0 <= high


def needs_int64(roots: Iterable[Expr], env: Mapping[Expr, Range] | None = None) -> frozenset[Expr]:
    """INT nodes whose value, or an INT operand's value, may leave 32 bits: they are computed in 64."""
    wide: set[Expr] = set()
    ranges = _ranges(tuple(roots), env or {})
    for node, (low, high) in ranges.items():
        operands = node.args if isinstance(node, Apply) else ()
        if low < INT32[0] or high > INT32[1] or any(arg in wide for arg in operands):
            wide.add(node)
    return frozenset(wide)


def _ranges(roots: tuple[Expr, ...], env: Mapping[Expr, Range]) -> dict[Expr, Range]:
    known: dict[Expr, Range] = {}
    for node in postorder(*roots):
        if node.kind is Kind.INT:
            known[node] = env[node] if node in env else _range(node, known)
    return known


def _range(node: Expr, known: Mapping[Expr, Range]) -> Range:
    match node:
        case Const(value=value):
            return int(value), int(value)
        case Index(axis="i" | "j") | Offset() | Symbol():
            return -LIMIT, LIMIT
        case Index():
            return 0, _BATCHES
        case Size():
            return 0, LIMIT
        case Table(values=values):
            return int(min(values)), int(max(values))
        case Apply(fn=Fn.ADD | Fn.SUB | Fn.NEG):
            return _sum_range(affine(node), known)
        case Apply(fn=fn, args=args):
            return _apply_range(fn, tuple(known.get(arg, INT64) for arg in args))
        case _:
            return INT64


def _sum_range(form: Affine, known: Mapping[Expr, Range]) -> Range:
    """A position minus its offset is a row, which is never negative."""
    weights = dict(form.terms)
    low = high = form.const
    for position, start in ((_I, _Q_OFFSET), (_J, _KV_OFFSET)):
        factor = weights.get(position, 0)
        if factor and weights.get(start, 0) == -factor:
            del weights[position], weights[start]
            low += min(factor * LIMIT, 0)
            high += max(factor * LIMIT, 0)
    for atom, factor in weights.items():
        ends = [factor * end for end in known[atom]]
        low, high = low + min(ends), high + max(ends)
    return low, high


def _apply_range(fn: Fn, args: tuple[Range, ...]) -> Range:
    match fn, args:
        case Fn.MUL, (x, y):
            return _hull(a * b for a in x for b in y)
        case Fn.FLOORDIV, (x, y):
            divisors = {*y, -1, 1} if y[0] <= 0 <= y[1] else {*y}
            quotients = [a // b for a in x for b in divisors if b and y[0] <= b <= y[1]]
            return _hull(quotients) if quotients else INT64
        case Fn.MOD, (x, y):
            if x[0] >= 0 and x[1] < y[0]:
                return x
            return min(y[0] + 1, 0), max(y[1] - 1, 0)
        case Fn.POW, (x, (low, high)) if 0 <= low == high <= 64:
            ends = [x[0] ** low, x[1] ** low]
            return _hull([*ends, 0] if x[0] <= 0 <= x[1] else ends)
        case Fn.MIN, (x, y):
            return min(x[0], y[0]), min(x[1], y[1])
        case Fn.MAX, (x, y):
            return max(x[0], y[0]), max(x[1], y[1])
        case Fn.CLAMP, (x, y, z):
            return min(max(x[0], y[0]), z[0]), min(max(x[1], y[1]), z[1])
        case Fn.ABS, (x,):
            return max(x[0], -x[1], 0), max(-x[0], x[1])
        case Fn.RELU, (x,):
            return max(x[0], 0), max(x[1], 0)
        case Fn.SIGN, (x,):
            return (x[0] > 0) - (x[0] < 0), (x[1] > 0) - (x[1] < 0)
        case Fn.WHERE, (_, x, y):
            return _hull((*x, *y))
        case _:
            return INT64


def _hull(values: Iterable[int]) -> Range:
    items = list(values)
    return min(items), max(items)


# --- proofs --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a proof may use: pairs x <= y, and ranges of nodes beyond what int_range knows."""

    order: tuple[tuple[Expr, Expr], ...] = ()
    ranges: Mapping[Expr, Range] = field(default_factory=dict)


def provably_le(x: Expr, y: Expr, facts: Facts) -> bool:
    """Whether ``x <= y`` always, as far as this simple prover sees; False means nothing."""
    return _provably_natural(affine(y).minus(affine(x)), facts, _PROOF_DEPTH)


def _provably_natural(form: Affine, facts: Facts, depth: int) -> bool:
    """Whether an affine form is >= 0: choices are split, then every negative term needs a larger positive one."""
    if depth <= 0:
        return False
    for atom, factor in form.terms:
        rest = form.minus(Affine(terms=((atom, factor),), const=0))
        match atom:
            case Apply(fn=Fn.MIN | Fn.MAX as fn, args=(x, y)):
                needed = all if (fn is Fn.MIN) is (factor > 0) else any
            case Apply(fn=Fn.WHERE, args=(_, x, y)):
                needed = all
            case Apply(fn=Fn.ABS, args=(x,)):
                y, needed = neg(x), any if factor > 0 else all
            case _:
                continue
        cases = (collect(((rest, 1), (affine(choice), factor))) for choice in (x, y))
        return needed(_provably_natural(case, facts, depth - 1) for case in cases)
    gains = {atom: factor for atom, factor in form.terms if factor > 0}
    total = form.const
    for atom, factor in form.terms:
        if factor > 0:
            continue
        owed = -factor
        for other in list(gains):
            if owed and _ordered(atom, other, facts, depth):
                paid = min(owed, gains[other])
                owed -= paid
                gains[other] -= paid
        total -= owed * int_range(atom, facts.ranges)[1]
    total += sum(factor * int_range(atom, facts.ranges)[0] for atom, factor in gains.items())
    return total >= 0 or any(_provably_natural(case, facts, depth - _FLOOR_COST) for case in _without_floors(form))


def _without_floors(form: Affine) -> Iterable[Affine]:
    """Smaller forms, each with one ``n * (x // n)`` replaced by ``x - n + 1``, or ``-n * (x // n)`` by ``-x``."""
    for atom, factor in form.terms:
        match atom:
            case Apply(fn=Fn.FLOORDIV, args=(x, Const(value=value))) if value > 0 and factor % value == 0:
                times = factor // int(value)
                rest = form.minus(Affine(terms=((atom, factor),), const=0))
                yield collect(((rest, 1), (affine(x), times))).shifted(-max(times, 0) * (int(value) - 1))


def _ordered(x: Expr, y: Expr, facts: Facts, depth: int) -> bool:
    if (x, y) in facts.order:
        return True
    match x, y:
        case (
            Apply(fn=Fn.FLOORDIV, args=(a, Const(value=divisor))),
            Apply(fn=Fn.FLOORDIV, args=(b, Const(value=other))),
        ) if divisor == other and divisor > 0:
            return _provably_natural(affine(b).minus(affine(a)), facts, depth - 1)
        case _:
            return False


# --- symbolic enclosures -------------------------------------------------------------------------


def enclose(expr: Expr, box: Mapping[Expr, Ends], facts: Facts) -> Ends:
    """Simple expressions that an INT expression stays between while the nodes of ``box`` run between their ends;
    None where none is known. Exact for what is monotone in each node of the box and names it once."""
    found: dict[Expr, Ends] = {}
    varying: set[Expr] = set(box)
    for node in postorder(expr):
        if any(part in varying for part in children(node)):
            varying.add(node)
        if node in box:
            found[node] = box[node]
        elif node not in varying:
            found[node] = (node, node)
        elif node.kind is Kind.INT:
            found[node] = _enclose(node, found, facts)
    return found[expr]


def _enclose(node: Expr, found: Mapping[Expr, Ends], facts: Facts) -> Ends:
    match node:
        case Apply(fn=Fn.ADD | Fn.SUB | Fn.NEG) | Apply(fn=Fn.MUL, args=(Const(), _) | (_, Const())):
            return _enclose_sum(affine(node), found)
        case Apply(fn=Fn.FLOORDIV, args=(x, Const(value=value) as divisor)) if value > 0:
            low, high = found[x]
            return _mapped(Fn.FLOORDIV, low, divisor), _mapped(Fn.FLOORDIV, high, divisor)
        case Apply(fn=Fn.MIN | Fn.MAX as fn, args=(x, y)):
            return _choice(fn, found[x], found[y])
        case Apply(fn=Fn.CLAMP, args=(x, y, z)):
            return _choice(Fn.MIN, _choice(Fn.MAX, found[x], found[y]), found[z])
        case Apply(fn=Fn.ABS, args=(x,)):
            low, high = found[x]
            if low is None or high is None:
                return const(0), None
            least, most = simplify((maximum(maximum(low, neg(high)), 0), maximum(neg(low), high)))
            return least, most
        case Apply(fn=Fn.WHERE, args=(_, x, y)):
            (low, high), (other_low, other_high) = found[x], found[y]
            return (
                None if low is None or other_low is None else _mapped(Fn.MIN, low, other_low),
                None if high is None or other_high is None else _mapped(Fn.MAX, high, other_high),
            )
        case _:
            low_number, high_number = int_range(node, facts.ranges)
            low_known = const(low_number) if low_number > -LIMIT else None
            return low_known, const(high_number) if high_number < LIMIT else None


def _enclose_sum(form: Affine, found: Mapping[Expr, Ends]) -> Ends:
    lows: list[tuple[Affine, int]] | None = [(number(form.const), 1)]
    highs: list[tuple[Affine, int]] | None = [(number(form.const), 1)]
    for atom, factor in form.terms:
        low, high = found[atom] if factor > 0 else found[atom][::-1]
        lows = None if lows is None or low is None else [*lows, (affine(low), factor)]
        highs = None if highs is None or high is None else [*highs, (affine(high), factor)]
    return to_expr(collect(lows)) if lows else None, to_expr(collect(highs)) if highs else None


def _choice(fn: Fn, x: Ends, y: Ends) -> Ends:
    """The ends of ``min(x, y)`` or ``max(x, y)``: one known end bounds a min from above, a max from below."""

    def both(a: Expr | None, b: Expr | None) -> Expr | None:
        return None if a is None or b is None else _mapped(fn, a, b)

    def either(a: Expr | None, b: Expr | None) -> Expr | None:
        return a if b is None else b if a is None else _mapped(fn, a, b)

    low, high = (both, either) if fn is Fn.MIN else (either, both)
    return low(x[0], y[0]), high(x[1], y[1])


def _mapped(fn: Fn, x: Expr | None, y: Expr) -> Expr | None:
    return None if x is None else simplify((apply(fn, x, y),))[0]


# --- reads ---------------------------------------------------------------------------------------


def in_bounds(load: Load, axes: tuple[Expr, ...]) -> tuple[bool, ...]:
    """For each index of a load, whether it provably lies within its axis, so that it needs no clamp. Positions run
    over the rows that exist; ``axes`` are the tensor's declared sizes."""
    query_row, key_row = symbol("query_row", Kind.INT), symbol("key_row", Kind.INT)
    rows: dict[Expr, Expr] = {_I: apply(Fn.ADD, query_row, _Q_OFFSET), _J: apply(Fn.ADD, key_row, _KV_OFFSET)}
    box: dict[Expr, Ends] = {
        running: (const(0), sub(size(count), 1))
        for running, count in ((query_row, "N"), (key_row, "M"), (index("b"), "B"), (index("h"), "H"))
    }
    facts = Facts(ranges={size(name): (1, LIMIT) for name in _NEVER_EMPTY})
    positions = simplify(substitute(load.index, rows))
    lengths = simplify(axes[: len(positions)])
    answers: list[bool] = []
    for position, length in zip(positions, lengths, strict=True):
        low, high = enclose(position, box, facts)
        natural = low is not None and provably_le(const(0), low, facts)
        short = high is not None and provably_le(apply(Fn.ADD, high, 1), length, facts)
        answers.append(natural and short)
    return tuple(answers)

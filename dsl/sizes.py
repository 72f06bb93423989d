"""Sizes: sums and products of names and numbers in one canonical form, so that equal sizes are equal nodes."""

from __future__ import annotations

from dataclasses import replace

from attnc.dsl.ir import (
    Apply,
    Const,
    Expr,
    Fn,
    Index,
    Kind,
    Load,
    Offset,
    ParamElement,
    ParamRef,
    Size,
    placed,
    postorder,
)

BATCH, HEADS, QUERIES, KEYS, DIM, VALUE_DIM = (Size(kind=Kind.INT, name=name) for name in "BHNMDE")


def canonical(size: Expr) -> Expr:
    """An equal size as a sum of products of atoms in one order: ``64 + (D - 64)`` is ``D``, ``R + R`` is ``2 * R``.
    Atoms are names, params and what is not linear (``R // 2``, ``R * R``), their own parts canonical."""
    made: dict[Expr, dict[Expr, int]] = {}
    for node in postorder(size):
        terms: dict[Expr, int]
        match node:
            case Const(value=int(value)):
                terms = {ONE: value}
            case Apply(fn=Fn.ADD | Fn.SUB as fn, args=(x, y)):
                terms = dict(made[x])
                for atom, count in made[y].items():
                    terms[atom] = terms.get(atom, 0) + (count if fn is Fn.ADD else -count)
            case Apply(fn=Fn.NEG, args=(x,)):
                terms = {atom: -count for atom, count in made[x].items()}
            case Apply(fn=Fn.MUL, args=(x, y)) if (factor := _number(made[x])) is not None:
                terms = {atom: factor * count for atom, count in made[y].items()}
            case Apply(fn=Fn.MUL, args=(x, y)) if (factor := _number(made[y])) is not None:
                terms = {atom: factor * count for atom, count in made[x].items()}
            case Apply(args=args):
                parts = tuple(_sum(made[arg]) for arg in args)
                terms = _folded(replace(node, args=parts, span=None))
            case _:
                terms = {placed(node, None): 1}
        if any(abs(count) >= 2**62 for count in terms.values()):  # no size: left as it stands
            terms = {placed(node, None): 1}
        made[node] = {atom: count for atom, count in terms.items() if count}
    return _sum(made[size])


MOST_PARTS = 100
ONE = Const(kind=Kind.INT, value=1)


def _number(terms: dict[Expr, int]) -> int | None:
    if not terms:
        return 0
    return terms[ONE] if list(terms) == [ONE] else None


def _folded(node: Apply) -> dict[Expr, int]:
    """``9 // 2`` and ``9 % 2`` are numbers, other non-linear parts atoms."""
    match node:
        case Apply(fn=Fn.FLOORDIV, args=(Const(value=int(x)), Const(value=int(y)))) if y:
            return {ONE: x // y}
        case Apply(fn=Fn.MOD, args=(Const(value=int(x)), Const(value=int(y)))) if y:
            return {ONE: x % y}
    return {node: 1}


def _sum(terms: dict[Expr, int]) -> Expr:
    total: Expr | None = None
    for atom, count in sorted(terms.items(), key=lambda item: (item[0] == ONE, size_text(item[0]), item[0].digest)):
        term = atom
        if atom == ONE:
            term = Const(kind=Kind.INT, value=count)
        elif count != 1:
            term = Apply(kind=Kind.INT, fn=Fn.MUL, args=(Const(kind=Kind.INT, value=count), atom))
        total = term if total is None else Apply(kind=Kind.INT, fn=Fn.ADD, args=(total, term))
    return Const(kind=Kind.INT, value=0) if total is None else total


def parts(*sizes: Expr) -> int:
    """How many nodes sizes have, each counted by itself."""
    return sum(len(postorder(size)) for size in sizes)


def add_sizes(*sizes: Expr) -> Expr:
    total = sizes[0]
    for size in sizes[1:]:
        total = Apply(kind=Kind.INT, fn=Fn.ADD, args=(total, size))
    return canonical(total)


def subtract_sizes(x: Expr, y: Expr) -> Expr:
    return canonical(Apply(kind=Kind.INT, fn=Fn.SUB, args=(x, y)))


_SIGNS = {Fn.ADD: "+", Fn.SUB: "-", Fn.MUL: "*", Fn.FLOORDIV: "//", Fn.MOD: "%", Fn.DIV: "/", Fn.POW: "**"}


def size_text(expr: Expr) -> str:
    """A size, index or condition as a person writes it, parentheses wherever operators nest."""
    made: dict[Expr, str] = {}

    def nested(node: Expr) -> str:
        return f"({made[node]})" if isinstance(node, Apply) and " " in made[node] else made[node]

    for node in postorder(expr):
        match node:
            case Const(value=value):
                made[node] = str(value).lower() if isinstance(value, bool) else str(value)
            case Size(name=name) | ParamRef(name=name):
                made[node] = name
            case ParamElement(name=name, index=index):
                made[node] = f"{name}[{made[index]}]"
            case Index(axis=axis):
                made[node] = axis
            case Offset(side=side):
                made[node] = "q_offset" if side == "query" else "kv_offset"
            case Load(tensor=tensor, index=at):
                made[node] = f"{tensor}[{', '.join(made[x] for x in at)}]" if at else tensor
            case Apply(fn=fn, args=(x, y)) if fn in OPERATORS:
                made[node] = f"{nested(x)} {OPERATORS[fn]} {nested(y)}"
            case Apply(fn=Fn.NEG, args=(x,)):
                made[node] = f"-{nested(x)}"
            case Apply(fn=Fn.NOT, args=(x,)):
                made[node] = f"not {nested(x)}"
            case Apply(fn=Fn.FLOAT, args=(x,)):
                made[node] = made[x]
            case Apply(fn=fn, args=args):
                made[node] = f"{fn.value}({', '.join(made[x] for x in args)})"
            case _:
                made[node] = "..."
        if len(made[node]) > 200:
            made[node] = "..."
    return made[expr]


OPERATORS: dict[Fn, str] = {
    **_SIGNS, Fn.EQ: "==", Fn.NE: "!=", Fn.LT: "<", Fn.LE: "<=", Fn.GT: ">", Fn.GE: ">=", Fn.AND: "and", Fn.OR: "or",
}  # fmt: skip


def shape_text(dims: tuple[Expr, ...]) -> str:
    """``[D, E]``; ``a scalar`` for none."""
    return f"[{', '.join(size_text(dim) for dim in dims)}]" if dims else "a scalar"

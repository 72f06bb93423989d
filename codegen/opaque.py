"""Why the tiles of a condition cannot be told exactly, in the words of the spec. The answer is of the analysis that the
tile map and the kernels' loops are made of (cases.py, project.py), not a second opinion."""

from __future__ import annotations

from attnc.codegen.build import symbol
from attnc.codegen.cases import cases
from attnc.codegen.project import project, rounded
from attnc.dsl.ir import Apply, Axis, Const, Expr, Fn, Kind, Load, dependencies, postorder

_FIRST, _LAST = symbol("first", Kind.INT), symbol("last", Kind.INT)
_DIRECTIONS: tuple[tuple[Axis, Axis], ...] = (("i", "j"), ("j", "i"))
_JOINING = frozenset((
    Fn.ADD, Fn.SUB, Fn.NEG, Fn.MIN, Fn.MAX, Fn.CLAMP, Fn.ABS, Fn.RELU, Fn.WHERE, Fn.EQ, Fn.NE, Fn.LT, Fn.LE, Fn.GT,
    Fn.GE, Fn.AND, Fn.OR, Fn.NOT,
))  # fmt: skip
"""What the analysis always takes apart where it is of integers."""


def opaque(condition: Expr) -> str:
    """Why a simplified condition has no closed form, a phrase such as "multiplies the positions"; nothing if it has."""
    left_out: dict[Expr, None] = {}
    for side in cases(condition):
        for case in side:
            for outer, inner in _DIRECTIONS:
                piece = project(case, outer, inner, _FIRST, _LAST)
                left_out |= dict.fromkeys(piece.opaque if piece is not None else ())
    parts = set(postorder(*left_out))
    suspects = (node for node in postorder(condition) if node in parts and _suspect(node))
    return next(map(_reason, suspects), "joins the positions in too many ways") if left_out else ""


def crowded(condition: Expr) -> bool:
    """Whether a simplified condition has more cases than are told apart."""
    truths = {node for side in cases(condition) for case in side for node in case.truths}
    return any(isinstance(node, Apply) and node.fn in (Fn.AND, Fn.OR, Fn.WHERE) for node in truths)


def _suspect(node: Expr) -> bool:
    """Whether a node may be what the analysis does not look into."""
    match node:
        case Load():
            return _both(node)
        case Apply() if rounded(node):
            return True
        case Apply(fn=fn, args=args) if not _both(node):
            return False
        case Apply(fn=Fn.MUL, args=(x, y)) if node.kind is Kind.INT:
            return not (isinstance(x, Const) or isinstance(y, Const))
        case Apply(fn=fn, args=args):
            return fn not in _JOINING or any(arg.kind is Kind.FLOAT for arg in args)
        case _:
            return False


def _both(node: Expr) -> bool:
    return dependencies(node) >= {"i", "j"}


def _reason(node: Expr) -> str:
    match node:
        case Load(tensor=tensor):
            return f"reads `{tensor}` at both positions at once"
        case Apply(args=args, kind=kind) if Kind.FLOAT in (kind, *(arg.kind for arg in args)):
            return "computes with floating-point numbers"
        case Apply(fn=Fn.MUL | Fn.POW):
            return "multiplies the positions"
        case Apply(fn=Fn.MOD):
            return "takes a remainder of both positions at once"
        case Apply(fn=Fn.FLOORDIV):
            return "divides both positions at once"
        case _:
            return "joins the positions in a way without a closed form"

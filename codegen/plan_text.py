"""A program and its plan, told to people."""

from __future__ import annotations

from attnc.codegen import build
from attnc.codegen.bounds import Bounds
from attnc.codegen.emit_prepass import span_leaves
from attnc.codegen.names import KERNEL_WORDS, Naming
from attnc.codegen.plan import Pass, Plan
from attnc.codegen.planner.search import Choice
from attnc.codegen.print_torch import TorchPrinter
from attnc.codegen.printer import Names
from attnc.codegen.program import Group, Program
from attnc.codegen.tell import tell
from attnc.dsl.ir import Expr, Fn, Index, Kind, Load, Offset, Side, Size, Symbol, postorder

TITLES: dict[Pass, str] = {"forward": "forward", "query": "d query", "key": "d key, d value"}


def describe(program: Program, plan: Plan) -> str:
    """Strategy and why, live intervals, what is kept for the backward, tiles of every pass."""
    lines = [f"{program.attention.name} for {plan.target}", *strategy(program)]
    lines.append(f"  tiles, {plan.note} (bf16, by vector size)")
    for row in plan.rows:
        if row.itemsize == 2 and row.dim in (64, 128, 256):
            lines.append(f"    {TITLES[row.step]:16} {row.dim:4}: {_row(row.choice)}")
    return "\n".join(lines)


def strategy(program: Program) -> list[str]:
    """How it is computed, and why: the same on every target."""
    attention = program.attention
    lines = []
    for token in attention.tokens:
        lines.append(f"  before the maps: {token.name}, once a {token.side} token, in PyTorch")
    for table in program.tables:
        lines.append(f"  before the maps: table {table.name}, once a call")
    for group in program.groups:
        lines += _group(program, group)
    return lines


def _row(choice: Choice | None) -> str:
    if choice is None:
        return "none fits"
    spill = f", spills {choice.spill} bytes a thread" if choice.spill else ""
    return (
        f"{choice.tile}; {-(-choice.budget.shared_bytes // 1024)} KiB shared, {choice.budget.blocks} a SM{spill}; "
        f"bound by {choice.clocks.bound}"
    )


def _group(program: Program, group: Group) -> list[str]:
    naming = Naming(program)
    names = ", ".join(item.name for item in group.maps)
    together = " together, for they share keys and values" if len(group.maps) > 1 else ""
    lines = [f"  map {names}{together}: tiles with online accumulation over live tiles only"]
    if group.parts:
        lines.append(f"    in {len(group.parts)} passes over disjoint keys, merged by their sums")
    for item in group.maps:
        kind = (
            "exponentials: online with a running maximum" if item.exponential else "no exponentials: summed as they are"
        )
        lines += [
            f"    {item.name}: weights are {kind}",
            f"    {item.name}: kept for the backward: out and {'lse' if item.plain else 'two sums'} of each query",
        ]
    if group.passes[0].splits:
        lines.append("    few queries, many keys: forward keys shared among as many programs as fill the device")
    for number, one in enumerate(group.passes, 1):
        if group.parts:
            lines.append(f"    pass {number}:")
        if one.step > 1:
            lines.append(f"    residue classes of {one.step}: queries and keys gathered by stride into dense tiles")
        lines += _prepass(one)
        lines += _live("keys of queries i0..i1", one.reach.keys.bounds, naming, one)
        lines += _live("queries of keys j0..j1", one.reach.queries.bounds, naming, one)
    for item in group.maps:
        for part in item.input_gradients:
            where = {"row": "by query", "column": "by key", "pair": "in strips of pairs"}[part.read.reach]
            lines.append(f"    gradient of {part.read.load.tensor}: summed {where}, no atomics")
    return lines


def _prepass(group: Group) -> list[str]:
    """What a pass visits beyond closed-form intervals."""
    lines = []
    for number, span in enumerate(group.reach.spans):
        condition = build.apply(Fn.EQ if span.equal else Fn.LE, span.column, span.row)
        lines.append(
            f"    span{number}: rows between which {tell(condition)} may hold (lo, hi) and does (from, to), "
            "from the least and greatest value of each tile, once a pass"
        )
    for item in group.reach.listings:
        lines.append(
            f"    beside the intervals: the tiles that blocks of {item.tensor} touch, listed once a pass, full first"
        )
    return lines


def _live(title: str, bound: Bounds, naming: Naming, group: Group) -> list[str]:
    lines = []
    for word, intervals in (("may be live", bound.may), ("are all live", bound.must)):
        texts = [f"[{_end(lo, 'first', naming, group)}, {_end(hi, 'end', naming, group)})" for lo, hi in intervals]
        lines.append(f"    {title} that {word}: {' and '.join(texts) or 'none known'}")
    return lines


def _end(end: Expr | None, open_end: str, naming: Naming, group: Group) -> str:
    """An interval's end in the spec's own names."""
    if end is None:
        return open_end
    leaves = span_leaves(group)
    tensors: dict[str, str] = {}
    for node in postorder(end):
        match node:
            case Index(axis=axis):
                leaves[node] = axis
            case Size(name=name) | Symbol(name=name):
                leaves.setdefault(node, name)
            case Offset(side=side):
                leaves[node] = "q_offset" if side is Side.QUERY else "kv_offset"
            case Load(tensor=tensor):
                tensors[tensor] = naming.tensor(tensor)
            case _:
                pass
    numbers = [node for node in postorder(end) if node.kind is Kind.INT]
    return TorchPrinter(leaves, Names(KERNEL_WORDS), tensors, numbers).inline(end)

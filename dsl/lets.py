"""Lets and functions: declared, their parameters named, read even where nothing uses them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attnc.dsl import syntax
from attnc.dsl.calls import KINDS
from attnc.dsl.elaborate import Elaborator
from attnc.dsl.names import Let, Scope, complain_if_taken, undeclared
from attnc.dsl.report import Report, near


def declare_let(clause: syntax.LetClause, scope: Scope, report: Report) -> None:
    scope.declare(clause.name, Let(clauses=(clause,), scope=scope, span=clause.name.span), report)


def check_parameters(clause: syntax.LetClause, scope: Scope, report: Report) -> None:
    """A function's parameters and a pair's arguments are names too: nothing is shadowed."""
    seen: set[str] = set()
    for parameter in clause.parameters or ():
        name = parameter.name
        if not complain_if_taken(scope, name, report) and name.text in seen:
            report.fault("A102", f"`{name.text}` is declared twice", name.span)
        seen.add(name.text)
        if parameter.type is not None and parameter.type.text not in KINDS:
            help = near(parameter.type.text, KINDS) or "write `int`, `float` or `bool`, or nothing"
            report.fault("A208", f"a parameter is no `{parameter.type.text}`", parameter.type.span, help=help)
    if isinstance(clause.value, syntax.Pair):
        check_pair(clause.value, scope, seen, report)


def check_pair(pair: syntax.Pair, scope: Scope, taken: set[str], report: Report) -> None:
    for name, wanted, what in ((pair.weight_argument, "s", "score"), (pair.divisor_argument, "t", "sum")):
        if name.text != wanted:
            report.fault("A404", f"in a pair the {what} is called `{wanted}`", name.span, help=f"write `{wanted}`")
        elif not complain_if_taken(scope, name, report) and name.text in taken:
            report.fault("A102", f"`{name.text}` is declared twice", name.span)


def references(node: syntax.Expr) -> Iterator[syntax.Ref]:
    """Every name in an expression, in the order written."""
    stack: list[syntax.Expr | None] = [node]
    while stack:
        match stack.pop():
            case syntax.Ref() as ref:
                yield ref
            case syntax.Call(function=function, args=args):
                stack += [*(argument.value for argument in reversed(args)), function]
            case syntax.Subscript(value=value, index=index):
                for part in reversed(index):
                    stack += [part.stop, part.start] if isinstance(part, syntax.Slice) else [part]
                stack.append(value)
            case syntax.Attribute(value=value):
                stack.append(value)
            case syntax.Unary(operand=operand):
                stack.append(operand)
            case syntax.Binary(left=left, right=right):
                stack += [right, left]
            case syntax.Comparison(operands=operands):
                stack += reversed(operands)
            case syntax.ListLiteral(items=items):
                stack += reversed(items)


def read_unused(clauses: Sequence[syntax.Clause], scope: Scope, elaborator: Elaborator, report: Report) -> None:
    """Lets that nothing used are read all the same: plain ones typed, functions searched for unknown names. The
    names they read count as used, they themselves do not."""
    used = set(elaborator.used)
    lets = [clause for clause in clauses if isinstance(clause, syntax.LetClause) and clause.name.text not in used]
    for clause in lets:
        name = clause.name
        entity = scope.names.get(name.text)
        if not isinstance(entity, Let) or entity.clauses[0] is not clause:
            continue
        if clause.parameters is None and not isinstance(clause.value, syntax.Pair):
            elaborator.value(syntax.Ref(name=name.text, span=name.span), scope)
        else:
            _search(clause, scope, elaborator, report)
    elaborator.used -= {clause.name.text for clause in lets}


def _search(clause: syntax.LetClause, scope: Scope, elaborator: Elaborator, report: Report) -> None:
    """A function's text without arguments has no types, but its names are known or not."""
    own = {parameter.name.text for parameter in clause.parameters or ()}
    match clause.value:
        case syntax.Pair() as pair:
            own |= {pair.weight_argument.text, pair.divisor_argument.text}
            parts = [pair.weight, pair.divisor]
        case expr:
            parts = [expr]
    for part in parts:
        for ref in references(part):
            elaborator.used.add(ref.name)
            if ref.name not in own and scope.find(ref.name) is None:
                undeclared(ref.name, ref.span, scope, dict.fromkeys(own), report)


def warn_unused(clauses: Sequence[syntax.Clause], used: set[str], report: Report) -> None:
    """A warning for each param, input, vector and let that nothing reads."""
    for clause in clauses:
        match clause:
            case syntax.ParamClause(name=name):
                names, what = [name], "param"
            case syntax.InputClause(name=name):
                names, what = [name], "input"
            case syntax.LetClause(name=name):
                names, what = [name], "let"
            case syntax.VectorClause(items=items, role=role):
                names, what = [item.name for item in items], role
            case _:
                continue
        for name in names:
            if name.text not in used:
                report.warn("W001", f"`{name.text}` is never used", name.span, label=f"unused {what}")

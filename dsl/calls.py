"""Calls: which argument goes to which parameter, and whether it is of the kind declared."""

from __future__ import annotations

from attnc.dsl import ir, syntax
from attnc.dsl.kinds import to_float
from attnc.dsl.library import Signature
from attnc.dsl.report import Report, near
from attnc.dsl.sizes import MOST_PARTS, parts, shape_text
from attnc.dsl.source import Span

Given = list[tuple[syntax.Argument, ir.Expr | None]]

KINDS = {"int": ir.Kind.INT, "float": ir.Kind.FLOAT, "bool": ir.Kind.BOOL}


def bind_builtin(
    name: str, signature: Signature, given: Given, span: Span, report: Report
) -> tuple[dict[str, ir.Expr], list[ir.Expr]] | None:
    """The arguments by parameter, and those beyond. Poison arguments are left out. None after a fault."""
    named = [argument.name for argument, _ in given if argument.name is not None]
    plain = [value for argument, value in given if argument.name is None]
    text = f"{name}({', '.join(signature.parameters)}{', ...' if signature.variadic else ''})"
    if not _names_fit(name, text, signature.parameters, len(plain), named, report):
        return None
    keywords = {argument.name.text: value for argument, value in given if argument.name is not None}
    bound = {**dict(zip(signature.parameters, plain, strict=False)), **keywords}
    missing = [parameter for parameter in signature.parameters[: signature.required] if parameter not in bound]
    beyond = plain[len(signature.parameters) :]
    if missing or (beyond and not signature.variadic):
        label = f"`{missing[0]}` is missing" if missing else f"{len(plain)} arguments"
        report.fault("A106", f"`{name}` takes other arguments", span, label=label, help=f"`{text}`")
        return None
    ordered = {parameter: bound[parameter] for parameter in signature.parameters if parameter in bound}
    known = {parameter: value for parameter, value in ordered.items() if value is not None}
    return known, [value for value in beyond if value is not None]


def _names_fit(
    name: str, text: str, parameters: tuple[str, ...], plain: int, named: list[syntax.Name], report: Report
) -> bool:
    """Whether keywords are parameters, and each parameter is given once."""
    taken = set(parameters[:plain])
    for keyword in named:
        if keyword.text not in parameters:
            help = near(keyword.text, parameters) or f"`{text}`"
            report.fault("A106", f"`{name}` has no parameter `{keyword.text}`", keyword.span, help=help)
            return False
        if keyword.text in taken:
            report.fault("A106", f"`{keyword.text}` is given twice", keyword.span, help=f"`{text}`")
            return False
        taken.add(keyword.text)
    return True


def signature_text(clause: syntax.LetClause) -> str:
    """``window(l: int, r: int = ...)``"""
    parts = []
    for parameter in clause.parameters or ():
        kind = f": {parameter.type.text}" if parameter.type is not None else ""
        parts.append(f"{parameter.name.text}{kind}{' = ...' if parameter.default is not None else ''}")
    return f"{clause.name.text}({', '.join(parts)})" if parts else clause.name.text


def choose(
    name: str, clauses: tuple[syntax.LetClause, ...], given: Given, span: Span, report: Report
) -> syntax.LetClause | None:
    """The function that these arguments call: by number and keywords, then, among overloads, by kinds."""
    functions = [clause for clause in clauses if clause.parameters is not None]
    if not functions:
        report.fault("A104", f"`{name}` is no function", span, help=f"write `{name}`")
        return None
    fitting = [clause for clause in functions if len(functions) == 1 or _fits(clause, given)]
    if not fitting:
        forms = ", ".join(f"`{signature_text(clause)}`" for clause in functions)
        report.fault("A106", f"`{name}` takes other arguments", span, help=forms)
        return None
    clause = fitting[0]
    text, parameters = signature_text(clause), clause.parameters or ()
    plain = sum(argument.name is None for argument, _ in given)
    names = tuple(parameter.name.text for parameter in parameters)
    named = [argument.name for argument, _ in given if argument.name is not None]
    if not _names_fit(name, text, names, plain, named, report):
        return None
    bound = places(parameters, given)
    missing = [item.name.text for item in parameters if item.default is None and item.name.text not in bound]
    if missing or plain > len(parameters):
        label = f"`{missing[0]}` is missing" if missing else f"{plain} arguments"
        report.fault("A106", f"`{name}` takes other arguments", span, label=label, help=f"`{text}`")
        return None
    return clause


def _fits(clause: syntax.LetClause, given: Given) -> bool:
    parameters = {parameter.name.text: parameter for parameter in clause.parameters or ()}
    bound = places(clause.parameters or (), given)
    if len(bound) < len(given) or not bound.keys() <= parameters.keys():
        return False
    if any(item.default is None and name not in bound for name, item in parameters.items()):
        return False
    return all(value is None or _accepts(parameters[name], value) for name, (_, value) in bound.items())


def places(parameters: tuple[syntax.Parameter, ...], given: Given) -> dict[str, tuple[syntax.Argument, ir.Expr | None]]:
    """Each argument under its parameter's name."""
    names = iter(parameter.name.text for parameter in parameters)
    found: dict[str, tuple[syntax.Argument, ir.Expr | None]] = {}
    for argument, value in given:
        name = argument.name.text if argument.name is not None else next(names, None)
        if name is not None:
            found[name] = (argument, value)
    return found


def _accepts(parameter: syntax.Parameter, value: ir.Expr) -> bool:
    if parameter.type is None or parameter.type.text not in KINDS:
        return True
    kind = KINDS[parameter.type.text]
    if kind is ir.Kind.BOOL:  # a truth value, or an input of them as a whole
        return value.kind is kind
    return not value.dims and (value.kind is kind or (kind is ir.Kind.FLOAT and value.kind is ir.Kind.INT))


def accept(function: str, parameter: syntax.Parameter, value: ir.Expr, report: Report) -> ir.Expr | None:
    """The argument as its parameter declares it; None after a fault."""
    assert value.span is not None
    if not _accepts(parameter, value):
        assert parameter.type is not None
        wanted = {"int": "an int", "float": "a number", "bool": "a truth value"}[parameter.type.text]
        label = f"this is of shape {shape_text(value.dims)}" if value.dims else f"this is {value.kind}"
        help = "`int(x)` truncates, `//` divides" if (wanted, value.kind) == ("an int", ir.Kind.FLOAT) else ""
        message = f"`{function}` takes {wanted} for `{parameter.name.text}`"
        report.fault("A201", message, value.span, label=label, help=help)
        return None
    if parameter.type is not None and parameter.type.text == "float":
        return to_float(value)
    return value


def size_like(value: ir.Expr, report: Report) -> bool:
    """Whether an int is made of sizes, numbers and params alone; a fault where it is not."""
    for node in ir.postorder(value):
        if not isinstance(node, ir.Const | ir.Size | ir.ParamRef | ir.Apply):
            assert node.span is not None
            report.fault("A209", "a size is made of sizes, numbers and params", node.span, label="not known in advance")
            return False
    if parts(value) > MOST_PARTS:
        assert value.span is not None
        report.fault("A209", f"a size has at most {MOST_PARTS} parts", value.span)
        return False
    return True

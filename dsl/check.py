"""AST -> typed IR: every construct of a file checked, all faults at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attnc.dsl import ir, syntax
from attnc.dsl.attention import attention
from attnc.dsl.conditions import Conditions
from attnc.dsl.declare import Declarations, references
from attnc.dsl.defaults import check_defaults
from attnc.dsl.diagnostics import Diagnostic
from attnc.dsl.elaborate import Elaborator
from attnc.dsl.library import standard_library
from attnc.dsl.names import Let, Scope, construct_scope, undeclared
from attnc.dsl.recurrence import recurrence
from attnc.dsl.report import Report

REPEATABLE = (syntax.ParamClause, syntax.InputClause, syntax.LetClause, syntax.BranchClause)
FOREIGN: dict[str, tuple[type, ...]] = {
    "attention": (syntax.StateClause, syntax.StepClause, syntax.ReadClause),
    "recurrence": (
        syntax.ScoreClause, syntax.MaskClause, syntax.NormalizeClause, syntax.KvClause, syntax.EmitClause,
        syntax.BranchClause, syntax.OutputClause,
    ),
    "branch": (
        syntax.ParamClause, syntax.InputClause, syntax.BranchClause, syntax.OutputClause, syntax.KvClause,
        syntax.EmitClause, syntax.StateClause, syntax.StepClause, syntax.ReadClause,
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    constructs: tuple[ir.Construct, ...]
    warnings: tuple[Diagnostic, ...]


def check(file: syntax.File) -> CheckResult:
    """The constructs of a file, typed; SpecError with every fault if there is one."""
    report = Report(source=file.source)
    seen: set[str] = set()
    made = []
    for construct in file.constructs:
        if construct.name.text in seen:
            report.fault("A102", f"`{construct.name.text}` is declared twice", construct.name.span)
        seen.add(construct.name.text)
        made.append(_construct(construct, file, report))
    warnings = report.finish()
    return CheckResult(constructs=tuple(item for item in made if item is not None), warnings=warnings)


def _construct(construct: syntax.Construct, file: syntax.File, report: Report) -> ir.Construct | None:
    clauses = _own(construct.word, construct.clauses, report)
    library = standard_library()
    scope = construct_scope(library)
    conditions = Conditions(report=report)
    elaborator = Elaborator(report=report, conditions=conditions, recurrence=construct.word == "recurrence")
    declared = Declarations(clauses=clauses, scope=scope, report=report, elaborator=elaborator)
    declared.names()
    declared.types()
    made: ir.Construct | None
    if construct.word == "attention":
        branches = {
            item.name.text: _own("branch", item.clauses, report)
            for item in clauses
            if isinstance(item, syntax.BranchClause)
        }
        made = attention(construct, clauses, branches, declared, library, file.source)
    else:
        made = recurrence(construct, clauses, declared, file.source)
    check_lets(clauses, scope, elaborator, report)
    check_defaults(declared.params, tuple(conditions.later.values()), report)
    if not report.failed():  # what a fault hides may well be used
        _unused(clauses, elaborator.used, report)
    return made


def _own(word: str, clauses: Sequence[syntax.Clause], report: Report) -> tuple[syntax.Clause, ...]:
    """The clauses that belong here, each once; faults for the others."""
    own: list[syntax.Clause] = []
    seen: set[object] = set()
    for clause in clauses:
        name = _word(clause)
        key = name if not isinstance(clause, REPEATABLE) else object()
        if isinstance(clause, FOREIGN[word]) or (word == "branch" and name in ("query", "key")):
            article = "an" if word == "attention" else "a"
            report.fault("A403", f"`{name}` does not belong in {article} {word}", clause.span)
        elif key in seen:
            report.fault("A402", f"`{name}` is written twice", clause.span, help="one clause says it all")
        else:
            own.append(clause)
        seen.add(key)
    return tuple(own)


def _word(clause: syntax.Clause) -> str:
    """The keyword that begins a clause."""
    if isinstance(clause, syntax.VectorClause):
        return clause.role
    return type(clause).__name__.removesuffix("Clause").lower()


def check_lets(clauses: Sequence[syntax.Clause], scope: Scope, elaborator: Elaborator, report: Report) -> None:
    """Lets that nothing uses are read all the same: plain ones typed, functions for unknown names."""
    used = set(elaborator.used)
    for clause in clauses:
        match clause:
            case syntax.LetClause(parameters=None, value=value) if not isinstance(value, syntax.Pair):
                entity = scope.names.get(clause.name.text)
                if isinstance(entity, Let) and entity.clauses == (clause,):
                    elaborator.value(syntax.Ref(name=clause.name.text, span=clause.name.span), scope)
            case syntax.LetClause() if clause.name.text not in used:
                own = {parameter.name.text for parameter in clause.parameters or ()}
                parts: list[syntax.Expr] = []
                if isinstance(clause.value, syntax.Pair):
                    own |= {clause.value.weight_argument.text, clause.value.divisor_argument.text}
                    parts += [clause.value.weight, clause.value.divisor]
                else:
                    parts.append(clause.value)
                for part in parts:
                    for ref in references(part):
                        elaborator.used.add(ref.name)
                        if ref.name not in own and scope.find(ref.name) is None:
                            undeclared(ref.name, ref.span, scope, dict.fromkeys(own), report)
                elaborator.used.discard(clause.name.text)
            case syntax.BranchClause():
                continue
    elaborator.used -= {clause.name.text for clause in clauses if isinstance(clause, syntax.LetClause)} - used


def _unused(clauses: Sequence[syntax.Clause], used: set[str], report: Report) -> None:
    for clause in clauses:
        match clause:
            case syntax.ParamClause(name=name) | syntax.InputClause(name=name) | syntax.LetClause(name=name):
                names = [name]
            case syntax.VectorClause(items=items):
                names = [item.name for item in items]
            case _:
                names = []
        for name in names:
            if name.text not in used:
                report.warn("W001", f"`{name.text}` is never used", name.span, label=f"unused {_word(clause)}")

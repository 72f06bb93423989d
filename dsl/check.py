"""AST -> typed IR: every construct of a file checked, all faults at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attnc.dsl import syntax
from attnc.dsl.attention import attention
from attnc.dsl.conditions import Conditions
from attnc.dsl.construct import Construct
from attnc.dsl.declare import Declarations
from attnc.dsl.defaults import check_defaults
from attnc.dsl.diagnostics import Diagnostic
from attnc.dsl.elaborate import Elaborator
from attnc.dsl.lets import read_unused, warn_unused
from attnc.dsl.library import standard_library
from attnc.dsl.names import construct_scope
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
    constructs: tuple[Construct, ...]
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


def _construct(construct: syntax.Construct, file: syntax.File, report: Report) -> Construct | None:
    clauses = _own(construct.word, construct.clauses, report)
    library = standard_library()
    scope = construct_scope(library)
    conditions = Conditions(report=report)
    elaborator = Elaborator(report=report, conditions=conditions, recurrence=construct.word == "recurrence")
    declared = Declarations(clauses=clauses, scope=scope, report=report, elaborator=elaborator)
    declared.names()
    declared.types()
    made: Construct | None
    if construct.word == "attention":
        branches = {
            item.name.text: _own("branch", item.clauses, report)
            for item in clauses
            if isinstance(item, syntax.BranchClause)
        }
        made = attention(construct, clauses, branches, declared, library, file.source)
    else:
        made = recurrence(construct, clauses, declared, file.source)
    read_unused(clauses, scope, elaborator, report)
    check_defaults(declared.params, tuple(conditions.later.values()), report)
    if not report.failed():  # what a fault hides may well be used
        warn_unused(clauses, elaborator.used, report)
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

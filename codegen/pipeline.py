"""The compiler's stages after the front end, in order."""

from __future__ import annotations

from attnc.codegen.emit import emit
from attnc.codegen.lower import lower
from attnc.codegen.plan import plan
from attnc.codegen.planner.targets import Targets
from attnc.dsl.construct import Construct
from attnc.dsl.frontend import compilable


def compile(construct: Construct, target: str = "generic", known: Targets | None = None) -> str:
    """A specialized construct as the text of a Python module.

    ``known``: other targets than the built-in ones and the user's. Raises SpecError for what is not compiled yet,
    ValueError for an unknown target."""
    program = lower(compilable(construct))
    return emit(program, plan(program, target, known))


def plan_text(construct: Construct, target: str = "generic", known: Targets | None = None) -> str:
    """What was chosen and why, for people."""
    from attnc.codegen.plan_text import describe

    program = lower(compilable(construct))
    return describe(program, plan(program, target, known))

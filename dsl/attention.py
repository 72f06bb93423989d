"""An ``attention``: scores, masks, normalizations, branches, the output and the emits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import get_args

from attnc.dsl import ir, syntax
from attnc.dsl.construct import Attention, Branch, Emit, EmitName, Layout, Normalization
from attnc.dsl.declare import Declarations
from attnc.dsl.layout import layout
from attnc.dsl.lets import check_pair, check_parameters, declare_let, read_unused, warn_unused
from attnc.dsl.library import Library
from attnc.dsl.names import Derived, Scope, Value
from attnc.dsl.normalize import Normalizer
from attnc.dsl.report import near
from attnc.dsl.sizes import KEYS
from attnc.dsl.source import Source, Span
from attnc.dsl.split import Splitter, live_tokens, names_read

TRUE = ir.Const(kind=ir.Kind.BOOL, value=True)


def attention(
    construct: syntax.Construct,
    clauses: tuple[syntax.Clause, ...],
    branches: Mapping[str, tuple[syntax.Clause, ...]],
    declared: Declarations,
    library: Library,
    source: Source,
) -> Attention | None:
    """The checked attention; None after a fault."""
    normalizer = Normalizer(library=library, elaborator=declared.elaborator, report=declared.report)
    checker = _Attention(construct=construct, clauses=clauses, declared=declared, normalizer=normalizer)
    splitter = checker.splitter()
    maps = checker.maps(branches)
    made = [checker.branch(name, own, splitter) for name, own in maps.items()]
    known = [branch for branch in made if branch is not None]
    output = checker.output(known) if len(known) == len(made) else None
    emits = checker.emits(known, bool(branches))
    kv = checker.layout(known, splitter)
    if declared.report.failed() or output is None or kv is None:
        return None
    roots = [x for item in known for x in (item.score, item.mask, item.normalization.divisor)]
    tokens = live_tokens(splitter.tokens, names_read(*roots) | {item.value for item in known})
    return Attention(
        name=construct.name.text, params=tuple(declared.params),
        conditions=tuple(declared.elaborator.conditions.later.values()), inputs=tuple(declared.inputs),
        vectors=tuple(declared.vectors), sizes=tuple(declared.sizes), tokens=tokens, branches=tuple(known),
        output=output, emits=emits, layout=kv, source=source, span=construct.span,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Attention:
    construct: syntax.Construct
    clauses: tuple[syntax.Clause, ...]
    declared: Declarations
    normalizer: Normalizer

    def splitter(self) -> Splitter:
        """The derived vectors as tokens, each after those it uses."""
        elaborator, scope = self.declared.elaborator, self.declared.scope
        for clause in self.clauses:
            if isinstance(clause, syntax.VectorClause):
                for item in clause.items:
                    entity = scope.names.get(item.name.text)
                    if isinstance(entity, Derived) and entity.item is item:
                        self._derived(item)
        taken = {*scope.names, *(clause.name.text for clause in self.clauses if isinstance(clause, syntax.LetClause))}
        splitter = Splitter(report=self.declared.report, vectors=elaborator.vectors, taken=taken)
        for name, (entity, expr) in elaborator.derived.items():
            splitter.declare(name, entity.side, expr, entity.span)
        return splitter

    def _derived(self, item: syntax.VectorItem) -> None:
        used = item.name.text in self.declared.elaborator.used
        ref = syntax.Ref(name=item.name.text, span=item.name.span)
        vector = self.declared.elaborator.value(ref, self.declared.scope)
        if not used:  # being declared is no use
            self.declared.elaborator.used.discard(item.name.text)
        dim = self.declared.size(item.dim) if item.dim is not None else None
        if vector is not None and dim is not None and vector.dims != (dim,):
            self.declared.report.fault("A202", "the vector has another size", item.span)

    def maps(self, branches: Mapping[str, tuple[syntax.Clause, ...]]) -> dict[str, tuple[syntax.Clause, ...]]:
        """The clauses of each map: the branches', or the spec's own as ``out``."""
        if not branches:
            return {"out": self.clauses}
        for clause in self.clauses:
            if isinstance(clause, syntax.ScoreClause | syntax.MaskClause | syntax.NormalizeClause):
                self.declared.report.fault("A403", "with branches, each states its own score", clause.span)
        return dict(branches)

    def branch(self, name: str, clauses: tuple[syntax.Clause, ...], splitter: Splitter) -> Branch | None:
        """One map, split into what is token-wise and what is pairwise."""
        report, elaborator = self.declared.report, self.declared.elaborator
        scope = self._scope(name, clauses)
        found: dict[type, syntax.Clause] = {type(clause): clause for clause in clauses}
        score = found.get(syntax.ScoreClause)
        mask = found.get(syntax.MaskClause)
        normalize = found.get(syntax.NormalizeClause)
        span = self._span(name)
        if not isinstance(score, syntax.ScoreClause):
            report.fault("A401", f"`{self._title(name)}` has no score", span, help="add `score dot(q, k) / sqrt(D)`")
        if not isinstance(normalize, syntax.NormalizeClause):
            report.fault("A401", f"`{self._title(name)}` has no normalization", span, help="add `normalize softmax`")
        scores = self._score(score, scope, splitter) if isinstance(score, syntax.ScoreClause) else None
        masks = self._mask(mask, scope) if isinstance(mask, syntax.MaskClause) else replace(TRUE, span=span)
        weights: Normalization | None = None
        if isinstance(normalize, syntax.NormalizeClause):
            if isinstance(normalize.value, syntax.Pair):
                check_pair(normalize.value, scope, set(), report)
            weights = self.normalizer.normalization(normalize, scope)
        value = self._value(name, clauses, span)
        if name != "out":
            read_unused(clauses, scope, elaborator, report)
            lets = [clause for clause in clauses if isinstance(clause, syntax.LetClause)]
            if not report.failed():
                warn_unused(lets, elaborator.used, report)
        if scores is None or masks is None or weights is None or value is None:
            return None
        divisor = splitter.pairwise(weights.divisor)
        if divisor is None or (value not in splitter.tokens and not self._is_declared(value)):
            return None
        keys = splitter.keys(value, scores, masks)
        if keys is None:
            return None
        weights = replace(weights, divisor=divisor)
        elaborator.used.add(value)
        return Branch(name=name, score=scores, mask=masks, normalization=weights, value=value, keys=keys, span=span)

    def _is_declared(self, name: str) -> bool:
        return any(vector.name == name for vector in self.declared.vectors)

    def _title(self, name: str) -> str:
        return self.construct.name.text if name == "out" else name

    def _span(self, name: str) -> Span:
        for clause in self.clauses:
            if isinstance(clause, syntax.BranchClause) and clause.name.text == name:
                return clause.name.span
        return self.construct.name.span

    def _scope(self, name: str, clauses: tuple[syntax.Clause, ...]) -> Scope:
        """A branch's own lets lie inside the construct's names."""
        if name == "out":
            return self.declared.scope
        scope = Scope(parent=self.declared.scope)
        lets = [clause for clause in clauses if isinstance(clause, syntax.LetClause)]
        for let in lets:
            declare_let(let, scope, self.declared.report)
        for let in lets:
            check_parameters(let, scope, self.declared.report)
        return scope

    def _score(self, clause: syntax.ScoreClause, scope: Scope, splitter: Splitter) -> ir.Expr | None:
        expr = self.declared.elaborator.value(clause.value, scope)
        score = self.declared.elaborator.vectors.scalar(expr, "a score") if expr is not None else None
        return splitter.pairwise(score) if score is not None else None

    def _mask(self, clause: syntax.MaskClause, scope: Scope) -> ir.Expr | None:
        elaborator, report = self.declared.elaborator, self.declared.report
        expr = elaborator.value(clause.value, scope)
        if expr is None or not elaborator.typer.truths((expr,)):
            return None
        assert expr.span is not None
        if expr.dims:
            report.fault("A204", "a mask is one truth value a pair", expr.span, help="index the input")
            return None
        for node in ir.postorder(expr):
            if isinstance(node, ir.Vector):
                assert node.span is not None
                help = "add `where(condition, 0, -inf)` to the score"
                report.fault("A105", "a mask does not read vectors", node.span, help=help)
                return None
        return expr

    def _value(self, name: str, clauses: tuple[syntax.Clause, ...], span: Span) -> str | None:
        """The branch's own choice, else the one derived value, else the one plain value."""
        report = self.declared.report
        own = next((c for c in clauses if isinstance(c, syntax.VectorClause) and c.role == "value"), None)
        if own is not None and name != "out":
            item = own.items[0]
            entity = self.declared.scope.find(item.name.text)
            if len(own.items) > 1 or item.dim is not None or item.value is not None:
                report.fault("A407", "a branch chooses one value by its name", own.span)
                return None
            if not isinstance(entity, Value | Derived) or entity.what != "value":
                report.fault("A407", f"`{item.name.text}` is no value", item.span, help="declare it at the top")
                return None
            return item.name.text
        items = [c for c in self.clauses if isinstance(c, syntax.VectorClause) and c.role == "value"]
        derived = [item.name.text for c in items for item in c.items if item.value is not None]
        plain = [item.name.text for c in items for item in c.items if item.value is None] or ["v"]
        for candidates in (derived, plain):
            if len(candidates) == 1:
                return candidates[0]
            if candidates:
                names = ", ".join(f"`{item}`" for item in candidates)
                help = "inside a branch, `value NAME` chooses"
                report.fault("A407", f"`{self._title(name)}` could sum any of {names}", span, help=help)
                return None
        raise AssertionError(plain)

    def output(self, branches: list[Branch]) -> ir.Expr | None:
        """The combination of the branches; their own for one."""
        report = self.declared.report
        clause = next((c for c in self.clauses if isinstance(c, syntax.OutputClause)), None)
        symbols = {item.name: self._symbol(item) for item in branches}
        if clause is None:
            if len(symbols) == 1:
                return next(iter(symbols.values()))
            help = f"add `output {' + '.join(symbols)}`"
            report.fault("A401", "several branches and no output", self.construct.name.span, help=help)
            return None
        expr = self.declared.elaborator.value(clause.value, self.declared.scope, symbols)
        if expr is None:
            return None
        for node in ir.postorder(expr):
            match node:
                case ir.Index(axis="j"):
                    message = "an output serves all keys: it cannot vary with `j`"
                case ir.Load(dims=()) | ir.Const() | ir.ParamRef() | ir.ParamElement() | ir.Index() | ir.Size():
                    continue
                case ir.Offset() | ir.Symbol() | ir.Apply():
                    continue
                case _:
                    message = "an output combines branches with numbers, elementwise"
            report.fault("A105", message, node.span or clause.span)
            return None
        read = set(ir.postorder(expr))
        for name in (name for name, symbol in symbols.items() if symbol not in read):
            report.warn("W001", f"`{name}` is never used", self._span(name), label="unused branch")
        return self.declared.elaborator.vectors.vector(expr, "an output")

    def _symbol(self, branch: Branch) -> ir.Expr:
        entity = self.declared.scope.find(branch.value)
        if isinstance(entity, Derived):
            dims = self.declared.elaborator.derived[branch.value][1].dims
        else:
            dims = next((vector.dim,) for vector in self.declared.vectors if vector.name == branch.value)
        return ir.Symbol(kind=ir.Kind.FLOAT, dims=dims, name=branch.name, span=branch.span)

    def emits(self, branches: list[Branch], named: bool) -> tuple[Emit, ...]:
        report = self.declared.report
        found: dict[str, Emit] = {}
        for clause in self.clauses:
            if not isinstance(clause, syntax.EmitClause):
                continue
            for item in clause.items:
                what = next((word for word in get_args(EmitName) if word == item.name.text), None)
                if what is None:
                    help = near(item.name.text, get_args(EmitName)) or f"one of {', '.join(get_args(EmitName))}"
                    report.fault("A406", f"nothing called `{item.name.text}` is emitted", item.name.span, help=help)
                    continue
                branch = item.branch.text if item.branch is not None else "out"
                names = [c.name.text for c in self.clauses if isinstance(c, syntax.BranchClause)]
                if (named and branch not in names) or (not named and item.branch is not None):
                    help = f"write `{names[0]}.{what}`" if named else f"write `{what}`"
                    report.fault("A406", "an emit names its branch, if there are any", item.span, help=help)
                    continue
                field = f"{branch}_{what}" if named else what
                if field in found:
                    report.fault("A402", f"`{field}` is emitted twice", item.span)
                found[field] = Emit(name=field, branch=branch, what=what, span=item.span)
                weights = next((b.normalization for b in branches if b.name == branch), None)
                if what == "lse" and weights is not None and not _exponential(weights.weight):
                    report.fault(
                        "A406", "`lse` is the logarithm of a sum of exponentials", item.span,
                        label=f"`{weights.name}` has another weight", help="emit `total`",
                    )  # fmt: skip
        return tuple(found.values())

    def layout(self, branches: list[Branch], splitter: Splitter) -> Layout | None:
        report = self.declared.report
        clause = next((c for c in self.clauses if isinstance(c, syntax.KvClause)), None)
        if clause is None:
            return Layout()
        made = layout(clause, report)
        if made is not None and made.kind == "latent":
            for branch in branches:
                token = splitter.tokens.get(branch.value)
                if token is None or not isinstance(token.expr, ir.Sliced | ir.Vector) or "v" in names_read(token.expr):
                    report.fault(
                        "A408", "in a latent layout the value is a slice of the key", clause.span,
                        help="write `value c = k[:512]`",
                    )  # fmt: skip
        if made is not None and made.kind != "contiguous" and any(item.keys != KEYS for item in branches):
            report.fault("A408", "a layout stores keys as they come, not projected along the sequence", clause.span)
        return made


def _exponential(weight: ir.Expr) -> bool:
    return isinstance(weight, ir.Apply) and weight.fn is ir.Fn.EXP

"""Normalizations: a weight of the score and a divisor of the weights' sum."""

from __future__ import annotations

from dataclasses import dataclass

from attnc.dsl import calls, ir, syntax
from attnc.dsl.construct import Normalization
from attnc.dsl.elaborate import Elaborator, Frame, run
from attnc.dsl.library import Library
from attnc.dsl.names import Let, Scope, library_scope
from attnc.dsl.report import Report, near
from attnc.dsl.source import Span


@dataclass(frozen=True, kw_only=True)
class Normalizer:
    library: Library
    elaborator: Elaborator
    report: Report

    def normalization(self, clause: syntax.NormalizeClause, scope: Scope) -> Normalization | None:
        """``softmax``, ``softmax(sink = e)``, a user's own by name or in place."""
        value = clause.value
        match value:
            case syntax.Pair():
                return self._pair("pair", value, Frame(scope=scope), clause.span)
            case syntax.Ref(name=name):
                let = self._find(value, scope)
                plain = [item for item in let.clauses if item.parameters is None] if let is not None else []
                if let is None:
                    return None
                if not plain:
                    forms = f"`{calls.signature_text(let.clauses[0])}`"
                    self.report.fault("A106", f"`{name}` takes arguments", value.span, help=forms)
                    return None
                return self._named(let, plain[0], {}, value.span)
            case syntax.Call(function=function):
                let = self._find(function, scope)
                frame = Frame(scope=scope)
                given = run(self.elaborator.arguments(value, frame))
                if let is None:
                    return None
                chosen = calls.choose(function.name, let.clauses, given, value.span, self.report)
                if chosen is None:
                    return None
                arguments = run(self.elaborator.parameters(let, chosen, given, value.span, frame))
                return self._named(let, chosen, arguments, value.span) if arguments is not None else None
        self.report.fault("A404", "a normalization is a name, a call or a pair", value.span)
        return None

    def _find(self, ref: syntax.Ref, scope: Scope) -> Let | None:
        """The library's normalizations first, then the spec's own."""
        if ref.name in self.library.normalizations:
            clauses = self.library.normalizations[ref.name]
            return Let(clauses=clauses, scope=library_scope(self.library), span=None)
        entity = scope.find(ref.name)
        self.elaborator.used.add(ref.name)
        if isinstance(entity, Let) and isinstance(entity.clauses[0].value, syntax.Pair):
            return entity
        known = [*self.library.normalizations, *(name for name in scope.visible() if self._is_pair(scope, name))]
        help = (
            near(ref.name, known)
            or f"one of {', '.join(self.library.normalizations)}, or a pair `weight(s) = ... divisor(t) = ...`"
        )
        what = "is no normalization" if entity is not None else "is not known"
        self.report.fault("A404", f"`{ref.name}` {what}", ref.span, help=help)
        return None

    def _is_pair(self, scope: Scope, name: str) -> bool:
        entity = scope.find(name)
        return isinstance(entity, Let) and isinstance(entity.clauses[0].value, syntax.Pair)

    def _named(
        self, let: Let, clause: syntax.LetClause, arguments: dict[str, ir.Expr | None], span: Span
    ) -> Normalization | None:
        assert isinstance(clause.value, syntax.Pair)
        frame = Frame(scope=let.scope, arguments=arguments, call=span if let.scope.library else None)
        return self._pair(clause.name.text, clause.value, frame, span)

    def _pair(self, name: str, pair: syntax.Pair, frame: Frame, span: Span) -> Normalization | None:
        weight = self._part(pair.weight, pair.weight_argument, "s", frame)
        divisor = self._part(pair.divisor, pair.divisor_argument, "t", frame)
        if weight is None or divisor is None:
            return None
        for node in ir.postorder(weight):
            if not isinstance(node, ir.Const | ir.ParamRef | ir.Size | ir.Symbol | ir.Apply):
                self.report.fault(
                    "A405", "a weight is a function of the score and of params", node.span or span,
                    help="what depends on the pair or the head belongs to the score",
                )  # fmt: skip
                return None
        for node in ir.postorder(divisor):
            match node:
                case ir.Index(axis="j") | ir.Vector(side=ir.Side.KEY):
                    self.report.fault(
                        "A405", "a divisor serves all keys of a query: it cannot vary with `j`", node.span or span
                    )
                    return None
        return Normalization(name=name, weight=weight, divisor=divisor, span=span)

    def _part(self, node: syntax.Expr, argument: syntax.Name, symbol: str, frame: Frame) -> ir.Expr | None:
        bound = ir.Symbol(kind=ir.Kind.FLOAT, name=symbol, span=frame.at(argument.span))
        inner = Frame(scope=frame.scope, arguments={**frame.arguments, argument.text: bound}, call=frame.call)
        expr = run(self.elaborator.expression(node, inner))
        what = "a weight" if symbol == "s" else "a divisor"
        return self.elaborator.vectors.scalar(expr, what) if expr is not None else None

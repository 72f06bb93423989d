"""Evaluate a divisor without overflow: numbers kept as mantissa * exp(scale).

With an exponential weight the sum of weights is known as t = total * exp(m), m the row's largest exponent, and m
may be 10,000 or -10,000. ``t + 1``, ``t + exp(e)``, ``max(t, c)`` and the like are taken in this form, terms
brought to the larger scale, so the quotient and its logarithm are right for any finite score. Scales carry no
gradient (any constant scale is right), mantissas carry all of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attnc.dsl.ir import Apply, Const, Expr, Fn, Kind, Symbol, postorder
from attnc.runtime.evaluate import Domain, Scope, apply, evaluate


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """``mantissa * exp(scale)``; a scale of -inf goes with a mantissa of 0."""

    mantissa: Tensor
    scale: Tensor

    def plain(self) -> Tensor:
        return self.mantissa * torch.exp(_finite(self.scale))


def _finite(scale: Tensor) -> Tensor:
    return torch.where(scale.isfinite(), scale, 0)


def exponential(value: Tensor) -> Scaled:
    """exp(value) for any finite value, with its gradient in the mantissa."""
    at = value.detach()
    scale = torch.where(at.isfinite(), at, torch.where(at == -torch.inf, at, 0))
    return Scaled(mantissa=torch.exp(value - _finite(scale)), scale=scale)


def evaluate_divisor(root: Expr, total: Scaled, scope: Scope, domain: Domain) -> Scaled:
    """The divisor at every row of the domain; ``total`` stands for the Symbol t."""
    known: dict[Expr, Tensor] = {}  # plain values: integers, truth values, whatever is free of t and of exponentials
    made: dict[Expr, Scaled] = {}

    def operand(node: Expr) -> Scaled:
        return made[node] if node in made else _unscaled(evaluate(node, scope, domain, known), scope.dtype)

    for node in postorder(root):
        match node:
            case Symbol(name="t"):
                made[node] = total
            case Const(kind=Kind.FLOAT, value=0):
                mantissa = evaluate(node, scope, domain, known)
                made[node] = Scaled(mantissa=mantissa, scale=torch.full_like(mantissa, -torch.inf))
            case Apply(kind=Kind.FLOAT) if node.fn is Fn.EXP or any(arg in made for arg in node.args):
                made[node] = _apply(node, [operand(arg) for arg in node.args], scope.dtype)
            case Apply() if any(arg in made for arg in node.args):
                mantissas, _ = _common([operand(arg) for arg in node.args])
                known[node] = apply(node.fn, mantissas, scope.torch_dtype(node.kind))
            case _:
                pass  # evaluated where it is used
    return operand(root)


def _unscaled(value: Tensor, dtype: torch.dtype) -> Scaled:
    return Scaled(mantissa=value, scale=torch.zeros_like(value, dtype=dtype))


def _common(args: list[Scaled]) -> tuple[list[Tensor], Tensor]:
    """The mantissas at the largest of the scales."""
    scale = args[0].scale
    for arg in args[1:]:
        scale = torch.maximum(scale, arg.scale)
    base = _finite(scale)
    return [arg.mantissa * torch.exp(arg.scale - base) for arg in args], scale


def _apply(node: Apply, args: list[Scaled], dtype: torch.dtype) -> Scaled:
    first = args[0]
    match node.fn:
        case Fn.ADD | Fn.SUB | Fn.MIN | Fn.MAX | Fn.CLAMP:
            mantissas, scale = _common(args)
            return Scaled(mantissa=apply(node.fn, mantissas, dtype), scale=scale)
        case Fn.WHERE:
            mantissas, scale = _common(args[1:])
            return Scaled(mantissa=torch.where(first.mantissa, mantissas[0], mantissas[1]), scale=scale)
        case Fn.NEG | Fn.ABS:
            return Scaled(mantissa=apply(node.fn, [first.mantissa], dtype), scale=first.scale)
        case Fn.MUL:
            return Scaled(mantissa=first.mantissa * args[1].mantissa, scale=first.scale + args[1].scale)
        case Fn.DIV:
            return Scaled(mantissa=first.mantissa / args[1].mantissa, scale=first.scale - _finite(args[1].scale))
        case Fn.SQRT:
            return Scaled(mantissa=torch.sqrt(first.mantissa), scale=first.scale / 2)
        case Fn.LOG:
            return _unscaled(torch.log(first.mantissa) + _finite(first.scale), dtype)
        case Fn.EXP:
            return exponential(first.plain())
        case _:
            return _unscaled(apply(node.fn, [arg.plain() for arg in args], dtype), dtype)

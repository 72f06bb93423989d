"""Expression graphs as straight-line source text, whatever the language.

``Printer.block`` names what is shared, read from memory, or varies less than its user (so that it is computed
further out), inlines the rest, and never nests deeper than a line holds. Parentheses come from precedence alone.
"""

from __future__ import annotations

import keyword
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from attnc.dsl.ir import (
    Apply,
    Axis,
    Const,
    Expr,
    Fn,
    Index,
    Kind,
    Load,
    Offset,
    Size,
    Symbol,
    Table,
    children,
    dependencies,
    postorder,
)

# Python's and Triton's precedence, low to high.
COMPARE, OR, AND, SUM, PRODUCT, UNARY, POWER, ATOM = range(8)

_WIDTH = 72


@dataclass(frozen=True, kw_only=True)
class Text:
    """A piece of source and how tightly it binds."""

    text: str
    binds: int = ATOM

    def within(self, binds: int) -> str:
        """The text, in parentheses if its context binds more tightly."""
        return self.text if self.binds >= binds else f"({self.text})"


def regroups(node: Apply) -> bool:
    """Whether x + (y + z) may be printed as x + y + z: integers and truth values; sums of floats round differently,
    and in x * (y // z) the parentheses mean something."""
    return node.fn in (Fn.AND, Fn.OR) or (node.fn is Fn.ADD and node.kind is Kind.INT)


class Names:
    """Identifiers in one scope: near what was asked for, never reserved, never twice."""

    def __init__(self, reserved: Sequence[str] = ()) -> None:
        self._taken = set(reserved)

    def fresh(self, base: str) -> str:
        """``base``, or ``base_``, ``base_2``, ... where that is taken."""
        name = base + "_" if keyword.iskeyword(base) or keyword.issoftkeyword(base) else base
        count = 2
        while name in self._taken:
            name = f"{base}_{count}"
            count += 1
        self._taken.add(name)
        return name


@dataclass(frozen=True, kw_only=True)
class Block:
    """Statements a level, outermost first, and the name of every expression that has one."""

    lines: tuple[tuple[str, ...], ...]
    named: Mapping[Expr, str]


class Printer(ABC):
    """Prints expressions in one language. Leaves are given by the caller as texts: an entry of ``leaves`` may be any
    node, a leaf or a whole sub-expression that already has a name."""

    def __init__(self, leaves: Mapping[Expr, str], names: Names) -> None:
        self.leaves = dict(leaves)
        self.names = names

    @abstractmethod
    def apply(self, node: Apply, args: Sequence[Text]) -> Text:
        """An elementwise function of printed arguments."""

    @abstractmethod
    def constant(self, node: Const) -> Text:
        """A literal."""

    @abstractmethod
    def load(self, node: Load, index: Sequence[str]) -> Text:
        """A tensor read at printed indices."""

    @abstractmethod
    def table(self, node: Table, index: Text) -> Text:
        """An entry of a compile-time list."""

    @abstractmethod
    def prepare(self, roots: Sequence[Expr]) -> None:
        """A look at all roots before they are printed."""

    def other(self, node: Expr, args: Sequence[Text]) -> Text:
        """A node that only some languages print."""
        raise NotImplementedError(f"{type(self).__name__} does not print {type(node).__name__}")

    def block(
        self,
        roots: Mapping[str, Expr],
        levels: Sequence[frozenset[Axis]],
        *,
        symbols: Mapping[Expr, frozenset[Axis]] | None = None,
        finish: Mapping[str, Callable[[Text], str]] | None = None,
        notes: Mapping[str, str] | None = None,
    ) -> Block:
        """Statements ``root = ...`` for every root, and before them those for what is shared, each at the outermost
        level whose axes cover it. ``symbols`` says what Symbols vary with; ``finish`` turns a root's text into its
        right-hand side; ``notes`` follow a root's statement."""
        nodes = postorder(*roots.values())
        self.prepare(tuple(roots.values()))
        axes: dict[Expr, frozenset[Axis]] = {}
        for node in nodes:
            own = (symbols or {}).get(node) if isinstance(node, Symbol) else None
            if own is None:
                own = dependencies(node) if not children(node) else frozenset()
            axes[node] = own.union(*(axes[child] for child in children(node)))
        level = {node: _level(axes[node], levels) for node in nodes}
        uses: Counter[Expr] = Counter()
        hoisted: set[Expr] = set()
        for node in nodes:
            for child in children(node):
                uses[child] += 1
                if level[child] < level[node]:
                    hoisted.add(child)

        done: dict[Expr, Text] = {}
        named: dict[Expr, str] = {}
        lines: list[list[str]] = [[] for _ in levels]
        for node in nodes:
            if node in self.leaves:
                done[node] = Text(text=self.leaves[node])
                continue
            if isinstance(node, Symbol | Index | Size | Offset):
                continue  # below a leaf that has a name; an error if it is needed after all
            if any(child not in done for child in children(node)):
                continue
            text = self._print(node, [done[child] for child in children(node)])
            shared = isinstance(node, Load | Table) or uses[node] > 1 or node in hoisted or len(text.text) > _WIDTH
            if shared and not isinstance(node, Const):
                name = self.name(node, level[node])
                lines[level[node]].append(f"{name} = {text.text}")
                text = Text(text=name)
                named[node] = name
            done[node] = text
        for name, root in roots.items():
            if root not in done:
                raise KeyError(f"no text was given for a leaf of {name}")
            text = done[root]
            right = finish[name](text) if finish and name in finish else text.text
            lines[level[root] if not finish or name not in finish else -1].append(
                f"{name} = {right}{(notes or {}).get(name, '')}"
            )
        return Block(lines=tuple(tuple(part) for part in lines), named=named)

    def inline(self, root: Expr) -> str:
        """The expression as one text, nothing named: for what is short by nature."""
        self.prepare((root,))
        done: dict[Expr, Text] = {}
        for node in postorder(root):
            if node in self.leaves:
                done[node] = Text(text=self.leaves[node])
            elif not isinstance(node, Symbol | Index | Size | Offset) and all(part in done for part in children(node)):
                done[node] = self._print(node, [done[part] for part in children(node)])
        return done[root].text

    def name(self, node: Expr, level: int) -> str:
        """What a node is called that is computed at a level."""
        return self.names.fresh(self.base(node))

    def base(self, node: Expr) -> str:
        """What a node's name is made from."""
        return f"{node.tensor.replace(' ', '')}_at" if isinstance(node, Load) else "x"

    def _print(self, node: Expr, args: Sequence[Text]) -> Text:
        match node:
            case Const():
                return self.constant(node)
            case Apply():
                return self.apply(node, args)
            case Load():
                return self.load(node, [arg.text for arg in args])
            case Table():
                return self.table(node, args[0])
            case _:
                return self.other(node, args)


def _level(axes: frozenset[Axis], levels: Sequence[frozenset[Axis]]) -> int:
    for number, allowed in enumerate(levels):
        if axes <= allowed:
            return number
    return len(levels) - 1

"""The loops of machine code: basic blocks, dominators, natural loops. Knows branches, and no other instruction."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attnc.runtime.machine.disassembly import Instruction

_TARGET = re.compile(r"`\((\.L_\w+)\)")


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A natural loop: its basic blocks in order of address, each a range of instruction numbers."""

    header: int
    blocks: tuple[range, ...]

    @property
    def numbers(self) -> list[int]:
        """Every instruction of the loop, in order of address."""
        return [number for block in self.blocks for number in block]

    def holds(self, other: Loop) -> bool:
        return self is not other and set(other.blocks) <= set(self.blocks)


def loops(code: Sequence[Instruction], labels: Mapping[str, int]) -> tuple[Loop, ...]:
    """Every natural loop, in order of address; those with one header are one."""
    blocks = _blocks(code, labels)
    successors = _successors(code, labels, blocks)
    order = _reverse_postorder(successors)
    predecessors: dict[int, list[int]] = defaultdict(list)
    for node in order:
        for successor in successors[node]:
            predecessors[successor].append(node)
    dominator = _dominators(order, predecessors)
    bodies: dict[int, set[int]] = {}
    for node in order:
        for header in successors[node]:
            if _dominates(header, node, dominator):
                body, work = bodies.setdefault(header, {header}), [node]
                while work:
                    block = work.pop()
                    if block not in body:
                        body.add(block)
                        work += predecessors[block]
    return tuple(
        Loop(header=header, blocks=tuple(blocks[number] for number in sorted(body)))
        for header, body in sorted(bodies.items(), key=lambda item: min(item[1]))
    )


def _leaves(instruction: Instruction) -> tuple[list[str], bool]:
    """The labels that an instruction may jump to, and whether the next one may follow it."""
    predicated = bool(instruction.predicate)
    match instruction.base:
        case "BRX" | "JMX":  # a switch
            return re.findall(r"\.L_\w+", instruction.operands), predicated
        case "BRA" | "JMP" | "CALL" if instruction.base != "CALL" or _TARGET.search(instruction.operands):
            rest = _TARGET.sub("", instruction.operands)
            # CALL.REL.NOINC to a label is a far branch; a predicate may stand among the operands
            return _TARGET.findall(instruction.operands), predicated or bool(re.search(r"\bU?P\w", rest))
        case "EXIT" | "RET" | "BPT" | "KILL":
            return [], predicated
        case _:
            return [], True


def _blocks(code: Sequence[Instruction], labels: Mapping[str, int]) -> list[range]:
    starts = {0} | {place for place in labels.values() if place < len(code)}
    for number, instruction in enumerate(code[:-1]):
        targets, falls = _leaves(instruction)
        if targets or not falls or instruction.base in ("BRA", "BRX", "EXIT", "RET", "CALL"):
            starts.add(number + 1)
    ordered = sorted(starts)
    return [range(start, stop) for start, stop in zip(ordered, [*ordered[1:], len(code)], strict=True)]


def _successors(code: Sequence[Instruction], labels: Mapping[str, int], blocks: list[range]) -> list[list[int]]:
    starting = {block.start: number for number, block in enumerate(blocks)}
    found = []
    for number, block in enumerate(blocks):
        targets, falls = _leaves(code[block[-1]])
        after = [starting[labels[name]] for name in targets if labels.get(name) in starting]
        found.append([*after, number + 1] if falls and number + 1 < len(blocks) else after)
    return found


def _reverse_postorder(successors: list[list[int]]) -> list[int]:
    order: list[int] = []
    seen, stack = {0}, [(0, iter(successors[0]))]
    while stack:
        node, rest = stack[-1]
        fresh = next((item for item in rest if item not in seen), None)
        if fresh is None:
            order.append(node)
            stack.pop()
        else:
            seen.add(fresh)
            stack.append((fresh, iter(successors[fresh])))
    return order[::-1]


def _dominators(order: list[int], predecessors: Mapping[int, list[int]]) -> dict[int, int]:
    """Immediate dominators, after Cooper, Harvey and Kennedy (2001)."""
    place = {node: number for number, node in enumerate(order)}
    dominator = {0: 0}
    changed = True
    while changed:
        changed = False
        for node in order[1:]:
            known = [item for item in predecessors[node] if item in dominator]
            found = known[0]
            for item in known[1:]:
                while item != found:
                    while place[item] > place[found]:
                        item = dominator[item]
                    while place[found] > place[item]:
                        found = dominator[found]
            if dominator.get(node) != found:
                dominator[node], changed = found, True
    return dominator


def _dominates(header: int, node: int, dominator: Mapping[int, int]) -> bool:
    while node != header and node != 0:
        node = dominator[node]
    return node == header

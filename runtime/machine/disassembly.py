"""Machine code as text: a cubin through the cuobjdump and nvdisasm of Triton's wheel. No GPU takes part."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]+)\*/\s+(?:(@!?U?P\w+)\s+)?([A-Z][\w.]*)\s*(.*?)\s*;")
_LABEL = re.compile(r"^(\.L_\w+):")
_SECTION = re.compile(r"^\s*\.section\s+\.text\.(\S+?),")


@dataclass(frozen=True, kw_only=True, slots=True)
class Instruction:
    """One line of SASS: ``@P0 LDS.128 R4, [R8]``."""

    address: int
    predicate: str
    opcode: str
    operands: str

    @property
    def base(self) -> str:
        """The opcode without what follows its first dot."""
        return self.opcode.split(".", 1)[0]


@dataclass(frozen=True, kw_only=True)
class Code:
    """A kernel's instructions in order of address, where its labels point, and the registers and bytes of stack that
    a thread takes. (Of spilled bytes cuobjdump's LOCAL says 0 even where there are some; STACK does not.)"""

    name: str
    instructions: tuple[Instruction, ...]
    labels: Mapping[str, int]
    registers: int
    stack: int


def disassemble(cubin: bytes) -> Code:
    """A cubin's largest function. Raises RuntimeError where Triton's wheel has no disassembler or it fails."""
    name, instructions, labels = max(functions(listing(cubin)), key=lambda found: len(found[1]))
    usage = _run("cuobjdump", "--dump-resource-usage", cubin)
    found = re.search(rf"Function {re.escape(name)}:\s*\n(.*)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump says nothing of the resources of {name}")
    numbers = dict(re.findall(r"([A-Z]+):(\d+)", found[1]))
    return Code(
        name=name,
        instructions=tuple(instructions),
        labels=labels,
        registers=int(numbers["REG"]),
        stack=int(numbers["STACK"]),
    )


def listing(cubin: bytes) -> str:
    """A cubin's code as nvdisasm prints it."""
    return _run("nvdisasm", "-c", cubin)


def functions(text: str) -> list[tuple[str, list[Instruction], dict[str, int]]]:
    """Every function of a listing: its name, its instructions, and the number of the one that each label is before."""
    found: list[tuple[str, list[Instruction], dict[str, int]]] = []
    for line in text.splitlines():
        if section := _SECTION.match(line):
            found.append((section[1], [], {}))
        elif found:
            _, instructions, labels = found[-1]
            if label := _LABEL.match(line):
                labels[label[1]] = len(instructions)
            elif code := _INSTRUCTION.match(line):
                address, predicate, opcode, operands = code.groups()
                instructions.append(
                    Instruction(address=int(address, 16), predicate=predicate or "", opcode=opcode, operands=operands)
                )
    if not found:
        raise RuntimeError("nvdisasm found no code")
    return found


def _run(tool: str, option: str, cubin: bytes) -> str:
    spec = importlib.util.find_spec("triton")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'triton'", name="triton")
    program = Path(spec.origin).parent / "backends" / "nvidia" / "bin" / tool
    if not program.exists():
        raise RuntimeError(f"this triton ships no {tool}: {program} is not there")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        done = subprocess.run([str(program), option, str(path)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{tool} failed: {done.stderr.strip()}")
    return done.stdout

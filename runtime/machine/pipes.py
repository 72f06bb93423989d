"""What an instruction of SASS occupies: its pipe, a matrix instruction's shape, the bytes it moves, its registers.

Pipes of opcodes are those of Nsight Compute's Profiling Guide, "Pipelines": conversions to 16 bits run on the ALU from
Ampere on, IMAD on the FMA pipe, MUFU and conversions between integers and floats on XU."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from attnc.runtime.machine.disassembly import Instruction

Pipe = Literal[
    "tensor", "special", "fp32", "half", "imad", "convert", "integer", "uniform", "memory", "tma", "tmem",
    "barrier", "branch", "constant", "other",
]  # fmt: skip

_OPCODES: dict[Pipe, str] = {
    "tensor": "HMMA HGMMA QGMMA IGMMA IMMA QMMA OMMA UTCHMMA UTCQMMA UTCIMMA UTCOMMA",
    "special": "MUFU I2F F2I F2F FRND POPC FLO BREV",
    "fp32": "FFMA FMUL FADD FFMA2 FMUL2 FADD2 FSWZADD FADD32I FMUL32I FFMA32I",
    "half": "HFMA2 HADD2 HMUL2 HMNMX2 HSET2 HSETP2",
    "convert": "F2FP I2FP F2IP I2I I2IP",
    "tma": "UTMALDG UTMASTG UTMAREDG UTMAPF UBLKCP UBLKRED UTMACCTL UTMACMDFLUSH",
    "tmem": "LDTM STTM UTCCP UTCSHIFT",
    "barrier": "BAR WARPGROUP SYNCS MEMBAR FENCE DEPBAR LDGDEPBAR WARPSYNC ERRBAR UTCBAR NANOSLEEP ARRIVES ELECT "
    "WARPGROUPSET B2R R2B USETMAXREG CGABAR_ARV CGABAR_WAIT UCGABAR_ARV ACQBULK",
    "memory": "LDS LDSM STS STSM LDG STG LD ST LDGSTS ATOMS ATOMG ATOM RED REDG LDL STL SHFL MATCH LDGMC CCTL REDAS "
    "REDUX",
    "branch": "BRA BRX JMP JMX EXIT RET CALL BSSY BSYNC BREAK BPT YIELD BMOV",
    "constant": "LDC LDCU ULDC",
    "other": "S2R S2UR CS2R CS2UR R2UR UR2R NOP VOTE VOTEU PMTRIG UVIRTCOUNT UTCATOMSWS",
    "imad": "IMUL IDP IDP4A",
}
_PIPES = {opcode: pipe for pipe, opcodes in _OPCODES.items() for opcode in opcodes.split()}
_STORES = frozenset(("STS", "STG", "STSM", "STL", "ST", "RED", "REDG", "LDGSTS", "STTM", "UTCBAR", "BAR", "BRA"))


def pipe_of(instruction: Instruction) -> Pipe:
    """The pipe that executes an instruction; what is in no list is integer arithmetic, uniform if it begins with U."""
    base = instruction.base
    if base in _PIPES:
        return _PIPES[base]
    if base.startswith("IMAD"):
        return "imad"
    return "uniform" if base.startswith("U") else "integer"


@dataclass(frozen=True, kw_only=True)
class Product:
    """A matrix instruction: its shape, who issues it, the bytes of its operands in shared memory, and how many times
    slower than bf16 it runs."""

    m: int
    n: int
    k: int
    issuer: Literal["warp", "warpgroup", "block"]
    bytes: int = 0
    slow: int = 1

    @property
    def size(self) -> int:
        """Multiply-adds."""
        return self.m * self.n * self.k


def product(code: Sequence[Instruction], number: int) -> Product:
    """The matrix instruction at ``number``. Raises ValueError for one whose shape cannot be read."""
    instruction = code[number]
    base, opcode = instruction.base, instruction.opcode
    slow = 2 if ".TF32" in opcode else 1
    if base in ("HMMA", "IMMA", "QMMA"):
        shape = re.search(r"\.(16)(8)(\d+)\b", opcode)
        if shape is None:
            raise ValueError(f"no shape of a matrix product in {opcode}")
        return Product(m=16, n=8, k=int(shape[3]), issuer="warp", slow=slow)
    if base in ("HGMMA", "QGMMA", "IGMMA"):
        shape = re.search(r"\.(\d+)x(\d+)x(\d+)", opcode)
        if shape is None:
            raise ValueError(f"no shape of a matrix product in {opcode}")
        m, n, k = map(int, shape.groups())
        element = 32 // k if base != "HGMMA" else 4 if ".TF32" in opcode else 2
        shared = instruction.operands.split(",")[1].strip().startswith("gdesc")
        return Product(
            m=m, n=n, k=k, issuer="warpgroup", bytes=(m * k if shared else 0) * element + n * k * element, slow=slow
        )
    # tcgen05: the shape is in the instruction's descriptor: M / 16 from bit 24, N / 8 from bit 17 (PTX ISA)
    named = re.search(r"idesc\[(UR\d+)\]", instruction.operands)
    descriptor = _constant(code, number, named[1]) if named else None
    if descriptor is None:
        raise ValueError(f"no descriptor of a matrix product in {opcode} {instruction.operands}")
    m, n, k = (descriptor >> 24 & 31) * 16, (descriptor >> 17 & 63) * 8, 16 if base == "UTCHMMA" else 32
    shared = instruction.operands.startswith("gdesc")
    return Product(m=m, n=n, k=k, issuer="block", bytes=((m * k if shared else 0) + n * k) * (32 // k))


def _constant(code: Sequence[Instruction], number: int, register: str) -> int | None:
    """What a uniform register holds: the constant last moved there, or any descriptor that is ever."""
    for instruction in reversed(code[:number]):
        moved = re.match(rf"{register}, (0x[0-9a-f]+)$", instruction.operands)
        if moved and instruction.base in ("UMOV", "MOV", "UMOV32I"):
            return int(moved[1], 16)
        if pipe_of(instruction) != "tensor" and re.match(rf"{register}\b", instruction.operands):
            break
    for instruction in code:
        moved = re.match(rf"{register}, (0x8[0-9a-f]{{6}})$", instruction.operands)
        if moved and instruction.base == "UMOV":
            return int(moved[1], 16)
    return None


def bytes_moved(instruction: Instruction) -> int:
    """Bytes that a whole warp moves through the path of shared memory and L1."""
    base, opcode = instruction.base, instruction.opcode
    if instruction.predicate == "@!PT" or base == "CCTL":
        return 0
    if base in ("SHFL", "MATCH", "REDUX"):
        return 128
    if base in ("LDSM", "STSM"):
        matrices = re.search(r"MT?88\.(\d)", opcode)
        return 128 * (int(matrices[1]) if matrices else 1)
    return 32 * (16 if ".128" in opcode else 8 if ".64" in opcode else 4)


def columns_moved(instruction: Instruction) -> int:
    """Registers of a thread that a move from or to tensor memory fills."""
    found = re.search(r"\.x(\d+)", instruction.opcode)
    return int(found[1]) if found else 1


def registers(instruction: Instruction, made: Product | None) -> tuple[list[str], list[str]]:
    """The registers and predicates that an instruction writes, and those that it reads. A matrix instruction of a
    warpgroup or block writes none that can be waited for: its groups are."""
    operands = [text.strip() for text in re.sub(r"\]\[", "], [", instruction.operands).split(",")]
    base, opcode = instruction.base, instruction.opcode
    if made is not None:
        if made.issuer == "warp":
            reads = [name for text, width in zip(operands[1:4], (4, 2, 4), strict=True) for name in _named(text, width)]
            return _named(operands[0], 4), reads
        in_registers = made.issuer == "warpgroup" and not operands[1].startswith("gdesc")
        return [], _named(operands[1], 4) if in_registers else []
    width = 4 if ".128" in opcode or "88.4" in opcode else 2
    if width == 2 and not (".64" in opcode or "88.2" in opcode or base == "CS2R"):
        width = 1
    if base in ("LDTM", "STTM"):
        width = columns_moved(instruction)
    pair = base in ("FADD2", "FMUL2", "FFMA2")
    reads = re.findall(r"(?<!\w)!?(U?P\d)", instruction.operands)
    if instruction.predicate:
        reads.append(instruction.predicate.strip("@!"))
    if base in _STORES or base.startswith("UTM"):
        for text in operands:
            reads += _named(text, 2 if ".64" in text else 1 if text.startswith(("[", "tmem")) else width)
        return [], reads
    writes: list[str] = []
    place = 0
    while place < len(operands) and re.fullmatch(r"U?P\d|U?PT", operands[place]):
        writes.append(operands[place])
        place += 1
    if place < len(operands) and re.match(r"U?R\w+", operands[place]) and not (writes and base.endswith("SETP")):
        writes += _named(operands[place], 2 if pair or ".WIDE" in opcode else width)
        place += 1
        while place < len(operands) and re.fullmatch(r"U?P\d|U?PT", operands[place]):
            writes.append(operands[place])
            place += 1
    reads = [name for name in reads if name not in writes or instruction.operands.count(name) > 1]
    for text in operands[place:]:
        reads += _named(text, 2 if pair or ".64" in text else 1)
    return writes, reads


def _named(operand: str, width: int) -> list[str]:
    """The registers of an operand: R4 of two is R4 and R5."""
    found = re.search(r"(?<![A-Z\w])(U?R)(\d+)", operand)
    return [f"{found[1]}{int(found[2]) + offset}" for offset in range(width)] if found else []

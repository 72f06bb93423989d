"""What an AMD code object says of itself: the metadata of its kernel, and nothing of its instructions.

The note NT_AMDGPU_METADATA is a map in MessagePack (LLVM, "User Guide for AMDGPU Backend", code object V3 metadata);
the few integers needed are read beside their keys, so no parser of MessagePack is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Vector and accumulation registers of a thread, those spilled to memory, and bytes of stack. (Scalar registers
    spill to lanes of vector registers, not to memory.)"""

    registers: int
    spilled: int
    stack: int


def usage(hsaco: bytes) -> Usage:
    """The metadata of a code object's kernel. Raises ValueError where it has none."""
    return Usage(
        registers=_number(hsaco, ".vgpr_count"),
        spilled=_number(hsaco, ".vgpr_spill_count"),
        stack=_number(hsaco, ".private_segment_fixed_size"),
    )


def _number(hsaco: bytes, key: str) -> int:
    """The unsigned integer behind a key: a byte under 128 is itself; 0xcc to 0xcf say that 1, 2, 4, 8 bytes follow."""
    text = key.encode()
    # a short string's length stands in the byte before it, so that no longer key is taken for this one
    header = bytes([0xA0 | len(text)]) if len(text) < 32 else bytes([0xD9, len(text)])
    place = hsaco.find(header + text)
    if place < 0:
        raise ValueError(f"the code object's metadata has no {key}")
    at = place + len(header) + len(text)
    kind = hsaco[at]
    if kind < 0x80:
        return kind
    if 0xCC <= kind <= 0xCF:
        size = 1 << (kind - 0xCC)
        return int.from_bytes(hsaco[at + 1 : at + 1 + size], "big")
    raise ValueError(f"the code object's metadata has no number behind {key}")

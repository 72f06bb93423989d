"""The rates and limits of NVIDIA's architectures that a kernel's machine code is priced with: data, and its sources.

[guide]     CUDA C++ Programming Guide: "Throughput of Native Arithmetic Instructions" (results per clock per SM) and
            "Technical Specifications per Compute Capability" (registers, warps, blocks, shared memory).
[a100]      NVIDIA A100 whitepaper: 1024 dense bf16 multiply-adds per clock per SM.
[ada]       NVIDIA Ada whitepaper: 512 dense bf16 multiply-adds per clock per SM, accumulated in float32.
[h100]      NVIDIA H100 whitepaper: 2048 dense bf16 multiply-adds per clock per SM, through wgmma.
[mma-sync]  mma.sync on sm_90 reaches about 0.64 of wgmma's rate (arXiv 2402.13499, 2501.12084; FlashAttention-3).
[b200]      2.25 PFLOP/s dense bf16 over 148 SMs at 1.85 GHz: 4096 multiply-adds per clock per SM; exponentials (16)
            and shared memory (128 B) per clock per SM as on the H100 (FlashAttention-4).
[rtx]       NVIDIA RTX Blackwell whitepaper: dense bf16 per SM as on Ada.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

KIB = 1024


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Per SM and clock. ``tensor``: dense bf16 multiply-adds of the native path; ``mma_sync``: the share of it that
    mma.sync reaches; ``fp32``, ``special`` (exponentials), ``integer`` (integer, compare, select): lanes; ``bytes``:
    of shared memory. Then limits of an SM, and of a block's shared memory in bytes."""

    name: str
    tensor: int
    mma_sync: float
    fp32: int
    shared_sm: int
    shared_block: int
    max_warps: int = 64
    max_blocks: int = 32
    tensor_columns: int = 0  # tensor memory [guide]
    special: int = 16  # [guide], every architecture here
    integer: int = 64  # [guide], every architecture here; also conversions to 16 bits
    bytes: int = 128  # [guide]: 32 banks of 4 bytes
    registers: int = 65536  # [guide], every architecture here

    def occupancy(self, registers: int, warps: int, shared: int, columns: int = 0) -> Occupancy:
        """Blocks of an SM that are resident at once. A warp's registers come in 256s and warps in fours over the four
        sub-partitions, and the system keeps 1 KiB of shared memory a block [guide]."""
        register_warps = self.registers // (math.ceil(max(registers, 1) * 32 / 256) * 256) // 4 * 4
        limits = {
            "registers": register_warps // warps,
            "shared memory": self.shared_sm // (shared + KIB) if shared <= self.shared_block else 0,
            "warps": self.max_warps // warps,
            "blocks": self.max_blocks,
        }
        if columns:
            limits["tensor memory"] = self.tensor_columns // columns
        limit = min(limits, key=lambda name: limits[name])
        return Occupancy(blocks=limits[limit], warps=limits[limit] * warps, limit=limit)


@dataclass(frozen=True, kw_only=True)
class Occupancy:
    """Blocks and warps resident on an SM, and what limits them. No blocks: the kernel cannot be launched."""

    blocks: int
    warps: int
    limit: str


ARCHITECTURES = {
    "sm_80": Architecture(  # A100
        name="sm_80",
        tensor=1024,  # [a100]
        mma_sync=1.0,  # the native path
        fp32=64,  # [guide]
        shared_sm=164 * KIB,  # [guide]
        shared_block=163 * KIB,  # [guide]
    ),
    "sm_89": Architecture(  # L4, L40S, RTX 4090
        name="sm_89",
        tensor=512,  # [ada]
        mma_sync=1.0,  # the native path
        fp32=128,  # [guide]
        shared_sm=100 * KIB,  # [guide]
        shared_block=99 * KIB,  # [guide]
        max_warps=48,  # [guide]
        max_blocks=24,  # [guide]
    ),
    "sm_90": Architecture(  # H100, H200
        name="sm_90",
        tensor=2048,  # [h100]
        mma_sync=0.64,  # [mma-sync]
        fp32=128,  # [guide]
        shared_sm=228 * KIB,  # [guide]
        shared_block=227 * KIB,  # [guide]
    ),
    "sm_100": Architecture(  # B200
        name="sm_100",
        tensor=4096,  # [b200]
        mma_sync=0.25,  # assumed: the rate of mma.sync on an A100
        fp32=128,  # [guide]
        shared_sm=228 * KIB,  # [guide]
        shared_block=227 * KIB,  # [guide]
        tensor_columns=512,  # PTX ISA, tensor memory: 512 columns of 128 lanes
    ),
    "sm_120": Architecture(  # RTX 5090, RTX PRO 6000
        name="sm_120",
        tensor=512,  # [rtx]
        mma_sync=1.0,  # the native path
        fp32=128,  # [guide]
        shared_sm=100 * KIB,  # [guide]
        shared_block=99 * KIB,  # [guide]
        max_warps=48,  # [guide]
        max_blocks=24,  # [guide]
    ),
}

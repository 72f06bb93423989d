"""Small kernels, one an operation or a few: the interpreter and the native executor must agree on them.

``run`` launches one by name in this process, whichever way its kernels run here, and gives the tensors after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import triton
import triton.language as tl
from torch import Tensor


def run(name: str, arguments: Sequence[Any], grid: tuple[int, ...] = (1,), **constants: Any) -> list[Tensor]:
    """The tensors among copies of the arguments, after the launch."""
    kernel = native(name)
    constants = {key: TYPES.get(value, value) for key, value in constants.items()}
    given = [x.clone() if isinstance(x, Tensor) else x for x in arguments]
    kernel[grid](*given, **constants)
    return [x for x in given if isinstance(x, Tensor)]


TYPES = {"torch.float32": tl.float32, "torch.float64": tl.float64}  # tl's own are not pickled


@cache
def native(name: str) -> Any:
    """The kernel, to launch here."""
    kernel = globals()[name]
    if isinstance(kernel, triton.JITFunction):
        from attnc.runtime.ttir.launch import NativeKernel

        return NativeKernel(kernel)
    return kernel


def run_with(name: str, arguments: Sequence[Any], grid: tuple[int, ...], constants: dict[str, Any]) -> list[Tensor]:
    return run(name, arguments, grid, **constants)


@triton.jit
def floats(x_ptr, y_ptr, z_ptr, n, SINGLE: tl.constexpr, BLOCK: tl.constexpr):
    """A row of z for each of FLOAT_ROWS."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=1)
    y = tl.load(y_ptr + at, mask=at < n, other=1)
    z = z_ptr + at
    live = at < n
    tl.store(z, -x, live)
    tl.store(z + n, tl.abs(x), live)
    tl.store(z + 2 * n, tl.floor(x), live)
    tl.store(z + 3 * n, tl.ceil(x), live)
    tl.store(z + 4 * n, tl.clamp(x, -1.0, 2.0), live)
    tl.store(z + 5 * n, tl.sqrt(x), live)
    tl.store(z + 6 * n, tl.rsqrt(x), live)
    tl.store(z + 7 * n, tl.exp(x), live)
    tl.store(z + 8 * n, tl.exp2(x), live)
    tl.store(z + 9 * n, tl.log(x), live)
    tl.store(z + 10 * n, tl.log2(x), live)
    tl.store(z + 11 * n, tl.erf(x), live)
    tl.store(z + 12 * n, x + y, live)
    tl.store(z + 13 * n, x - y, live)
    tl.store(z + 14 * n, x * y, live)
    tl.store(z + 15 * n, x / y, live)
    tl.store(z + 16 * n, tl.maximum(x, y), live)
    tl.store(z + 17 * n, tl.minimum(x, y), live)
    tl.store(z + 18 * n, tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL), live)
    tl.store(z + 19 * n, tl.minimum(x, y, propagate_nan=tl.PropagateNan.ALL), live)
    tl.store(z + 20 * n, tl.fma(x, y, x), live)
    tl.store(z + 21 * n, tl.where(x > y, x, y), live)
    bits = (x == y).to(tl.int32) + 2 * (x != y) + 4 * (x < y) + 8 * (x <= y) + 16 * (x > y) + 32 * (x >= y)
    bits += 64 * ((x < y) == 0) + 128 * ((x >= y) == 0) + 256 * ((x == y) == 0) + 512 * ((x != y) == 0)
    tl.store(z + 22 * n, bits.to(x.dtype), live)
    if SINGLE:
        tl.store(z + 23 * n, tl.sqrt_rn(x), live)
        tl.store(z + 24 * n, tl.div_rn(x, y), live)
        tl.store(z + 25 * n, (x.to(tl.int32, bitcast=True) ^ 1).to(tl.float32, bitcast=True), live)


@triton.jit
def waves(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=0)
    tl.store(y_ptr + at, tl.sin(x), mask=at < n)
    tl.store(y_ptr + n + at, tl.cos(x), mask=at < n)


@triton.jit
def integers(x_ptr, y_ptr, by_ptr, z_ptr, n, SIGNED: tl.constexpr, UNSIGNED32: tl.constexpr, BLOCK: tl.constexpr):
    """A row of z for each operation; ``by`` are divisors and shifts."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=1)
    y = tl.load(y_ptr + at, mask=at < n, other=1)
    by = tl.load(by_ptr + at, mask=at < n, other=1)
    z = z_ptr + at
    live = at < n
    tl.store(z, x + y, live)
    tl.store(z + n, x - y, live)
    tl.store(z + 2 * n, x * y, live)
    tl.store(z + 3 * n, x & y, live)
    tl.store(z + 4 * n, x | y, live)
    tl.store(z + 5 * n, x ^ y, live)
    if SIGNED:  # the interpreter has no ~ of others
        tl.store(z + 6 * n, ~x, live)
    tl.store(z + 7 * n, tl.maximum(x, y), live)
    tl.store(z + 8 * n, tl.minimum(x, y), live)
    tl.store(z + 9 * n, tl.where(x < y, x, y), live)
    bits = (x == y).to(tl.int32) + 2 * (x != y) + 4 * (x < y) + 8 * (x <= y) + 16 * (x > y) + 32 * (x >= y)
    tl.store(z + 10 * n, bits.to(x.dtype), live)
    tl.store(z + 11 * n, x // by, live)
    tl.store(z + 12 * n, x % by, live)
    tl.store(z + 13 * n, x << by, live)
    tl.store(z + 14 * n, x >> by, live)
    tl.store(z + 15 * n, x.to(tl.int8).to(x.dtype), live)
    tl.store(z + 16 * n, (x.to(tl.int64) >> 1).to(tl.float32).to(tl.int64).to(x.dtype) * (y > 1), live)
    if UNSIGNED32:
        tl.store(z + 17 * n, tl.umulhi(x, y), live)


@triton.jit
def cast(x_ptr, y0_ptr, y1_ptr, y2_ptr, y3_ptr, y4_ptr, n, BLOCK: tl.constexpr):
    """To the dtypes of five tensors."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=1)
    tl.store(y0_ptr + at, x.to(y0_ptr.dtype.element_ty), mask=at < n)
    tl.store(y1_ptr + at, x.to(y1_ptr.dtype.element_ty), mask=at < n)
    tl.store(y2_ptr + at, x.to(y2_ptr.dtype.element_ty), mask=at < n)
    tl.store(y3_ptr + at, x.to(y3_ptr.dtype.element_ty), mask=at < n)
    tl.store(y4_ptr + at, x.to(y4_ptr.dtype.element_ty), mask=at < n)


@triton.jit
def divided(x_ptr, y_ptr, z_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x, y = tl.load(x_ptr + at), tl.load(y_ptr + at)
    tl.store(z_ptr + at, x // y)
    tl.store(z_ptr + BLOCK + at, x % y)


@triton.jit
def reduced(
    x_ptr, y_ptr, place_ptr, AXIS: tl.constexpr, INT: tl.constexpr, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr
):
    """[A, B, C] along one axis: four or five rows of y, two of places."""
    a, b, c = tl.arange(0, A)[:, None, None], tl.arange(0, B)[None, :, None], tl.arange(0, C)[None, None, :]
    x = tl.load(x_ptr + (a * B + b) * C + c)
    y = tl.sum(x, AXIS)
    size: tl.constexpr = y.shape[0] * y.shape[1]
    at = tl.arange(0, size)
    tl.store(y_ptr + at, tl.reshape(y, [size]))
    tl.store(y_ptr + size + at, tl.reshape(tl.max(x, AXIS), [size]))
    tl.store(y_ptr + 2 * size + at, tl.reshape(tl.min(x, AXIS), [size]))
    tl.store(y_ptr + 3 * size + at, tl.reshape(tl.reduce(tl.where(x > 3, 2, x > 0).to(x.dtype), AXIS, _times), [size]))
    if INT:
        tl.store(y_ptr + 4 * size + at, tl.reshape(tl.xor_sum(x, AXIS), [size]))
    tl.store(place_ptr + at, tl.reshape(tl.argmax(x, AXIS), [size]))
    tl.store(place_ptr + size + at, tl.reshape(tl.argmin(x, AXIS), [size]))


@triton.jit
def total(x_ptr, y_ptr, BLOCK: tl.constexpr):
    """A sum to a scalar."""
    tl.store(y_ptr, tl.sum(tl.load(x_ptr + tl.arange(0, BLOCK)), 0))


@triton.jit
def _times(x, y):
    return x * y


@triton.jit
def scanned(x_ptr, y_ptr, A: tl.constexpr, B: tl.constexpr):
    """Along both axes, forwards and backwards."""
    at = tl.arange(0, A)[:, None] * B + tl.arange(0, B)[None, :]
    x = tl.load(x_ptr + at)
    tl.store(y_ptr + at, tl.cumsum(x, 0))
    tl.store(y_ptr + A * B + at, tl.cumsum(x, 1, reverse=True))
    tl.store(y_ptr + 2 * A * B + at, tl.associative_scan(x, 1, _times))
    tl.store(y_ptr + 3 * A * B + at, tl.associative_scan(x, 0, _times, reverse=True))


@triton.jit
def ordered(x_ptr, y_ptr, z_ptr, A: tl.constexpr, B: tl.constexpr):
    at = tl.arange(0, A)[:, None] * B + tl.arange(0, B)[None, :]
    x = tl.load(x_ptr + at)
    tl.store(y_ptr + at, tl.sort(x))
    tl.store(z_ptr + at, tl.flip(x, 1))


@triton.jit
def shaped(x_ptr, y_ptr, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr):
    """Six results of A * B * C elements, one behind the other."""
    a, b, c = tl.arange(0, A)[:, None, None], tl.arange(0, B)[None, :, None], tl.arange(0, C)[None, None, :]
    x = tl.load(x_ptr + (a * B + b) * C + c)
    size: tl.constexpr = A * B * C
    flat = tl.arange(0, size)
    tl.store(y_ptr + flat, tl.reshape(tl.permute(x, (2, 0, 1)), [size]))
    tl.store(y_ptr + size + flat, tl.reshape(tl.trans(tl.reshape(x, [A * B, C])), [size]))
    even, odd = tl.split(tl.reshape(x, [size // 2, 2]))
    tl.store(y_ptr + 2 * size + flat, tl.reshape(tl.join(odd, even), [size]))
    tl.store(y_ptr + 3 * size + flat, tl.reshape(tl.broadcast_to(tl.sum(x, 1)[:, None, :], [A, B, C]), [size]))
    tl.store(y_ptr + 4 * size + flat, tl.gather(tl.reshape(x, [size]), (flat * 7) % size, 0))
    tl.store(y_ptr + 5 * size + flat, tl.interleave(even, odd))


@triton.jit
def counted(x_ptr, y_ptr, n, BINS: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at, mask=at < n, other=0)
    tl.store(y_ptr + tl.arange(0, BINS), tl.histogram(x, BINS, mask=at < n))


@triton.jit
def multiplied(
    x_ptr, y_ptr, z_ptr, ACC: tl.constexpr, PRECISION: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr
):
    """z[M, N] += x[M, K] y[N, K] transposed."""
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    x = tl.load(x_ptr + m[:, None] * K + k[None, :])
    y = tl.load(y_ptr + n[:, None] * K + k[None, :])
    at = m[:, None] * N + n[None, :]
    z = tl.load(z_ptr + at).to(ACC)
    tl.store(z_ptr + at, tl.dot(x, tl.trans(y), z, input_precision=PRECISION, out_dtype=ACC).to(z_ptr.dtype.element_ty))


@triton.jit
def multiplied_batched(x_ptr, y_ptr, z_ptr, A: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    a, m, n, k = tl.arange(0, A), tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    x = tl.load(x_ptr + (a[:, None, None] * M + m[None, :, None]) * K + k[None, None, :])
    y = tl.load(y_ptr + (a[:, None, None] * K + k[None, :, None]) * N + n[None, None, :])
    z = tl.dot(x, y, input_precision="ieee")
    tl.store(z_ptr + (a[:, None, None] * M + m[None, :, None]) * N + n[None, None, :], z)


@triton.jit(noinline=True)
def collatz(n, most):
    """Steps until 1, no more than some: two results."""
    steps = 0
    while (n != 1) & (steps < most):
        if n % 2 == 0:
            n = n // 2
        else:
            n = 3 * n + 1
        steps += 1
    return steps, n


@triton.jit
def controlled(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    """Loops in loops, values exchanged from step to step, branches on scalars, a call that is not inlined."""
    program = tl.program_id(0) + tl.num_programs(0) * (tl.program_id(1) + tl.num_programs(1) * tl.program_id(2))
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)
    y = x * 2 + program
    total = tl.zeros([BLOCK], tl.int64)
    for outer in range(n, -1, -2):
        for inner in range(0, outer, 3):
            x, y = y + inner, x
            if inner % 2 == 1:
                total += x
            else:
                total -= tl.sum(y, 0)
        if outer > 5:
            y = tl.trans(tl.reshape(y, [BLOCK // 4, 4])).reshape([BLOCK])
    steps, last = collatz(program + n + 1, 30)
    tl.store(y_ptr + program * BLOCK + at, total + y + steps * 1000 + last)


@triton.jit
def late(x_ptr, y_ptr, n, A: tl.constexpr):
    """What a branch or a loop needs in memory is needed behind it too, where neither may have run."""
    at = tl.arange(0, A)[:, None] * A + tl.arange(0, A)[None, :]
    x = tl.load(x_ptr + at)
    turned = tl.trans(x)
    total = x
    if n > 1:
        total = tl.dot(x, turned, total, input_precision="ieee")
    for _ in range(n):
        total = tl.dot(turned, x, total, input_precision="ieee")
    tl.store(y_ptr + at, total + turned)


@triton.jit
def masked(x_ptr, y_ptr, rows, columns, stride, FILL: tl.constexpr, A: tl.constexpr, B: tl.constexpr):
    """A tile of a strided matrix, its tails masked."""
    row = tl.program_id(0) * A + tl.arange(0, A)
    column = tl.program_id(1) * B + tl.arange(0, B)
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    at = row.to(tl.int64)[:, None] * stride + column[None, :]
    if FILL:
        x = tl.load(x_ptr + at, mask=inside, other=-7.0)
        tl.store(y_ptr + row[:, None] * (B * tl.num_programs(1)) + column[None, :], x)
    else:
        x = tl.load(x_ptr + at, mask=inside)
        tl.store(y_ptr + at, x + 1, mask=inside)


@triton.jit
def atomic(x_ptr, y_ptr, old_ptr, OP: tl.constexpr, BINS: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)
    place = y_ptr + at % BINS
    if OP == "add":
        tl.atomic_add(place, x)
    elif OP == "max":
        tl.atomic_max(place, x, mask=at % 3 != 1)
    elif OP == "min":
        tl.atomic_min(place, x)
    elif OP == "xchg":
        tl.atomic_xchg(place, x, mask=at < BINS)
    elif OP == "cas":
        old = tl.atomic_cas(y_ptr, tl.program_id(0), tl.program_id(0) + 1)
        tl.store(old_ptr + tl.program_id(0), old)


@triton.jit
def described(x_ptr, y_ptr, rows, columns, A: tl.constexpr, B: tl.constexpr):
    """A tile through descriptors: zero outside, and not written there."""
    x = tl.make_tensor_descriptor(x_ptr, [rows, columns], [columns, 1], [A, B])
    y = tl.make_tensor_descriptor(y_ptr, [rows, columns], [columns, 1], [A, B])
    row, column = tl.program_id(0) * A - A // 2, tl.program_id(1) * B
    y.store([row, column], x.load([row, column]) * 2 + 1)


@triton.jit
def reads_beyond(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)  # no mask
    tl.store(y_ptr + at, x, mask=at < n)


@triton.jit
def writes_before(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y_ptr + at - 1, tl.load(x_ptr + at))


@triton.jit
def asserts(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)
    tl.device_assert(x > 0, "x is positive")
    tl.store(y_ptr + at, x)


@triton.jit
def assembled(x_ptr, y_ptr, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + at)
    y = tl.inline_asm_elementwise("tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)
    tl.store(y_ptr + at, y)


@triton.jit
def unknown(x_ptr, BLOCK: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, BLOCK))
    y = tl.inline_asm_elementwise("nanosleep.u32 $1;", "=r,r", [x], dtype=tl.int32, is_pure=False, pack=1)
    tl.store(x_ptr + tl.arange(0, BLOCK), y)

"""Operations run natively give what Triton's interpreter gives: operation by operation, on drawn tensors. Where the
interpreter has no answer (inline assembly) or a wrong one (products of bf16), PyTorch is asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from attnc.runtime.ttir.ir import Unsupported
from attnc.runtime.ttir.launch import KernelFault
from attnc.testing.process import Process
from tests.backends import ttir_kernels

pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton"),  # numpy warns of the inf and NaN that are drawn
]
N = 64  # drawn elements; programs of 16, the last not full
FLOATS = {32: torch.float32, 64: torch.float64, 16: torch.float16}
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, 2.5, -2.5, float("inf"), float("-inf"), float("nan"), 1e-40, 3e38, -100.0]


def agree(
    native: Process, name: str, arguments: list[Any], grid: tuple[int, ...], ulps: int = 0, **constants: Any
) -> None:
    """Both give the same tensors, floats within so many units in the last place."""
    expected = ttir_kernels.run(name, arguments, grid, **constants)
    actual = native.call(ttir_kernels.run_with, name, arguments, grid, constants)
    for a, e in zip(actual, expected, strict=True):
        close(a, e, ulps)


def close(actual: Tensor, expected: Tensor, ulps: int) -> None:
    if not expected.is_floating_point():
        assert torch.equal(actual, expected), (actual, expected)
        return
    info = torch.finfo(expected.dtype)
    a, e = actual.double(), expected.double()
    unit = info.eps * e.abs().clamp(min=info.smallest_normal)
    same = (a == e) | (a.isnan() & e.isnan()) | ((a - e).abs() <= ulps * unit)
    assert same.all(), (actual[~same], expected[~same], (~same).nonzero().tolist())


def floats(width: int, **limits: Any) -> st.SearchStrategy[Tensor]:
    special = [x for x in SPECIAL if width > 16 or abs(x) < 6e4 or abs(x) == float("inf") or x != x]
    element = st.one_of(st.sampled_from(special), st.floats(-100, 100, width=width), st.floats(width=width))
    if limits:
        element = st.floats(width=width, **limits)
    return st.lists(element, min_size=N - 3, max_size=N - 3).map(lambda x: torch.tensor(x, dtype=FLOATS[width]))


def integers(dtype: torch.dtype, low: int | None = None, high: int | None = None) -> st.SearchStrategy[Tensor]:
    info = torch.iinfo(dtype)
    element = st.integers(info.min if low is None else low, info.max if high is None else high)
    if low is None:
        element = st.one_of(element, st.integers(max(info.min, -9), 9))
    return st.lists(element, min_size=N - 3, max_size=N - 3).map(lambda x: torch.tensor(x, dtype=dtype))


# Units in the last place, a row each: exact where IEEE says so; elementary functions as numpy's and C's differ.
FLOAT_ROWS = (0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0)


@given(data=st.data(), width=st.sampled_from([32, 64]))
def test_floats(native: Process, data: st.DataObject, width: int) -> None:
    x, y = data.draw(floats(width)), data.draw(floats(width))
    rows = 26 if width == 32 else 23
    arguments = [x, y, torch.zeros(rows, len(x), dtype=x.dtype), len(x)]
    constants = {"SINGLE": width == 32, "BLOCK": 16}
    (*_, expected) = ttir_kernels.run("floats", arguments, (4,), **constants)
    (*_, actual) = native.call(ttir_kernels.run_with, "floats", arguments, (4,), constants)
    # numpy lets a NaN through where PTX takes the other number, and has no fused multiply-add.
    expected[4] = torch.fmin(torch.fmax(x, torch.tensor(-1.0)), torch.tensor(2.0)).to(x.dtype)
    expected[16], expected[17] = torch.fmax(x, y), torch.fmin(x, y)
    expected[20] = (x.double() * y.double() + x.double()).to(x.dtype) if width == 32 else actual[20]
    for row in range(rows):
        close(actual[row], expected[row], FLOAT_ROWS[row])


@given(x=floats(32, min_value=-1000, max_value=1000))
def test_waves(native: Process, x: Tensor) -> None:
    agree(native, "waves", [x, torch.zeros(2, len(x)), len(x)], (1,), ulps=4, BLOCK=64)


@given(data=st.data(), width=st.sampled_from([16, 32, 64]))
def test_casts_round_to_even(native: Process, data: st.DataObject, width: int) -> None:
    """Against PyTorch; to bf16 by way of float32, as on GPUs."""
    x = data.draw(floats(width))
    dtypes = (torch.float16, torch.bfloat16, torch.float32, torch.float64, x.dtype)
    results = [torch.zeros(N, dtype=dtype) for dtype in dtypes]
    (_, *actual) = native.call(ttir_kernels.run_with, "cast", [x, *results, len(x)], (4,), {"BLOCK": 16})
    for y, dtype in zip(actual, dtypes, strict=True):
        close(y[: len(x)], (x.float() if dtype == torch.bfloat16 else x).to(dtype), 0)
        assert not y[len(x) :].any()


CAST_TO = (torch.int8, torch.int16, torch.int32, torch.int64)


@given(data=st.data(), width=st.sampled_from([32, 64]))
def test_casts_to_integers(native: Process, data: st.DataObject, width: int) -> None:
    x = data.draw(floats(width, min_value=-127, max_value=127))
    results = [torch.zeros(N, dtype=dtype) for dtype in (*CAST_TO, torch.uint8)]
    agree(native, "cast", [x.abs() if width == 32 else x, *results[:4], results[3], len(x)], (4,), BLOCK=16)
    beyond = torch.tensor([float("nan"), float("inf"), float("-inf"), 1e30, -1e30], dtype=x.dtype)
    (_, *found) = native.call(ttir_kernels.run_with, "cast", [beyond, *results, 5], (1,), {"BLOCK": 16})
    for y in found:
        info = torch.iinfo(y.dtype)
        assert y[:5].tolist() == [0, info.max, info.min, info.max, info.min], "the nearest that there is, as in PTX"


INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint32)


@given(data=st.data(), dtype=st.sampled_from(INTEGERS))
def test_integers(native: Process, data: st.DataObject, dtype: torch.dtype) -> None:
    x, y = data.draw(integers(dtype)), data.draw(integers(dtype))
    by = data.draw(integers(dtype, 1, torch.iinfo(dtype).bits - 1))
    unsigned = dtype == torch.uint32
    result = torch.zeros(18 if unsigned else 17, len(x), dtype=dtype)
    signed = dtype.is_signed
    agree(native, "integers", [x, y, by, result, len(x)], (4,), SIGNED=signed, UNSIGNED32=unsigned, BLOCK=16)


def test_a_division_by_zero_is_no_trap(native: Process) -> None:
    x = torch.tensor([7, -7, -(2**31), 0], dtype=torch.int32)
    y = torch.tensor([0, 0, -1, 0], dtype=torch.int32)
    arguments = [x, y, torch.zeros(2, 4, dtype=torch.int32)]
    (*_, z) = native.call(ttir_kernels.run_with, "divided", arguments, (1,), {"BLOCK": 4})
    assert z.tolist() == [[-1, -1, -(2**31), -1], [7, -7, 0, 0]]


@given(
    axis=st.integers(0, 2),
    shape=st.sampled_from([(1, 8, 32), (8, 2, 1), (2, 64, 4)]),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.int64]),
)
def test_reductions(native: Process, axis: int, shape: tuple[int, int, int], seed: int, dtype: torch.dtype) -> None:
    """Values whose sums and products are exact, so that the order of terms does not show."""
    A, B, C = shape
    x = torch.randint(-4, 5, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    kept = x.sum(axis).numel()
    integral = not dtype.is_floating_point
    results = [torch.zeros(5 if integral else 4, kept, dtype=dtype), torch.zeros(2, kept, dtype=torch.int32)]
    agree(native, "reduced", [x, *results], (1,), AXIS=axis, INT=integral, A=A, B=B, C=C)


@given(size=st.sampled_from([1, 8, 256]), dtype=st.sampled_from([torch.float32, torch.int32]))
def test_sums_to_a_scalar(native: Process, size: int, dtype: torch.dtype) -> None:
    agree(native, "total", [torch.arange(size).to(dtype), torch.zeros(1, dtype=dtype)], (1,), BLOCK=size)


@given(dtype=st.sampled_from([torch.float32, torch.int64]), seed=st.integers(0, 99))
def test_scans(native: Process, dtype: torch.dtype, seed: int) -> None:
    x = torch.randint(-1, 2, (8, 16), generator=torch.Generator().manual_seed(seed)).to(dtype)
    agree(native, "scanned", [x, torch.zeros(4, 8, 16, dtype=dtype)], (1,), A=8, B=16)


@given(seed=st.integers(0, 99), dtype=st.sampled_from([torch.float32, torch.int32]))
def test_orders(native: Process, seed: int, dtype: torch.dtype) -> None:
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(seed)).mul(20).to(dtype)
    agree(native, "ordered", [x, x, x], (1,), A=4, B=16)


@pytest.mark.parametrize("shape", [(1, 2, 16), (4, 4, 2), (16, 1, 4)])
def test_shapes(native: Process, shape: tuple[int, int, int]) -> None:
    x = torch.arange(shape[0] * shape[1] * shape[2]).reshape(shape)
    A, B, C = shape
    agree(native, "shaped", [x, torch.zeros(6 * x.numel(), dtype=torch.int64)], (1,), A=A, B=B, C=C)


@given(n=st.integers(0, 64), bins=st.sampled_from([2, 16]))
def test_histograms(native: Process, n: int, bins: int) -> None:
    x = (torch.arange(64, dtype=torch.int32) * 7) % bins
    agree(native, "counted", [x, torch.zeros(bins, dtype=torch.int32), n], (1,), BINS=bins, BLOCK=64)


PRODUCTS = {  # dtype of the factors, of the sums, how they are multiplied, relative error of a product
    "f32": (torch.float32, torch.float32, "ieee", 0.0),
    "tf32x3": (torch.float32, torch.float32, "tf32x3", 0.0),
    "tf32": (torch.float32, torch.float32, "tf32", 2.0**-9),
    "f16": (torch.float16, torch.float32, "ieee", 0.0),
    "bf16": (torch.bfloat16, torch.float32, "ieee", 0.0),
    "f64": (torch.float64, torch.float64, "ieee", 0.0),
}


@pytest.mark.parametrize("kind", PRODUCTS)
@given(shape=st.sampled_from([(16, 16, 16), (64, 32, 128), (32, 128, 16)]), seed=st.integers(0, 99))
def test_products(native: Process, kind: str, shape: tuple[int, int, int], seed: int) -> None:
    """Against float64: the factors are exact in their dtype; sums of K products lie within K roundings."""
    M, N, K = shape
    dtype, acc, precision, relative = PRODUCTS[kind]
    generator = torch.Generator().manual_seed(seed)
    x, y, z = (torch.randn(a, b, generator=generator) for a, b in ((M, K), (N, K), (M, N)))
    x, y, z = x.to(dtype), y.to(dtype), z.to(acc)
    (*_, actual) = native.call(
        ttir_kernels.run_with,
        "multiplied",
        [x, y, z],
        (1,),
        {"ACC": str(acc), "PRECISION": precision, "M": M, "N": N, "K": K},
    )
    expected = x.double() @ y.double().mT + z.double()
    size = x.double().abs() @ y.double().abs().mT + z.double().abs()
    bound = ((K + 1) * torch.finfo(acc).eps / 2 + relative) * size
    assert ((actual.double() - expected).abs() <= bound).all()
    if kind == "tf32":
        assert not torch.equal(actual, expected.float()), "ten bits, not twenty-three"


@given(seed=st.integers(0, 9), a=st.sampled_from([1, 2, 4]))
def test_products_of_batches(native: Process, seed: int, a: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randint(-8, 9, shape, generator=generator).float() for shape in ((a, 16, 32), (a, 32, 64)))
    agree(native, "multiplied_batched", [x, y, torch.zeros(a, 16, 64)], (1,), A=a, M=16, N=64, K=32)


@given(n=st.integers(-2, 9), grid=st.tuples(*[st.integers(1, 3)] * 3))
def test_control_flow(native: Process, n: int, grid: tuple[int, int, int]) -> None:
    x = torch.arange(16) * 3 - 20
    agree(native, "controlled", [x, torch.zeros(27 * 16, dtype=torch.int64), n], grid, BLOCK=16)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_values_read_where_no_branch_has_run(native: Process, n: int) -> None:
    x = torch.randint(-3, 4, (16, 16), generator=torch.Generator().manual_seed(n)).float()
    agree(native, "late", [x, torch.zeros(16, 16), n], (1,), A=16)


@given(rows=st.integers(2, 40), columns=st.integers(2, 40), gap=st.integers(0, 5), fill=st.booleans())
def test_masked_memory(native: Process, rows: int, columns: int, gap: int, fill: bool) -> None:
    whole = torch.arange(rows * (columns + gap), dtype=torch.float32).reshape(rows, columns + gap)
    grid = (-(-rows // 16), -(-columns // 8))
    y = torch.full((grid[0] * 16, grid[1] * 8), -1.0) if fill else torch.zeros_like(whole)
    agree(native, "masked", [whole, y, rows, columns, columns + gap], grid, FILL=fill, A=16, B=8)


@pytest.mark.parametrize("op", ["add", "max", "min", "xchg", "cas"])
@given(seed=st.integers(0, 99), dtype=st.sampled_from([torch.int32, torch.float32]))
def test_atomics(native: Process, op: str, seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.int32 if op in ("cas", "xchg") else dtype
    x = torch.randint(-9, 10, (64,), generator=generator).to(dtype)
    y = torch.zeros(8, dtype=dtype)
    agree(native, "atomic", [x, y, torch.full((4,), -1, dtype=torch.int32)], (4,), OP=op, BINS=8, BLOCK=16)


@given(rows=st.integers(1, 40), columns=st.sampled_from([4, 8, 12, 36]))
def test_descriptors(native: Process, rows: int, columns: int) -> None:
    x = torch.arange(rows * columns, dtype=torch.float32).reshape(rows, columns)
    y = torch.full_like(x, -1)
    agree(native, "described", [x, y, rows, columns], (-(-rows // 16) + 1, -(-columns // 8)), A=16, B=8)


def test_hardware_tanh_is_as_coarse_as_ptx_allows(native: Process) -> None:
    x = torch.linspace(-9, 9, 4096)
    (_, y) = native.call(ttir_kernels.run_with, "assembled", [x, torch.zeros_like(x)], (1,), {"BLOCK": 4096})
    error = (y.double() / torch.tanh(x.double()) - 1).abs().max()
    assert 2.0**-12 < error <= 2.0**-11


# ---- what must not be done is caught


def test_a_read_beyond_an_argument_is_caught(native: Process) -> None:
    """Beyond the tensor, though within the storage that it is a view of."""
    x = torch.zeros(3, 40)[1]
    with pytest.raises(KernelFault) as caught:
        native.call(_unclonable, "reads_beyond", x, 16)
    text = str(caught.value)
    assert "reads_beyond reads outside x_ptr, torch.float32 [40]: element 47; program (2, 0, 0)" in text
    assert "ttir_kernels.py" in text and "x = tl.load(x_ptr + at)" in text


def _unclonable(name: str, x: Tensor, block: int) -> None:
    kernel = ttir_kernels.native(name)
    kernel[(3,)](x, torch.zeros(48), 40, BLOCK=block)


def test_a_write_before_an_argument_is_caught(native: Process) -> None:
    with pytest.raises(
        KernelFault, match=r"writes outside y_ptr, torch.float32 \[16\]: element -1; program \(0, 0, 0\)"
    ):
        native.call(ttir_kernels.run_with, "writes_before", [torch.zeros(16), torch.zeros(16)], (1,), {"BLOCK": 16})


def test_a_failed_assertion_is_told(native: Process) -> None:
    with pytest.raises(KernelFault, match="asserts fails an assertion: x is positive; program"):
        native.call(ttir_kernels.run_with, "asserts", [torch.zeros(16)] * 2, (1,), {"BLOCK": 16, "debug": True})


def test_an_unaligned_descriptor_is_told(native: Process) -> None:
    """The hardware wants 16 bytes."""
    x = torch.zeros(16, 7)
    with pytest.raises(KernelFault, match="unaligned"):
        native.call(ttir_kernels.run_with, "described", [x, x, 16, 7], (1, 1), {"A": 16, "B": 8})


def test_an_unknown_operation_is_named(native: Process) -> None:
    with pytest.raises(Unsupported, match=r"inline assembly 'nanosleep.*ttir_kernels.py:\d+"):
        native.call(ttir_kernels.run_with, "unknown", [torch.zeros(16, dtype=torch.int32)], (1,), {"BLOCK": 16})

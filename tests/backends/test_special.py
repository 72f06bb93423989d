"""What a random draw seldom hits, by name: every clause of the language page on both backends that run here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

import attnc
from attnc.testing.call import check, make

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")  # numpy warns of the inf and NaN of dead tiles

S = "score dot(q, k) / sqrt(D)  "
SIZES = {"B": 2, "H": 2, "G": 1, "N": 21, "M": 21, "D": 8, "E": 8}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A spec's inside, its params, what differs from SIZES, inputs that are no plain floats, options of the call."""

    spec: str
    params: Mapping[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


def _masked(mask: str, **rest: Any) -> Case:
    return Case(spec=f"{S}mask {mask}  normalize softmax  emit lse", **rest)


def _ramp(*shape: int) -> torch.Tensor:
    return ((torch.arange(int(torch.tensor(shape).prod())) * 7) % 31 - 15).reshape(shape).double() / 16


MASKS = {
    "causal": "causal",
    "window": "window(5)",
    "window of two": "causal and window(6, 2)",
    "prefix": "causal or prefix(4)",
    "sink": "causal and (window(3) or sink(2))",
    "global": "window(3) or global(2)",
    "dilated": "dilated(3, 4)",
    "causal dilated": "causal and dilated(3, 4)",
    "strided": "causal and (window(3, 0) or strided(5))",
    "class": "strided(5)",
    "causal class": "causal and strided(4)",
    "classes of a sum": "(2 * i + 3 * j + h) % 5 == 2",
    "classes by batch": "(i - j + b) % 3 == 1 and window(9)",
    "two congruences": "causal and dilated(2, 2) and strided(3)",
    "equal residues": "i % 3 == j % 3 and block_window(8, 1)",
    "class beyond the length": "strided(40)",
    "two passes": "dilated(3, 4) or global(2)",
    "two passes of classes": "strided(4) or dilated(9, 5)",
    "three passes": "causal and (strided(7) or sink(1) or (i - j + h) % 4 == 1)",
    "pass that never is": "window(20) or dilated(2, 6)",
    "fixed": "causal and fixed(8, 2)",
    "block": "block(8)",
    "block_window": "block_window(8, 1)",
    "random": "random(2, block = 8, seed = 3)",
    "bigbird": "random(2, block = 8, seed = 3) or window(4) or global(3)",
    "random with a span": "random(2, block = 4, seed = 1, span = 64)",
    "random, causal": "random(1, block = 4, seed = 1) and causal",
    "not": "not causal",
    "not of or": "not (block(5) or window(2))",
    "false": "false",
    "true": "true",
    "parity": "(i + j) % 3 == 1",
    "chain": "0 <= i - j < 7",
    "by head": "j % (h + 1) == 0",
    "by batch": "j < 10 * (b + 1)",
    "of sizes": "N > 5",
    "of sizes, false": "j >= 0 and N > 500",
    "rows without keys": "causal and i % 3 != 1 and j > 4",
}
ANY_SHAPE = (
    "causal", "window of two", "bigbird", "strided", "dilated", "sink", "block_window", "fixed", "random", "class",
    "classes of a sum",
)  # fmt: skip

CASES: dict[str, Case] = {f"mask: {name}": _masked(mask) for name, mask in MASKS.items()}
for name in ANY_SHAPE:
    CASES[f"offsets: {name}"] = _masked(MASKS[name], sizes={"N": 19, "M": 33}, options={"q_offset": 7, "kv_offset": 3})
    CASES[f"chunk: {name}"] = _masked(MASKS[name], sizes={"N": 9, "M": 140, "H": 1})
    CASES[f"negative: {name}"] = _masked(MASKS[name], options={"q_offset": -10, "kv_offset": -4})

NORMALIZATIONS = {
    "softmax": "softmax  emit lse, total, rowmax, entropy, colsum",
    "softmax1": "softmax1  emit lse, total, rowmax, entropy, colsum",
    "sink of a number": "softmax(sink = 0.7)  emit lse, total, rowmax, entropy, colsum",
    "abs_sum": "abs_sum  emit total, rowmax, colsum",
    "sigmoid": "sigmoid  emit total, rowmax, entropy, colsum",
    "relu": "relu  emit total, rowmax, colsum",
    "none": "none  emit total, rowmax, colsum",
    "square of relu": "weight(s) = relu(s) ** 2 divisor(t) = max(t, 1e-6)  emit total, colsum",
    "scaled": "weight(s) = exp(2 * s) divisor(t) = max(t, 3.0) + 0.5 * t  emit lse, total",
    "exp2": "weight(s) = exp2(s) divisor(t) = sqrt(t)  emit total, rowmax, entropy",
    "softplus": "weight(s) = softplus(s) divisor(t) = sqrt(t * t + 1)",
    "log": "weight(s) = tanh(s) + 2 divisor(t) = log1p(t)",
    "where": "weight(s) = exp(s - 1) divisor(t) = where(t > 1, t, 1)  emit lse",
    "constant weight": "weight(s) = 1 divisor(t) = max(t, 1)  emit total",
    "swish": "weight(s) = sigmoid(s) * s divisor(t) = 1 + t ** 2",
}
for name, text in NORMALIZATIONS.items():
    CASES[f"normalize: {name}"] = Case(spec=f"{S}mask window(6) and j % 5 != 0 and i != 3  normalize {text}")

CASES |= {
    "normalize: sum": Case(spec="score exp(dot(q, k) / D)  mask causal  normalize sum  emit total, entropy, colsum"),
    "normalize: named": Case(spec=f"let mine = weight(s) = sigmoid(s) divisor(t) = t + 1  {S}normalize mine"),
    "sink of an input": Case(
        spec=f"input e: f32[H]  {S}mask causal  normalize softmax(sink = e[h])  "
        f"emit lse, total, rowmax, entropy, colsum"
    ),
    "sink beside rows without keys": Case(
        spec=f"input e: f32[H]  {S}mask causal and j % 4 == 3  normalize softmax(sink = e[h])  emit lse, total"
    ),
    "divisor of an input": Case(
        spec=f"input c: f32[B, H, N]  {S}mask causal  normalize weight(s) = exp(s) divisor(t) = t + abs(c[b, h, i])"
    ),
    # inputs
    "alibi": Case(
        spec="input m: f32[H]  score dot(q, k) / sqrt(D) - m[h] * abs(i - j)  mask causal  normalize softmax"
    ),
    "relative bias": Case(
        spec="input r: f32[H, 2 * M]  score dot(q, k) / sqrt(D) + r[h, i - j + M]  normalize softmax"
    ),
    "relative bias, clamped": Case(
        spec="input r: f32[H, 33]  score dot(q, k) / sqrt(D) + r[h, clamp(i - j, -16, 16) + 16]  normalize softmax"
    ),
    "an index outside reads the nearest": Case(
        spec="input r: f32[H, R]  score dot(q, k) / sqrt(D) + r[h, i - j - 2]  mask window(12)  normalize softmax",
        inputs={"r": _ramp(2, 9)},
    ),
    "bias by bucket (T5)": Case(
        spec="input r: f32[R, H]  score dot(q, k) + r[min(int(log(max(i - j, 1))), 3), h]  mask causal  "
        "normalize softmax",
        inputs={"r": _ramp(4, 2)},
    ),
    "pair bias": Case(spec="input r: f32[B, H, N, M]  score dot(q, k) + r[b, h, i, j]  mask causal  normalize softmax"),
    "pair bias, one batch": Case(
        spec="input r: f32[B, H, N, M]  score dot(q, k) + r[b, h, i, j]  mask causal  normalize softmax",
        inputs={"r": _ramp(1, 2, 21, 21)},
    ),
    "pair bias, one head": Case(
        spec="input r: f32[B, H, N, M]  score dot(q, k) + r[b, h, i, j]  normalize softmax",
        inputs={"r": _ramp(2, 1, 21, 21)},
    ),
    "pair bias, multiplied": Case(
        spec="input r: f32[N, M]  score dot(q, k) * r[i, j]  mask window(5)  normalize sigmoid"
    ),
    "two pair biases": Case(
        spec="input r: f32[H, N, M]  input w: f32[N, M]  score tanh(dot(q, k) + r[h, i, j]) * w[i, j]  mask window(5)  "
        "normalize softmax"
    ),
    "pair bias with offsets": Case(
        spec="input r: f32[N, M]  score dot(q, k) + r[i, j]  mask causal  normalize softmax",
        sizes={"N": 9},
        options={"q_offset": 5, "kv_offset": 2},
    ),
    "key bias": Case(spec="input r: f32[B, M]  score dot(q, k) / sqrt(D) + r[b, j]  normalize softmax"),
    "key gain": Case(
        spec="input r: f32[B, H, M]  score dot(q, k) / sqrt(D) * exp(r[b, h, j])  mask causal  normalize softmax"
    ),
    "row gain": Case(spec="input r: f32[B, H, N]  score dot(q, k) * r[b, h, i]  mask causal  normalize softmax"),
    "scalar": Case(spec="input r: f32  score dot(q, k) * r  mask causal  normalize softmax"),
    "scalar as a number": Case(
        spec="input r: f32  score dot(q, k) * r  mask causal  normalize softmax", inputs={"r": 0.3}
    ),
    "int scalar": Case(spec="input w: i32  score dot(q, k)  mask 0 <= i - j < w  normalize softmax", inputs={"w": 5}),
    "int arithmetic": Case(
        spec="input w: i32[H]  score dot(q, k) - w[h] * (i - j) / 8  mask causal and i - j <= w[h] * 3  "
        "normalize softmax",
        inputs={"w": torch.tensor([2, 5], dtype=torch.int32)},
    ),
    "global of tokens": Case(
        spec=f"input t: bool[B, M]  {S}mask window(3) or global(t)  normalize softmax",
        inputs={"t": torch.arange(42).reshape(2, 21) % 9 == 4},
    ),
    "documents": Case(
        spec=f"input ids: i32[B, M]  {S}mask causal and document(ids)  normalize softmax  emit lse",
        inputs={"ids": (torch.arange(21) // 5).int().expand(2, -1)},
    ),
    "documents in no order": Case(
        spec=f"input ids: i64[B, M]  {S}mask document(ids)  normalize softmax  emit lse",
        inputs={"ids": torch.arange(42).reshape(2, 21) * 5 % 7},
    ),
    "lengths": Case(
        spec=f"input len: i32[B]  {S}mask j < len[b]  normalize softmax  emit lse",
        inputs={"len": torch.tensor([5, 0], dtype=torch.int32)},
    ),
    "table of blocks": Case(
        spec=f"input t: bool[B, H, R, C]  {S}mask blocks(t, 8) or window(1)  normalize softmax  emit lse",
        inputs={"t": torch.arange(9).reshape(1, 1, 3, 3) % 4 == 1},
        options={"q_offset": 5, "kv_offset": 2},
    ),
    "list of blocks": Case(
        spec=f"input t: i32[B, H, R, C]  {S}mask blocks(t, 8)  normalize softmax  emit lse",
        inputs={"t": torch.tensor([[[[0, 2], [-1, -1], [1, 1]]], [[[2, -1], [0, 1], [-1, 0]]]], dtype=torch.int32)},
    ),
    "products beyond 32 bits": Case(
        spec=f"input t: i32[B, M]  {S}mask t[b, j] * t[b, j] // 3 % 2 == 0  normalize softmax",
        inputs={"t": (2**30 + torch.arange(42)).int().reshape(2, 21)},
    ),
    "positions far away": Case(
        spec=f"input w: i32[H]  {S}mask (i * j + w[h]) % 7 != 2  normalize softmax",
        inputs={"w": torch.tensor([5, -9], dtype=torch.int32)},
        options={"q_offset": 2**28 + 3, "kv_offset": 2**28},
    ),
    "narrow integers": Case(
        spec=f"input t: i32[H]  {S}mask i - j <= t[h] * 100  normalize softmax",
        inputs={"t": torch.tensor([100, -1], dtype=torch.int8)},
    ),
    "unsigned integers": Case(
        spec=f"input t: i32[B, M]  {S}mask -t[b, j] < 0 and t[b, j] - 7 < 0  normalize softmax",
        inputs={"t": (torch.arange(42) % 9).reshape(2, 21).to(torch.uint8)},
    ),
    "half precision input": Case(
        spec="input r: bf16[H]  score dot(q, k) * r[h]  mask causal  normalize softmax", inputs={"r": _ramp(2)}
    ),
    "nograd": Case(spec="input r: f32[H] nograd  score dot(q, k) * r[h]  mask causal  normalize softmax"),
    # params
    "param a head": Case(
        spec=f"param w: int[H]  {S}mask causal and i - j <= w[h]  normalize softmax", params={"w": [1, 9]}
    ),
    "float param a head": Case(
        spec="param a: float[H]  score dot(q, k) * a[h]  mask causal  normalize softmax", params={"a": [0.1, 0.7]}
    ),
    # vectors
    "linear": Case(spec="let phi(x) = elu(x) + 1  score dot(phi(q), phi(k))  mask causal  normalize sum  emit total"),
    "linear over all keys": Case(spec="let phi(x) = elu(x) + 1  score dot(phi(q), phi(k))  normalize sum"),
    "performer": Case(
        spec="input omega: f32[R, D]  let phi(x) = exp(omega @ x - dot(x, x) / 2) / sqrt(R)  "
        "score dot(phi(q / 4), phi(k / 4))  normalize sum",
        inputs={"omega": _ramp(12, 8)},
    ),
    "linformer": Case(
        spec="input e: f32[R, M]  input f: f32[R, M]  key kp = e @ k  value vp = f @ v  score dot(q, kp) / D  "
        "normalize softmax  emit lse",
        inputs={"e": _ramp(11, 21), "f": _ramp(11, 21) * 0.5},
    ),
    "rope": Case(
        spec="score dot(rope(q, i), rope(k, j)) / sqrt(D)  mask causal  normalize softmax",
        options={"q_offset": 11, "kv_offset": 2},
    ),
    "rope, interleaved": Case(
        spec="score dot(rope(q, i, interleaved = true), rope(k, j, interleaved = true))  mask causal  normalize softmax"
    ),
    "rope at given positions": Case(
        spec="input pos: i32[B, M]  score dot(rope(q, pos[b, i]), rope(k, pos[b, j]))  mask causal  normalize softmax",
        inputs={"pos": torch.arange(42, dtype=torch.int32).reshape(2, 21) % 13},
    ),
    "rope at a constant": Case(spec="score dot(rope(q, 10), k) + dot(rope(q, N), rope(k, j))  normalize softmax"),
    "l2norm": Case(spec="input tau: f32[H]  score dot(l2norm(q), l2norm(k)) * tau[h]  mask causal  normalize softmax"),
    "rmsnorm": Case(
        spec="input w: f32[D]  score dot(rmsnorm(q, w), rmsnorm(k, w)) / D  mask causal  normalize softmax"
    ),
    "concat": Case(spec="score dot(concat(q, rope(q, i)), concat(k, rope(k, j))) / D  mask causal  normalize softmax"),
    "slices": Case(spec="score dot(q[:4], k[:4]) + tanh(dot(q[4:], k[4:]))  mask causal  normalize softmax"),
    "norms of vectors": Case(spec="score dot(q, k) - dot(k, k) / 2 + dot(q, q)  mask causal  normalize softmax"),
    "value of an input": Case(
        spec="input w: f32[M]  value vp = v * w[j]  score dot(q, k)  mask causal  normalize softmax"
    ),
    "value a slice of the key": Case(
        spec="query q  key c  value vp = c[:5]  score dot(q, c) / D  mask causal  normalize softmax", sizes={"E": 5}
    ),
    "key by query head": Case(
        spec="input r: f32[H]  score dot(q, k * r[h])  mask causal  normalize softmax", sizes={"H": 6, "G": 2}
    ),
    "two dots": Case(
        spec="query q, q2  key k, k2  value v  score dot(q, k) * tanh(dot(q2, k2))  mask causal  normalize softmax"
    ),
    "no dot": Case(spec="input a: f32[B, H, M]  score a[b, h, j]  mask causal  normalize softmax  emit lse"),
    "positions alone": Case(spec="score -abs(i - j) * 0.1  normalize softmax"),
    "positions alone, no exponential": Case(
        spec="score (i - j) / 35  normalize weight(s) = tanh(s) divisor(t) = 1 + t ** 2"
    ),
    "a constant": Case(spec="score 0.0  mask causal  normalize softmax"),
    # found in mutants
    "division by zero": _masked("5 % j < 3 or i // (j - 7) == 0 or (i - j) % (M // 99) == 0"),
    "division by a param of zero": Case(
        spec=f"param p: int  {S}mask i % p == j // p + i  normalize softmax", params={"p": 0}
    ),
    "a bound that is a number or a tensor": Case(
        spec=f"param s: int[H]  {S}mask dilated(2, s[h]) and global(2)  normalize softmax",
        params={"s": [4, 2]},
        options={"q_offset": 5},
    ),
    # branches
    "differential": Case(
        spec="query q1, q2  key k1, k2  value v  input lam: f32[H]  "
        "branch pos { score dot(q1, k1) / sqrt(D)  mask causal  normalize softmax }  "
        "branch neg { score dot(q2, k2) / sqrt(D)  mask causal  normalize softmax }  "
        "output pos - lam[h] * neg  emit pos.lse, neg.lse"
    ),
    "branches that share an input": Case(
        spec="input a: f32[H]  branch x { score dot(q, k) * a[h]  mask causal  normalize softmax }  "
        "branch y { score dot(q, k) + a[h]  mask window(3)  normalize sigmoid }  "
        "output x * 0.5 + y * a[h]  emit x.lse, y.total"
    ),
    "columns of one of two branches that share terms": Case(  # found by a deep run
        spec="input r: f32[H]  "
        "branch x { score dot(q, k) * (abs(i - j) + 0.25) ** 1.5 * tanh((abs(i - j) + 0.25) ** 1.5)  "
        "normalize softmax }  "
        "branch y { score tanh(dot(q, k) * (abs(i - j) + 0.25) ** 1.5) * r[h]  normalize none }  "
        "output x + y  emit y.colsum, x.rowmax"
    ),
    "the largest score shares terms with its mask": Case(
        spec="score dot(q, k) - (i - j) ** 2 / 9  mask (i - j) ** 2 < 9 + j  "
        "normalize weight(s) = exp(2 * s) divisor(t) = t  emit rowmax, colsum, lse"
    ),
    "one branch": Case(spec="branch x { score dot(q, k)  mask causal  normalize softmax }  output tanh(x)"),
    "gated output": Case(
        spec="input gate: f32[B, H, N]  branch x { score dot(q, k)  mask causal  normalize softmax }  "
        "output x * sigmoid(gate[b, h, i])"
    ),
    # scores that are not finite
    "-inf in a score": Case(
        spec="score where(j % 3 == 0, -inf, dot(q, k))  mask causal  normalize softmax  "
        "emit lse, rowmax, total, entropy"
    ),
    "rows of -inf": Case(
        spec="score where(i % 3 == 0, -inf, dot(q, k))  mask causal  normalize softmax1  "
        "emit lse, rowmax, total, entropy"
    ),
    "rows of -inf, no exponential": Case(
        spec="score where(i % 3 == 0, -inf, dot(q, k))  mask causal  normalize sigmoid  emit total"
    ),
    "NaN and inf in masked scores": Case(
        spec="score dot(q, k) / where(j > i, 0.0, 1.0) + log(i - j) * 0  mask j < i  normalize softmax  emit lse"
    ),
    "NaN in a masked derivative": Case(
        spec="input r: f32[H, N, M]  score dot(q, k) + sqrt(i - j) * r[h, i, j]  mask j < i  "
        "normalize softmax  emit lse"
    ),
    "large scores": Case(spec="score dot(q, k) * 1000  mask causal  normalize softmax1  emit lse, entropy"),
    # shapes
    "grouped heads": Case(spec=f"{S}mask causal  normalize softmax", sizes={"H": 8, "G": 1, "N": 5, "M": 9}),
    "grouped in threes": Case(spec=f"{S}mask causal  normalize softmax", sizes={"H": 6, "G": 2, "N": 17, "M": 25}),
    "as many heads": Case(spec=f"{S}mask causal  normalize softmax", sizes={"H": 3, "G": 3}),
    "an offset a batch": _masked(
        "causal and window(9)", sizes={"N": 5, "M": 61}, options={"q_offset": torch.tensor([10, 40])}
    ),
    "an offset a batch, in classes": _masked(
        "causal and dilated(4, 3)", sizes={"N": 5, "M": 61}, options={"q_offset": torch.tensor([10, 40])}
    ),
    "every gradient in classes": Case(
        spec="input a: f32[H]  input r: f32[B, H, N]  input c: f32[B, M]  input p: f32[N, M]  "
        "score dot(q, k) * a[h] + r[b, h, i] * c[b, j] + p[i, j]  mask dilated(4, 3) and j > 2  "
        "normalize softmax1  emit lse, total, rowmax, entropy, colsum"
    ),
    "every gradient in two passes": Case(
        spec="input a: f32[H]  input r: f32[B, H, N]  input c: f32[B, M]  input p: f32[N, M]  input e: f32[H]  "
        "score dot(q, k) * a[h] + r[b, h, i] * c[b, j] + p[i, j]  mask (window(2) or strided(5)) and j > 2  "
        "normalize softmax(sink = e[h])  emit lse, total, rowmax, entropy, colsum"
    ),
    "two passes, no exponential": Case(
        spec=f"input c: f32[B, H, N]  {S}mask (window(2) or strided(5)) and i % 6 != 3  "
        "normalize weight(s) = softplus(s) divisor(t) = t + abs(c[b, h, i])  emit total, rowmax, entropy, colsum"
    ),
    "two passes of two maps": Case(
        spec=f"branch x {{ {S}mask causal and (window(2) or strided(5))  normalize softmax }}  "
        f"branch y {{ {S}mask causal and (window(2) or strided(5))  normalize sigmoid }}  "
        "output x - y  emit x.lse, x.entropy, y.colsum"
    ),
    "rows of -inf in two passes": Case(
        spec="score where(i % 3 == 0, -inf, dot(q, k))  mask window(2) or strided(5)  normalize softmax1  "
        "emit lse, rowmax, total, entropy"
    ),
    "-inf in one of two passes": Case(
        spec="score where(abs(i - j) > 2, -inf, dot(q, k))  mask window(2) or strided(5)  normalize softmax  "
        "emit lse, rowmax, total, entropy"
    ),
    "classes beside a window": Case(
        spec=f"branch x {{ {S}mask strided(3)  normalize softmax }}  branch y {{ {S}mask window(3)  "
        "normalize softmax }  branch z { score dot(q, k)  mask strided(3)  normalize sigmoid }  "
        "output x + y * 0.5 - z  emit x.lse, z.colsum"
    ),
    "one of everything": _masked("causal", sizes={"B": 1, "H": 1, "G": 1, "N": 1, "M": 1, "D": 1, "E": 1}),
    "one query": _masked("causal", sizes={"N": 1, "M": 129}),
    "long": _masked("causal and window(40)", sizes={"B": 1, "H": 1, "N": 150, "M": 300}),
    "long with globals": _masked("window(10) or global(5)", sizes={"B": 1, "H": 1, "N": 150, "M": 300}),
    "transposed layout": _masked("causal", options={"layout": "BNHD"}),
    "shared by the batch": _masked("causal", options={"layout": "spread"}),
    # empty
    "no query": Case(spec=f"{S}mask causal  normalize softmax  emit lse, total, colsum", sizes={"N": 0}),
    "no key": Case(spec=f"{S}mask causal  normalize softmax  emit lse, total, colsum, entropy, rowmax", sizes={"M": 0}),
    "no batch": Case(spec=f"{S}mask causal  normalize softmax  emit lse", sizes={"B": 0}),
    "no key, no exponential": Case(spec=f"{S}normalize sigmoid  emit total, colsum", sizes={"M": 0}),
}
FUNCTIONS = (
    "tanh(x)", "sigmoid(x)", "relu(x)", "elu(x)", "softplus(x)", "erf(x)", "sin(x)", "cos(x)", "log1p(exp(x))",
    "sqrt(abs(x)+1)", "rsqrt(abs(x)+1)", "exp2(x)", "sign(x)*x", "floor(j/3)*x", "min(x,0.3)", "max(x,-0.2)",
    "clamp(x,-1,1)", "x**3", "abs(x)**1.5", "where(x>0.1,x,2*x)", "exp(x/4)", "log(abs(x)+0.1)", "int(j/2)*x",
    "x%3.0", "x//2.0", "1/(x*x+1)", "abs(x)", "-x", "x*(j//3)", "x**2", "(j-5)//3*x", "(j-9)%4*x",
)  # fmt: skip
for text in FUNCTIONS:
    CASES[f"function: {text}"] = Case(
        spec=f"input a: f32[H]  let x = dot(q, k) / sqrt(D) * 0.7 + a[h]  score {text}  mask window(9)  "
        f"normalize softmax",
        sizes={"B": 1, "N": 9, "M": 12},
    )
for D, E in ((1, 1), (17, 48), (80, 96), (257, 1), (48, 17), (576, 3)):
    CASES[f"dims {D}, {E}"] = _masked("causal", sizes={"D": D, "E": E, "B": 1, "N": 17, "M": 19})


@pytest.mark.parametrize("backend", ["eager", "native", "interpret"])
@pytest.mark.parametrize("name", CASES)
def test_equals_the_reference(name: str, backend: str) -> None:
    case = CASES[name]
    op = attnc.loads(f"attention spec {{ {case.spec} }}", **case.params)
    call = make(op, {**SIZES, **case.sizes}, inputs=case.inputs, **case.options)
    check(call, backend, torch.float64)


HALF = (
    "mask: bigbird",
    "mask: causal dilated",
    "mask: two passes",
    "normalize: softmax1",
    "normalize: sigmoid",
    "relative bias",
    "differential",
    "linformer",
    "rope",
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("backend", ["eager", "native", "interpret"])
@pytest.mark.parametrize("name", HALF)
def test_lower_precision(name: str, backend: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    op = attnc.loads(f"attention spec {{ {case.spec} }}", **case.params)
    check(make(op, {**SIZES, **case.sizes}, inputs=case.inputs, **case.options), backend, dtype)

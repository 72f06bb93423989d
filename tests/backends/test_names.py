"""A spec may call its tensors anything: no name of a generated module is taken from it, none is given twice."""

from __future__ import annotations

import ast
import keyword
import re
from typing import Any

import pytest
import torch

import attnc
from attnc.codegen.names import KERNEL_WORDS
from attnc.dsl.diagnostics import SpecError
from attnc.dsl.frontend import compile_text
from attnc.dsl.source import Source

EVERYTHING = """
attention zz {
  query zz_q, zz_q2  key zz_k, zz_k2  value zz_v
  input zz_pair: f32[B, H, N, M]  input zz_head: f32[H]  input zz_key: f32[B, M]
  input zz_list: i32[B, 1, ZZ_R, ZZ_S]  input zz_marked: bool[B, M]  input zz_weight: f32[D]
  branch zz_x {
    score dot(rope(zz_q, i), rope(zz_k, j)) + zz_pair[b, h, i, j] * zz_head[h] + zz_key[b, j]
    mask window(3) or random(2, block = 8, seed = 1) or blocks(zz_list, 8) or (global(zz_marked) and j < 10 * b)
    normalize softmax(sink = zz_head[h])
  }
  branch zz_y {
    score tanh(dot(l2norm(zz_q2), rmsnorm(concat(zz_k2[:1], zz_k2[1:]), zz_weight))) + erf(dot(zz_q, zz_k))
    mask not causal and dilated(3, 2)
    normalize weight(s) = softplus(s) ** 1.5 divisor(t) = log1p(t)
  }
  output zz_x - zz_head[h] * zz_y
  emit zz_x.lse, zz_x.total, zz_x.rowmax, zz_x.entropy, zz_x.colsum, zz_y.total, zz_y.rowmax, zz_y.colsum
}
"""
PLAIN = """
attention zz {
  query zz_q  key zz_k  value zz_v
  score dot(zz_q, zz_k)  mask causal  normalize softmax
  emit lse, total, rowmax, entropy, colsum
}
"""
MADE_OF_WORDS = re.compile(
    r"(d|e|by|size|BLOCK|TAIL|span\d+)_\w+|\w+_(ptr|tail|tile|values|rows|sum|ij|at|(stride|size)?\d+)"
)
MADE_FRESH = re.compile(r"(x|floor|(drawn|listed)\d+\w*|(may|must|cut|sure)\d_(lo|hi))(_\d+)?")


@pytest.mark.parametrize("text", [EVERYTHING, PLAIN], ids=["everything", "plain"])
def test_no_function_of_a_module_is_defined_twice(text: str) -> None:
    """A helper that another helper replaces fails only in the specs that need both."""
    made = [node.name for node in ast.parse(attnc.loads(text).source()).body if isinstance(node, ast.FunctionDef)]
    assert sorted({*made} - {"_"}) == sorted(name for name in made if name != "_")


@pytest.mark.parametrize("text", [EVERYTHING, PLAIN], ids=["everything", "plain"])
def test_every_name_beside_a_spec_name_is_reserved(text: str) -> None:
    for function in ast.parse(attnc.loads(text).source()).body:
        if not isinstance(function, ast.FunctionDef):
            continue
        names = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
        names |= {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}
        if not any("zz_" in name for name in names):
            continue
        results = {f"out_{name}" for name in ("out", "lse", "shift", "l", "total", "rowmax", "entropy", "colsum", "u")}
        for name in names - set(KERNEL_WORDS) - results:
            assert (
                name.startswith("_")
                or "zz_" in name.lower()
                or name == "ZzResult"
                or MADE_OF_WORDS.fullmatch(name)
                or MADE_FRESH.fullmatch(name)
            ), f"{function.name} uses {name}, which a spec may use as well"


WORDS = sorted(
    {
        *KERNEL_WORDS, *keyword.kwlist, *keyword.softkwlist, "self", "print", "triton", "q_ptr", "q_tile", "d_q", "e_q",
        "d_v", "q_stride0", "v_values", "lse_rows", "size_D", "BLOCK_D", "TAIL_D", "q_tail",
        "_grid", "_", "__x", "by_l", "x", "x_2", "floor",
        "drawn0", "listed1", "out_out", "out_lse", "TResult", "d_q_0", "q_0", "q_at", "may0_lo", "span0_lo",
        "cut0_hi", "call", "super",
    }
)  # fmt: skip


def legal(word: str) -> bool:
    """Whether the language lets an input have this name."""
    try:
        text = f"attention t {{ input {word}: f32[H]  score dot(q, k) * {word}[h]  normalize softmax }}"
        compile_text(Source(name="t.attn", text=text), {})
    except SpecError:
        return False
    return True


def test_any_word_names_an_input() -> None:
    """Every word in turn as a per-head input, many in one spec, forward and backward."""
    words = [word for word in WORDS if legal(word)]
    assert len(words) > 150
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    for start in range(0, len(words), 32):
        names = words[start : start + 32]
        declared = "  ".join(f"input {name}: f32[H]" for name in names)
        terms = " + ".join(f"{name}[h]" for name in names)
        op = attnc.loads(f"attention t {{ {declared}  score dot(q, k) * ({terms})  mask causal  normalize softmax }}")
        inputs: dict[str, Any] = {name: torch.randn(2, dtype=torch.float64) for name in names}
        got = op(q, k, v, **inputs)
        wanted = op(q, k, v, **inputs, backend="reference")
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
        grads = torch.autograd.grad(got.sum(), (q, k, v))
        for left, right in zip(grads, torch.autograd.grad(wanted.sum(), (q, k, v)), strict=True):
            torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("words", [("self", "acc", "tl"), ("class", "lambda", "def"), ("q", "q_ptr", "d_q")])
def test_any_word_names_a_vector(words: tuple[str, str, str]) -> None:
    query, key, value = words
    op = attnc.loads(
        f"attention t {{ query {query}  key {key}  value {value}  "
        f"score dot({query}, {key})  mask causal  normalize softmax }}"
    )
    torch.manual_seed(0)
    vectors = [torch.randn(1, 2, 5, 4, dtype=torch.float64) for _ in range(3)]
    for backend in ("eager", "native", "interpret"):
        torch.testing.assert_close(op(*vectors, backend=backend), op.reference(*vectors), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["torch", "bind", "class", "tl", "Call", "t", "print", "_t", "math"])
def test_any_word_names_a_spec(name: str) -> None:
    op = attnc.loads(f"attention {name} {{ score dot(q, k)  mask causal  normalize softmax  emit lse }}")
    q = torch.randn(1, 2, 5, 4, dtype=torch.float64)
    got, wanted = op(q, q, q), op.reference(q, q, q)
    torch.testing.assert_close(tuple(got), tuple(wanted), rtol=1e-12, atol=1e-12)


def test_any_word_names_a_branch() -> None:
    """Whatever the templates make of a branch's name: statistics of its own, one pass for several, a tag."""
    q = torch.randn(1, 2, 5, 4, dtype=torch.float64)
    for name in ("o", "new", "safe", "rows", "tile", "ptr", "ij", "lse", "l", "m", "x_y", "forward", "live", "at"):
        op = attnc.loads(
            f"attention t {{ input do_{name}: f32[H]  input m_{name}: f32[H]  "
            "branch x { score dot(q, k)  mask causal  normalize softmax }  "
            f"branch y {{ score dot(q, k) * 2 * do_{name}[h]  mask causal  normalize sigmoid }}  "
            f"branch {name} {{ score dot(q, k) + m_{name}[h]  mask window(2)  normalize softmax1 }}  "
            f"output x - y + {name}  emit {name}.lse, x.colsum }}"
        )
        inputs: dict[str, Any] = {f"do_{name}": torch.rand(2).double(), f"m_{name}": torch.rand(2).double()}
        got, wanted = op(q, q, q, **inputs), op.reference(q, q, q, **inputs)
        torch.testing.assert_close(tuple(got), tuple(wanted), rtol=1e-12, atol=1e-12)

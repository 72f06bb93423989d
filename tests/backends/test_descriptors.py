"""Tensors of vectors read by descriptors (TMA): by a module for sm_100, where a call's tensors allow it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import attnc
from attnc.testing.call import check, make, outcome
from attnc.testing.process import Process

ROOT = Path(__file__).parents[2]
CAUSAL = (ROOT / "examples" / "zoo" / "causal.attn").read_text()
SIZES = {"B": 2, "H": 2, "G": 1, "N": 70, "M": 90, "D": 24, "E": 40}


def permitted(x: Tensor) -> bool:
    found: bool = vars(attnc.loads(CAUSAL, target="sm_100")._module)["_describable"](x)
    return found


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The tensors that descriptors are made of."""
    module = vars(attnc.loads(CAUSAL, target="sm_100")._module)
    seen: list[Tensor] = []
    descriptor = module["TensorDescriptor"]

    def watched(x: Tensor, *rest: Any) -> Any:
        seen.append(x)
        return descriptor(x, *rest)

    monkeypatch.setitem(module, "TensorDescriptor", watched)
    return seen


def test_what_the_copy_engine_takes() -> None:
    x = torch.zeros(2, 3, 5, 24, dtype=torch.bfloat16)
    assert permitted(x) and permitted(x.half()) and permitted(x.transpose(1, 2)) and permitted(x[:, :, 1:])
    assert permitted(x[..., 8:]) and permitted(x[..., :20]), "rows begin at multiples of 16 bytes"
    assert permitted(x[:1, :, :1]), "a stride that is never taken"
    assert not permitted(x.float()), "float32 products take other ways through shared memory"
    assert not permitted(x[..., 4:]), "the first row begins between"
    assert not permitted(torch.zeros(2, 3, 5, 20, dtype=torch.bfloat16)), "rows of 40 bytes"
    assert not permitted(x[:1].expand(2, 3, 5, 24)), "one tensor several times"
    assert not permitted(x[:, :, :0]), "nothing to read"


@pytest.mark.parametrize(
    ("layout", "sizes", "described"),
    [
        ("BHND", {}, 11),  # q, k, v forward; with do twice in the backward
        ("BNHD", {}, 11),
        ("BHND", {"D": 20, "E": 20}, 0),
        ("BHND", {"D": 20}, 0),  # all or none
        ("BHND", {"N": 1}, 11),
    ],
)
def test_either_way_equals_the_reference(
    made: list[Tensor], layout: str, sizes: dict[str, int], described: int
) -> None:
    call = make(attnc.loads(CAUSAL, target="sm_100"), SIZES | sizes, layout=layout)
    check(call, "interpret", torch.float16)
    assert len(made) == described


@pytest.mark.parametrize("layout", ["BHND", "BNHD"])
def test_descriptors_run_natively(native: Process, layout: str) -> None:
    call = make(attnc.loads(CAUSAL, target="sm_100"), SIZES | {"N": 300, "M": 515, "D": 64}, layout=layout)
    check(call, "ttir", torch.bfloat16, run=partial(native.call, outcome))


def test_tanh_asks_the_element_of_a_descriptor() -> None:
    text = "attention a { score 5.0 * tanh(dot(q, k)) normalize softmax }"
    check(make(attnc.loads(text, target="sm_100"), SIZES), "interpret", torch.float16)


@pytest.mark.parametrize("target", ["generic", "sm_80", "sm_90", "gfx942"])
def test_other_targets_have_none(target: str) -> None:
    assert "DESCRIBED" not in attnc.loads(CAUSAL, target=target).source()


def test_rows_of_a_class_are_no_block() -> None:
    text = "attention a { score dot(q, k) mask (i - j) % 4 == 0 normalize softmax }"
    assert "DESCRIBED" not in attnc.loads(text, target="sm_100").source()

"""Few queries, many keys: several programs share a query's keys, and what they give is merged."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import attnc
from attnc.codegen.lower import lower
from attnc.codegen.planner.launch import launches, splits
from attnc.codegen.planner.tile import Tile
from attnc.runtime.op import Op
from attnc.testing.call import check, make, outcome

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")  # numpy warns of the inf and NaN of dead tiles

SIZES = {"B": 2, "H": 2, "G": 1, "N": 2, "M": 700, "D": 16, "E": 16}
EMITS = "emit lse, total, rowmax, entropy, colsum"


def _as_if_large(op: Op, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The op as on a device of many processors; how many programs shared the keys, call after call."""
    module: dict[str, Any] = op._function.__globals__
    taken: list[int] = []
    original = module["_splits"]

    def recorded(*arguments: Any) -> int:
        taken.append(original(*arguments))
        return taken[-1]

    monkeypatch.setitem(module, "_processors", lambda device: 64)
    monkeypatch.setitem(module, "_splits", recorded)
    return taken


@pytest.mark.parametrize(
    "mask",
    ["causal", "window(90) and i % 2 == 0", "random(2, block = 32, seed = 3)", "causal and (sink(9) or strided(5))"],
)
def test_shared_keys_equal_the_reference(mask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows without keys too, and programs that are left without tiles."""
    normalize = "softmax1" if "strided" in mask else "softmax"  # parts are merged before any divisor
    op = attnc.loads(f"attention spec {{ score dot(q, k) / sqrt(D)  mask {mask}  normalize {normalize}  {EMITS} }}")
    taken = _as_if_large(op, monkeypatch)
    check(make(op, SIZES), "interpret", torch.float32)
    assert max(taken) > 1


@pytest.mark.parametrize("mask", ["causal", "causal and (sink(9) or strided(5))", "strided(3)"])
@pytest.mark.parametrize("rows", [1, 150])
def test_a_plan_says_how_many_share_the_keys(mask: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as a call's ``_splits`` gives, of as many programs."""
    op = attnc.loads(f"attention spec {{ score dot(q, k) / sqrt(D)  mask {mask}  normalize softmax }}")
    module: dict[str, Any] = op._function.__globals__
    asked: list[int] = []
    taken = _as_if_large(op, monkeypatch)
    rule = module["_splits"]
    monkeypatch.setitem(module, "_splits", lambda programs, *rest: asked.append(programs) or rule(programs, *rest))
    sizes = SIZES | {"N": rows}
    op(*make(op, sizes).prepared(torch.float32).vectors.values(), backend="interpret")
    (group,) = lower(op.construct).groups
    tile = Tile("forward", *module["_TILES"]["forward", 16, 4])
    found = launches(group, tile, sizes["B"] * sizes["H"], (rows, sizes["M"]), 64)
    assert [(item.programs, item.splits) for item in found] == [
        (programs * shared, shared) for programs, shared in zip(asked, taken, strict=True)
    ]


def test_the_same_bits_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    op = attnc.loads("attention spec { score dot(q, k)  mask causal  normalize softmax  emit lse }")
    taken = _as_if_large(op, monkeypatch)
    call = make(op, SIZES).prepared(torch.float32)
    first, again = outcome(call, "interpret"), outcome(call, "interpret")
    assert min(taken) > 1
    for name, x in first.items():
        assert torch.equal(x, again[name]), name


def test_a_small_device_shares_nothing() -> None:
    op = attnc.loads("attention spec { score dot(q, k)  mask causal  normalize softmax }")
    module: dict[str, Any] = op._function.__globals__
    cpu = torch.device("cpu")
    assert module["_splits"](1, 1000, cpu) == 1
    assert module["_splits"](0, 0, cpu) == 1


def test_how_many_share(monkeypatch: pytest.MonkeyPatch) -> None:
    op = attnc.loads("attention spec { score dot(q, k)  mask causal  normalize softmax }")
    module: dict[str, Any] = op._function.__globals__
    monkeypatch.setitem(module, "_processors", lambda device: 132)
    cpu = torch.device("cpu")
    assert module["_splits"](8, 1000, cpu) == 16  # 132 // 8, a power of two
    assert module["_splits"](8, 9, cpu) == 2  # four tiles each
    assert module["_splits"](100, 1000, cpu) == 1  # the device is full
    for programs in (0, 1, 3, 8, 131, 132, 133):
        for tiles in range(40):
            assert module["_splits"](programs, tiles, cpu) == splits(programs, tiles, 132)

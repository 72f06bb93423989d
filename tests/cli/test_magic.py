"""%%attn in IPython's own shell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell

LOCAL = "attention local { param w: int  score dot(q, k) / sqrt(D)  mask window(w)  normalize softmax }"
DENSE = "attention dense { score dot(q, k) / sqrt(D)  normalize softmax }"


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteractiveShell]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        yield InteractiveShell.instance()
        InteractiveShell.clear_instance()


@pytest.fixture
def shell(session: InteractiveShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InteractiveShell:
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path / "cache"))
    session.reset()
    session.run_line_magic("reload_ext", "attnc.magic")
    return session


def test_a_cell_defines_its_ops(shell: InteractiveShell) -> None:
    shell.run_cell_magic("attn", "local w=2", f"{LOCAL}\n{DENSE}")
    shell.run_cell_magic("attn", "", DENSE)
    local, dense = shell.user_ns["local"], shell.user_ns["dense"]
    assert local.params == {"w": 2} and dense.params == {}
    q, k, v = torch.randn(3, 1, 2, 9, 4).unbind()
    assert torch.equal(local(q, k, v, backend="reference"), local.reference(q, k, v))


@pytest.mark.parametrize(
    ("line", "cell", "said"),
    [
        ("w=2", LOCAL.replace("window", "windw"), "did you mean `window`"),
        ("", LOCAL, "`w` has no default"),
        ("w=two", LOCAL, "`two` is none"),
        ("w=2 w=3", LOCAL, "%%attn"),
        ("other w=2", LOCAL, "other"),
        ("w='2", LOCAL, "No closing quotation"),
    ],
)
def test_a_fault_is_said_in_place_and_defines_nothing(shell: InteractiveShell, line: str, cell: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        shell.run_cell_magic("attn", line, f"{DENSE}\n{cell}")
    assert said in str(caught.value)
    assert "dense" not in shell.user_ns

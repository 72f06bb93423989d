"""Ops: loading, sharing, copies, pickles, threads, the warm cache; and `.attn` files as modules."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import re
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import attnc
import attnc.importer
from attnc import SpecError
from attnc.runtime.device import present
from attnc.testing.call import check, make
from attnc.testing.script import as_python
from attnc.testing.tolerance import assert_close

ALIBI = """attention alibi {
  param w: int = 4
  input slope: f32[H]
  score dot(q, k) / sqrt(D) - slope[h] * abs(i - j)
  mask causal and window(w)
  normalize softmax
  emit lse
}
"""
TWO = "attention one { score dot(q, k) normalize softmax }  attention two { score dot(q, k) normalize sigmoid }"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test has a cache of its own, and no generated module from another."""
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path / "cache"))
    for name in [name for name in sys.modules if name.startswith("attnc_generated_")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path / "cache"


def _qkv(dtype: torch.dtype = torch.float32, N: int = 9) -> list[Tensor]:
    torch.manual_seed(N)
    return [torch.randn(2, heads, N, 8, dtype=dtype, requires_grad=True) for heads in (4, 2, 2)]


def _python(program: str, *arguments: str, given: str = "", folder: Path) -> str:
    """What a program prints, run in another process, not in the repository: there ``attnc/`` would be found."""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, input=given, capture_output=True, text=True, check=True, cwd=folder).stdout


def test_an_op_is_its_reference() -> None:
    op = attnc.loads(ALIBI, w=2)
    vectors, slope = _qkv(), torch.rand(4, requires_grad=True)
    out, lse = op(*vectors, slope=slope)
    expected = op.reference(*vectors, slope=slope, dtype=torch.float64)
    assert expected._fields == ("out", "lse") and expected.out.dtype is torch.float64
    assert_close(out, expected.out, dtype=torch.float32, length=9)
    assert_close(lse, expected.lse, dtype=torch.float32, length=9)
    by_name = op(*vectors, slope=slope, backend="reference")
    assert torch.equal(by_name.out, op.reference(*vectors, slope=slope).out)
    found = torch.autograd.grad(out.sum() + lse.sum(), [*vectors, slope])
    wanted = torch.autograd.grad(expected.out.sum() + expected.lse.sum(), [*vectors, slope])
    for left, right in zip(found, wanted, strict=True):
        assert_close(left, right, dtype=torch.float32, length=9 * 9)


def test_a_value_that_is_a_part_of_the_key_is_no_copy() -> None:
    """Attention over one latent row a token reads the row where it lies, in its own dtype."""
    op = attnc.loads("attention a { query q  key row  value c = row[:8]  score dot(q, row)  normalize softmax }")
    q, row = torch.randn(1, 2, 3, 12, dtype=torch.bfloat16), torch.randn(1, 1, 500, 12, dtype=torch.bfloat16)

    class Made(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.numel() >= 500 * 8:
                assert result.untyped_storage().data_ptr() == row.untyped_storage().data_ptr(), f"{func} copies"
            return result

    with Made():
        op(q, row)


def test_the_reference_checks_its_call_as_the_op_does() -> None:
    op = attnc.loads(ALIBI)
    for call in (op, op.reference):
        with pytest.raises(TypeError, match="slope"):
            call(*_qkv())
        with pytest.raises(ValueError, match="slope"):
            call(*_qkv(), slope=torch.zeros(3))
    with pytest.raises(ValueError, match="expected one of auto, triton, interpret, ttir, native, eager, reference,"):
        op(*_qkv(), slope=torch.zeros(4), backend="fastest")


def test_check_reports_what_a_live_pair_reads_outside() -> None:
    op = attnc.loads("attention a { input r: f32[4] score dot(q, k) + r[i - j] mask causal normalize softmax }")
    vectors = _qkv()
    op.reference(*[x[:, :, :4] for x in vectors], r=torch.zeros(4), check=True)
    with pytest.raises(IndexError, match="r: index 4 is outside axis 0 of size 4, at b = 0, h = 0, i = 4, j = 0"):
        op.reference(*vectors, r=torch.zeros(4), check=True)


def test_what_people_see() -> None:
    op = attnc.loads(ALIBI, w=2)
    assert op.name == "alibi" and dict(op.params) == {"w": 2}
    assert repr(op) == "<attnc op alibi, w=2>" and str(op) == ALIBI
    assert "def alibi(" in op.source() and "import attnc" not in op.source() and "from attnc" not in op.source()
    compile(op.source(), "source", "exec")
    assert op.plan().strip()
    assert op.mask(5).shape == (1, 1, 5, 5) and op.mask(5, 7).sum() == 5 * 3


def test_load_reads_files_and_chooses_by_name(tmp_path: Path) -> None:
    (tmp_path / "two.attn").write_text(TWO)
    assert attnc.load(tmp_path / "two.attn", "one").name == "one"
    assert attnc.load(str(tmp_path / "two.attn"), name="two").name == "two"
    with pytest.raises(SpecError, match=r"two\.attn:1:"):
        attnc.load(tmp_path / "two.attn")
    (tmp_path / "bytes.attn").write_bytes(b"\xef\xbb\xbfattention a {\r\n  score dot(q, k)\r\n  normalize \xff }")
    with pytest.raises(SpecError, match="0xff"):
        attnc.load(tmp_path / "bytes.attn")
    with pytest.raises(FileNotFoundError):
        attnc.load(tmp_path / "none.attn")
    with open(tmp_path / "large.attn", "wb") as stream:
        stream.truncate(2**24 + 1)
    with pytest.raises(OSError, match="more than 16 MiB"):
        attnc.load(tmp_path / "large.attn")
    with pytest.raises(TypeError, match="loads takes a spec's text, not bytes; load takes a path"):
        attnc.loads(b"attention")  # type: ignore[arg-type]  # bytes, for the test


def test_inputs_may_be_called_dtype_and_check() -> None:
    op = attnc.loads("attention a { input dtype: f32 input check: f32 score dot(q, k) * dtype + check normalize relu }")
    given = {"dtype": 2.0, "check": -0.5}
    expected = op(*_qkv(), **given, backend="reference")
    torch.testing.assert_close(op.reference(*_qkv(), **given), expected)
    torch.testing.assert_close(op(*_qkv(), **given, backend="eager"), expected)
    check(make(op, {"B": 1, "H": 2, "G": 1, "N": 4, "M": 5, "D": 4, "E": 4}, inputs=given), "eager", torch.float32)


def test_params_may_be_called_path_and_text() -> None:
    spec = (
        "attention named { param path: int param text: int score dot(q, k) mask window(path, text) normalize softmax }"
    )
    assert dict(attnc.loads(spec, path=1, text=2).params) == {"path": 1, "text": 2}


def test_params_may_be_called_as_a_word_of_load_is() -> None:
    words = {"name": 1, "target": 2, "tune": 3, "params": 4}
    declared = " ".join(f"param {word}: int" for word in words)
    spec = (
        f"attention named {{ {declared} score dot(q, k) mask window(name + target, tune + params) normalize softmax }}"
    )
    op = attnc.loads(spec, params=words)
    assert dict(op.params) == words
    call = make(op, {"B": 1, "H": 1, "G": 1, "N": 4, "M": 5, "D": 4, "E": 4})
    exec(as_python(call, "eager", ""), {})
    assert attnc.loads(ALIBI, params={"w": 5}) == attnc.loads(ALIBI, w=5)
    for given, said in (
        ({"name": 3}, r"name: expected a str, got 3; a param called name goes into params={'name': 3}"),
        ({"target": 3}, "a param called target goes into"),
        ({"tune": 3}, "tune: expected a bool, got 3; a param called tune"),
        ({"params": 3}, "expected a mapping of names to values, got 3; a param called params"),
        ({"w": 3, "params": {"w": 4}}, "w: given by keyword and in params"),
    ):
        with pytest.raises(TypeError, match=re.escape(said)):
            attnc.loads(ALIBI, **given)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("attention a { score dot(q, k) }", {}),
        ("attention a { scor dot(q, k) }", {}),
        (ALIBI, {"w": -1}),
        (ALIBI, {"w": 1.5}),
        (ALIBI, {"w": torch.tensor(3)}),
        (ALIBI, {"v": 1}),
        ("recurrence r { input a: f32[B, H, N]  state S[D, E]  step exp(a) * S + outer(k, v)  read q @ S }", {}),
    ],
)
def test_faults_show_at_load(text: str, params: dict[str, object], folder: Path) -> None:
    with pytest.raises(SpecError):
        attnc.loads(text, **params)  # type: ignore[arg-type]  # wrong on purpose
    assert not folder.exists()


def test_equal_specs_share_a_module_and_others_do_not(tmp_path: Path) -> None:
    op = attnc.loads(ALIBI)
    assert attnc.loads(ALIBI) == op and hash(attnc.loads(ALIBI)) == hash(op)
    assert attnc.loads(ALIBI, w=3) != op and attnc.loads(ALIBI + "# remark") != op
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "alibi.attn").write_text(ALIBI)
    assert attnc.load(tmp_path / "a" / "alibi.attn") == attnc.load(tmp_path / "b" / "alibi.attn")


def test_generated_functions_have_a_file_and_a_source(folder: Path) -> None:
    op = attnc.loads(ALIBI)
    (entry,) = folder.glob("*.py")
    function = op._function
    assert inspect.getsourcefile(function) == str(entry)
    assert inspect.getsource(function).startswith("def alibi(")
    assert sys.modules[function.__module__].__dict__["alibi"] is function


def test_copies_and_pickles() -> None:
    op = attnc.loads(ALIBI, w=2)
    assert copy.copy(op) is op and copy.deepcopy({"op": op})["op"] is op
    again = pickle.loads(pickle.dumps(op))
    assert again == op and dict(again.params) == {"w": 2} and str(again) == ALIBI


def test_a_pickle_works_in_another_process(tmp_path: Path) -> None:
    op = attnc.loads(ALIBI, w=2)
    vectors = [x.detach() for x in _qkv()]
    slope = torch.ones(4)
    (tmp_path / "op.pickle").write_bytes(pickle.dumps((op, vectors, slope, op(*vectors, slope=slope).out)))
    program = (
        "import pickle, torch\n"
        "op, vectors, slope, out = pickle.load(open('op.pickle', 'rb'))\n"
        "assert torch.equal(op(*vectors, slope=slope).out, out)\n"
    )
    _python(program, folder=tmp_path)


def test_threads_that_load_at_once_share_one_module(folder: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        ops = list(pool.map(lambda number: attnc.loads(ALIBI, w=number % 2 + 1), range(32)))
        assert len(set(ops)) == 2 and len(list(folder.glob("*.py"))) == 2
        vectors = [x.detach() for x in _qkv()]
        outs = list(pool.map(lambda op: op(*vectors, slope=torch.ones(4)).out, ops))
    for number, out in enumerate(outs):
        assert torch.equal(out, outs[number % 2])


WARM = """
import sys, time, torch, triton
start = time.process_time()
import attnc
op = attnc.loads(sys.stdin.read())
spent = time.process_time() - start
loaded = [name for name in ("lark", "jinja2", "attnc.dsl.check") if name in sys.modules]
print(spent, *loaded)
"""


def test_a_warm_cache_needs_no_compiler_and_little_time(tmp_path: Path) -> None:
    cold, *warm = [_python(WARM, given=ALIBI, folder=tmp_path).split() for _ in range(4)]
    assert len(cold) > 1  # the compiler was there
    assert all(len(words) == 1 for words in warm)
    assert min(float(words[0]) for words in warm) < 0.05


def test_a_damaged_entry_is_compiled_again(folder: Path, tmp_path: Path) -> None:
    op = attnc.loads(ALIBI)
    (entry,) = folder.glob("*.py")
    whole = entry.read_bytes()
    entry.write_bytes(whole.replace(b"return", b"retrun"))
    _python("import attnc, sys; attnc.loads(sys.stdin.read())", given=ALIBI, folder=tmp_path)
    assert entry.read_bytes() == whole and op.source() in whole.decode()


def test_without_a_cache_it_works_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "file").chmod(stat.S_IREAD)
    monkeypatch.setenv("ATTNC_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="cannot be written"):
        op = attnc.loads(ALIBI)
    vectors = _qkv()
    out = op(*vectors, slope=torch.ones(4)).out
    assert_close(out, op.reference(*vectors, slope=torch.ones(4)).out, dtype=torch.float32, length=9)


# --- .attn files as modules -------------------------------------------------------------------


@pytest.fixture
def specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "two.attn").write_text(TWO)
    (tmp_path / "alone.attn").write_text(ALIBI)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("specs", "specs.two", "alone", "broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield tmp_path
    for name in ("specs", "specs.two", "alone", "broken"):
        sys.modules.pop(name, None)


def test_specs_import_like_modules(specs: Path) -> None:
    alone, two = importlib.import_module("alone"), importlib.import_module("specs.two")
    assert alone.alibi == attnc.load(specs / "alone.attn", "alibi") and alone.alibi is alone.alibi
    assert alone.__spec_text__ == ALIBI and alone.__file__ == str(specs / "alone.attn")
    assert two.__all__ == ["one", "two"] and {"one", "two"} <= set(dir(two))
    assert two.one.name == "one" and dir(two).count("one") == 1
    assert two.two.name == "two"
    with pytest.raises(AttributeError, match="no construct 'three': one, two"):
        _ = two.three
    names: dict[str, object] = {}
    exec("from specs.two import *", names)
    assert isinstance(names["one"], attnc.Op)


def test_a_folder_of_the_same_name_holds_more_and_a_module_comes_first(specs: Path) -> None:
    (specs / "specs.attn").write_text(ALIBI)
    beside = importlib.import_module("specs")
    assert isinstance(beside.alibi, attnc.Op)
    assert importlib.import_module("specs.two").one.name == "one"
    (specs / "alone.py").write_text("alibi = None")
    assert importlib.import_module("alone").alibi is None


def test_reload_sees_the_new_text(specs: Path) -> None:
    alone = importlib.import_module("alone")
    old = alone.alibi
    (specs / "alone.attn").write_text(ALIBI.replace("= 4", "= 5"))
    importlib.reload(alone)
    assert alone.alibi != old and alone.alibi.mask(9).sum() > old.mask(9).sum()


def test_a_fault_shows_at_import_and_missing_files_as_ever(specs: Path) -> None:
    (specs / "broken.attn").write_text("attention broken { score }")
    with pytest.raises(SpecError, match=r"broken\.attn:1:"):
        importlib.import_module("broken")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("specs.three")
    finders = len(sys.meta_path)
    importlib.reload(attnc.importer)
    assert len(sys.meta_path) == finders


@pytest.mark.parametrize(("major", "minor", "target"), [(9, 0, "sm_90"), (8, 6, "sm_86"), (30, 1, "generic")])
def test_tiles_are_for_the_gpu_that_is_here(
    monkeypatch: pytest.MonkeyPatch, major: int, minor: int, target: str
) -> None:
    found = SimpleNamespace(major=major, minor=minor)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)
    monkeypatch.setattr(torch.version, "hip", None)
    assert present() == target


def test_without_a_gpu_tiles_are_for_any() -> None:
    if not torch.cuda.is_available():
        assert present() == "generic"
        assert attnc.loads(ALIBI) == attnc.loads(ALIBI, target="generic")

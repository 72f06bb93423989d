"""From a spec to its generated module, loaded: compiled once, shared by every op of an equal spec."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.abc import ExecutionLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import PurePath
from threading import Lock
from types import CodeType, ModuleType

from attnc.codegen.planner.user import user_text
from attnc.dsl.source import Source
from attnc.runtime.cache import Entry, bytecode, fetch, key

_LOADING = Lock()  # guards sys.modules between the look and the entry


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A generated module and the entry it was made from."""

    entry: Entry
    module: ModuleType


def load_module(source: Source, name: str | None, params: Mapping[str, object], target: str) -> Loaded:
    """The module of a spec, registered in sys.modules under a name made from its key; equal specs share one. Raises
    SpecError for a spec with faults."""
    given = [(param, type(value).__qualname__, value) for param, value in sorted(params.items())]
    # Comments in the module name the file; a target may be the user's own.
    entry_key = key(PurePath(source.name).name, source.text, name, given, target, user_text())
    module_name = f"attnc_generated_{entry_key}"
    with _LOADING:
        module = sys.modules.get(module_name)
        if module is None:
            entry = fetch(entry_key, lambda: _compile(source, name, params, target))
            module = _execute(module_name, GeneratedLoader(entry))
    loader = module.__loader__
    assert isinstance(loader, GeneratedLoader), "only this function makes modules of this name"
    return Loaded(entry=loader.entry, module=module)


def _compile(source: Source, name: str | None, params: Mapping[str, object], target: str) -> tuple[str, str]:
    from attnc.codegen import pipeline  # the compiler is imported where it has to work: not on a warm cache
    from attnc.dsl.frontend import compile_text

    construct = compile_text(source, params, name)
    return construct.name, pipeline.compile(construct, target=target)


def second(loaded: Loaded, suffix: str, adapt: Callable[[ModuleType], None]) -> ModuleType:
    """A second copy of a module, ``adapt``ed once it has run: one a process for each module and suffix."""
    name = f"{loaded.module.__name__}_{suffix}"
    with _LOADING:
        return sys.modules.get(name) or _execute(name, GeneratedLoader(loaded.entry), adapt)


def _execute(name: str, loader: GeneratedLoader, adapt: Callable[[ModuleType], None] | None = None) -> ModuleType:
    spec = spec_from_loader(name, loader)
    assert spec is not None, "a loader was given"
    module = module_from_spec(spec)
    sys.modules[name] = module
    # torch asks inspect where an operator's fake function stands; inspect would look through every module there is.
    inspect.modulesbyfile[os.path.abspath(loader.entry.filename)] = name
    try:
        loader.exec_module(module)
        if adapt is not None:
            adapt(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class GeneratedLoader(ExecutionLoader):
    """Runs the text that was verified, whatever its file may hold by now."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry

    def get_filename(self, fullname: str) -> str:
        return self.entry.filename

    def get_source(self, fullname: str) -> str:
        return self.entry.text

    def get_code(self, fullname: str) -> CodeType:
        return bytecode(self.entry)

    def is_package(self, fullname: str) -> bool:
        return False

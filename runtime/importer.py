"""Import ``.attn`` files: ``import specs.longformer`` finds ``specs/longformer.attn`` where a module would be.

The module has an op for each construct, under its name, with default params; made when first asked for, so a file
may hold constructs that need params (for those: ``attnc.load``). ``__spec_text__`` is the file's text.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

from attnc.dsl.source import read_source
from attnc.runtime.op import Op, load


def install() -> None:
    """Look for ``.attn`` files too. A second call changes nothing."""
    if not any(isinstance(finder, SpecFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, SpecFinder())


class SpecFinder(MetaPathFinder):
    """Finds ``<last part of the name>.attn`` on the package's path, or on sys.path. A module of that name comes first;
    a mere folder does not: what is in it is imported as from a package."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        for folder in sys.path if path is None else path:
            file = Path(folder or ".") / f"{fullname.rpartition('.')[2]}.attn"
            if file.is_file():
                found = self._others(fullname, path, target)
                if found is not None and found.loader is not None:
                    return found
                inside = found.submodule_search_locations if found is not None else None
                return spec_from_file_location(
                    fullname,
                    file.absolute(),
                    loader=SpecLoader(file.absolute()),
                    submodule_search_locations=None if inside is None else list(inside),
                )
        return None

    def _others(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        """What Python finds without attnc; for a folder without ``__init__.py`` that has no loader."""
        for finder in sys.meta_path:
            found = None if finder is self else finder.find_spec(fullname, path, target)
            if found is not None:
                return found
        return None


class SpecLoader(Loader):
    """Parses the file at import, so that a syntax fault shows there; compiles a construct when it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def exec_module(self, module: ModuleType) -> None:
        from attnc.dsl.parse import parse

        source = read_source(self.path)
        names = [construct.name.text for construct in parse(source).constructs]
        for name in names:
            module.__dict__.pop(name, None)  # importlib.reload: ops of the text as it was

        def attribute(name: str) -> Op:
            if name not in names:
                raise AttributeError(f"module {module.__name__!r} has no construct {name!r}: {', '.join(names)}")
            op = load(self.path, name)
            setattr(module, name, op)
            return op

        module.__dict__.update(
            __spec_text__=source.text,
            __all__=names,
            __getattr__=attribute,
            __dir__=lambda: sorted({*module.__dict__, *names}),
        )

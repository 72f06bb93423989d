"""A compiled spec, called like a function: ``op = attnc.load("longformer.attn", w=512); out = op(q, k, v)``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attnc.dsl.source import Source, read_source
from attnc.runtime.device import present
from attnc.runtime.load import load_module, second

if TYPE_CHECKING:  # on a warm cache an op needs nothing of the compiler
    from types import ModuleType

    from attnc.codegen.planner.work import Pass
    from attnc.codegen.tilemap import TileMap
    from attnc.dsl.construct import Attention
    from attnc.runtime.tune import Timing


BACKENDS = ("auto", "triton", "interpret", "ttir", "native", "eager", "reference")


def load(
    path: str | Path,
    /,
    name: str | None = None,
    *,
    target: str | None = None,
    tune: bool = False,
    params: Mapping[str, object] | None = None,
    **more: object,
) -> Op:
    """The op of a ``.attn`` file. ``name`` picks one construct of several; params go by keyword, or in ``params``,
    which also takes those called as a word of this function is (``params={"name": 3}``). ``target``: what tiles
    are chosen for (``attnc targets``); by default this machine's GPU, without one ``generic``. ``tune``: the first call
    of every class of lengths measures the best few of those tiles and keeps the fastest (``Op.tune``). Raises SpecError
    for faults of the spec and its params, TypeError for words of another type than these have, OSError for a file that
    cannot be read, RuntimeError for ``tune`` without a GPU."""
    return _loaded(lambda: read_source(path), name, target, tune, params, more)


def loads(
    text: str,
    /,
    name: str | None = None,
    *,
    target: str | None = None,
    tune: bool = False,
    params: Mapping[str, object] | None = None,
    **more: object,
) -> Op:
    """The op of a spec given as text, otherwise as ``load``."""
    if not isinstance(text, str):
        raise TypeError(f"loads takes a spec's text, not {type(text).__name__}; load takes a path")
    return _loaded(lambda: Source(name="<text>", text=text), name, target, tune, params, more)


def _loaded(
    read: Callable[[], Source],
    name: str | None,
    target: str | None,
    tune: bool,
    params: Mapping[str, object] | None,
    more: Mapping[str, object],
) -> Op:
    for word, value, wanted in (("name", name, str), ("target", target, str), ("tune", tune, bool)):
        if value is not None and not isinstance(value, wanted):
            param = f"a param called {word} goes into params={{{word!r}: {value!r}}}"
            raise TypeError(f"{word}: expected a {wanted.__name__}, got {value!r}; {param}")
    if params is not None and not isinstance(params, Mapping):
        param = f"a param called params goes into params={{'params': {params!r}}}"
        raise TypeError(f"params: expected a mapping of names to values, got {params!r}; {param}")
    twice = [key for key in more if key in (params or {})]
    if twice:
        raise TypeError(f"{', '.join(twice)}: given by keyword and in params")
    if tune and not torch.cuda.is_available():
        raise RuntimeError("tune=True measures tiles on a GPU, and torch finds none here")
    return Op(read(), name=name, params={**(params or {}), **more}, target=target, tune=tune)


class Op:
    """A spec with its params, compiled. Immutable: copies share it, a pickle holds the spec's text."""

    def __init__(
        self,
        source: Source,
        *,
        name: str | None,
        params: Mapping[str, object],
        target: str | None,
        tune: bool = False,
    ) -> None:
        self._source = source
        self._asked = name, target, tune
        self._target = target or present()
        self.params: Mapping[str, object] = MappingProxyType(
            {key: tuple(value) if isinstance(value, list) else value for key, value in sorted(params.items())}
        )
        self._loaded = load_module(source, name, self.params, self._target)
        self.name = self._loaded.entry.name
        self._module = second(self._loaded, "tuned", self._tuned) if tune else self._loaded.module
        self._function: Callable[..., Any] = getattr(self._module, self._module.__all__[0])

    def __call__(
        self,
        /,
        *vectors: Tensor,
        q_offset: int | Tensor | None = None,
        kv_offset: int = 0,
        backend: str = "auto",
        **inputs: Tensor | int | float | bool,
    ) -> Any:
        """The result: a tensor [B, H, N, E], or a named tuple of ``out`` and what the spec emits. ``backend``:
        auto, triton, interpret, ttir, native, eager, reference; a backend asked for by name works or raises."""
        if backend == "reference":
            return self._reference(vectors, inputs, q_offset, kv_offset)
        if backend not in BACKENDS:
            raise ValueError(f"{self.name}: backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
        if self._asked[2] and backend in ("auto", "triton") and not torch.compiler.is_compiling():
            self.tune(*vectors, q_offset=q_offset, kv_offset=kv_offset, **inputs)
        function = self._native if backend == "ttir" else self._function
        return function(*vectors, q_offset=q_offset, kv_offset=kv_offset, backend=backend, **inputs)

    def tune(
        self,
        /,
        *vectors: Tensor,
        q_offset: int | Tensor | None = None,
        kv_offset: int = 0,
        **inputs: Tensor | int | float | bool,
    ) -> list[Timing]:
        """Measure, for calls of these lengths (as the power of two that holds them), dtype and head dims on this GPU,
        the planner's best few tiles of every kernel; the fastest serves from now on, here and, from the store, in
        later processes. The backward's where one of the tensors requires a gradient. What was measured now: nothing
        for what is known already. An op with ``tune=True`` does it by itself, but not under ``torch.compile``.

        Raises ValueError for an op loaded without ``tune=True``, RuntimeError for tensors that are on no GPU."""
        if not self._asked[2]:
            raise ValueError(f"{self.name}: tiles are measured for an op loaded with tune=True")
        if not vectors or vectors[0].device.type != "cuda":
            where = vectors[0].device if vectors else "nowhere"
            raise RuntimeError(f"{self.name}: tune=True measures tiles on GPU tensors; these are on {where}")
        from attnc.runtime.tune import on_gpu

        def call() -> Any:
            return self._function(*vectors, q_offset=q_offset, kv_offset=kv_offset, backend="triton", **inputs)

        timings: list[Timing] = self._module._tile.tune(call, vectors, tuple(inputs.values()), on_gpu)
        return timings

    def _tuned(self, module: ModuleType) -> None:
        from attnc.runtime.tune import Tuner

        vars(module)["_tile"] = Tuner(module.__name__, module._tile, self._planned)

    def _planned(self, step: Pass, dtype: str, dims: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """The planner's tiles of a pass over vectors of these sizes, its best first."""
        from attnc.codegen.lower import lower
        from attnc.codegen.plan import plan

        found = plan(lower(self.construct), self._target)
        choice = found.row(step, dtype, found.width(step, dtype, *dims)).choice
        if choice is not None:
            yield choice.tile.entry
            yield from (tile.entry for tile in choice.next_best)

    @cached_property
    def _native(self) -> Callable[..., Any]:
        """The op whose Triton kernels are lowered to C++."""
        from attnc.runtime.ttir.twin import twin

        module = twin(self._loaded)
        function: Callable[..., Any] = getattr(module, module.__all__[0])
        return function

    def reference(
        self,
        /,
        *vectors: Tensor,
        q_offset: int | Tensor | None = None,
        kv_offset: int = 0,
        dtype: torch.dtype | None = None,
        check: bool = False,
        **inputs: Tensor | int | float | bool,
    ) -> Any:
        """The dense definition, differentiable. ``dtype=torch.float64`` computes and returns in float64;
        ``check`` raises IndexError where a live pair reads outside an input. An input of the spec that is called
        ``dtype`` or ``check`` has that name to itself."""
        options: dict[str, Any] = {"dtype": dtype, "check": check}
        for item in self.construct.inputs:
            if item.name in options:
                inputs[item.name] = options.pop(item.name)
        return self._reference(vectors, inputs, q_offset, kv_offset, **options)

    def _reference(
        self,
        vectors: tuple[Tensor, ...],
        inputs: Mapping[str, Tensor | int | float | bool],
        q_offset: int | Tensor | None = None,
        kv_offset: int = 0,
        *,
        dtype: torch.dtype | None = None,
        check: bool = False,
    ) -> Any:
        from attnc.runtime.reference import reference

        bound = self._loaded.module.bind(vectors, inputs, q_offset, kv_offset)
        return reference(
            self.construct,
            bound.vectors,
            bound.inputs,
            q_offset=bound.q_offset,
            kv_offset=bound.kv_offset,
            dtype=dtype,
            check=check,
        )

    def mask(
        self,
        /,
        N: int,
        M: int | None = None,
        B: int = 1,
        H: int = 1,
        *,
        q_offset: int | Tensor | None = None,
        kv_offset: int = 0,
        **inputs: Tensor | int | float | bool,
    ) -> Tensor:
        """Which pairs are live: bool [B or 1, H or 1, N, M]; in some branch, where there are several."""
        from attnc.runtime.reference import mask

        return mask(self.construct, N, N if M is None else M, B, H, inputs, q_offset, kv_offset)

    def tiles(
        self,
        /,
        N: int,
        M: int | None = None,
        block: tuple[int, int] = (128, 64),
        B: int = 1,
        H: int = 1,
        *,
        q_offset: int | Tensor | None = None,
        kv_offset: int = 0,
        **inputs: Tensor | int | float | bool,
    ) -> Tensor:
        """Which tiles of ``block`` (queries, keys) hold live pairs: int8 [B or 1, H or 1, query tiles, key tiles], on
        the CPU; 0 empty, 1 partial, 2 full. Cut from row 0 of the tensors; live means live in some branch. Raises what
        ``mask`` raises, and ValueError for a block that is not two positive ints."""
        from attnc.runtime.tiles import tile_map

        keys = N if M is None else M
        made = tile_map(self.construct, N, keys, B, H, inputs, block=block, q_offset=q_offset, kv_offset=kv_offset)
        return torch.from_numpy(made.dense())

    def tile_map(
        self,
        /,
        N: int,
        M: int | None = None,
        block: tuple[int, int] = (128, 64),
        B: int = 1,
        H: int = 1,
        *,
        q_offset: int | Tensor | None = None,
        kv_offset: int = 0,
        transposed: bool = False,
        **inputs: Tensor | int | float | bool,
    ) -> TileMap:
        """The same as runs of tiles, for lengths whose dense map would not fit: ``counts()``, ``dense()``, and whether
        it is ``exact``. ``transposed``: by rows of key tiles, as the gradients of keys and values run."""
        from attnc.runtime.tiles import tile_map

        return tile_map(
            self.construct,
            N,
            N if M is None else M,
            B,
            H,
            inputs,
            block=block,
            q_offset=q_offset,
            kv_offset=kv_offset,
            transposed=transposed,
        )

    def plan(self) -> str:
        """What was chosen (tiles, strategy) and why, as text."""
        from attnc.codegen import pipeline

        return pipeline.plan_text(self.construct, target=self._target)

    def source(self) -> str:
        """The text of the generated module."""
        return self._loaded.entry.text

    @cached_property
    def construct(self) -> Attention:
        """The typed IR, params bound."""
        from attnc.dsl.frontend import compilable, compile_text

        return compilable(compile_text(self._source, self.params, self.name))

    def __repr__(self) -> str:
        params = "".join(f", {key}={value!r}" for key, value in self.params.items())
        return f"<attnc op {self.name}{params}>"

    def __str__(self) -> str:
        return self._source.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Op) and self._module is other._module

    def __hash__(self) -> int:
        return hash(self._module.__name__)

    def __copy__(self) -> Op:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Op:
        return self

    def __reduce__(self) -> tuple[Callable[..., Op], tuple[object, ...]]:
        return _restore, (self._source, *self._asked, dict(self.params))


def _restore(source: Source, name: str | None, target: str | None, tune: bool, params: Mapping[str, object]) -> Op:
    return Op(source, name=name, params=params, target=target, tune=tune)

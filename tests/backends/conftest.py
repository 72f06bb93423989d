"""Compiled specs of these tests stay out of the user's cache."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from attnc.testing.process import Process


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One for all workers of a run: what one has compiled, C++ above all, the others load."""
    base = tmp_path_factory.getbasetemp()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATTNC_CACHE_DIR", str((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"))
        yield


@pytest.fixture(scope="session")
def native(_own_cache: None) -> Iterator[Process]:
    """The process in which kernels are compiled."""
    process = Process()
    yield process
    process.close()

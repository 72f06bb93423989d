"""The one Jinja environment. Templates are compiled once a machine: that takes longer than to render them."""

from __future__ import annotations

from functools import cache
from importlib.util import MAGIC_NUMBER

import jinja2
from jinja2 import BytecodeCache, Environment, PackageLoader, StrictUndefined
from jinja2.bccache import Bucket

from attnc.dsl import store


class StoredTemplates(BytecodeCache):
    """Jinja's bytecode in the store, named by all that it is made from."""

    def load_bytecode(self, bucket: Bucket) -> None:
        body = store.load(_name(bucket))
        if body is not None:
            bucket.bytecode_from_string(body)

    def dump_bytecode(self, bucket: Bucket) -> None:
        store.keep(_name(bucket), bucket.bytecode_to_string())


def _name(bucket: Bucket) -> str:
    """The key says which template this is, the checksum what it holds, the environment how it is read."""
    of = bucket.environment
    read = (of.trim_blocks, of.lstrip_blocks, of.keep_trailing_newline, of.optimized)
    return store.key(bucket.key, bucket.checksum, read, jinja2.__version__, MAGIC_NUMBER) + ".j2"


@cache
def environment() -> Environment:
    """Made once a process; undefined names are errors."""
    made = Environment(
        loader=PackageLoader("attnc.codegen"),
        undefined=StrictUndefined,
        bytecode_cache=StoredTemplates(),
        optimized=False,  # the templates hold no constants to fold, and to look for them takes a tenth of the time
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["repr"] = repr
    return made

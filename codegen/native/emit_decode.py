"""Few queries, many keys: the frozen context of a C++ text whose vectors run along the keys."""

from __future__ import annotations

from attnc.codegen.kernel_builder import vector_dims
from attnc.codegen.lower import summed
from attnc.codegen.names import Naming
from attnc.codegen.native.emit_native import Builder, NativeGroup, native_context, native_map
from attnc.codegen.program import Group, Program


def native_decode(program: Program, group: Group, naming: Naming) -> NativeGroup:
    """The context of one pass."""
    builder = Builder(program, summed(group) if group.partial else group, naming, lanes="j")
    _, dim_of = vector_dims(group, naming)
    return native_context(builder, tuple(native_map(builder, item, dim_of) for item in builder.group.maps))

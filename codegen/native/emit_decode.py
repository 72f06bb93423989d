"""Few queries, many keys: the frozen context of a C++ text whose vectors run along the keys."""

from __future__ import annotations

from attnc.codegen.kernel_builder import vector_dims
from attnc.codegen.lower import Group, Program, summed
from attnc.codegen.names import Naming
from attnc.codegen.native.emit_native import Builder, NativeGroup, native_context, native_map


def native_decode(program: Program, group: Group, naming: Naming) -> NativeGroup | None:
    """The context of one pass; None where queries share keys in ways that this text has not: classes of rows, listed
    blocks, weights that are not divided by their own sum, and statistics beyond that."""
    forward = summed(group) if group.partial else group
    simple = all(item.plain and not item.rowmax and not item.entropy for item in forward.maps)
    if not simple or group.residue is not None or group.reach.listings:
        return None
    builder = Builder(program, forward, naming, lanes="j")
    _, dim_of = vector_dims(group, naming)
    return native_context(builder, tuple(native_map(builder, item, dim_of) for item in forward.maps))

"""Operations on tensors -> C++: shapes, memory, products, reductions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from attnc.runtime.ttir.ir import Op, Type, Unsupported
from attnc.runtime.ttir.scalars import c_type
from attnc.runtime.ttir.writer import ANY, Described, Index, Value, Writer, array, linear, named, unraveled

Combine = Callable[[Sequence[Value]], list[str]]
LANES = 16  # partial results of a reduction, combined in a fixed order


# ---- shapes: other indices for the same elements


def _splat(to: Writer, op: Op, values: Sequence[Value]) -> list[Value]:
    return [to.alias(op.returns[0], values[0], lambda index: ("0",) * len(values[0].type.shape))]


def _make_range(to: Writer, op: Op, values: Sequence[Value]) -> list[Value]:
    start = int(op.attributes["start"])
    return [
        Value(type=op.returns[0], read=lambda index: f"({start} + {index[0]})" if start else f"int32_t({index[0]})")
    ]


def _expand_dims(to: Writer, op: Op, values: Sequence[Value]) -> list[Value]:
    axis = int(op.attributes["axis"])
    return [to.alias(op.returns[0], values[0], lambda index: index[:axis] + index[axis + 1 :])]


def _broadcast(to: Writer, op: Op, values: Sequence[Value]) -> list[Value]:
    shape = values[0].type.shape
    if values[0].cost > 8 and values[0].type.size < op.returns[0].size:
        to.store(values[0])  # once for all that it is spread over
    return [
        to.alias(
            op.returns[0],
            values[0],
            lambda index: tuple("0" if extent == 1 else at for extent, at in zip(shape, index, strict=True)),
        )
    ]


def _trans(to: Writer, op: Op, values: Sequence[Value]) -> list[Value]:
    order = [int(axis) for axis in re.findall(r"\d+", op.attributes["order"].partition(":")[2])]
    return [to.alias(op.returns[0], values[0], lambda index: tuple(index[order.index(n)] for n in range(len(order))))]


def _reshape(to: Writer, op: Op, values: Sequence[Value]) -> list[Value]:
    source, shape = values[0], op.returns[0].shape
    if source.array:
        return [array(op.returns[0], source.array)]
    return [to.alias(op.returns[0], source, lambda index: unraveled(source.type.shape, linear(shape, index)))]


def _join(to: Writer, op: Op, values: Sequence[Value]) -> list[Value]:
    first, second = values
    return [
        to.lazy(
            op.returns[0],
            lambda index: f"({index[-1]} == 0 ? {first.read(index[:-1])} : {second.read(index[:-1])})",
            first.cost + second.cost + 1,
        )
    ]


def _split(to: Writer, op: Op, values: Sequence[Value]) -> list[Value]:
    def half(number: str) -> Value:
        return to.alias(op.returns[0], values[0], lambda index: (*index, number))

    return [half("0"), half("1")]


def _cat(to: Writer, op: Op, values: Sequence[Value]) -> list[Value]:
    first, second = (to.store(value) for value in values)
    made = to.new_array(op.returns[0], "cat")
    for source, start in ((first, 0), (second, first.type.size)):
        with to.loops(source.type.shape) as index:
            to.put(f"{made.array}[{start} + {linear(source.type.shape, index)}] = {source.read(index)};")
    return [made]


def _gather(to: Writer, op: Op, values: Sequence[Value]) -> list[Value]:
    source, places = to.store(values[0]), values[1]
    axis, kind = int(op.attributes["axis"]), op.returns[0]
    made = to.new_array(kind, "gathered")
    site = to.site("gathers from outside the tensor", op.place, ANY)
    with to.loops(kind.shape) as index:
        place = to.name("place")
        to.put(f"const int64_t {place} = {places.read(index)};")
        to.put(f"if ({place} < 0 || {place} >= {source.type.shape[axis]}) stop(at, {site}, {place});")
        to.put(f"{made.read(index)} = {source.read((*index[:axis], place, *index[axis + 1 :]))};")
    return [made]


def _histogram(to: Writer, op: Op, values: Sequence[Value]) -> list[Value]:
    made, live = to.new_array(op.returns[0], "counts"), values[1:]
    to.put(f"__builtin_memset({made.array}, 0, sizeof {made.array});")
    with to.loops(values[0].type.shape) as index:
        condition = f"if ({live[0].read(index)}) " if live else ""
        to.put(f"{condition}{made.array}[u({values[0].read(index)}) % {made.type.size}]++;")
    return [made]


# ---- the grid


def _axis(op: Op) -> str:
    return op.words[0]


def _program_id(to: Writer, op: Op, values: Sequence[Value]) -> list[Value]:
    return [named(op.returns[0], f"at.{_axis(op)}")]


def _programs(to: Writer, op: Op, values: Sequence[Value]) -> list[Value]:
    return [named(op.returns[0], f"at.launch->grid[{'xyz'.index(_axis(op))}]")]


def _assert(to: Writer, op: Op, values: Sequence[Value]) -> list[Value]:
    what = f"fails an assertion: {op.strings[0]}" if op.strings else "fails an assumption"
    site = to.site(what, op.place, ANY)
    with to.loops(values[0].type.shape) as index:
        to.put(f"if (!{values[0].read(index)}) stop(at, {site}, 0);")
    return []


# ---- memory. Every address that a live lane reaches is checked before the first is touched.


def _check(to: Writer, op: Op, what: str, pointer: Value, live: Value | None) -> None:
    element = pointer.type.element[1:]
    site = to.site(what, op.place, pointer.origin, element)
    reach = to.name("reach")
    to.put(f"Reach {reach};")
    with to.loops(pointer.type.shape) as index:
        address, lane = to.name("address"), to.name("live")
        to.put(f"const int64_t {address} = int64_t({pointer.read(index)});")
        to.put(f"const bool {lane} = {_lane(live, index)};")
        to.put(f"{reach}.low = {lane} && {address} < {reach}.low ? {address} : {reach}.low;")
        to.put(f"{reach}.high = {lane} && {address} > {reach}.high ? {address} : {reach}.high;")
    to.put(f"check(at, {site}, {pointer.origin}, {reach}, sizeof({c_type(element)}));")


def _lane(live: Value | None, index: Index) -> str:
    return "true" if live is None else live.read(index if live.type.shape else ())


def _load(to: Writer, op: Op, values: Sequence[Value]) -> list[Value]:
    pointer, live = values[0], values[1] if len(values) > 1 else None
    other, kind = values[2] if len(values) > 2 else None, op.returns[0]
    _check(to, op, "reads outside", pointer, live)

    def element(index: Index) -> str:
        instead = f"{c_type(kind.element)}(0)" if other is None else other.read(index if other.type.shape else ())
        return (
            f"*{pointer.read(index)}" if live is None else f"{_lane(live, index)} ? *{pointer.read(index)} : {instead}"
        )

    if not kind.shape:
        return [to.scalar(kind, element(()), "loaded")]
    made = to.new_array(kind, "loaded")
    with to.loops(kind.shape) as index:
        to.put(f"{made.read(index)} = {element(index)};")
    return [made]


def _store(to: Writer, op: Op, values: Sequence[Value]) -> list[Value]:
    pointer, value, live = values[0], values[1], values[2] if len(values) > 2 else None
    _check(to, op, "writes outside", pointer, live)
    with to.loops(pointer.type.shape) as index:
        condition = "" if live is None else f"if ({_lane(live, index)}) "
        to.put(f"{condition}*{pointer.read(index)} = {value.read(index if value.type.shape else ())};")
    return []


_ADDED = {"add": "{0} + {1}", "fadd": "{0} + {1}", "and": "{0} & {1}", "or": "{0} | {1}", "xor": "{0} ^ {1}"}
_ADDED |= {"max": "{0} > {1} ? {0} : {1}", "min": "{0} < {1} ? {0} : {1}", "exch": "{1}"}
_ADDED |= {"umax": "u({0}) > u({1}) ? {0} : {1}", "umin": "u({0}) < u({1}) ? {0} : {1}"}


def _atomic(to: Writer, op: Op, values: Sequence[Value]) -> list[Value]:
    """Read, change, write, element by element; programs of such a kernel run one after the other."""
    to.serial = True
    swap = op.name == "tt.atomic_cas"
    pointer, live = values[0], None if swap or len(values) < 3 else values[2]
    kind, element = op.returns[0], c_type(pointer.type.element[1:])
    _check(to, op, "changes memory outside", pointer, live)
    made = to.new_array(Type(kind.element, kind.shape or (1,)), "old")
    with to.loops(kind.shape) as index:
        address, old = to.name("address"), made.read(index or ("0",))
        to.put(f"{element}* {address} = {pointer.read(index)};")
        given = [value.read(index if value.type.shape else ()) for value in values[1:]]
        to.put(f"{old} = {_lane(live, index)} ? *{address} : {element}(0);")
        if swap:
            new = f"{old} == {given[0]} ? {given[1]} : {old}"
        else:
            wide = "float" if element in ("f16", "bf16") else element
            new = f"{element}({_ADDED[op.words[0]].format(f'{wide}({old})', f'{wide}({given[0]})')})"
        to.put(f"if ({_lane(live, index)}) *{address} = {new};")
    return [made if kind.shape else named(kind, made.read(("0",)))]


# ---- descriptors: a base, extents and strides; what lies outside is zero, and is not written


def _descriptor(to: Writer, op: Op, values: Sequence[Value]) -> list[Value]:
    rank = len(op.returns[0].shape)
    extents, strides = values[1 : 1 + rank], values[1 + rank :]
    if set(op.words) & {"nan", "PAD_NAN"}:
        raise Unsupported(f"ttir: a descriptor padded with NaN ({op.place})")
    described = Described(
        base=values[0],
        extents=tuple(value.read(()) for value in extents),
        strides=tuple(value.read(()) for value in strides),
    )
    element = c_type(op.returns[0].element)
    site = to.site(
        "describes an unaligned tensor: base and strides must be multiples of 16 bytes,", op.place, values[0].origin
    )
    for text in (
        f"int64_t({values[0].read(())})",
        *(f"{by} * int64_t(sizeof({element}))" for by in described.strides[:-1]),
    ):
        to.put(f"if (({text}) % 16) stop(at, {site}, {text});")
    to.put(f"if ({described.strides[-1]} != 1) stop(at, {site}, {described.strides[-1]});")
    return [Value(type=op.returns[0], read=lambda index: "", origin=values[0].origin, described=described)]


def _corner(to: Writer, values: Sequence[Value]) -> tuple[Described, list[str], tuple[int, ...]]:
    described = values[0].described
    assert described is not None, "an operand of a descriptor's operation is one"
    shape = values[0].type.shape
    return described, [value.read(()) for value in values[1 : 1 + len(shape)]], shape


def _element(described: Described, corner: Sequence[str], index: Index) -> tuple[str, str]:
    """The address of an element of a block, and whether the tensor has it."""
    places = [f"(int64_t({first}) + {at})" for first, at in zip(corner, index, strict=True)]
    inside = " & ".join(
        f"({place} >= 0) & ({place} < {extent})" for place, extent in zip(places, described.extents, strict=True)
    )
    steps = " + ".join(f"{place} * {by}" for place, by in zip(places, described.strides, strict=True))
    return f"({described.base.read(())} + ({steps}))", f"({inside})"


def _described(to: Writer, op: Op, what: str, values: Sequence[Value]) -> tuple[Value, Value]:
    """The pointers of a descriptor's block and which of them are inside, checked."""
    described, corner, shape = _corner(to, values)
    element = values[0].type.element
    origin = values[0].origin
    pointer = to.lazy(Type("*" + element, shape), lambda index: _element(described, corner, index)[0], 1, origin)
    live = to.lazy(Type("i1", shape), lambda index: _element(described, corner, index)[1], 1)
    _check(to, op, what, pointer, live)
    return pointer, live


def _descriptor_load(to: Writer, op: Op, values: Sequence[Value]) -> list[Value]:
    pointer, live = _described(to, op, "reads outside", values)
    element = c_type(values[0].type.element)
    made = to.new_array(Type(values[0].type.element, values[0].type.shape), "loaded")
    with to.loops(made.type.shape) as index:
        to.put(f"{made.read(index)} = {live.read(index)} ? *{pointer.read(index)} : {element}(0);")
    return [array(op.returns[0], made.array)]


def _descriptor_store(to: Writer, op: Op, values: Sequence[Value]) -> list[Value]:
    pointer, live = _described(to, op, "writes outside", values)
    source = to.store(values[-1])
    block = array(Type(source.type.element, values[0].type.shape), source.array)
    with to.loops(block.type.shape) as index:
        to.put(f"if ({live.read(index)}) *{pointer.read(index)} = {block.read(index)};")
    return []


def _descriptor_reduce(to: Writer, op: Op, values: Sequence[Value]) -> list[Value]:
    to.serial = True
    pointer, live = _described(to, op, "changes memory outside", values)
    source = to.store(values[-1])
    block = array(Type(source.type.element, values[0].type.shape), source.array)
    element = c_type(source.type.element)
    wide = "float" if element in ("f16", "bf16") else element
    with to.loops(block.type.shape) as index:
        form = _ADDED[op.words[0]].format(f"{wide}(*{pointer.read(index)})", f"{wide}({block.read(index)})")
        to.put(f"if ({live.read(index)}) *{pointer.read(index)} = {element}({form});")
    return []


# ---- products


def _dot(to: Writer, op: Op, values: Sequence[Value]) -> list[Value]:
    """In the accumulator's type: products of 16-bit floats are exact in float32. TF32 drops what tensor cores drop;
    three TF32 products, and six of bf16, lose no more than float32 does."""
    left, right, initial = values
    kind = op.returns[0]
    *batch, rows, inner = left.type.shape
    columns = right.type.shape[-1]
    element = "f32" if kind.element in ("f16", "bf16") else kind.element
    precision = op.words[op.words.index("inputPrecision") + 1] if "inputPrecision" in op.words else "ieee"
    coarse = precision == "tf32" and left.type.element == "f32"
    made = to.new_array(kind.of(element), "dot")
    operands = [_operand(to, value, element, coarse) for value in (left, right)]
    to.fill(made, Value(type=made.type, read=lambda index: f"{c_type(element)}({initial.read(index)})"))
    with to.loops(batch) as index:
        places = [linear(batch, index) if batch else "0"] * 3
        sizes = (rows * inner, inner * columns, rows * columns)
        texts = [
            f"{value.array} + ({place}) * {size}" if batch else value.array
            for value, place, size in zip((*operands, made), places, sizes, strict=True)
        ]
        to.put(f"product<{c_type(element)}, {rows}, {columns}, {inner}>({', '.join(texts)});")
    if element == kind.element:
        return [made]
    return [to.lazy(kind, lambda index: f"{c_type(kind.element)}({made.read(index)})", 1)]


def _operand(to: Writer, value: Value, element: str, coarse: bool) -> Value:
    """Row-major, in the type of the sums."""
    if value.type.element == element and not coarse:
        return to.store(value)
    made = to.new_array(value.type.of(element), "operand")
    form = "tf32({0})" if coarse else f"{c_type(element)}({{0}})"
    to.fill(made, Value(type=made.type, read=lambda index: form.format(value.read(index))))
    return made


# ---- reductions and scans: their regions combine two elements, of one tensor or of several


def reduce(to: Writer, op: Op, values: Sequence[Value], combine: Combine) -> list[Value]:
    """Along one axis. Along the last, LANES partial results first, so that the loop is one of vectors."""
    axis = int(op.attributes["axis"])
    shape = values[0].type.shape
    length = shape[axis]
    kept = [Type(value.type.element, (*shape[:axis], *shape[axis + 1 :])) for value in values]
    made = [to.new_array(Type(kind.element, kind.shape or (1,)), "reduced") for kind in kept]
    if axis < len(shape) - 1:
        _fold(to, values, made, axis, combine)
    else:
        lanes = min(LANES, length)
        with to.loops(kept[0].shape) as index:
            parts = [to.name("part") for _ in values]
            for part, value in zip(parts, values, strict=True):
                to.put(f"{c_type(value.type.element)} {part}[{lanes}];")
            with to.loops((lanes,)) as (lane,):
                for part, value in zip(parts, values, strict=True):
                    to.put(f"{part}[{lane}] = {value.read((*index, lane))};")
            if length > lanes:
                first = to.name("i")
                with (
                    to.scope(f"for (int {first} = {lanes}; {first} < {length}; {first} += {lanes}) {{"),
                    to.loops((lanes,)) as (lane,),
                ):
                    held = [
                        named(Type(v.type.element), f"{part}[{lane}]") for v, part in zip(values, parts, strict=True)
                    ]
                    _combined(to, held, [v.read((*index, f"{first} + {lane}")) for v in values], combine)
            half = lanes // 2
            while half:
                with to.loops((half,)) as (lane,):
                    held = [
                        named(Type(v.type.element), f"{part}[{lane}]") for v, part in zip(values, parts, strict=True)
                    ]
                    _combined(to, held, [f"{part}[{lane} + {half}]" for part in parts], combine)
                half //= 2
            for part, target in zip(parts, made, strict=True):
                to.put(f"{target.read(index or ('0',))} = {part}[0];")
    return [target if kind.shape else named(kind, target.read(("0",))) for kind, target in zip(kept, made, strict=True)]


def _fold(to: Writer, values: Sequence[Value], made: Sequence[Value], axis: int, combine: Combine) -> None:
    """Along an axis that is not the last: rows are combined whole."""
    shape = values[0].type.shape
    outer, inner = shape[:axis], shape[axis + 1 :]
    with to.loops(outer) as before:
        with to.loops(inner) as after:
            for target, value in zip(made, values, strict=True):
                to.put(f"{target.read((*before, *after))} = {value.read((*before, '0', *after))};")
        if shape[axis] > 1:
            step = to.name("i")
            with to.scope(f"for (int {step} = 1; {step} < {shape[axis]}; {step}++) {{"), to.loops(inner) as after:
                held = [
                    named(Type(v.type.element), m.read((*before, *after))) for v, m in zip(values, made, strict=True)
                ]
                _combined(to, held, [value.read((*before, step, *after)) for value in values], combine)


def _combined(to: Writer, held: Sequence[Value], given: Sequence[str], combine: Combine) -> None:
    """``held`` becomes what the region makes of it and the elements given."""
    others = [to.scalar(value.type, text, "y") for value, text in zip(held, given, strict=True)]
    firsts = [to.scalar(value.type, value.read(()), "x") for value in held]
    for value, text in zip(held, combine([*firsts, *others]), strict=True):
        to.put(f"{value.read(())} = {text};")


def scan(to: Writer, op: Op, values: Sequence[Value], combine: Combine) -> list[Value]:
    """Running results along one axis, forwards or backwards."""
    axis, backwards = int(op.attributes["axis"]), op.attributes["reverse"] == "true"
    shape = values[0].type.shape
    length = shape[axis]
    made = [to.new_array(value.type, "scanned") for value in values]
    with to.loops(shape[:axis]) as before, to.loops(shape[axis + 1 :]) as after:
        for target, value in zip(made, values, strict=True):
            first = (*before, str(length - 1) if backwards else "0", *after)
            to.put(f"{target.read(first)} = {value.read(first)};")
        step = to.name("i")
        with to.scope(f"for (int {step} = 1; {step} < {length}; {step}++) {{"):
            here = f"({length - 1} - {step})" if backwards else step
            last = f"({length} - {step})" if backwards else f"({step} - 1)"
            held = [to.scalar(Type(m.type.element), m.read((*before, last, *after)), "x") for m in made]
            new = [to.scalar(Type(v.type.element), v.read((*before, here, *after)), "y") for v in values]
            for target, text in zip(made, combine([*held, *new]), strict=True):
                to.put(f"{target.read((*before, here, *after))} = {text};")
    return made


def _return(to: Writer, op: Op, values: Sequence[Value]) -> list[Value]:
    for number, value in enumerate(values):
        to.put(f"r{number} = {value.read(())};")
    return []


HANDLERS: dict[str, Callable[[Writer, Op, Sequence[Value]], list[Value]]] = {
    "tt.splat": _splat,
    "tt.unsplat": _splat,
    "tt.make_range": _make_range,
    "tt.expand_dims": _expand_dims,
    "tt.broadcast": _broadcast,
    "tt.trans": _trans,
    "tt.reshape": _reshape,
    "tt.join": _join,
    "tt.split": _split,
    "tt.cat": _cat,
    "tt.gather": _gather,
    "tt.histogram": _histogram,
    "tt.get_program_id": _program_id,
    "tt.get_num_programs": _programs,
    "tt.assert": _assert,
    "llvm.intr.assume": _assert,
    "tt.load": _load,
    "tt.store": _store,
    "tt.atomic_rmw": _atomic,
    "tt.atomic_cas": _atomic,
    "tt.make_tensor_descriptor": _descriptor,
    "tt.descriptor_load": _descriptor_load,
    "tt.descriptor_store": _descriptor_store,
    "tt.descriptor_reduce": _descriptor_reduce,
    "tt.dot": _dot,
    "tt.return": _return,
}

"""What a tile takes of an SM, line by line: shared memory, registers, tensor memory, and how many blocks that leaves.

Each rule says what Triton's compiler was seen to allocate (3.7.1): benchmarks/calibrate.py compares them with it,
``codegen/data/calibration.json`` keeps what it reported for the tiles that are chosen, and docs/planner.md the errors.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from attnc.codegen.planner.targets import Gpu
from attnc.codegen.planner.tile import ITEMSIZE, Tile, padded
from attnc.codegen.planner.work import Work

# Registers of a thread beside its tiles: addresses, indices, operand fragments. Fitted to calibration.json.
OVERHEAD = {"forward": 52, "query": 44, "key": 96}
STAY = {"forward": "queries", "query": "queries and cotangents", "key": "keys and values"}
STREAM = {"forward": "keys and values", "query": "keys and values", "key": "queries and cotangents"}
ALIGNMENT = 1024  # of a buffer that the tensor cores of sm_90 and sm_100 read


Line = tuple[str, int]
"""One entry of a budget: what, and how much."""
LIMITS = ("shared memory", "registers", "warps", "blocks", "tensor memory")


class Budget(NamedTuple):
    """A tile's use of an SM. ``shared`` in bytes, ``registers`` of 32 bits a thread, ``columns`` of tensor memory.
    ``blocks`` that an SM holds at once, and which of them ``limits`` it."""

    shared: tuple[Line, ...]
    shared_bytes: int
    registers: tuple[Line, ...]
    registers_thread: int
    columns: int
    blocks: int
    limits: str


def budget(
    work: Work,
    tile: Tile,
    dtype: str,
    dim: int,
    gpu: Gpu,
    *,
    compiled: tuple[int, int] | None = None,
    shared: tuple[Line, ...] | None = None,
    registers: tuple[Line, ...] | None = None,
) -> Budget:
    """The budget of one kernel: vectors padded to ``dim`` elements of ``dtype``, or in two parts that are as many. Its
    blocks are those that the ``compiled`` kernel's registers and columns allow, where these are known; ``shared`` and
    ``registers``: its lines, where they are."""
    shared = shared or shared_lines(work, tile, dtype, dim, gpu)
    registers = registers or register_lines(work, tile, dtype, dim, gpu)
    columns = tensor_columns(work, tile, dtype, dim, gpu)
    shared_bytes, registers_thread = total(shared), total(registers)
    blocks, limits = occupancy(gpu, tile, shared_bytes, *(compiled or (registers_thread, columns)))
    return Budget(shared, shared_bytes, registers, registers_thread, columns, blocks, limits)


def total(lines: Iterable[Line]) -> int:
    return sum([amount for _, amount in lines])


def matrix(tile: Tile, dtype: str, gpu: Gpu) -> str:
    """How this tile's products are computed: fewer rows than a warp group takes fall back to a warp's instruction."""
    if gpu.matrix in ("wgmma", "tcgen05") and (tile.held < 64 or dtype == "f64"):
        return "mma"
    return gpu.matrix


def described(work: Work, dtype: str, gpu: Gpu) -> bool:
    """Whether vectors are read by descriptors."""
    return work.described and gpu.matrix == "tcgen05" and ITEMSIZE[dtype] == 2


def shared_lines(work: Work, tile: Tile, dtype: str, dim: int, gpu: Gpu) -> tuple[Line, ...]:
    """Shared memory of a block, in bytes; lines of 0 among them."""
    kind = matrix(tile, dtype, gpu)
    size = ITEMSIZE[dtype]
    vector, larger = dim * size, 1 << dim.bit_length() - 1  # of vectors in two parts
    held, moved = tile.held * work.held * vector, tile.moved * work.moved * vector
    pair = tile.held * tile.moved * size
    stay, stream = STAY[work.step], STREAM[work.step]
    emulated = dtype == "f32" and kind != "mfma" and kind != "fma"  # three TF32 products: operands in two parts
    stages, buffers = tile.stages, tile.stages - 1
    row = work.statistics * tile.moved * 4 if work.step == "key" else 0
    copied, through = _paired(work, tile, dim, size, kind) if work.pairwise else (0, 0)
    lines: list[Line]
    if kind == "wgmma":
        late = _wide(work) * tile.moved * vector if size < 4 else 0
        lines = [
            (stay + ", in two parts", 2 * held) if emulated else (stay, held),
            (f"{stream} x {stages} stages", moved * stages - late),
            ("a tile of them in float32, in two parts", 8 * tile.moved * dim if late else 0),
            ("row statistics, aligned", -(-row * buffers // ALIGNMENT) * ALIGNMENT),
        ]
    elif kind == "tcgen05" and work.wide and size < 4:
        late = _wide(work) * tile.moved * vector if work.step == "forward" or not work.scored else 0
        lines = [
            (stay, held),
            (f"{stream} x {stages} stages", moved * stages - late),
            ("a tile of them in float32, in two parts", 8 * tile.moved * dim),
            ("row statistics", row * buffers),
            ("barriers", 128),
        ]
    elif kind == "tcgen05":
        twice = 0
        if buffers and not emulated and not tile.roles:
            # What a second product reads transposed lives on until that product is done; of two parts the larger twice.
            # A score of several products takes the first vector's buffer one tile longer for each.
            more = max(0, work.dots - work.maps)
            one = {"forward": 0, "query": work.keys + more, "key": work.moved + more}[work.step] * tile.moved * size
            twice = one * dim + (one * larger if larger < dim else 0)
        lines = [
            (stay, 0 if emulated else held),
            (f"{stream} x {stages} stages", moved * stages),
            ("from role to role", (1088 if work.step == "forward" else 64) if tile.roles else 0),
            ("one more of what is read twice", twice),
            ("row statistics", row * buffers),
            ("barriers and alignment", min(ALIGNMENT, 8 * vector) if buffers and not emulated else 64),
        ]
        if emulated and vector == 64:  # seen of the shortest vectors alone
            lines.append(("a tile of what stays, on its way in", max(0, tile.held * vector - moved)))
    elif kind == "mma" and described(work, dtype, gpu) and larger == dim:
        # What stays came by a descriptor, and its buffer is free when the loop begins.
        lines = [
            (f"{stream} x {buffers} buffers", moved * buffers),
            ("weights, between warps", pair if tile.warps > 1 and crosses_warps(tile, dim) else 0),
            ("row statistics", row * buffers),
            ("barriers", 8 * (stages + 1)),
        ]
    elif kind == "mma":
        late = _late(work, tile, dim) if not emulated and larger == dim else 0
        once, ahead = (moved, 0) if late and buffers else _buffered(work, tile, vector, emulated, buffers)
        across = 0
        lines = [
            (stay + ", in two parts", 2 * held) if emulated else (stay, held),
            (f"{stream} x {buffers} buffers", ahead),
            ("a tile that is read in two layouts" if buffers else "what moves, a tile at a time", once),
        ]
        if crosses_warps(tile, dim):
            if work.step == "forward":
                across = 0 if emulated and not buffers else pair * (2 if emulated else 1)
            elif not emulated:
                across = pair if buffers else max(pair, 2048 * tile.warps)
            lines.append(("weights, between warps", across))
        elif not buffers and work.step != "forward":
            across = 512 * tile.warps
            lines.append(("reductions", across))
        # What changes its layout takes the place of what did so before.
        lines.append(("a vector's tile, from layout to layout", max(0, late - across)))
        lines.append(("row statistics", row * buffers))
        through = max(0, through - (0 if emulated else max(across, late)))
    elif kind == "mfma":
        single = max(tile.held, tile.moved) * larger * size
        if size == 4 or work.wide:  # float32 weights of 32 rows or more lie as the next product reads them
            across = 4 * tile.held * tile.moved if min(tile.held, tile.moved) < 32 else 0
        else:
            narrow = tile.held < 32 * tile.warps or dim & -dim < 32  # rows of a wavefront, or a part of a vector
            across = pair if narrow else 0
        if work.apart and tile.moved > 32:  # masks in both layouts
            across += tile.held * tile.moved
        across, copied, through = max(across, copied + through), 0, 0
        if buffers == 0:
            lines = [("a tile of vectors, one at a time", max(single, across))]
        else:
            lines = [
                (f"{stream} x {buffers} buffers", moved * buffers),
                ("weights, between warps", across),
                ("a tile of vectors before the loop", max(0, single - moved * buffers - across)),
            ]
    else:
        wide = max(1, 4 // size)  # ordinary multiply-adds read float32
        lines = [(stay, held * wide)]
        if size < 4:
            lines.append(("keys, or weights", wide * max(tile.moved * vector, pair)))
        elif work.step == "key":
            lines += (stream, moved), ("weights and cotangents", 2 * pair)
        else:
            lines += ("keys", work.keys * tile.moved * vector), ("weights, or values", max(pair, tile.moved * vector))
            lines.append(("rescale", 4 * tile.held if work.step == "forward" else 0))
    if copied or through:
        lines.append(("inputs that a pair reads", copied + through))
    if work.streamed or work.gathered:
        rows = work.streamed * tile.moved * stages + 2 * work.gathered * tile.held
        lines.append(("inputs that a row reads", rows))
    if work.stored and kind in ("mma", "wgmma"):
        lines.append(("what is stored, on its way out", max(0, _stored(work, tile, dim) - total(lines))))
    return tuple(lines)


def _paired(work: Work, tile: Tile, dim: int, size: int, kind: str) -> tuple[int, int]:
    """Bytes of a tile of what pairs read: what is copied ahead, as vectors are, and taken from there; and the others,
    which pass through shared memory into the layout of scores, one by one; in the forward, and on sm_100, scores
    into theirs, in float32. A strip of cotangents leaves on the same way."""
    pairs = tile.held * tile.moved
    copied, begun, through = work.copied, work.begun, work.paired
    if kind == "tcgen05":  # what a product begins with goes to tensor memory, and may be copied ahead
        copied, begun = copied + begun, 0
    if tile.stages == 1 or kind == "mfma":
        copied, through = 0, max(through, copied)
    if (begun or through) and (work.step == "forward" or kind == "tcgen05"):
        through = max(through, 4)
    strips = 4 if work.strips > 0 and work.step == "query" else 0
    passing = pairs * (through * 2 if size == 4 else max(through, strips))
    beginning = pairs * begun * (2 if size == 4 else 1)
    if work.step == "key" and tile.moved == dim and kind in ("mma", "wgmma"):
        beginning //= 2 * _repeated(tile, dim)  # scores are loaded in the layout of vectors, which have their shape
    return pairs * copied * (tile.stages - 1), max(passing, beginning)


def _late(work: Work, tile: Tile, dim: int) -> int:
    """Bytes in which vectors of 16 bits that are read twice change their layout, on sm_80, where the mask of their load
    is itself an input's, so that they are not copied ahead; 0 where they are."""
    if not work.waits or work.step == "forward" or (work.step == "query" and tile.stages > 2):
        return 0
    rows = max(1, 256 // dim) * tile.warps
    return 2 * tile.moved * dim // (1 if crosses_warps(tile, dim) else max(1, tile.moved // (2 * rows)))


def _stored(work: Work, tile: Tile, dim: int) -> int:
    """Bytes of sums on their way from a product's layout to that of their store, when all else is free. A warp has rows
    8 and 16 times the warps apart in its registers, one that stores 8 elements a thread those from 256 elements times
    the warps on: rows that both have apart pass one after another."""
    return work.stored * tile.held * dim // _repeated(tile, dim)


def _repeated(tile: Tile, dim: int) -> int:
    """How many parts of a tile of ``dim`` columns change one after another between the layout of a product and that of
    a load or store."""
    apart = 2 if tile.warps * max(1, 256 // dim) <= 8 else 1
    return apart * max(1, tile.held // (16 * tile.warps))


def _wide(work: Work) -> int:
    """Vectors of a row that are multiplied by float32 weights or cotangents: on sm_90 they are copied a stage less far
    ahead, and pass through shared memory once more."""
    if not work.wide:
        return 0
    return {"forward": 1, "query": work.keys, "key": work.moved}[work.step]


def _buffered(work: Work, tile: Tile, vector: int, emulated: bool, buffers: int) -> tuple[int, int]:
    """Bytes of what moves: one tile at a time, and copied ahead. A tile that is an operand twice in float32, in two
    layouts, is not copied ahead: keys for dq, queries and cotangents for dk and dv."""
    tile_of_vectors = tile.moved * vector
    match work.step, emulated:
        case "key", True:
            return tile_of_vectors, 0
        case "query", True if buffers and work.scored:
            return work.keys * tile_of_vectors, tile_of_vectors * buffers
        case "key", False if not buffers:
            return work.moved * tile_of_vectors, 0
        case _ if not buffers:
            return tile_of_vectors, 0
    return 0, work.moved * tile_of_vectors * buffers


def crosses_warps(tile: Tile, dim: int) -> bool:
    """Whether warps share rows of the scores, so that weights pass through shared memory: Triton puts all warps along
    the longer side of a chained product, along rows only where there are at least as many of them as columns. Of
    vectors in two parts the smaller decides, the lowest bit of their sum; their scores are no chained product."""
    smaller = dim & -dim
    return tile.held < smaller or (tile.step == "forward" and tile.held < tile.moved and smaller == dim)


def register_lines(work: Work, tile: Tile, dtype: str, dim: int, gpu: Gpu) -> tuple[Line, ...]:
    """Registers of a thread, of 32 bits; lines of 0 among them."""
    kind = matrix(tile, dtype, gpu)
    threads = tile.warps * gpu.warp
    size = ITEMSIZE[dtype]
    wide = 2 if dtype == "f64" else 1
    pairs = tile.held * tile.moved
    totals = work.totals * tile.held * dim * wide // threads
    if kind == "tcgen05":  # sums rest in tensor memory; to be rescaled they pass by halves
        totals = totals // 2 if work.step == "forward" else 0
    operands = 0
    if kind in ("mma", "mfma") and work.step == "forward":
        operands = work.queries * tile.held * dim * size // (4 * threads)
    return (
        ("sums", totals),
        ("scores" if work.step == "forward" else "scores and cotangents", work.scores * pairs * wide // threads),
        ("weights", pairs * (4 if work.step == "forward" else size) // (4 * threads)),
        ("queries as operands", operands),
        ("addresses, indices, fragments", OVERHEAD[work.step]),
        *_more(work, tile, dim, gpu, kind),
    )


def more_registers(work: Work, tile: Tile, dtype: str, dim: int, gpu: Gpu) -> int:
    """What a kernel takes beside a plain one of the same tile, of registers."""
    return total(_more(work, tile, dim, gpu, matrix(tile, dtype, gpu)))


def _more(work: Work, tile: Tile, dim: int, gpu: Gpu, kind: str) -> tuple[Line, ...]:
    """Registers of weights that are multiplied in float32, in two parts, and of addresses and values of what pairs
    read. Bounds of what the zoo's kernels took in bf16 at head dim 64, and on sm_100 at 128 too."""
    lines: tuple[Line, ...] = (("inputs that a row reads", 8),) if work.streamed or work.gathered else ()
    pairs = tile.held * tile.moved // (tile.warps * gpu.warp)
    if work.wide and kind in ("mma", "wgmma"):
        fragments = tile.moved * dim // gpu.warp + 24 if kind == "mma" and work.step != "forward" else 44
        lines += (("weights in two parts, and what they multiply", 2 * pairs + fragments),)
    strips = work.strips if work.step == "query" else 0
    if work.asked or work.added or strips:
        each: float
        match kind, work.step:
            case "tcgen05", "forward":
                each = (7.5 + 1.5 * work.asked if work.asked else 0) + 4 * work.added
            case "tcgen05", "query":
                each = (5 + work.asked if work.asked else 0) + max(strips, 4 + 5 * work.added if work.added else 0)
            case "tcgen05", _:
                each = (4 + work.asked if work.asked else 0) + 7 * work.added
            case _, "forward":
                each = (4 + 2 * work.asked if work.asked else 0) + 2 * work.added
            case _, "query":
                each = 2 + 2 * (work.asked + work.added + strips)
            case _:
                each = 0 if kind == "wgmma" else 6
        match kind, work.step:  # times what longer vectors take beside
            case "mma", "forward":
                longer = work.added
            case "mma", "query":
                longer = max(1, work.added)
            case "tcgen05", "forward":
                longer = min(1, work.asked)
            case _:
                longer = 0
        longer *= (dim - 64) // 2 if 64 < dim <= 128 else 0
        lines += (("inputs that a pair reads", int(each * pairs) + longer),)
    return lines


def tensor_columns(work: Work, tile: Tile, dtype: str, dim: int, gpu: Gpu) -> int:
    """Columns of tensor memory (sm_100), of 128 rows of 32 bits; a power of two is allocated."""
    if matrix(tile, dtype, gpu) != "tcgen05":
        return 0
    c, dim = tile.moved, padded(dim)
    if tile.roles:  # the next tile's scores are made while these are read
        used = 2 * work.scores * c + work.totals * dim + work.maps * c // 2
    elif dtype == "f32":  # operands rest there too, in two parts each
        used = {"forward": 3 * c + 3 * dim + 128, "query": 7 * c + 4 * dim, "key": 7 * c + 7 * dim - 64}[work.step]
    else:
        used = work.scores * c + work.totals * dim + work.maps * c // 2
    return max(32, 1 << (used - 1).bit_length()) * (1 if tile.held <= 128 else 2)


def occupancy(gpu: Gpu, tile: Tile, shared: int, registers: int, columns: int) -> tuple[int, str]:
    """Blocks that an SM holds at once, and what limits them. Registers are given to a warp in units of 256."""
    a_warp = -(-min(registers, gpu.registers_thread) * gpu.warp // 256) * 256
    by = (
        gpu.shared_sm // (shared + gpu.shared_reserved) if shared <= gpu.shared_block else 0,
        gpu.registers // (a_warp * tile.warps),
        gpu.warps // tile.warps,
        gpu.blocks,
        gpu.tensor_columns // columns if columns else gpu.blocks,
    )
    least = min(by)
    return least, LIMITS[by.index(least)]

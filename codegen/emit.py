"""A program and its plan as the text of one module. Decisions end here; the templates print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256

from jinja2 import Environment

from attnc.codegen.emit_prologue import axis_texts, output_lines, prologue, size_text, tables
from attnc.codegen.emit_torch import TorchGroup, torch_group
from attnc.codegen.emit_triton import kernels
from attnc.codegen.environment import environment
from attnc.codegen.kernel import Kernel
from attnc.codegen.lower import summed
from attnc.codegen.names import Naming
from attnc.codegen.native.embed import builder
from attnc.codegen.native.emit_backward import native_backward
from attnc.codegen.native.emit_decode import native_decode
from attnc.codegen.native.emit_native import native_group
from attnc.codegen.native.texts import ELEMENTS
from attnc.codegen.plan import Plan
from attnc.codegen.planner.targets import Cpu
from attnc.codegen.program import DrawnTable, Group, ListedTable, Program
from attnc.codegen.ranges import LIMIT_TEXT
from attnc.dsl.diagnostics import Diagnostic, SpecError
from attnc.dsl.ir import Const, Size
from attnc.dsl.version import VERSION

MOST_ARGUMENTS = 64  # of an operator of PyTorch's dispatcher (c10's max_args)


@dataclass(frozen=True, kw_only=True)
class OpGroup(TorchGroup):
    """A group's host side: what templates/op.py.j2 needs beyond the PyTorch text."""

    op: str
    schema: str
    schema_numbers: str
    returns: str
    gradients: str
    with_gradients: tuple[str, ...]
    divisor_totals: tuple[str, ...]
    backward_arguments: str
    kept: str
    cotangents: Mapping[str, str]
    numbers: int
    narrow: tuple[str, ...]
    narrow_dtype: str
    tiled: tuple[str, ...]
    actual: str
    results: tuple[str, ...]
    parts: tuple[OpGroup, ...]
    summed: TorchGroup | None
    gpu: bool

    @property
    def passes(self) -> tuple[OpGroup, ...]:
        return self.parts or (self,)


def emit(program: Program, plan: Plan) -> str:
    """The module's text. Same program, same plan: same bytes."""
    attention = program.attention
    naming = Naming(program)
    spec = attention.source.text[attention.span.start : attention.span.end]
    parts = (spec, repr(attention.params), _params(program), plan.digest)
    digest = sha256("\n".join(parts).encode()).hexdigest()[:16]
    env = environment()
    gpu = not isinstance(plan.machine, Cpu)  # a processor's module has no GPU kernels
    groups = [_op_group(program, group, naming, digest, gpu) for group in program.groups]
    passes = [part for t in groups for part in t.passes]
    rows, columns = _eager_tile(passes)
    by_group = [kernels(program, group, naming, plan) if gpu else () for group in program.groups]
    helpers = frozenset[str]().union(*(kernel.helpers for found in by_group for kernel in found))
    if any(item.rowmax for group in program.groups for item in group.maps):
        helpers |= {"most"}
    before = prologue(program, naming)
    emits = attention.emits
    returned = []
    for item in emits:
        text = f"{item.branch}_{item.what}"
        returned.append(text if item.what in ("lse", "total") else f"{text}.detach()")
    vectors = [{"name": v.name, "role": v.role, "dim": _dim(v.dim)} for v in attention.vectors]
    inputs = [
        {"name": x.name, "dtype": x.dtype, "axes": axis_texts(x.axes), "differentiable": x.differentiable}
        for x in attention.inputs
    ]
    text = env.get_template("module.py.j2").render(
        spec_name=attention.name,
        title=attention.name,
        title_line=", ".join(item.normalization.name for item in attention.branches) + " attention, compiled",
        version=VERSION,
        limit=LIMIT_TEXT,
        target=plan.target,
        gpu=gpu,
        hash=digest,
        spec_lines=[line.replace("\\", "\\\\").replace('"""', '\\"\\"\\"') for line in spec.splitlines()],
        public=naming.public,
        precision=plan.precision,
        tanh_approx=_tanh_approx(plan.target),
        base_two=any(m.exponential and (m.fused or m.entropy) for found in by_group for k in found for m in k.maps),
        rows=rows,
        columns=columns,
        strided=any(t.step > 1 for t in passes),
        merged=any(t.parts or t.splits for t in groups),
        strips=any(t.pair_inputs for t in groups),
        vectors=vectors,
        inputs=inputs,
        torch_helpers=before.helpers,
        zeroed=any(t.zeroed for t in passes),
        listed=any(isinstance(table, ListedTable) for table in program.tables),
        drawn=any(isinstance(table, DrawnTable) for table in program.tables),
        spans=any(t.prepass.spans for t in passes),
        drawn_tiles=any(x.drawn for t in passes for x in t.prepass.listings),
        table_tiles=any(not x.drawn for t in passes for x in t.prepass.listings),
        prepasses=[env.get_template("prepass.py.j2").render(t=t) for t in passes],
        builder=builder(),
        elements=ELEMENTS.values(),
        native=[
            _native(env, t, program, part, naming)
            for t, part in zip(passes, [part for group in program.groups for part in group.passes], strict=True)
        ],
        eager=[env.get_template("eager.py.j2").render(t=t, s=t.summed or t) for t in passes],
        described=any(kernel.described for found in by_group for kernel in found),
        tiles=tuple(plan.fitting),
        split=plan.split,
        tiles_note=plan.note,
        helpers=helpers,
        kernels=[env.get_template("kernels.py.j2").render(kernels=found) for found in by_group if gpu],
        ops=[_op(env, t, found) for t, found in zip(groups, by_group, strict=True)],
        result=naming.result if emits else "",
        emits=emits,
        emit_names=", ".join(item.name for item in emits),
        returned=returned,
        signature=_signature(program),
        doc=_doc(program),
        vector_names=[naming.tensor(v.name) for v in attention.vectors],
        input_names=[naming.tensor(x.name) for x in attention.inputs],
        first_kernel=by_group[0][0].name if gpu else "None",
        prologue=before.lines,
        tables=tables(program, naming),
        groups=groups,
        output=output_lines(program, naming),
    )
    return text.rstrip("\n") + "\n"


def _tanh_approx(target: str) -> str:
    """Whether a target has PTX's approximate tanh, as source text; Triton's interpreter runs no assembly."""
    if target.startswith("gfx"):
        return "False"
    compiled = 'os.environ.get("TRITON_INTERPRET") != "1"'
    return f"not torch.version.hip and {compiled}" if target == "generic" else compiled


def _eager_tile(passes: Sequence[TorchGroup]) -> tuple[int, int]:
    """Tile of the blocked PyTorch code: near the size of listed blocks, else what keeps its calls few."""
    blocks = [item.block for t in passes for item in t.prepass.listings]
    if not blocks:
        return 128, 512
    side = max(64, min(128, *blocks))
    return side, side


def _op(env: Environment, t: OpGroup, found: tuple[Kernel, ...]) -> str:
    by_name = {kernel.name: kernel for kernel in found}
    hosts = [
        env.get_template("host.py.j2").render(
            t=part,
            s=part.summed or part,
            forward=by_name[f"{part.prefix}_forward_kernel"],
            query=by_name[f"{part.prefix}_query_kernel"],
            key=by_name[f"{part.prefix}_key_kernel"],
            colsum={item.tag: by_name.get(f"{part.prefix}_colsum{item.tag}_kernel") for item in t.maps},
        )
        for part in t.passes
        if t.gpu
    ]
    return "".join(hosts) + env.get_template("op.py.j2").render(t=t, s=t.parts[0].summed if t.parts else t)


def _native(env: Environment, t: OpGroup, program: Program, part: Group, naming: Naming) -> str:
    """A pass's native forward, also for few queries, and backward."""
    n, back = native_group(program, part, naming), native_backward(program, part, naming)
    few = native_decode(program, part, naming)
    contexts = env.get_template("native/contexts.cpp.j2")
    forward = env.get_template("native/native.py.j2").render(
        t=t, s=t.summed or t, n=n, contexts=contexts.render(t=n), few_contexts=contexts.render(t=few)
    )
    texts = contexts.render(t=back.context) + env.get_template("native/gradients.cpp.j2").render(t=back)
    return forward + env.get_template("native/backward.py.j2").render(t=t, n=back, contexts=texts)


def _params(program: Program) -> str:
    """What specialization put in: the expressions themselves."""
    return (
        "".join(
            (item.score.digest + item.raw.digest + item.mask.digest + item.weight.digest + item.scaled.digest).hex()
            for item in program.maps
        )
        + "".join(group.residue.condition.digest.hex() for group in program.groups if group.residue is not None)
        + program.attention.output.digest.hex()
        + "".join(token.expr.digest.hex() for token in program.attention.tokens)
    )


def _dim(dim: object) -> str | int:
    match dim:
        case Size(name=name):
            return name
        case Const(value=int(value)):
            return value
    raise AssertionError(f"a declared vector has a named or literal size, not {dim}")


def _op_group(program: Program, group: Group, naming: Naming, digest: str, gpu: bool) -> OpGroup:
    base = torch_group(program, group, naming)
    attention = program.attention
    derived = {token.name for token in attention.tokens if token.dim is not None}
    involved = (*group.queries, *group.keys, group.value)
    declared = [name for name in involved if name not in derived]
    narrow = tuple(dict.fromkeys(naming.tensor(name) for name in involved if name in derived)) if declared else ()
    tensors = ", ".join(f"Tensor {name}" for name in base.tensor_arguments)
    numbers = ("B", "H", "N", "q_offset", "kv_offset", *base.size_arguments)
    heads = {token.name: token.heads for token in attention.tokens}
    key_side = (*group.keys, group.value)
    actual = list(base.tensor_arguments)
    if len({heads.get(name, "G") for name in key_side}) > 1:  # one differs by query head: all are given per query head
        for name in key_side:
            if heads.get(name, "G") == "G":
                place = actual.index(naming.tensor(name))
                actual[place] = f"_repeat({naming.tensor(name)}, H)"
    sizes = [f'sizes["{name.removeprefix("size_")}"]' for name in base.size_arguments]
    results = []
    for item in base.maps:
        results.append("out" if program.single else f"{item.name}_out")
        results += [f"{item.name}_{name.removesuffix(item.tag)}" for name in (*item.saved, *item.extras)]
    at = {name: f"cotangents[{place}]" for place, name in enumerate(base.outputs)}
    cotangents = {
        item.tag: ", ".join(
            (
                at[f"out{item.tag}"],
                at[f"lse{item.tag}"] if item.lse else "None",
                at[f"total{item.tag}"] if item.total else "None",
            )
        )
        for item in base.maps
    }
    backward = [
        name
        for item in base.maps
        for name in (*item.saved, *(f"{word}{item.tag}" for word in ("out", "do", "d_lse", "d_total")))
    ]
    # The backward's, as op.py.j2 writes them: with q_offsets before, `needs` and the backend behind.
    count = len(base.tensor_arguments) + 1 + len(numbers) + len(backward) + 2
    if count > MOST_ARGUMENTS:
        fault = Diagnostic(
            code="A505",
            message=f"an operator of PyTorch takes at most {MOST_ARGUMENTS} arguments, and the gradient of "
            f"`{attention.name}` needs {count}",
            span=attention.span,
            label=f"{len(attention.inputs)} inputs",
            help="put scalars that belong together into one input with an axis",
        )
        raise SpecError(attention.source, (fault,))
    return OpGroup(
        **{field.name: getattr(base, field.name) for field in fields(TorchGroup)},
        op=f"{attention.name}_{digest}_{group.name}",
        schema=f"{tensors}, Tensor? q_offsets",
        schema_numbers=", ".join(f"SymInt {name}" for name in numbers),
        returns=", ".join(["Tensor"] * len(base.outputs)),
        gradients=", ".join(["Tensor"] * len(base.tensor_arguments)),
        with_gradients=(*base.queries, *base.keys, base.value, *base.differentiable),
        divisor_totals=tuple(dict.fromkeys(name for item in base.maps for name in item.divisor_totals)),
        backward_arguments=", ".join(backward),
        kept=", ".join(name for item in base.maps for name in (f"out{item.tag}", *item.saved)),
        cotangents=cotangents,
        numbers=1 + len(numbers) + 1,
        narrow=narrow,
        narrow_dtype=f"{naming.tensor(declared[0])}.dtype" if narrow else "",
        tiled=tuple(naming.tensor(name) for name in (*group.queries, group.value)),
        actual=", ".join((*actual, "q_offsets", "B", "H", "N", "q_offset", "kv_offset", *sizes)),
        results=tuple(results),
        parts=tuple(_op_group(program, part, naming, digest, gpu) for part in group.parts),
        summed=torch_group(program, summed(group), naming) if group.partial else None,
        gpu=gpu,
    )


def _signature(program: Program) -> str:
    attention = program.attention
    names = [v.name for v in attention.vectors]
    inputs = [x.name for x in attention.inputs]
    return ", ".join((*names, *(["*", *inputs] if inputs else [])))


def _doc(program: Program) -> list[str]:
    attention = program.attention
    axes = {"query": "[B, H, N, ", "key": "[B, G, M, ", "value": "[B, G, M, "}
    lines = [f"{v.name}: {axes[v.role]}{size_text(v.dim, shown=True)}]" for v in attention.vectors]
    for x in attention.inputs:
        shape = f"[{', '.join(size_text(axis, shown=True) for axis in x.axes)}]" if x.axes else ""
        lines.append(f"{x.name}: {x.dtype}{shape}, by keyword{', no gradient' if not x.differentiable else ''}")
    lines.append("out: [B, H, N, E] in the vectors' dtype. Query row r is at position r + q_offset (default M - N),")
    lines.append("key row c at c + kv_offset. Raises TypeError or ValueError for a bad call.")
    return lines


__all__ = ["emit"]

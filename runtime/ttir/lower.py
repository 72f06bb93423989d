"""Typed SSA -> C++: functions, control flow, elementwise operations. The operations on tensors are in ``tensors``.

Not a vectorizer: the text is plain loops over arrays of constant size, which the C++ compiler vectorizes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from attnc.runtime.ttir import tensors
from attnc.runtime.ttir.ir import Block, Function, Module, Op, Type, Unsupported
from attnc.runtime.ttir.scalars import PRELUDE, c_type, constant, cost, expression
from attnc.runtime.ttir.writer import ANY, Described, Index, Site, Value, Writer, named

# A lazy value that is read more than once is stored if an element costs more than this many additions: floats, which
# are read beside other arrays, sooner than the integers that addresses and masks are made of.
_FLOAT_COST, _INTEGER_COST = 2, 12
_NO_EFFECT = ("ttg.barrier", "gpu.barrier", "nvvm.barrier0")


@dataclass(frozen=True, kw_only=True)
class Lowered:
    """A kernel's C++ and the places where a program of it may stop."""

    source: str
    sites: tuple[Site, ...]


def lower(module: Module) -> Lowered:
    """The C++ of a kernel: ``extern "C" void launch(const Launch*)``. Raises Unsupported for an operation that is not
    known, by name."""
    sites: list[Site] = []
    texts, serial = [], False
    signatures = {function.name: function for function in module.functions}
    helpers = [function for function in module.functions if not function.public]
    for function in (*_callees_first(helpers), module.kernel):
        made = _Lowering(function, signatures, sites)
        texts.append(made.text())
        serial |= made.writer.serial
    return Lowered(source=PRELUDE + "\n".join(texts) + _entry(module.kernel, serial), sites=tuple(sites))


def _callees_first(functions: Sequence[Function]) -> list[Function]:
    found: dict[str, Function] = {}
    by_name = {function.name: function for function in functions}

    def visit(function: Function) -> None:
        for op in _walk(function.body):
            if op.name == "tt.call" and op.symbol in by_name:
                visit(by_name[op.symbol])
        found[function.name] = function

    for function in functions:
        visit(function)
    return list(found.values())


def _walk(block: Block) -> list[Op]:
    return [inner for op in block.ops for inner in (op, *(o for region in op.regions for o in _walk(region)))]


class _Lowering:
    def __init__(self, function: Function, functions: dict[str, Function], sites: list[Site]) -> None:
        self.writer = Writer(sites=sites)
        self._function = function
        self._functions = functions
        self._uses: Counter[str] = Counter()

    def text(self) -> str:
        """The function and its frame."""
        env: dict[str, Value] = {}
        name = identifier(self._function.name)
        parameters = [f"Frame_{name}* __restrict F", "const Program& at"]
        for number, (argument, kind) in enumerate(self._function.body.arguments):
            passed = _passed(kind)
            parameters.append(f"{c_type(passed.element)} a{number}")
            value = named(passed, f"a{number}", number if self._function.public and passed.is_pointer else ANY)
            env[argument] = _described(kind, value, number) if kind.described else value
        parameters += [f"{c_type(kind.element)}& r{n}" for n, kind in enumerate(self._function.returns)]
        self._op(self._block(self._function.body, env), env)
        frame = "\n".join(f"  {line}" for line in self.writer.fields)
        body = "\n".join(self.writer.lines)
        return (
            f"\nstruct Frame_{name} {{\n{frame}\n}};\n"
            f"static __attribute__((noinline)) void run_{name}({', '.join(parameters)}) {{\n{body}\n}}\n"
        )

    def _block(self, block: Block, env: dict[str, Value]) -> Op:
        """Every operation but the terminator, which is given back."""
        outer, self._uses = self._uses, _uses(block)
        for op in block.ops[:-1]:
            self._op(op, env)
        self._uses = outer
        return block.ops[-1]

    def _op(self, op: Op, env: dict[str, Value]) -> None:
        values = [env[name] for name in op.operands]
        results: Sequence[Value]
        match op.name:
            case "scf.for":
                results = self._for(op, values, env)
            case "scf.while":
                results = self._while(op, values, env)
            case "scf.if":
                results = self._if(op, values[0], env)
            case "tt.call":
                results = self._call(op, values)
            case "tt.reduce" | "tt.scan":
                form = tensors.reduce if op.name == "tt.reduce" else tensors.scan
                results = form(self.writer, op, values, lambda args: self._combine(op.regions[0], args, env))
            case name if name in _NO_EFFECT:
                results = ()
            case name if name in tensors.HANDLERS:
                results = tensors.HANDLERS[name](self.writer, op, values)
            case _:
                results = (self._elementwise(op, values),)
        env.update(zip(op.results, results, strict=False))

    def _elementwise(self, op: Op, values: Sequence[Value]) -> Value:
        writer, kind = self.writer, op.returns[0] if op.returns else Type("i1")
        stem = identifier(op.results[0]) if op.results else "x"
        origins = {value.origin for value in values if value.type.is_pointer}
        origin = origins.pop() if kind.is_pointer and len(origins) == 1 else ANY
        if op.name == "arith.constant":
            literal = constant(
                op.attributes.get("value", op.words[0].removeprefix("dense<").removesuffix(">")), kind.element
            )
            return Value(type=kind, read=lambda index: literal)

        def form(index: Index) -> str:
            text = expression(op, [value.read(index if value.type.shape else ()) for value in values])
            if text is None:
                raise Unsupported(f"ttir: operation {op.name} ({op.place})")
            return text

        if not kind.shape:
            return writer.scalar(kind, form(()), stem, origin)
        if expression(op, ["0"] * len(values)) is None:
            raise Unsupported(f"ttir: operation {op.name} ({op.place})")
        made = writer.lazy(kind, form, cost(op) + sum(value.cost for value in values), origin)
        limit = _FLOAT_COST if kind.is_float else _INTEGER_COST
        if self._uses[op.results[0]] > 1 and made.cost > limit:
            writer.store(made, stem)
        return made

    def _combine(self, region: Block, args: Sequence[Value], env: dict[str, Value]) -> list[str]:
        """What a region of scalars gives for these."""
        inner = dict(env)
        inner.update(zip((name for name, _ in region.arguments), args, strict=True))
        last = self._block(region, inner)
        return [inner[name].read(()) for name in last.operands]

    # ---- control flow: what is carried has an array or a variable of its own

    def _carried(self, kinds: Sequence[Type], initial: Sequence[Value] | None, stems: Sequence[str]) -> list[Value]:
        found = []
        for number, (kind, stem) in enumerate(zip(kinds, stems, strict=True)):
            first = initial[number] if initial else None
            if kind.described:
                if first is None:
                    raise Unsupported("ttir: a descriptor that depends on a branch")
                found.append(first)
            elif kind.shape:
                made = self.writer.new_array(kind, identifier(stem))
                if first:
                    self.writer.fill(made, first)
                found.append(made)
            else:
                name = self.writer.name(identifier(stem))
                text = f" = {first.read(())}" if first else ""
                self.writer.put(f"{c_type(kind.element)} {name}{text};")
                found.append(named(kind, name))
        return found

    def _assign(self, targets: Sequence[Value], values: Sequence[Value], op: Op, *, fresh: bool = False) -> None:
        """All at once: a target may be read by a value, its own or another's, unless nothing has read it yet."""
        writer, arrays = self.writer, {target.array for target in targets if target.array}
        settled = []
        for target, value in zip(targets, values, strict=True):
            if target.type.described:
                if target.described is not value.described:
                    raise Unsupported(f"ttir: a descriptor that changes in a loop ({op.place})")
            elif value.array and target.array == value.array:
                continue
            elif not value.type.shape:
                settled.append((target, writer.scalar(value.type, value.read(()), "next")))
            elif not fresh and (not value.array or value.array in arrays):
                copy = writer.new_array(value.type, "next")
                writer.fill(copy, value)
                settled.append((target, copy))
            else:
                settled.append((target, value))
        for target, value in settled:
            if value.array:
                writer.put(f"__builtin_memcpy({target.array}, {value.array}, sizeof {target.array});")
            elif value.type.shape:
                writer.fill(target, value)
            else:
                writer.put(f"{target.read(())} = {value.read(())};")

    def _for(self, op: Op, values: Sequence[Value], env: dict[str, Value]) -> list[Value]:
        writer, (body,) = self.writer, op.regions
        low, high, step = (value.read(()) for value in values[:3])
        counter, kind = body.arguments[0]
        carried = self._carried(op.returns, values[3:], [name for name, _ in body.arguments[1:]])
        for value, origin in zip(carried, _origins(body, values[3:]), strict=True):
            value.origin = origin
        name = writer.name(identifier(counter))
        with writer.scope(f"for ({c_type(kind.element)} {name} = {low}; {name} < {high}; {name} += {step}) {{"):
            inner = dict(env)
            inner[counter] = named(kind, name)
            inner.update(zip((argument for argument, _ in body.arguments[1:]), carried, strict=True))
            last = self._block(body, inner)
            self._assign(carried, [inner[name] for name in last.operands], op)
        return carried

    def _while(self, op: Op, values: Sequence[Value], env: dict[str, Value]) -> list[Value]:
        writer, (before, after) = self.writer, op.regions
        tested = self._carried([kind for _, kind in before.arguments], values, [name for name, _ in before.arguments])
        given = self._carried(op.returns, None, [name for name, _ in after.arguments])
        with writer.scope("for (;;) {"):
            inner = dict(env)
            inner.update(zip((name for name, _ in before.arguments), tested, strict=True))
            last = self._block(before, inner)
            self._assign(given, [inner[name] for name in last.operands[1:]], op, fresh=True)
            writer.put(f"if (!{inner[last.operands[0]].read(())}) break;")
            inner = dict(env)
            inner.update(zip((name for name, _ in after.arguments), given, strict=True))
            last = self._block(after, inner)
            self._assign(tested, [inner[name] for name in last.operands], op)
        return given

    def _if(self, op: Op, condition: Value, env: dict[str, Value]) -> list[Value]:
        found = self._carried(op.returns, None, op.results)
        for number, branch in enumerate(op.regions):
            with self.writer.scope(f"if ({condition.read(())}) {{" if number == 0 else "else {"):
                inner = dict(env)
                last = self._block(branch, inner)
                self._assign(found, [inner[name] for name in last.operands], op, fresh=True)
        return found

    def _call(self, op: Op, values: Sequence[Value]) -> list[Value]:
        """A helper that is not inlined: of scalars, with a frame of its own within the caller's."""
        writer = self.writer
        if any(kind.shape for kind in (*op.types, *op.returns)) or op.symbol not in self._functions:
            raise Unsupported(f"ttir: a call of {op.symbol} ({op.place})")
        callee = identifier(op.symbol)
        frame = writer.name("frame")
        writer.fields.append(f"Frame_{callee} {frame};")
        results = self._carried(op.returns, None, op.results)
        arguments = [f"&F->{frame}", "at", *(value.read(()) for value in (*values, *results))]
        writer.put(f"run_{callee}({', '.join(arguments)});")
        return results


def _origins(body: Block, initial: Sequence[Value]) -> list[int]:
    """A pointer that a loop carries stays within its argument if the loop only adds to it."""
    made = {op.results[0]: op for op in body.ops if op.results}

    def within(name: str, own: str) -> bool:
        source = made.get(name)
        return name == own or (source is not None and source.name == "tt.addptr" and within(source.operands[0], own))

    names = [name for name, _ in body.arguments[1:]]
    given = body.ops[-1].operands
    return [
        first.origin if first.type.is_pointer and within(last, own) else ANY
        for first, last, own in zip(initial, given, names, strict=True)
    ]


def _uses(block: Block) -> Counter[str]:
    """How often each name is read in a block; in a loop within it counts twice."""
    found: Counter[str] = Counter()
    for op in block.ops:
        found.update(op.operands)
        for region in op.regions:
            for name, times in _uses(region).items():
                found[name] += times if op.name in ("scf.if", "tt.reduce", "tt.scan") else 2 * times
    return found


def identifier(name: str) -> str:
    """A C++ name after an IR's; the numbers that tell names apart there are left out."""
    if name.startswith("%"):
        name = re.sub(r"(^\d+|_\d+)?(#\d+)?$", "", name[1:]) or "t"
    return re.sub(r"\W", "_", name)


def _passed(kind: Type) -> Type:
    """What an argument is passed as: a descriptor as the address of its tensor."""
    return Type(f"*{kind.element}") if kind.described else kind


def _described(kind: Type, base: Value, number: int) -> Value:
    """A descriptor among the arguments: its extents and strides are those behind it."""
    rank = len(kind.shape)
    names = [f"a{number + place}" for place in range(1, 1 + 2 * rank)]
    described = Described(base=base, extents=tuple(names[:rank]), strides=tuple(names[rank:]))
    return Value(type=kind, read=base.read, origin=base.origin, described=described)


def _entry(kernel: Function, serial: bool) -> str:
    """The launch: programs are claimed one by one by as many threads as were asked for; by one where they add to
    memory, so that the order is always the same."""
    arguments = []
    for number, kind in enumerate(_passed(kind) for _, kind in kernel.body.arguments):
        slot = f"launch->arguments[{number}]"
        held = f"from_bits<double>({slot})" if kind.is_float else slot
        arguments.append(f"({c_type(kind.element)})({held})")
    name = identifier(kernel.name)
    return f"""
static void* work(void* given) {{
  Launch* launch = (Launch*)given;
  const int64_t x = launch->grid[0], y = launch->grid[1], programs = x * y * launch->grid[2];
  auto* frame = (Frame_{name}*)__builtin_aligned_alloc(64, (sizeof(Frame_{name}) + 64) / 64 * 64);
  if (!frame) __atomic_store_n(launch->fault, NO_MEMORY, __ATOMIC_RELAXED);
  for (;;) {{
    const int64_t n = __atomic_fetch_add(&launch->claimed, 1, __ATOMIC_RELAXED);
    if (n >= programs || __atomic_load_n(launch->fault, __ATOMIC_RELAXED)) break;
    try {{
      run_{name}(frame, Program{{launch, int32_t(n % x), int32_t(n / x % y), int32_t(n / x / y)}}
        {"".join(f", {argument}" for argument in arguments)});
    }} catch (const Stop&) {{
    }}
  }}
  __builtin_free(frame);
  return nullptr;
}}

extern "C" void launch(Launch* launch) {{
  constexpr int MOST = 256;
  pthread_t others[MOST];
  int wanted = {"1" if serial else "launch->threads"}, started = 0;
  wanted = wanted < MOST ? wanted : MOST;
  while (started < wanted - 1 && pthread_create(&others[started], nullptr, work, launch) == 0) started++;
  work(launch);
  for (int n = 0; n < started; n++) pthread_join(others[n], nullptr);
}}
"""

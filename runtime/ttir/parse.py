"""Text of Triton's IR -> typed SSA.

Triton's Python bindings give no access to constants, predicates and attributes, so the text is read: MLIR's own
printing, one operation a line, locations behind it. Not a parser of MLIR: of what Triton's front end prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from attnc.runtime.ttir.ir import UNKNOWN, Block, Function, Module, Op, Place, Type, Unsupported

_OPEN, _CLOSE = "([{<", ")]}>"
_VALUE = re.compile(r"%[\w$.-]+(?:#\d+)?")
_RESULTS = re.compile(r"((?:%[\w$.-]+(?::\d+)?(?:, )?)+) = ")
_TERMINATORS = ("scf.yield", "scf.condition", "tt.return", "tt.reduce.return", "tt.scan.return")


def parse(text: str) -> Module:
    """The module of a text. Raises Unsupported for a form that is not read."""
    places = _Places(text)
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    reader = _Reader(lines, places)
    return Module(functions=tuple(reader.functions()))


def parse_type(text: str) -> Type:
    """``tensor<128x64x!tt.ptr<bf16>>``, ``i32``, ``!tt.tensordesc<tensor<16x16xf32>>``."""
    text = text.strip()
    if text.startswith("!tt.tensordesc<"):
        inner = text.removeprefix("!tt.tensordesc<").removesuffix(">")
        inner = inner if inner.startswith("tensor<") else f"tensor<{inner}>"
        block = parse_type(inner)
        return Type(block.element, block.shape, described=True)
    if text.startswith("tensor<"):
        inner = _split(text[len("tensor<") : -1], ", ")[0]  # what follows is a layout
        extents = re.match(r"(?:\d+x)*", inner)
        assert extents is not None
        shape = tuple(int(extent) for extent in extents[0].split("x")[:-1])
        return Type(parse_type(inner[extents.end() :]).element, shape)
    if text.startswith("!tt.ptr<"):
        return Type("*" + parse_type(_split(text[len("!tt.ptr<") : -1], ", ")[0]).element)
    if re.fullmatch(r"i\d+|f\d+\w*|bf16|index", text):
        return Type("i64" if text == "index" else text)
    raise Unsupported(f"ttir: the type {text!r}")


class _Places:
    """The locations that a text names at its end."""

    def __init__(self, text: str) -> None:
        self._named = dict(re.findall(r"^(#loc\d*) = loc\((.*)\)$", text, re.MULTILINE))

    def find(self, text: str) -> Place:
        """Of a chain of inlined calls, the innermost line that is not Triton's own."""
        frames = list(self._frames(text))
        kept = [frame for frame in frames if "/triton/language/" not in frame.file]
        return (kept or frames or [UNKNOWN])[0]

    def _frames(self, text: str) -> Iterator[Place]:
        if text.startswith("#loc"):
            yield from self._frames(self._named.get(text, "unknown"))
        elif at := re.match(r'"((?:[^"\\]|\\.)*)":(\d+):\d+', text):
            yield Place(at[1], int(at[2]))
        elif called := re.match(r"callsite\((.*)\)$", text):
            for part in _split(called[1], " at "):
                yield from self._frames(part)
        elif named := re.match(r'"(?:[^"\\]|\\.)*"\((.*)\)$', text):
            yield from self._frames(named[1])
        elif fused := re.match(r"fused(?:<.*>)?\[(.*)\]$", text):
            for part in _split(fused[1], ", "):
                yield from self._frames(part)


class _Reader:
    def __init__(self, lines: list[str], places: _Places) -> None:
        self._lines = [_unlocated(line.strip()) for line in lines]
        self._places = places
        self._at = 0

    def functions(self) -> Iterator[Function]:
        while self._at < len(self._lines):
            line = self._lines[self._at][0]
            self._at += 1
            if line.startswith("tt.func"):
                yield self._function(line)
            elif not line.startswith(("module", "}")):
                raise Unsupported(f"ttir: outside a function: {line}")

    def _function(self, line: str) -> Function:
        head = re.match(r'tt\.func (public |private )?@("[^"]*"|[\w$.-]+)\(', line)
        if head is None:
            raise Unsupported(f"ttir: {line}")
        stop = _matching(line, head.end() - 1)
        arguments = _arguments(line[head.end() : stop])
        returns = re.match(r" -> (.*?)(?: attributes .*)?\{$", line[stop + 1 :])
        body = Block(arguments=arguments, ops=self._ops())
        return Function(
            name=head[2].strip('"'),
            public=head[1] != "private ",
            body=body,
            returns=_types(returns[1]) if returns else (),
        )

    def _ops(self) -> tuple[Op, ...]:
        """Up to the line that closes the region, which is passed."""
        found = []
        while not self._lines[self._at][0].startswith("}"):
            found.append(self._op())
        self._at += 1
        return tuple(found)

    def _block(self) -> Block:
        """A region, its header ``^bb0(...)`` where it has one."""
        arguments: tuple[tuple[str, Type], ...] = ()
        line = self._lines[self._at][0]
        if line.startswith("^"):
            arguments = _arguments(line[line.index("(") + 1 : line.rindex(")")])
            self._at += 1
        ops = self._ops()
        if not ops or ops[-1].name not in _TERMINATORS:  # of nothing: not printed
            ops = (*ops, Op(name="scf.yield"))
        return Block(arguments=arguments, ops=ops)

    def _op(self) -> Op:
        line, location = self._lines[self._at]
        self._at += 1
        place = self._places.find(location)
        results: tuple[str, ...] = ()
        if named := _RESULTS.match(line):
            results = tuple(name for part in named[1].split(", ") for name in _numbered(part))
            line = line[named.end() :]
        if line.startswith("scf."):
            return self._control(line, results, place)
        if line.startswith('"'):
            return self._generic(line, results, place)
        return _plain(line, results, place)

    def _control(self, line: str, results: tuple[str, ...], place: Place) -> Op:
        name = line.split(" ", 1)[0].split("(", 1)[0]
        if name in _TERMINATORS:
            return _plain(line.replace("scf.condition(", "scf.condition ").replace(") ", " ", 1), results, place)
        if name == "scf.for":
            head = re.match(r"scf\.for (%\S+) = (%\S+) to (%\S+) step (%\S+)( iter_args\()?", line)
            if head is None or line.startswith("scf.for unsigned"):
                raise Unsupported(f"ttir: {line} ({place})")
            initial: tuple[str, ...] = ()
            names: tuple[str, ...] = ()
            returns: tuple[Type, ...] = ()
            rest = line[head.end() :]
            if head[5]:
                stop = _matching(line, head.end() - 1)
                names, initial = _bindings(line[head.end() : stop])
                rest = line[stop + 1 :]
                arrow = re.match(r" -> \((.*?)\)\s+(?::|\{)", rest)
                assert arrow is not None, "iter_args come with their types"
                returns = _types(f"({arrow[1]})")
            counter = re.search(r"\s: (i\d+|index)\s*\{$", rest)
            kind = parse_type(counter[1]) if counter else Type("i32")
            body = self._block()
            arguments = ((head[1], kind), *zip(names, returns, strict=True))
            return Op(
                name=name,
                results=results,
                operands=(head[2], head[3], head[4], *initial),
                types=(kind,),
                returns=returns,
                regions=(Block(arguments=arguments, ops=body.ops),),
                place=place,
            )
        if name == "scf.while":
            stop = _matching(line, line.index("("))
            names, initial = _bindings(line[line.index("(") + 1 : stop])
            types, returns = _signature(line[stop + 1 :].strip().removeprefix(":").removesuffix("{"))
            before, after = self._block(), self._block()
            first = Block(arguments=tuple(zip(names, types, strict=True)), ops=before.ops)
            return Op(
                name=name,
                results=results,
                operands=initial,
                types=types,
                returns=returns,
                regions=(first, after),
                place=place,
            )
        if name == "scf.if":
            condition = _VALUE.search(line)
            assert condition is not None, "an scf.if has a condition"
            arrow = re.search(r"-> \((.*)\) \{$", line)
            branches = [self._block()]
            if self._lines[self._at - 1][0].startswith("} else {"):
                branches.append(self._block())
            return Op(
                name=name,
                results=results,
                operands=(condition[0],),
                returns=_types(f"({arrow[1]})") if arrow else (),
                regions=tuple(branches),
                place=place,
            )
        raise Unsupported(f"ttir: operation {name} ({place})")

    def _generic(self, line: str, results: tuple[str, ...], place: Place) -> Op:
        """``"tt.reduce"(%x) <{axis = 1 : i32}> ({ ^bb0(...): ... }) : (types) -> types``."""
        head = re.match(r'"([\w.]+)"\((.*?)\)', line)
        assert head is not None, "the generic form has operands in parentheses"
        rest, attributes = _attributes(line[head.end() :].removesuffix("({"))
        regions: tuple[Block, ...] = ()
        if line.endswith("({"):
            regions = (self._block(),)
            rest, location = self._lines[self._at - 1]
            rest, more = _attributes(rest.removeprefix("})"))
            attributes |= more
            place = self._places.find(location)
        types, returns = _signature(rest.strip().removeprefix(":"))
        return Op(
            name=head[1],
            results=results,
            operands=tuple(_VALUE.findall(head[2])),
            attributes=attributes,
            types=types,
            returns=returns,
            regions=regions,
            place=place,
        )


def _plain(line: str, results: tuple[str, ...], place: Place) -> Op:
    """An operation of one line: name, operands and words in any order, attributes, types."""
    name = re.match(r"[\w.]+", line)
    if name is None:
        raise Unsupported(f"ttir: {line} ({place})")
    rest, strings = _strings(line[name.end() :])
    rest, attributes = _attributes(rest)
    attributes = {key: _restored(value, strings) for key, value in attributes.items()}
    symbol = ""
    if found := re.search(r"@([\w$.-]+|\x00\d+\x00)", rest):
        symbol = _restored(found[1], strings)
        rest = rest.replace(found[0], " ")
    body, colon, typed = rest.rpartition(" : ")
    if not colon:
        body, typed = rest, ""
    operands = tuple(_VALUE.findall(body))
    words = tuple(re.findall(r"[^\s,\[\]()%=\x00]+", _VALUE.sub(" ", re.sub(r"\x00\d+\x00", " ", body))))
    types, returns = _result_types(name[0], typed, len(results))
    return Op(
        name=name[0],
        results=results,
        operands=operands,
        words=words,
        attributes=attributes,
        strings=tuple(strings[int(at)] for at in re.findall(r"\x00(\d+)\x00", body)),
        symbol=symbol,
        types=types,
        returns=returns,
        place=place,
    )


def _result_types(name: str, typed: str, results: int) -> tuple[tuple[Type, ...], tuple[Type, ...]]:
    """Types as printed, and those of the results, which most operations share with their operands."""
    if name == "tt.make_tensor_descriptor":  # <f32>, <tensor<16x16xf32>>
        element, block = _split(typed, ", ")
        return (parse_type(f"!tt.ptr{element}"),), (parse_type(f"!tt.tensordesc{block}"),)
    types, returns = _signature(typed)
    if returns or not results:
        return types, returns
    if not types:  # arith.constant true
        return (), (Type("i1"),)
    first = types[0]
    if name in ("arith.cmpi", "arith.cmpf"):
        first = first.of("i1")
    elif name == "tt.load":
        first = first.of(first.element[1:])
    elif name == "arith.select":
        first = types[-1]
    return types, (first,) * results


def _signature(text: str) -> tuple[tuple[Type, ...], tuple[Type, ...]]:
    """``(a, b) -> c``, ``a to c``, ``a * b -> c``, or types alone."""
    text = text.strip()
    for arrow in (" -> ", " to "):
        parts = _split(text, arrow)
        if len(parts) == 2:
            return _types(parts[0]), _types(parts[1])
    return _types(text), ()


def _types(text: str) -> tuple[Type, ...]:
    text = text.strip()
    if text.startswith("(") and _matching(text, 0) == len(text) - 1:
        text = text[1:-1]
    return tuple(parse_type(part) for piece in _split(text, " * ") for part in _split(piece, ", ") if part.strip())


def _numbered(text: str) -> tuple[str, ...]:
    """``%x:2`` is %x#0 and %x#1."""
    name, _, count = text.partition(":")
    return tuple(f"{name}#{n}" for n in range(int(count))) if count else (name,)


def _bindings(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """``%a = %x, %b = %y``: the names and what they begin as."""
    pairs = [part.split(" = ") for part in _split(text, ", ") if part]
    return tuple(name for name, _ in pairs), tuple(value for _, value in pairs)


def _arguments(text: str) -> tuple[tuple[str, Type], ...]:
    """``%a: i32 {tt.divisibility = 16 : i32}, %b: tensor<...>``."""
    found = []
    for part in _split(text, ", "):
        if part.strip():
            name, _, typed = part.strip().partition(": ")
            found.append((name, parse_type(_attributes(typed)[0])))
    return tuple(found)


def _attributes(text: str) -> tuple[str, dict[str, str]]:
    """The text without its ``{...}`` and ``<{...}>``, and what they hold, types of values left out."""
    found: dict[str, str] = {}
    while (start := text.find("{")) >= 0:
        stop = _matching(text, start)
        for part in _split(text[start + 1 : stop], ", "):
            key, _, value = part.strip().partition(" = ")
            found[key.strip()] = _split(value, " : ")[0]
        angled = text[start - 1 : start] == "<"
        text = text[: start - angled].rstrip() + text[stop + 1 + angled :]
    return text, found


def _strings(text: str) -> tuple[str, list[str]]:
    """String literals, each replaced by its number between zero bytes."""
    found: list[str] = []

    def keep(match: re.Match[str]) -> str:
        found.append(re.sub(r"\\([0-9A-Fa-f]{2}|.)", _unescaped, match[1]))
        return f"\x00{len(found) - 1}\x00"

    return re.sub(r'"((?:[^"\\]|\\.)*)"', keep, text), found


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match[1], 16)) if len(match[1]) == 2 else match[1]


def _restored(text: str, strings: list[str]) -> str:
    return re.sub(r"\x00(\d+)\x00", lambda match: strings[int(match[1])], text)


def _unlocated(line: str) -> tuple[str, str]:
    """A line without its locations, and the last of them."""
    last = ""
    while (start := line.find(" loc(")) >= 0:
        stop = _matching(line, start + 4)
        last = line[start + 5 : stop]
        line = line[:start] + line[stop + 1 :]
    return line, last


def _matching(text: str, start: int) -> int:
    """The place of the bracket that closes the one at ``start``; strings are passed over."""
    depth, quoted, at = 0, False, start
    while at < len(text):
        letter = text[at]
        if quoted:
            at += letter == "\\"
            quoted = letter != '"'
        elif letter == '"':
            quoted = True
        elif letter in _OPEN:
            depth += 1
        elif letter in _CLOSE and not (letter == ">" and text[at - 1] == "-"):
            depth -= 1
            if depth == 0:
                return at
        at += 1
    raise Unsupported(f"ttir: unbalanced brackets: {text}")


def _split(text: str, separator: str) -> list[str]:
    """The parts of a text between separators that no bracket or string holds."""
    parts, start, at, depth, quoted = [], 0, 0, 0, False
    while at < len(text):
        letter = text[at]
        if quoted:
            at += letter == "\\"
            quoted = letter != '"'
        elif letter == '"':
            quoted = True
        elif letter in _OPEN:
            depth += 1
        elif letter in _CLOSE and not (letter == ">" and text[at - 1] == "-"):
            depth -= 1
        elif depth == 0 and text.startswith(separator, at):
            parts.append(text[start:at])
            at += len(separator)
            start = at
            continue
        at += 1
    return [*parts, text[start:]]

"""One element of an elementwise operation, as a C++ expression.

Numbers as the GPU has them: integers wrap, 16-bit floats are computed in float32 and rounded after every operation, a
division by zero and a shift beyond the width give what PTX gives, never a trap.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from pathlib import Path

from attnc.runtime.ttir.ir import Op, Type, Unsupported

_NAMES = {"i1": "bool", "i8": "int8_t", "i16": "int16_t", "i32": "int32_t", "i64": "int64_t"}
_NAMES |= {"f16": "f16", "bf16": "bf16", "f32": "float", "f64": "double"}

_INTEGER = {
    "arith.addi": "{0} + {1}",
    "arith.subi": "{0} - {1}",
    "arith.muli": "{0} * {1}",
    "arith.andi": "{0} & {1}",
    "arith.ori": "{0} | {1}",
    "arith.xori": "{0} ^ {1}",
    "arith.divsi": "divide({0}, {1})",
    "arith.remsi": "remainder_({0}, {1})",
    "arith.divui": "divide(u({0}), u({1}))",
    "arith.remui": "remainder_(u({0}), u({1}))",
    "arith.shli": "shift_left({0}, {1})",
    "arith.shrsi": "shift_right({0}, {1})",
    "arith.shrui": "shift_right(u({0}), {1})",
    "arith.maxsi": "{0} > {1} ? {0} : {1}",
    "arith.minsi": "{0} < {1} ? {0} : {1}",
    "arith.maxui": "u({0}) > u({1}) ? {0} : {1}",
    "arith.minui": "u({0}) < u({1}) ? {0} : {1}",
    "math.absi": "{0} < 0 ? -{0} : {0}",
    "tt.mulhiui": "high_product(u({0}), u({1}))",
}
_FLOAT = {
    "arith.addf": "{0} + {1}",
    "arith.subf": "{0} - {1}",
    "arith.mulf": "{0} * {1}",
    "arith.divf": "{0} / {1}",
    "arith.negf": "-{0}",
    "arith.remf": "fmod_({0}, {1})",
    "arith.maxnumf": "max_number({0}, {1})",
    "arith.minnumf": "min_number({0}, {1})",
    "arith.maximumf": "max_or_nan({0}, {1})",
    "arith.minimumf": "min_or_nan({0}, {1})",
    "tt.precise_divf": "{0} / {1}",
    "tt.precise_sqrt": "sqrt_({0})",
    "math.exp2": "exp2_({0})",
    "math.exp": "exp_({0})",
    "math.log": "log_({0})",
    "math.log2": "log2_({0})",
    "math.sqrt": "sqrt_({0})",
    "math.rsqrt": "1 / sqrt_({0})",
    "math.sin": "sin_({0})",
    "math.cos": "cos_({0})",
    "math.erf": "erf_({0})",
    "math.floor": "floor_({0})",
    "math.ceil": "ceil_({0})",
    "math.absf": "fabs_({0})",
    "math.fma": "fma_({0}, {1}, {2})",
}
_COMPARED = {
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "slt": "{0} < {1}",
    "sle": "{0} <= {1}",
    "sgt": "{0} > {1}",
    "sge": "{0} >= {1}",
    "ult": "u({0}) < u({1})",
    "ule": "u({0}) <= u({1})",
    "ugt": "u({0}) > u({1})",
    "uge": "u({0}) >= u({1})",
}
_COMPARED_FLOATS = {  # o: false where one is NaN; u: true there
    "oeq": "{0} == {1}",
    "one": "({0} < {1}) | ({0} > {1})",
    "ord": "({0} == {0}) & ({1} == {1})",
    "olt": "{0} < {1}",
    "ole": "{0} <= {1}",
    "ogt": "{0} > {1}",
    "oge": "{0} >= {1}",
    "une": "{0} != {1}",
    "ueq": "!(({0} < {1}) | ({0} > {1}))",
    "uno": "({0} != {0}) | ({1} != {1})",
    "ult": "!({0} >= {1})",
    "ule": "!({0} > {1})",
    "ugt": "!({0} <= {1})",
    "uge": "!({0} < {1})",
}
# One PTX instruction of inline assembly. What approximates is as far off as PTX allows it to be: tanh by 2**-11.
_ASSEMBLY = {
    "tanh.approx.f32": "coarse<11>(tanh_({0}))",
    "ex2.approx.f32": "exp2_({0})",
    "ex2.approx.ftz.f32": "exp2_({0})",
    "lg2.approx.f32": "log2_({0})",
    "lg2.approx.ftz.f32": "log2_({0})",
    "rcp.approx.f32": "1 / {0}",
    "rcp.approx.ftz.f32": "1 / {0}",
    "rsqrt.approx.f32": "1 / sqrt_({0})",
    "rsqrt.approx.ftz.f32": "1 / sqrt_({0})",
    "sqrt.approx.f32": "sqrt_({0})",
    "fma.rn.f32": "fma_({0}, {1}, {2})",
}
PRELUDE = Path(__file__).with_name("prelude.hpp").read_text()
# libdevice's functions, under C's names: those that the prelude has.
_LIBRARY = {*re.findall(r"(?:UNARY|BINARY)\((\w+)\)", PRELUDE), *re.findall(r"(\w+)_\(float x", PRELUDE)} - {"name"}
# Elements of work, about, against an addition; an operation that is not here is one.
_COSTS = {"arith.divsi": 8, "arith.remsi": 8, "arith.divui": 8, "arith.remui": 8, "arith.divf": 4, "arith.remf": 30}
_COSTS |= {"math.exp2": 16, "math.exp": 16, "math.log": 30, "math.log2": 30, "math.sqrt": 8, "math.rsqrt": 8}
_COSTS |= {"math.sin": 30, "math.cos": 30, "math.erf": 30, "tt.extern_elementwise": 30}
_COSTS |= {"tt.elementwise_inline_asm": 30, "tt.precise_divf": 4, "tt.precise_sqrt": 8, "math.fma": 2}


def c_type(element: str) -> str:
    """The C++ type of an element; Unsupported for one that C++ does not have here."""
    if element.startswith("*"):
        return f"{c_type(element[1:])}*"
    if element not in _NAMES:
        raise Unsupported(f"ttir: elements of type {element}")
    return _NAMES[element]


def cost(op: Op) -> int:
    return _COSTS.get(op.name, 1)


def constant(text: str, element: str) -> str:
    """A literal: decimal, ``true``, or hexadecimal bits of a float. Exact."""
    kind = c_type(element)
    if element == "i1":
        return "true" if text in ("true", "1", "-1") else "false"
    if not Type(element).is_float:
        return f"{kind}({int(text, 0) % 2**64}ull)"
    if text.startswith(("0x", "-0x")):
        return f"from_bits<{kind}>({text}u{'ll' if element == 'f64' else ''})"
    value = float(text)
    if element == "f64":
        return value.hex()
    return f"{kind}({struct.unpack('f', struct.pack('f', value))[0].hex()}f)"


def expression(op: Op, args: Sequence[str]) -> str | None:
    """The value of ``op`` on elements that are names or literals; None for an operation that is not elementwise."""
    result = op.returns[0] if op.returns else Type("i1")
    kind = c_type(result.element)
    if op.name in _INTEGER:
        if result.element == "i1" and op.name in ("arith.addi", "arith.subi"):
            return f"{args[0]} != {args[1]}"
        return f"{kind}({_INTEGER[op.name].format(*args)})"
    if op.name in _FLOAT:
        return _floating(_FLOAT[op.name], result, args)
    match op.name:
        case "arith.cmpi":
            return f"({_COMPARED[op.words[0]].format(*args)})"
        case "arith.cmpf":
            widened = [_wide(arg, op.types[0]) for arg in args]
            return f"({_COMPARED_FLOATS[op.words[0]].format(*widened)})"
        case "arith.select":
            return f"select_<{kind}>({', '.join(args)})"
        case "arith.extsi" | "arith.sitofp" if op.types[0].element == "i1":
            return f"{kind}(-int({args[0]}))" if op.name == "arith.extsi" else f"{kind}(-float({args[0]}))"
        case "arith.extsi" | "arith.extf" | "arith.index_cast":
            return f"{kind}({args[0]})"
        case "arith.sitofp":
            return _narrowed(args[0], result)
        case "arith.uitofp":
            return _narrowed(f"u({args[0]})", result)
        case "arith.extui":
            return f"{kind}(u({args[0]}))"
        case "arith.trunci":
            return f"bool({args[0]} & 1)" if kind == "bool" else f"{kind}({args[0]})"
        case "arith.truncf":
            return _narrowed(args[0], result)
        case "tt.fp_to_fp":
            if "rtz" in op.words:
                raise Unsupported(f"ttir: rounding towards zero ({op.place})")
            return _narrowed(_wide(args[0], op.types[0]), result)
        case "arith.fptosi":
            return f"to_integer<{kind}>({_wide(args[0], op.types[0])})"
        case "arith.fptoui":
            return f"{kind}(to_integer<unsigned_<{kind}>>({_wide(args[0], op.types[0])}))"
        case "arith.bitcast" | "tt.bitcast":
            return f"({kind})({args[0]})" if result.is_pointer else f"from_bits<{kind}>({args[0]})"
        case "tt.ptr_to_int":
            return f"int64_t({args[0]})"
        case "tt.int_to_ptr":
            return f"({kind})({args[0]})"
        case "tt.addptr":
            return f"({args[0]} + int64_t({args[1]}))"
        case "tt.clampf":
            number = "_or_nan" if "all" in op.words else "_number"
            return _floating(f"min{number}(max{number}({{0}}, {{1}}), {{2}})", result, args)
        case "ub.poison":
            return f"{kind}(0)"
        case "tt.extern_elementwise":
            places = ", ".join(f"{{{n}}}" for n in range(len(args)))
            return _floating(f"{_library(op)}_({places})", result, args)
        case "tt.elementwise_inline_asm":
            return _floating(_assembly(op), result, args)
    return None


def _floating(form: str, result: Type, args: Sequence[str]) -> str:
    kind = c_type(result.element)
    return f"{kind}({form.format(*(_wide(arg, result) for arg in args))})"


def _wide(arg: str, kind: Type) -> str:
    """In the type that it is computed in."""
    return f"float({arg})" if kind.element in ("f16", "bf16") else arg


def _narrowed(arg: str, result: Type) -> str:
    """Rounded to nearest even; to bf16 by way of float32, as Triton does on GPUs."""
    return f"bf16(float({arg}))" if result.element == "bf16" else f"{c_type(result.element)}({arg})"


def _library(op: Op) -> str:
    symbol = op.attributes["symbol"]
    name = symbol.removeprefix("__nv_").removeprefix("__ocml_").removesuffix("_f32").removesuffix("_f64")
    if name not in _LIBRARY:
        name = name.removesuffix("f")
    if name not in _LIBRARY:
        raise Unsupported(f"ttir: the library function {symbol} ({op.place})")
    return name


def _assembly(op: Op) -> str:
    text = " ".join(op.strings[0].split())
    form = re.fullmatch(r"([\w.]+) \$0, ((?:\$\d(?:, )?)+);?", text)
    operands = ", ".join(f"${n + 1}" for n in range(len(op.operands)))
    if form is None or form[1] not in _ASSEMBLY or form[2] != operands or op.attributes["packed_element"] != "1":
        raise Unsupported(f"ttir: inline assembly {text!r} ({op.place})")
    return _ASSEMBLY[form[1]]

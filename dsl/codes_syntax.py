"""The codes of parse.py and recover.py."""

from __future__ import annotations

from attnc.dsl.code import Code

SYNTAX: tuple[Code, ...] = (
    Code(
        code="A001",
        title="something else was expected",
        explanation="""
The text does not follow the grammar at this place. The message says what could stand there and what does; the
help shows how the clause is written. Parsing goes on with the next clause, so that one run tells the first fault
of every clause.
""",
        bad="attention a {\n  score     dot(q, k) / sqrt(D)\n  mask      j = i\n  normalize softmax\n}\n",
        good="attention a {\n  score     dot(q, k) / sqrt(D)\n  mask      j == i\n  normalize softmax\n}\n",
    ),
    Code(
        code="A002",
        title="a character that is not part of the language",
        explanation="""
Outside comments a spec is written in ASCII: names of `a-z A-Z 0-9 _`, numbers, and the marks
`( ) [ ] { } : , . = + - * / % @ < > !=`. There are no strings and no separators. Where the character is a
mathematician's sign (`≤`, `×`, `∞`), the help gives the spelling.
""",
        bad="attention a {\n  score     dot(q, k)\n  mask      j ≤ i\n  normalize softmax\n}\n",
        good="attention a {\n  score     dot(q, k)\n  mask      j <= i\n  normalize softmax\n}\n",
    ),
    Code(
        code="A003",
        title="a keyword that does not exist",
        explanation="""
A word stands where a clause or another keyword must begin, and it is none. If it is close to one, the help names
it and parsing goes on as if that had been written.
""",
        bad="attention a {\n  score     dot(q, k)\n  maks      causal\n  normalize softmax\n}\n",
        good="attention a {\n  score     dot(q, k)\n  mask      causal\n  normalize softmax\n}\n",
    ),
    Code(
        code="A004",
        title="brackets that do not match",
        explanation="""
A bracket is opened and never closed before the next clause begins, or closed without having been opened. The span
is that bracket.
""",
        bad="attention a {\n  score     dot(q, k) / sqrt(D\n  mask      causal\n  normalize softmax\n}\n",
        good="attention a {\n  score     dot(q, k) / sqrt(D)\n  mask      causal\n  normalize softmax\n}\n",
    ),
    Code(
        code="A005",
        title="a keyword used as a name",
        explanation="""
Keywords are reserved: `attention recurrence param input query key value let score mask normalize kv emit branch
output state step read where nograd weight divisor and or not true false inf`. Words of other languages, such as
`self`, `lambda` or `global`, are ordinary names.
""",
        bad="attention a {\n  input     mask: f32[N, M]\n  score     dot(q, k) + mask[i, j]\n  normalize softmax\n}\n",
        good="attention a {\n  input     bias: f32[N, M]\n  score     dot(q, k) + bias[i, j]\n  normalize softmax\n}\n",
    ),
    Code(
        code="A006",
        title="a number that no type holds",
        explanation="""
Integers have 64 bits: the largest literal is 9223372036854775807. The largest float is about 1.8e308. Infinity is
written `inf`.
""",
        bad="attention a {\n  score     dot(q, k)\n  mask      i - j < 9223372036854775808\n  normalize softmax\n}\n",
        good="attention a {\n  score     dot(q, k)\n  mask      i - j < 4096\n  normalize softmax\n}\n",
    ),
    Code(
        code="A007",
        title="a let outside a construct",
        explanation="""
A `let` belongs to the construct whose clauses use it. Only the standard library has lets of its own.
""",
        bad="let scale = 2\n\nattention a {\n  score     dot(q, k)\n  normalize softmax\n}\n",
        good="attention a {\n  let scale = 2\n\n  score     scale * dot(q, k)\n  normalize softmax\n}\n",
    ),
    Code(
        code="A008",
        title="a file without a construct",
        explanation="""
A spec file holds at least one `attention` or `recurrence`.
""",
        bad="# Nothing but a comment.\n",
        good="# The attention of Vaswani et al., 2017.\n"
        "attention a {\n  score     dot(q, k) / sqrt(D)\n  normalize softmax\n}\n",
    ),
    Code(
        code="A009",
        title="bytes that are not UTF-8",
        explanation="""
A spec file is UTF-8 text, comments included; a byte order mark is allowed. The first byte that breaks the encoding
is shown.
""",
        bad="# Bahdanau, Gar\udce7on, 2015\nattention a {\n  score     dot(q, k)\n  normalize softmax\n}\n",
        good="# Bahdanau, Garçon, 2015\nattention a {\n  score     dot(q, k)\n  normalize softmax\n}\n",
    ),
    Code(
        code="A010",
        title="a file that is too large",
        explanation="""
A spec of more than 262,144 characters, blanks not counted, is not read: it is generated text whose repetition belongs
in a function, a list param or an input.
""",
        bad="attention a {\n  score     dot(q, k)\n  normalize softmax\n}\n" + 15_000 * "# One line of far too many.\n",
        good="attention a {\n  score     dot(q, k)\n  normalize softmax\n}\n",
    ),
)

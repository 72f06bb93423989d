"""What a syntax fault is called: phrases for what was expected, after what, and what stands there instead."""

from __future__ import annotations

from collections.abc import Collection

from lark import Token

# How each clause is written: the help of a fault inside it, and the list of clause keywords.
FORMS = {
    "param": "param w: int = 256 where w >= 0",
    "input": "input bias: f32[H, N]",
    "query": "query q1, q2",
    "key": "key k1, k2",
    "value": "value v",
    "let": "let f(x) = elu(x) + 1",
    "score": "score dot(q, k) / sqrt(D)",
    "mask": "mask causal and window(256)",
    "normalize": "normalize softmax",
    "kv": "kv paged(page = 16) int8(per = token)",
    "emit": "emit lse",
    "branch": "branch pos { score dot(q, k)  normalize softmax }",
    "output": "output pos - lam[h] * neg",
    "state": "state S[D, E]",
    "step": "step S + outer(k, v)",
    "read": "read q @ S",
}
CONSTRUCTS = {
    "attention": "attention name { score dot(q, k)  normalize softmax }",
    "recurrence": "recurrence name { state S[D, E]  step S + outer(k, v)  read q @ S }",
}
END = "$END"

_EXPRESSION = frozenset({"NAME", "INT", "FLOAT", "LPAR", "MINUS"})
_OPERATOR = frozenset({"PLUS", "STAR"})
_CLAUSE = frozenset({"SCORE", "MASK"})
_MARKS = {
    "COLON": "`:`",
    "EQUAL": "`=`",
    "COMMA": "`,`",
    "RPAR": "`)`",
    "RSQB": "`]`",
    "LBRACE": "`{`",
    "RBRACE": "`}`",
    "WEIGHT": "`weight(s) = ...`",
    "DIVISOR": "`divisor(t) = ...`",
    "ATTENTION": "`attention`",
    "RECURRENCE": "`recurrence`",
}
_PAIR = "a pair is written `weight(s) = relu(s) divisor(t) = max(t, 1)`"
# Words of other languages and what .attn writes for them.
_FOREIGN = {
    "if": "a choice is written `where(condition, x, y)`",
    "else": "a choice is written `where(condition, x, y)`",
    "def": "a function is written `let f(x) = ...`",
    "return": "a function's value follows its `=`: `let f(x) = ...`",
}


def wanted(accepted: Collection[str]) -> str:
    """``an operator, `,` or `)` ``: the kinds of token that could stand here, most telling first."""
    kinds = set(accepted)
    parts: list[str] = []
    if kinds >= _EXPRESSION:
        parts.append("an expression")
    elif "NAME" in kinds:
        parts.append("a name")
    if kinds >= _OPERATOR and parts != ["an expression"]:
        parts.append("an operator")
    elif "LSQB" in kinds and not kinds >= _EXPRESSION:
        parts.append("`[`")
    if kinds >= _CLAUSE:
        parts.append("a clause")
    parts += [phrase for mark, phrase in _MARKS.items() if mark in kinds and not (mark == "COLON" and len(parts) > 1)]
    if len(parts) > 1:
        return ", ".join(parts[:-1]) + " or " + parts[-1]
    return parts[0] if parts else "the end of the file"


def found(token: Token, keywords: Collection[str]) -> str:
    """What stands there, as the reader sees it."""
    if token.type == END:
        return "the end of the file"
    return f"the keyword `{token}`" if token.type in keywords else f"`{token}`"


def role(tokens: list[Token], at: int) -> str:
    """What the token before ``at`` is to its clause: "the param's name", or the token itself."""
    before = tokens[at - 1]
    if at >= 2 and before.type == "NAME":
        word = str(tokens[at - 2])
        if word in ("param", "input", "let", "state", "branch"):
            return f"the {word}'s name"
        if word in CONSTRUCTS:
            return f"the {word}'s name"
        if str(tokens[at - 2]) == ":":
            return f"the type `{before}`"
    return f"`{before}`"


def hint(tokens: list[Token], at: int, accepted: Collection[str]) -> str:
    """The help of a fault that nothing more special explains: a known slip, else how the clause is written."""
    token, before = tokens[at], tokens[at - 1] if at else None
    complete = "PLUS" in accepted and "INT" not in accepted
    if str(token) in _FOREIGN:
        return _FOREIGN[str(token)]
    if token.type == "DIVISOR":
        return _PAIR
    if complete and token.type == "EQUAL":
        return "equality is written `==`"
    if complete and token.type == "LPAR":
        return "only a function's name can be called; a product is written `*`"
    if token.type == "LSQB" and "INT" in accepted:
        return "a list stands only as the default of a param with one entry a head"
    if complete and before is not None and before.type in ("INT", "FLOAT") and before.end_pos == token.start_pos:
        return f"a product is written `{before} * {token}`"
    for earlier in reversed(tokens[:at]):
        if earlier.type in ("WEIGHT", "DIVISOR"):
            return _PAIR
        if str(earlier) in FORMS:
            return f"`{earlier}` is written `{FORMS[str(earlier)]}`"
        if str(earlier) in CONSTRUCTS:
            return f"`{earlier}` is written `{CONSTRUCTS[str(earlier)]}`"
    return f"a file holds constructs: `{CONSTRUCTS['attention']}`"

"""``%load_ext attnc.magic``: specs in the cells of a notebook.

    %%attn w=8
    attention local { param w: int  score dot(q, k) / sqrt(D)  mask window(w)  normalize softmax }

The ops of the cell are then variables under the names of its constructs: ``local(q, k, v)``.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError

from attnc.commands import assigned, literal
from attnc.dsl.diagnostics import SpecError
from attnc.session import Refused

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load_ipython_extension(shell: InteractiveShell) -> None:
    """What ``%load_ext attnc.magic`` calls: the cell magic ``%%attn [NAME] [PARAM=VALUE ...]``.

    ``NAME`` takes one construct of several; params are written as in the language (``w=512``, ``steps=[1,2]``). A cell
    with a fault defines nothing, and shows it at its place (IPython's UsageError, without a traceback).
    """

    def attn(line: str, cell: str) -> None:
        from attnc.dsl.parse import parse
        from attnc.dsl.source import Source
        from attnc.runtime.op import loads

        try:
            words = shlex.split(line)
            given = assigned([word for word in words if "=" in word], "%%attn")
            params: dict[str, Any] = {name: literal(text) for name, text in given.items()}
            names = [word for word in words if "=" not in word]
            if not names:
                names = [construct.name.text for construct in parse(Source(name="<text>", text=cell)).constructs]
            ops = {name: loads(cell, name, params=params) for name in names}
        except (SpecError, Refused, ValueError) as error:
            raise UsageError(str(error)) from None
        shell.push(ops)

    shell.register_magic_function(attn, magic_kind="cell")

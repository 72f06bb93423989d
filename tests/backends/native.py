"""A second process, without TRITON_INTERPRET: Triton's kernels are either interpreted in a process or compiled.

``Native().call(function, *args)`` runs a function of a test module there and gives what it returned, or raises what
it raised. Arguments and results are pickled; a tensor keeps its strides.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

ROOT = Path(__file__).parents[2]


class Native:
    """The process, started at the first call."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        process = self._process
        if process is None or process.poll() is not None:
            process = self._process = _start()
        assert process.stdin is not None and process.stdout is not None, "made with pipes"
        _send(process.stdin, (function, args))
        done, value = _receive(process.stdout)
        if not done:
            raise value
        return value

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate(timeout=60)  # closes its input, which ends it


def _start() -> subprocess.Popen[bytes]:
    env = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests" / "_typing"), str(ROOT)])
    command = [sys.executable, "-P", "-m", "tests.backends.native"]  # -P: attnc is found in tests/_typing
    return subprocess.Popen(command, env=env, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _send(pipe: BinaryIO | Any, value: object) -> None:
    made = io.BytesIO()
    torch.save(value, made)  # pickle alone has no unsigned tensors
    data = made.getvalue()
    pipe.write(struct.pack("<q", len(data)) + data)
    pipe.flush()


def _receive(pipe: BinaryIO | Any) -> Any:
    head = pipe.read(8)
    if len(head) < 8:
        raise EOFError("the other process has ended")
    return torch.load(io.BytesIO(pipe.read(struct.unpack("<q", head)[0])), weights_only=False)


def _serve() -> None:
    """Answer calls until the input ends. What a test prints goes to standard error: the output is the answers'."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while True:
        try:
            function, args = _receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            _send(answers, (True, function(*args)))
        except Exception as error:
            _send(answers, (False, _portable(error)))


def _portable(error: Exception) -> Exception:
    """The error, if it survives pickling; its words otherwise."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


if __name__ == "__main__":
    _serve()

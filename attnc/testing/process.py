"""A second process: Triton's kernels are either interpreted in a process or compiled, and code that reads past a
tensor may end the process that it runs in.

``Process().call(function, *args)`` runs a function of a module there and gives what it returned, or raises what it
raised. Arguments and results are pickled; a tensor keeps its strides.
"""

from __future__ import annotations

import io
import os
import pickle
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from threading import Event, Timer
from typing import Any, BinaryIO

import torch


class Ended(RuntimeError):
    """The process is gone: a crash of what it ran."""


class Hung(Ended):
    """The process was ended, for it gave no answer in time."""


class Process:
    """The process, started at the first call. ``interpreted``: with TRITON_INTERPRET=1, else without. ``limit``:
    seconds that a call may take, starting and compiling included."""

    def __init__(self, *, interpreted: bool = False, limit: float | None = None) -> None:
        self._interpreted = interpreted
        self._limit = limit
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        process = self._process
        if process is None or process.poll() is not None:
            process = self._process = _start(self._interpreted)
        assert process.stdin is not None and process.stdout is not None, "made with pipes"
        late = Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = Timer(self._limit or 0, end)
        if self._limit is not None:
            timer.start()
        try:
            _send(process.stdin, (function, args))
            done, value = _receive(process.stdout)
        except (EOFError, BrokenPipeError) as error:
            status = process.wait()
            if late.is_set():
                raise Hung(f"no answer within {self._limit:g} s") from error
            raise Ended(f"the process that ran it ended with status {status}") from error
        finally:
            timer.cancel()
        if not done:
            raise value
        return value

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate(timeout=60)  # closes its input, which ends it


def _start(interpreted: bool) -> subprocess.Popen[bytes]:
    env = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    env["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)  # what is importable here is there
    if interpreted:
        env["TRITON_INTERPRET"] = "1"
    command = [sys.executable, "-P", "-m", "attnc.testing.process"]
    return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


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
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the other process says what there is to say of Ctrl-C
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

"""Run calls in another Python process, which can be killed with all that it started, and ends with its parent."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import IO, Any

import joblib

__all__ = ["Process", "ProcessDied", "packed", "serve"]

_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from skood.compare.process import serve; serve()"


class ProcessDied(Exception):
    """Raised if a process ends before its call does."""


class Process:
    """Run calls in another Python process, one at a time.

    Unlike the processes of multiprocessing, it takes functions and classes of notebooks and of scripts without a main
    guard, on every system. It does not outlive this process, however that ends: it waits for calls on a pipe, which the
    system closes then.

    Parameters
    ----------
    env : mapping of str to str
        Environment variables, besides those of this process.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        # In a session of its own, Ctrl-C does not reach it, and it can be killed with all that it started.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | env,
            start_new_session=True,
        )

    def submit(self, function: Callable, *arguments: Any) -> Future:
        """Begin a call; the call before must have ended.

        Parameters
        ----------
        function : callable
        *arguments : object

        Returns
        -------
        future : Future
            Holds what the function returns; or its exception, or `ProcessDied`.
        """
        call = packed((function, arguments))
        future: Future = Future()
        threading.Thread(target=self._make, args=(call, future), daemon=True).start()
        return future

    def _make(self, call: bytes, future: Future) -> None:
        """Send a call to the process, and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            _send(self._process.stdin, call)
            answer = _receive(self._process.stdout)
        except (OSError, ValueError):
            answer = None
        if answer is None:
            self._process.wait()
            future.set_exception(ProcessDied(f"the process ended with exit code {self._process.returncode}."))
            return
        try:
            value, error = pickle.loads(answer)
        except Exception as unreadable:
            value, error = None, unreadable
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    def kill(self) -> None:
        """Kill the process with all that it started, and wait until it is gone."""
        if self._process.poll() is None:
            _kill_group(self._process.pid)
        self._process.kill()
        self._process.wait()


def packed(value: Any) -> bytes:
    """Pickle what is sent to a process.

    Parameters
    ----------
    value : object

    Returns
    -------
    message : bytes
        What is defined in the main module, which the process does not import, is pickled by value.
    """
    return pickle.dumps(joblib.wrap_non_picklable_objects(value, keep_wrapper=False))


def serve() -> None:
    """Run the calls that come through standard input; end when it is closed."""
    # What a call prints goes to standard error: standard output carries the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    calls: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, calls), daemon=True).start()
    while True:
        try:
            function, arguments = pickle.loads(calls.get())
            answer = _pickled((function(*arguments), None))
        except BaseException as error:
            answer = _pickled((None, error))
        _send(answers, answer)


def _listen(pipe: IO[bytes], calls: queue.SimpleQueue[bytes]) -> None:
    """Queue the calls that come; when the parent is gone, kill this process, whatever it is doing."""
    while (call := _receive(pipe)) is not None:
        calls.put(call)
    _kill_group(os.getpid())
    os._exit(1)


def _pickled(answer: tuple[Any, BaseException | None]) -> bytes:
    try:
        return pickle.dumps(answer)
    except Exception:
        return pickle.dumps((None, RuntimeError(f"{type(answer[1] or answer[0]).__name__}: {answer[1] or answer[0]}")))


def _kill_group(pid: int) -> None:
    """Kill a process that leads a session, with all that it started."""
    if sys.platform == "win32":
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(pid)], capture_output=True, check=False)
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _send(pipe: IO[bytes], message: bytes) -> None:
    pipe.write(struct.pack("<Q", len(message)) + message)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes | None:
    """Return the next message; None if the pipe was closed."""
    head = pipe.read(8)
    if len(head) < 8:
        return None
    (length,) = struct.unpack("<Q", head)
    message = pipe.read(length)
    return message if len(message) == length else None

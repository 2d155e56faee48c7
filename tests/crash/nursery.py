# SPDX-License-Identifier: Apache-2.0
"""Starts processes by fork, so that hundreds of them cost little.

A process that has threads must not be forked, and readers start some. So there is one that does
nothing but fork, and it has to be made before anything else.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


class Nursery:
    """Forks processes that call a function, and waits for them."""

    def __init__(self) -> None:
        self._connection, theirs = multiprocessing.Pipe()
        self._pid = os.fork()
        if self._pid == 0:
            self._connection.close()
            try:
                _serve(theirs)
            finally:
                os._exit(1)
        theirs.close()

    def start(self, function: Callable[..., Any], *arguments: Any) -> int:
        """Returns the process id of a process that calls a function of a module."""
        self._connection.send((function, arguments))
        pid: int = self._connection.recv()
        return pid

    def wait(self, pid: int) -> int:
        """Waits for a process; returns its exit code, negative for a signal."""
        self._connection.send(pid)
        status: int = self._connection.recv()
        return status

    def run(self, function: Callable[..., Any], *arguments: Any) -> int:
        """Calls a function in a process of its own; returns the exit code."""
        return self.wait(self.start(function, *arguments))

    def close(self) -> None:
        """Ends the process that forks."""
        self._connection.close()
        os.waitpid(self._pid, 0)


def _serve(connection: Connection) -> None:
    while True:
        try:
            request = connection.recv()
        except EOFError:
            os._exit(0)
        if isinstance(request, int):
            connection.send(os.waitstatus_to_exitcode(os.waitpid(request, 0)[1]))
            continue
        pid = os.fork()
        if pid == 0:
            connection.close()
            _call(*request)
        connection.send(pid)


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is for the harness
    try:
        function(*arguments)
        sys.stdout.flush()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)

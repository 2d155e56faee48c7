# SPDX-License-Identifier: Apache-2.0
"""Kills this process, or lets the disk be full, at the n-th call that changes what is on the disk."""

from __future__ import annotations

import builtins
import errno
import json
import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any
from unittest import mock

from envlogger.tfds import helper_process, shards

KILL, KILL_BOTH, FULL = "kill", "kill both", "full"

# Where a process may die between two states of the directory.
_CALLS = (
    (os, "open"),
    (os, "write"),
    (os, "pwrite"),
    (os, "ftruncate"),
    (os, "posix_fallocate"),
    (os, "fsync"),
    (os, "mkdir"),
    (os, "rename"),
    (os, "replace"),
    (os, "unlink"),
    (os, "rmdir"),
    (builtins, "open"),
    (shards.ShardWriter, "add"),
    (shards.ShardWriter, "close"),
)
# What a full disk does not refuse.
_FREE_OF_COST = ("unlink", "rmdir", "ftruncate", "close")


class Faults:
    """Counts the calls of this process; strikes before the n-th.

    Args:
      number: Which call, from 1; a process that makes fewer ends by itself.
      kind: `KILL`; `KILL_BOTH` for this process and its parent; or `FULL`.
      report: A file that is to say which call it was; empty if it never came.
      match: How the label of a call begins that is struck whatever its number; "" for none.
    """

    def __init__(self, number: int, kind: str, report: str, match: str = "") -> None:
        self._number = number
        self._kind = kind
        self._match = match
        self._report = report
        self._calls = 0
        with open(report, "w", encoding="utf-8"):
            pass

    def arm(self) -> None:
        """Patches this process, for good."""
        self._descriptor = os.open(self._report, os.O_WRONLY | os.O_APPEND)
        self._write = os.write
        for owner, name in _CALLS:
            mock.patch.object(owner, name, self._wrap(getattr(owner, name), name)).start()

    def _wrap(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self._strike(name, arguments)
            return function(*arguments, **options)

        return call

    def _strike(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "open" and not _may_write(arguments):
            return
        if self._kind == FULL and name in _FREE_OF_COST:
            return
        self._calls += 1
        words = [_short(a) for a in arguments if isinstance(a, str | shards.ShardWriter)]
        label = f"{name}({', '.join(words)})"
        is_match = self._match and label.startswith(self._match)
        if not is_match and self._calls != self._number:
            return
        self._write(self._descriptor, f"{label}\n".encode())
        if self._kind == KILL_BOTH:
            os.kill(os.getppid(), signal.SIGKILL)
        if self._kind in (KILL, KILL_BOTH):
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), words[0] if words else None)


def _may_write(arguments: tuple[Any, ...]) -> bool:
    mode = arguments[1] if len(arguments) > 1 else "r"
    if isinstance(mode, int):
        return bool(mode & os.O_CREAT)
    return not mode.startswith("r")


def _short(argument: Any) -> str:
    path = argument.path if isinstance(argument, shards.ShardWriter) else argument
    return "/".join(path.split("/")[-2:])


class ForkedHelper:
    """Stands in for `subprocess.Popen`: a helper by fork, at once, with faults in it.

    The first helper of a process has the faults, those after it have none.
    """

    faults: Faults | None = None
    _num_started = 0

    def __init__(self, arguments: list[str], **options: Any) -> None:
        ForkedHelper._num_started += 1
        self._status: int | None = None
        has_begun, begin = os.pipe()
        self.pid = os.fork()
        if self.pid:
            # As with a real one, the writer goes on once the helper has its locks no more.
            os.close(begin)
            os.read(has_begun, 1)
            os.close(has_begun)
            return
        try:
            os.close(has_begun)
            os.close(begin)
            os.setsid()
            if self.faults is not None and ForkedHelper._num_started == 1:
                self.faults.arm()
            helper_process.main(json.loads(arguments[-1]))
            os._exit(0)
        finally:
            os._exit(1)

    def poll(self) -> int | None:
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def wait(self) -> int:
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status


def fork_helpers(faults: Faults | None) -> None:
    """Has this process start its helpers by fork."""
    ForkedHelper.faults = faults
    mock.patch.object(subprocess, "Popen", ForkedHelper).start()


__all__ = ["FULL", "KILL", "KILL_BOTH", "Faults", "fork_helpers"]

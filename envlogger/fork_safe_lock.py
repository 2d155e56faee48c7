# SPDX-License-Identifier: Apache-2.0
"""A lock for what forked processes go on to use, such as the readers that PyTorch's workers inherit."""

from __future__ import annotations

import os
import threading
import weakref
from types import TracebackType


class ForkSafeLock:
    """A reentrant lock that is free in a process that was forked, whoever held it at that moment.

    A fork has none of the other threads, so a lock that one of them held would be held for ever. What it
    guards must be fit for use at each instant: one change that counts, or values that anybody can check.
    """

    def __init__(self) -> None:
        self._start_anew()
        _LOCKS.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()

    def _start_anew(self) -> None:
        self._lock = threading.RLock()


_LOCKS: weakref.WeakSet[ForkSafeLock] = weakref.WeakSet()


def _after_fork() -> None:
    for lock in list(_LOCKS):
        lock._start_anew()


os.register_at_fork(after_in_child=_after_fork)

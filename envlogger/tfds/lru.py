# SPDX-License-Identifier: Apache-2.0
"""A bounded cache that threads may share, and that a forked process does not inherit."""

from __future__ import annotations

import collections
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class LruCache(Generic[K, V]):
    """Keeps values up to a sum of sizes; what was not used for the longest time goes first.

    Args:
      limit: The sum of sizes that is kept. The value that was put last stays in any case.
      dispose: Called with each value that goes.
    """

    def __init__(self, limit: int, dispose: Callable[[V], None] | None = None) -> None:
        self._limit = limit
        self._dispose = dispose
        self._start_anew()
        _CACHES.add(self)

    def get(self, key: K) -> V | None:
        """Returns the value of a key, or None."""
        with self._lock:
            value = self._entries.get(key)
            if value is not None:
                self._entries.move_to_end(key)
            return value

    def pop(self, key: K) -> V | None:
        """Returns the value of a key and forgets it, without disposing of it; or None."""
        with self._lock:
            value = self._entries.pop(key, None)
            if value is not None:
                self._size -= self._sizes.pop(key)
            return value

    def put(self, key: K, value: V, size: int = 1) -> None:
        """Keeps a value, in place of what the key had before."""
        gone = []
        with self._lock:
            entries, sizes = self._entries, self._sizes
            before = entries.pop(key, None)
            if before is not None:
                gone.append(before)
                self._size -= sizes[key]
            entries[key] = value
            sizes[key] = size
            self._size += size
            while self._size > self._limit and len(entries) > 1:
                oldest, its_value = entries.popitem(last=False)
                gone.append(its_value)
                self._size -= sizes.pop(oldest)
        if gone:
            self._dispose_of(gone)

    def clear(self) -> None:
        """Disposes of all values."""
        with self._lock:
            gone = list(self._entries.values())
            self._entries.clear()
            self._sizes.clear()
            self._size = 0
        self._dispose_of(gone)

    def _dispose_of(self, values: list[V]) -> None:
        if self._dispose is not None:
            for value in values:
                self._dispose(value)

    def _start_anew(self) -> None:
        self._lock = threading.Lock()
        self._entries: collections.OrderedDict[K, V] = collections.OrderedDict()
        # Beside the values: pairs would be as many objects more for the garbage collector to look at.
        self._sizes: dict[K, int] = {}
        self._size = 0


_CACHES: weakref.WeakSet[LruCache[Any, Any]] = weakref.WeakSet()


# What a forked process has inherited and may not dispose of: it is its parent's.
_INHERITED: list[Any] = []


def _after_fork() -> None:
    for cache in list(_CACHES):
        if cache._dispose is not None:
            _INHERITED.append(cache._entries)
        cache._start_anew()  # the lock, too, which another thread may have held


os.register_at_fork(after_in_child=_after_fork)

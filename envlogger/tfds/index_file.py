# SPDX-License-Identifier: Apache-2.0
"""`.envlogger/index/<split>`: how many steps each episode has, as writers keep it.

Eight bytes for each episode, in order: the number of its steps in the lower 40 bits, and a checksum of
that and of the episode's number in the upper 24. What was damaged, left out or moved is not believed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

_UInts: TypeAlias = npt.NDArray[np.uint64]

_INDEX = "index"
_COUNT_BITS = 40


def write(state: str, split: str, start: int, step_counts: Sequence[int]) -> None:
    """Adds episodes to the index of a split. Doing it twice is safe.

    Args:
      state: The directory of this library in the dataset's.
      split: The split.
      start: The number of the first of these episodes in it.
      step_counts: The number of steps of each.
    """
    path = os.path.join(state, _INDEX, split)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        entries = _encode(np.asarray(step_counts, np.uint64), start)
        os.pwrite(descriptor, entries.astype("<u8").tobytes(), start * 8)
    finally:
        os.close(descriptor)


def read(state: str, split: str, count: int) -> npt.NDArray[np.int64] | None:
    """Returns the number of steps of the first `count` episodes, int64 (count,); None where not known."""
    try:
        with open(os.path.join(state, _INDEX, split), "rb") as file:
            data = file.read(count * 8)
    except OSError:
        return None
    if len(data) != count * 8:
        return None
    entries = np.frombuffer(data, "<u8").astype(np.uint64)
    counts: _UInts = entries & np.uint64((1 << _COUNT_BITS) - 1)
    return counts.astype(np.int64) if (_encode(counts, 0) == entries).all() else None


def _encode(counts: _UInts, start: int) -> _UInts:
    # The mixing of splitmix64 (Steele et al., 2014), so that any bit changes all those that are kept.
    # The first number is not 0, so that zeros, as in a hole of the file, are not an entry.
    x: _UInts = np.arange(start + 1, start + 1 + len(counts), dtype=np.uint64)
    x = x * np.uint64(0x9E3779B97F4A7C15) + counts
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    shift = np.uint64(_COUNT_BITS)
    return ((x ^ (x >> np.uint64(31))) >> shift) << shift | counts

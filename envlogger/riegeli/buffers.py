# SPDX-License-Identifier: Apache-2.0
"""The buffers of a transposed chunk: some in each bucket, which is what is compressed together."""

from __future__ import annotations

import numpy as np

from envlogger.varints import Bytes, Ints

_NOTHING = np.empty(0, np.uint8)


class Buffers:
    """The buffers of a chunk, in its buckets.

    Args:
      buckets: All of them, decompressed; each uint8 of shape (n,).
      sizes: How many bytes each buffer has; int64 (buffers,).

    Attributes:
      sizes: As passed.
      contents: The bytes of each buffer; they lie in the buckets.

    Raises:
      ValueError: The buckets do not hold buffers of these sizes.
    """

    def __init__(self, buckets: list[Bytes], sizes: Ints) -> None:
        self.sizes = sizes
        self.contents: list[Bytes] = []
        self._buckets = buckets
        left = filter(len, buckets)
        bucket = _NOTHING
        position = 0
        for size in sizes.tolist():
            if size and position == len(bucket):
                bucket, position = next(left, _NOTHING), 0
            self.contents.append(bucket[position : position + size])
            position += size
            if position > len(bucket):
                raise ValueError(f"a buffer takes {size} bytes; its bucket ends before")
        if position < len(bucket) or any(True for _ in left):
            raise ValueError("the buckets go on behind the last buffer")

    def join(self) -> Bytes:
        """Returns all buffers, one behind the other; uint8 of shape (n,)."""
        return np.concatenate([_NOTHING, *self._buckets])

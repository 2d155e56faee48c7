# SPDX-License-Identifier: Apache-2.0
"""The shards of a dataset, of which a bounded number is open at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from envlogger.tfds import lru, shard_files
from envlogger.tfds.dataset_files import Info
from envlogger.tfds.shard_files import ShardReader

# How many shards stay open, of 1024 files that a process may have by default. Threads that read at
# the same time have one more each.
_MAX_OPEN = 64

FORMATS = tuple(shard_files.READERS)


class ShardPool:
    """Reads the records of splits by number. Threads and forked processes may share one.

    Args:
      directory: The directory of the dataset.
      info: What `dataset_info.json` says.
      splits: The splits whose records are numbered, one after the other.
    """

    def __init__(self, directory: str, info: Info, splits: Sequence[str]) -> None:
        self._format = info.file_format
        self._shards = [
            (os.path.join(directory, info.shard_name(split, index)), length)
            for split in splits
            for index, length in enumerate(info.shard_lengths[split])
        ]
        lengths = [length for _, length in self._shards]
        # The number of the first record of each shard, and that of all records.
        self._starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        self._idle: lru.LruCache[int, ShardReader] = lru.LruCache(
            _MAX_OPEN, lambda reader: reader.close()
        )

    def __len__(self) -> int:
        """Returns the number of records."""
        return int(self._starts[-1])

    def read(self, index: int) -> tuple[str, bytes]:
        """Returns the path of a shard, and a record that is in it.

        Raises:
          CorruptDatasetError: Its shard is missing or damaged.
        """
        shard = int(self._starts.searchsorted(index, side="right")) - 1
        # Nobody else has the reader meanwhile.
        reader = self._idle.pop(shard) or shard_files.READERS[self._format](*self._shards[shard])
        try:
            return reader.path, reader.read(index - int(self._starts[shard]))
        finally:
            self._idle.put(shard, reader)

    def records_of(self, shard: int) -> range:
        """Returns the numbers of the records that are in a shard."""
        return range(int(self._starts[shard]), int(self._starts[shard + 1]))

    def close(self) -> None:
        """Closes the shards. They are opened again where they are needed."""
        self._idle.clear()

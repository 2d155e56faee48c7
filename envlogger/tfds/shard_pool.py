# SPDX-License-Identifier: Apache-2.0
"""The shards of a dataset, of which a bounded number is open at a time."""

from __future__ import annotations

import bisect
import itertools
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from envlogger import memory
from envlogger.tfds import lru, shard_files
from envlogger.tfds.dataset_files import Info
from envlogger.tfds.partial_record import Place, RecordOnDisk
from envlogger.tfds.shard_files import PartReader, ShardReader

# How many shards stay open, of 1024 files that a process may have by default, and as many to read parts
# of records. Threads that read at the same time have one more each.
_MAX_OPEN = 64

# Smaller records are best read as a whole.
_IN_PARTS = 1 << 20

T = TypeVar("T")

FORMATS = tuple(shard_files.READERS)


class Shard(NamedTuple):
    """A shard of a dataset.

    Attributes:
      path: The file.
      num_records: How many records the dataset says it has.
      file_format: One of `FORMATS`.
    """

    path: str
    num_records: int
    file_format: str


def shards_of(directory: str, info: Info, splits: Sequence[str]) -> list[Shard]:
    """Returns the shards of splits, one after the other, as `dataset_info.json` has them."""
    return [
        Shard(os.path.join(directory, info.shard_name(split, index)), length, info.file_format)
        for split in splits
        for index, length in enumerate(info.shard_lengths[split])
    ]


class ShardPool:
    """Reads the records of shards by number. Threads and forked processes may share one.

    Args:
      shards: The shards whose records are numbered, one after the other.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards
        lengths = [shard.num_records for shard in shards]
        # The number of the first record of each shard, and that of all records.
        self._starts = list(itertools.accumulate(lengths, initial=0))
        self._idle: lru.LruCache[int, ShardReader] = lru.LruCache(
            _MAX_OPEN, lambda reader: reader.close()
        )
        self._idle_for_parts: lru.LruCache[int, PartReader] = lru.LruCache(
            _MAX_OPEN, lambda reader: reader.close()
        )
        self._has_large: dict[int, bool] = {}  # the shards that were looked at
        self._compared: set[int] = set()

    def __len__(self) -> int:
        """Returns the number of records."""
        return self._starts[-1]

    def read(self, index: int) -> tuple[str, bytes]:
        """Returns the path of a shard, and a record that is in it.

        Large ones are compared with their hashes the first time only: without that, and by fewer copies,
        they are read in a fraction of the time.

        Raises:
          CorruptDatasetError: Its shard is missing or damaged.
        """
        shard, place = self._find(index)
        path, num_records, file_format = self._shards[shard]
        if index in self._compared:
            return path, self._with_part_reader(shard, lambda reader: reader.read(place))
        # Nobody else has the reader meanwhile.
        reader = self._idle.pop(shard) or shard_files.READERS[file_format](path, num_records)
        try:
            record = reader.read(place)
            if len(record) >= memory.LARGE:
                memory.keep_freed()
                self._compared.add(index)
            return reader.path, record
        finally:
            self._idle.put(shard, reader)

    def compare(self, index: int) -> None:
        """Compares a record with its hash, unless that has been done since the pool was made.

        Raises:
          CorruptDatasetError: Its shard is missing or damaged.
        """
        if not self.is_compared(index):
            self.read(index)

    def is_compared(self, index: int) -> bool:
        """Whether a large record has been read as a whole before, and compared with its hash."""
        return index in self._compared

    def is_plain(self, index: int) -> bool:
        """Whether a record lies in its file as it is, and is so large that parts of it are worth reading."""
        shard, number = self._find(index)
        return self._is_large(shard) and self._place_of(shard, number) is not None

    def open(self, index: int, *, compressed: bool = True) -> tuple[str, RecordOnDisk] | None:
        """Returns the path of a shard, and a record in it of which parts can be read.

        None where the record is so small that it is best read as a whole; or it is compressed, and has not
        been compared with its hash.

        Args:
          index: Of the record.
          compressed: Whether to open compressed records. It pays where most of a record are rows of which
            few are wanted.

        Raises:
          CorruptDatasetError: Its shard is missing or damaged.
        """
        shard, number = self._find(index)
        path = self._shards[shard].path
        place = self._place_of(shard, number) if self._is_large(shard) else None
        if place is None:
            if not compressed or not self.is_compared(index):
                return None
            return path, self._with_part_reader(shard, lambda file: file.open(number))
        memory.keep_freed()  # for the images that will be decoded

        # Looked up anew in a file that was opened anew: a writer that adds a feature replaces the shard
        # by one whose records begin as before, at other places.
        def read(start: int, stop: int) -> memoryview:
            return self._with_part_reader(shard, lambda file: file.read_part(number, start, stop))

        def read_into(start: int, buffers: Sequence[memoryview]) -> int:
            return self._with_part_reader(
                shard, lambda file: file.read_part_into(number, start, buffers)
            )

        return path, RecordOnDisk(place.size, read, read_into=read_into)

    def records_of(self, shard: int) -> range:
        """Returns the numbers of the records that are in a shard."""
        return range(self._starts[shard], self._starts[shard + 1])

    def close(self) -> None:
        """Closes the shards. They are opened again where they are needed."""
        self._idle.clear()
        self._idle_for_parts.clear()

    def _find(self, index: int) -> tuple[int, int]:
        """Returns the shard that has a record, and its number there."""
        shard = bisect.bisect_right(self._starts, index) - 1
        return shard, index - self._starts[shard]

    def _is_large(self, shard: int) -> bool:
        """Whether the records of a shard are so large that parts of them are worth reading."""
        found = self._has_large.get(shard)
        if found is None:
            path, length, _ = self._shards[shard]
            size = os.path.getsize(path) if os.path.exists(path) else 0
            found = self._has_large[shard] = size >= _IN_PARTS * length
        return found

    def _place_of(self, shard: int, number: int) -> Place | None:
        return self._with_part_reader(shard, lambda reader: reader.find(number))

    def _with_part_reader(self, shard: int, call: Callable[[PartReader], T]) -> T:
        path, num_records, file_format = self._shards[shard]
        opener = shard_files.PART_READERS[file_format]
        reader = self._idle_for_parts.pop(shard) or opener(path, num_records)
        try:
            return call(reader)
        finally:
            self._idle_for_parts.put(shard, reader)

# SPDX-License-Identifier: Apache-2.0
"""Shards: ArrayRecord files that hold one `tf.train.Example` per episode."""

from __future__ import annotations

import contextlib
import enum
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from array_record.python import array_record_module

from envlogger.tfds import shard_errors

# One record per chunk: what `tfds.data_source` requires, and what lets an episode be read alone.
_ONE_PER_CHUNK = "group_size:1"


class Compression(enum.Enum):
    """How the records of a shard are compressed, as ArrayRecord's writer has it."""

    # Takes a third of the time of level 3, ArrayRecord's default, for files of the same size.
    FULL = "zstd:1"
    # The same without entropy coding: repetitions are found as before, in less than half of the time.
    REPETITIONS = "zstd:-1"
    # A step can then be read without its episode, and nothing takes time.
    NONE = "uncompressed"


# Of 8 bits a byte, from where on entropy coding is not worth its time.
_DENSE_BITS = 7.2
# What has to be left for compression to be worth the time of reading whole episodes.
_WORTH_IT = 0.9
_SAMPLE_BYTES = 1 << 16
_TRIAL_BYTES = 1 << 21  # some frames of a camera, one of which may look like the other
# In smaller records there is nothing to be gained.
_LARGE_RECORD = 1 << 16
# Read-ahead would take 16 MiB and threads of its own for every shard, and threads don't survive a fork.
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"


class ShardWriter:
    """Writes a shard. Nobody sees its records before `close()` has returned.

    Args:
      path: The file; one that is there is replaced.
      compression: Of the records; see `choose_compression`.
    """

    def __init__(self, path: str, compression: Compression = Compression.FULL) -> None:
        self.path = path
        self.compression = compression
        self.num_records = 0
        self._is_closed = False
        options = f"{_ONE_PER_CHUNK},{compression.value}"
        self._writer: Any = array_record_module.ArrayRecordWriter(path, options)

    def add(self, record: bytes) -> None:
        """Appends a record.

        Raises:
          OSError: It could not be written, as when the disk is full.
        """
        with self._as_os_error():
            self._writer.write(record)
            if not self._writer.ok():  # an error shows late: writing is done by threads
                raise RuntimeError("an earlier write failed")
        self.num_records += 1

    def close(self) -> None:
        """Finishes the file and makes it durable (fsync). May be called again after an error.

        Raises:
          OSError: It could not be written.
        """
        if not self._is_closed:
            with self._as_os_error():
                self._writer.close()
            self._is_closed = True
        sync_file(self.path)

    def abandon(self) -> None:
        """Gives the file up and removes it."""
        with contextlib.suppress(Exception):
            self._writer.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    @contextlib.contextmanager
    def _as_os_error(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise OSError(
                f"{self.path}: the shard could not be written: {error}. Is the disk full?"
            ) from error


class ShardReader:
    """Reads a shard.

    Args:
      path: The file.
      num_records: How many records the dataset says it has.

    Raises:
      CorruptDatasetError: The file is missing, was not finished, or has another number of records.
    """

    def __init__(self, path: str, num_records: int) -> None:
        self.path = path
        if not os.path.isfile(path):
            raise shard_errors.missing(path, num_records)
        self._reader: Any = array_record_module.ArrayRecordReader(path, _READER_OPTIONS)
        found = self._reader.num_records()
        if not self._reader.ok() or found != num_records:
            # A file that was cut off reads as empty, without an error.
            raise shard_errors.cut_off(path, found, num_records)

    def read(self, index: int) -> bytes:
        """Returns a record.

        Raises:
          CorruptDatasetError: Its bytes are damaged.
        """
        reader = self._reader
        try:
            if reader.record_index() != index:
                reader.seek(index)
            record: bytes = reader.read()
        except (RuntimeError, ValueError, IndexError) as error:
            # A reader that has met damage reads nothing any more.
            self._reader = array_record_module.ArrayRecordReader(self.path, _READER_OPTIONS)
            raise shard_errors.damaged(self.path, index, error) from error
        return record

    def close(self) -> None:
        """Closes the file."""
        self._reader.close()


def choose_compression(record: bytes) -> Compression:
    """Returns how a shard is best compressed that begins with a record, as told by a part of it."""
    if len(record) < _LARGE_RECORD:
        return Compression.FULL
    data = np.frombuffer(record, np.uint8)
    counts = np.bincount(data[:: len(data) // _SAMPLE_BYTES + 1], minlength=256)
    shares = counts[counts > 0] / counts.sum()
    if float(-(shares * np.log2(shares)).sum()) < _DENSE_BITS:
        return Compression.FULL
    import zstandard

    begin = max(len(record) - _TRIAL_BYTES, 0) // 2
    trial = memoryview(record)[begin : begin + _TRIAL_BYTES]
    compressed = zstandard.ZstdCompressor(level=-1).compress(trial)
    has_repetitions = len(compressed) < _WORTH_IT * len(trial)
    return Compression.REPETITIONS if has_repetitions else Compression.NONE


def read_all(path: str, num_records: int) -> Iterator[bytes]:
    """Yields the records of a shard in their order."""
    reader = ShardReader(path, num_records)
    try:
        for index in range(num_records):
            yield reader.read(index)
    finally:
        reader.close()


def sync_file(path: str) -> None:
    """Makes the content of a file, or the entries of a directory, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

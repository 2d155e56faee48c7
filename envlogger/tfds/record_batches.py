# SPDX-License-Identifier: Apache-2.0
"""Records of ArrayRecord shards, batch by batch, as tf.data.

    range(infinite)
      .scan(state, next batch)    one call of Python reads a batch
      .take_while(not empty)      or raises an error, if it is one
      .unbatch()                  which moves the records, and copies none

That is all there is, because a pipeline of more parts costs more than it saves: whoever iterates has
TensorFlow look up each op of each function among all its kernels, 0.3 ms for each of them. A map that
raises the errors, for one, would take a tenth of the time in which a few small shards are read.

Where the reading goes on is all the state there is, and tf.data keeps it, so an iterator can be saved
and restored. An error is read like a record, and raised once the state is beyond it, so who goes on after it
(`ignore_errors`) gets the records that come after the damaged one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from envlogger import errors, memory
from envlogger.tfds import lru, structure
from envlogger.tfds.array_record_file import ArrayRecordFile

_Reader: TypeAlias = Any  # array_record_module.ArrayRecordReader
_Tensor: TypeAlias = Any  # tf.Tensor
_Dataset: TypeAlias = Any  # tf.data.Dataset
_Identity: TypeAlias = tuple[str | int, ...]

# A batch ends with the record that reaches this many bytes. TFDS has up to 2 x 16 shards in flight, and
# the 8 MiB per shard that TFRecord buffers would be 256 MiB. One call of Python takes some 0.1 ms, 1 MiB
# of records 2 ms and more.
BATCH_BYTES = 1 << 20

# Records up to this size are read while holding the GIL (5 µs for 2 KB). Letting go of it would have
# each record wait for up to 5 ms wherever the program's own Python is busy.
_SMALL_RECORD_BYTES = 8 << 10

# Larger ones are read without the GIL, as many at a time as should come to this size, but at most 8:
# the next records may be much larger than the last one, and they may not make a batch much larger.
_READ_BYTES = 512 << 10
_READ_RECORDS = 8

# One per shard that TFDS interleaves, for a few datasets at once.
_IDLE_READERS = 64

# Of so many files it is known which of their large records were compared with their hashes.
_COMPARED_FILES = 10_000

NO_STOP = np.int64(np.iinfo(np.int64).max)

# What an error follows where records are expected; no record is equal to it.
_ERROR = os.urandom(16)


class Batch:
    """Some records, of one shard or of several, or the error that is in place of the next one.

    Args:
        num_bytes: How many bytes of records are enough.

    Attributes:
        records: The records.
        error: Why there is none.
    """

    def __init__(self, num_bytes: int) -> None:
        self.records: list[bytes] = []
        self.error: Exception | None = None
        self._left = num_bytes

    @property
    def is_full(self) -> bool:
        """Whether no more is to be read."""
        return self._left <= 0

    def read(self, path: str, start: int, stop: int, count: int | None = None) -> tuple[int, int]:
        """Reads records from `start` on, until the batch is full or `stop` is reached.

        Args:
            path: The shard.
            start: The first record to read.
            stop: The one after the last of those that are wanted, now or later.
            count: How many records are enough for now.

        Returns:
            The range `[start, stop)` that is left, whose stop is not beyond the end of the shard.
        """
        if start >= stop:
            return start, stop
        before = len(self.records)
        try:
            file = _READERS.acquire(path)
        except (OSError, ValueError) as error:
            return (stop if self.fail(error) else start), stop
        try:
            stop = min(stop, file.reader.num_records())
            self._extend(file, start, stop if count is None else min(stop, start + count))
        except (IndexError, RuntimeError, errors.CorruptDatasetError) as error:
            file.close()
            start += len(self.records) - before
            damage = ValueError(
                f"{path}: record {start} cannot be read ({error}). The file is damaged; restore it from "
                "a copy."
            )
            return (start + 1 if self.fail(damage) else start), stop
        start += len(self.records) - before
        if start < stop:
            _READERS.release(file)
        else:
            file.close()
        return start, stop

    def fail(self, error: Exception) -> bool:
        """Takes up an error, unless there are records that come before it; returns whether it did.

        In either case the batch is full. If there are such records, the next batch should fail again.
        """
        self._left = 0
        if not self.records:
            self.error = error
        return self.error is not None

    def _extend(self, file: _OpenFile, position: int, stop: int) -> None:
        reader, records = file.reader, self.records
        while position < stop and self._left > 0:
            last = len(records[-1]) if records else 0
            if position in file.compared:
                read = [file.in_python.read(position)]
            elif last <= _SMALL_RECORD_BYTES:
                if reader.record_index() != position:
                    reader.seek(position)
                read = [reader.read()]
            else:
                count = min(max(_READ_BYTES // last, 1), _READ_RECORDS, stop - position)
                read = reader.read(position, position + count)
            for record in read:
                if len(record) >= memory.LARGE:
                    memory.keep_freed()
                    file.compared.add(position)
                position += 1
                self._left -= len(record)
            records += read


def batches_of(
    read: Callable[[Any, npt.NDArray[np.int64]], tuple[Batch, Sequence[int]]],
    source: _Tensor,
    state: _Tensor,
) -> _Dataset:
    """Returns the records that a function reads: a dataset of scalar strings.

    Args:
        read: Gets the source and a state; returns the next batch, an empty one at the end, and the state
            then.
        source: What to read from.
        state: What to begin with: int64 (n,).
    """
    import tensorflow as tf

    def read_arrays(
        source: Any, state: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.int64]]:
        batch, after = read(source, state)
        error, records = batch.error, batch.records
        if error is not None:
            message = f"{type(error).__name__}: {error}"
            records = [_ERROR, message.encode(errors="replace")]
        return structure.object_array(records), np.array(after, np.int64)

    def next_batch(state: _Tensor, _: _Tensor) -> tuple[_Tensor, _Tensor]:
        # Not stateful: for a stateful function, tf.data refuses to save the iterator.
        records, after = tf.numpy_function(
            read_arrays, [source, state], [tf.string, tf.int64], stateful=False
        )
        after.set_shape(state.shape)
        records.set_shape([None])
        return after, records

    def is_not_over(records: _Tensor) -> _Tensor:
        is_error = tf.reduce_any(tf.equal(records, _ERROR))
        # Not tf.debugging.Assert, which makes a branch of it.
        check = tf.raw_ops.Assert(
            condition=tf.logical_not(is_error), data=[records[1:]], summarize=1
        )
        with tf.control_dependencies([check]):
            return tf.size(records) > 0

    batches = tf.data.Dataset.range(NO_STOP).scan(state, next_batch)
    return batches.take_while(is_not_over).unbatch()


def num_records(path: str) -> int:
    """Returns the number of records in a shard; takes the same time whatever its size.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a finished ArrayRecord file.
    """
    file = _READERS.acquire(path)
    try:
        return int(file.reader.num_records())
    finally:
        file.close()


def _open(path: str) -> _Reader:
    from array_record.python import array_record_module

    # Without read-ahead, which would take 16 MiB and threads of its own for every shard.
    reader = array_record_module.ArrayRecordReader(
        path, "readahead_buffer_size:0,max_parallelism:0"
    )
    # A file that is not an ArrayRecord, or not a whole one, reads as an empty one without an error.
    if not reader.ok():
        reason = "no reason given"
        try:
            reader.close()
        except RuntimeError as error:
            reason = str(error)
        raise ValueError(
            f"{path} is not a finished ArrayRecord file ({reason}). Either it was cut short, or its "
            "writer ended before it closed the file. Copy or write the shard again."
        )
    return reader


class _Readers:
    """Idle readers, so that a large shard is not opened anew, index and all, for each batch.

    They are bounded in number, and known by the file and not by its name alone: a file that replaced
    another one under the same name is opened. A reader is in the hands of one thread at a time.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._idle: list[_OpenFile] = []  # The longest idle first.
        self._compared: lru.LruCache[_Identity, set[int]] = lru.LruCache(_COMPARED_FILES)

    def acquire(self, path: str) -> _OpenFile:
        """Returns a reader of the file, which is the caller's until `release` or `close`.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is not a finished ArrayRecord file.
        """
        try:
            status = os.stat(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                error.errno,
                "A shard is missing, so this copy of the dataset is not whole. Copy it again",
                path,
            ) from error
        identity = (path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        with self._lock:
            for index, file in enumerate(self._idle):
                if file.identity == identity:
                    return self._idle.pop(index)
        compared = self._compared.get(identity)
        if compared is None:
            compared = set()
            self._compared.put(identity, compared)
        return _OpenFile(identity, _open(path), compared)

    def release(self, file: _OpenFile) -> None:
        """Keeps the reader for the next `acquire`, in place of the one that was idle longest."""
        with self._lock:
            self._idle.append(file)
            surplus = self._idle.pop(0) if len(self._idle) > self._capacity else None
        if surplus is not None:
            surplus.close()


@dataclasses.dataclass(frozen=True)
class _OpenFile:
    """A file, for one thread at a time.

    Attributes:
      identity: What tells it from a file that takes its place.
      reader: Of ArrayRecord's library.
      compared: The large records that the library has compared with their hashes. From then on they are
        read without it, in a third of the time.
    """

    identity: _Identity
    reader: _Reader
    compared: set[int]

    @functools.cached_property
    def in_python(self) -> ArrayRecordFile:
        """The same file, read in Python."""
        return ArrayRecordFile(str(self.identity[0]), self.reader.num_records())

    def close(self) -> None:
        # Closing a reader that failed raises that failure again.
        with contextlib.suppress(RuntimeError):
            self.reader.close()
        if "in_python" in vars(self):
            self.in_python.close()


_READERS = _Readers(_IDLE_READERS)

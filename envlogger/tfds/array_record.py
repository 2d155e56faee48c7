# SPDX-License-Identifier: Apache-2.0
"""Makes TFDS read ArrayRecord shards as tf.data.

TFDS reads ArrayRecord through `tfds.data_source` only; `as_dataset` raises. `register()` puts an adapter
into the table where TFDS looks up how to read a file format, and then `tfds.load`,
`tfds.builder_from_directory` and `tfds.builder_from_directories` work as on TFRecord: slices, shuffling,
interleaving, ids, iterator checkpoints and all.

What happens to one shard:

    range(infinite)
      .scan(position, next batch)    one call of Python reads a batch, the first one opens the shard
      .take_while(not empty)
      .unbatch()                     which moves the records, and copies none

That is all there is, because a pipeline of more parts costs more than it saves: whoever iterates has
TensorFlow look up each op of each function among all its kernels, 0.3 ms for each of them.

The position is all the state there is, and tf.data keeps it, so an iterator can be saved and restored.
Like all Python in tf.data, the pipeline can't be sent to another process (tf.data service).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import threading
import types
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from envlogger import errors, memory
from envlogger.tfds import live_iterators, lru, structure
from envlogger.tfds.array_record_file import ArrayRecordFile

_Reader: TypeAlias = Any  # array_record_module.ArrayRecordReader
_Tensor: TypeAlias = Any  # tf.Tensor
_Dataset: TypeAlias = Any  # tf.data.Dataset
_Identity: TypeAlias = tuple[str | int, ...]

# A batch ends with the record that reaches this many bytes. TFDS has up to 2 x 16 shards in flight, and
# the 8 MiB per shard that TFRecord buffers would be 256 MiB. One call of Python takes some 0.1 ms, 1 MiB
# of records 2 ms and more.
_BATCH_BYTES = 1 << 20

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

_NO_STOP = np.int64(np.iinfo(np.int64).max)


def register(file_adapters: types.ModuleType) -> None:
    """Puts the adapter into `tensorflow_datasets.core.file_adapters`. It may be called again.

    Where TFDS can read ArrayRecord as tf.data by itself, nothing changes.
    """
    array_record = file_adapters.FileFormat.ARRAY_RECORD
    adapter = file_adapters.ADAPTER_FOR_FORMAT[array_record]
    if not adapter.SUPPORTS_TF_DATA:
        file_adapters.ADAPTER_FOR_FORMAT[array_record] = type(
            "ArrayRecordFileAdapter", (_TfDataAdapter, adapter), {"__module__": __name__}
        )


class _TfDataAdapter:
    """What TFDS's ArrayRecordFileAdapter lacks; a subclass of both is what gets registered."""

    SUPPORTS_TF_DATA = True

    @classmethod
    def make_tf_data(
        cls, filename: os.PathLike[str] | str | _Tensor, buffer_size: int | None = None
    ) -> _Dataset:
        """Returns the records of a shard as a dataset of scalar strings.

        Args:
            filename: The shard; inside a tf.data pipeline, a scalar string tensor.
            buffer_size: How many bytes of records to read at a time; 1 MiB by default. A batch can be
                larger by the records that were read last.

        Raises:
            ImportError: TensorFlow is not installed.
        """
        try:
            import tensorflow as tf
        except ModuleNotFoundError as error:
            raise ImportError(
                "Reading a dataset as tf.data needs TensorFlow: pip install 'envlogger[tensorflow]'. "
                "tfds.data_source and envlogger.Reader read the same dataset without it."
            ) from error
        live_iterators.end_at_exit()
        if not tf.is_tensor(filename):
            filename = os.fspath(filename)
        return _dataset(
            tf.convert_to_tensor(filename, tf.string),
            tf.constant(0, tf.int64),
            tf.constant(_NO_STOP, tf.int64),
            buffer_size or _BATCH_BYTES,
        )

    @classmethod
    def num_examples(cls, filename: os.PathLike[str] | str) -> int:
        """Returns the number of records in a shard; takes the same time whatever its size.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is not a finished ArrayRecord file.
        """
        file = _READERS.acquire(os.fspath(filename))
        try:
            return int(file.reader.num_records())
        finally:
            file.close()


def _dataset(path: _Tensor, start: _Tensor, stop: _Tensor, batch_bytes: int) -> _Dataset:
    """Returns the records `[start, stop)` of a shard.

    Nothing here may run Python before the dataset is iterated: TFDS asks for a whole shard, then calls
    `skip` and `take` on it, and what it drops stays behind in the graph and is run.
    """
    import tensorflow as tf

    def skip(count: Any, name: str | None = None) -> _Dataset:
        del name
        count = tf.cast(count, tf.int64)
        # As in tf.data: a negative count skips everything. The minimum is for counts near 2^63.
        skipped = tf.where(count < 0, stop - start, tf.minimum(count, stop - start))
        return _dataset(path, start + skipped, stop, batch_bytes)

    def take(count: Any, name: str | None = None) -> _Dataset:
        del name
        count = tf.cast(count, tf.int64)
        taken = tf.where(count < 0, stop - start, tf.minimum(count, stop - start))
        return _dataset(path, start, start + taken, batch_bytes)

    def read_batch(
        path: bytes, position: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.int64]]:
        start, stop = position.tolist()
        return _read_batch(os.fsdecode(path), start, stop, batch_bytes)

    def next_batch(position: _Tensor, _: _Tensor) -> tuple[_Tensor, _Tensor]:
        # Not stateful: for a stateful function, tf.data refuses to save the iterator.
        records, position = tf.numpy_function(
            read_batch, [path, position], [tf.string, tf.int64], stateful=False
        )
        position.set_shape([2])
        records.set_shape([None])
        return position, records

    batches = tf.data.Dataset.range(_NO_STOP).scan(tf.stack([start, stop]), next_batch)
    dataset = batches.take_while(lambda records: tf.size(records) > 0).unbatch()
    # The dataset's own skip and take would read what they then throw away.
    dataset.skip = skip
    dataset.take = take
    return dataset


def _read_batch(
    path: str, start: int, stop: int, batch_bytes: int
) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.int64]]:
    """Reads records from `start` on, until they come to `batch_bytes` or `stop` is reached.

    Returns:
        The records, which are none where nothing was left to read; and the range `[start, stop)` that is
        left now, whose stop is not beyond the end of the shard.
    """
    records: list[bytes] = []
    if start < stop:
        file = _READERS.acquire(path)
        try:
            stop = min(stop, file.reader.num_records())
            start = _extend(records, file, start, stop, batch_bytes)
        except (IndexError, RuntimeError, errors.CorruptDatasetError) as error:
            file.close()
            raise ValueError(
                f"{path} can't be read from record {start + len(records)} on ({error}). The file is "
                "damaged; restore it from a copy."
            ) from error
        if start < stop:
            _READERS.release(file)
        else:
            file.close()
    return structure.object_array(records), np.array([start, stop], np.int64)


def _extend(
    records: list[bytes], file: _OpenFile, position: int, stop: int, batch_bytes: int
) -> int:
    """Appends to `records` until they come to `batch_bytes`; returns the position after them."""
    size = 0
    reader = file.reader
    while position < stop and size < batch_bytes:
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
            size += len(record)
        records += read
    return position


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

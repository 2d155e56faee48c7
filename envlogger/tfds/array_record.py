# SPDX-License-Identifier: Apache-2.0
"""Makes TFDS read ArrayRecord shards as tf.data.

TFDS reads ArrayRecord through `tfds.data_source` only; `as_dataset` raises. `register()` puts an adapter
into the table where TFDS looks up how to read a file format, and then `tfds.load`,
`tfds.builder_from_directory` and `tfds.builder_from_directories` work as on TFRecord: slices, shuffling,
interleaving, ids, iterator checkpoints and all.

How a shard is read is in `record_batches`, how many small ones are read together in `small_shards`. Like all
Python in tf.data, the pipelines can't be sent to another process (tf.data service).
"""

from __future__ import annotations

import os
import types
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from envlogger.tfds import live_iterators, record_batches
from envlogger.tfds.record_batches import Batch

_Tensor: TypeAlias = Any  # tf.Tensor
_Dataset: TypeAlias = Any  # tf.data.Dataset


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


def is_registered(file_adapters: types.ModuleType, file_format: Any) -> bool:
    """Whether TFDS reads a file format by the adapter that `register` put there."""
    adapter = file_adapters.ADAPTER_FOR_FORMAT.get(file_format)
    return isinstance(adapter, type) and issubclass(adapter, _TfDataAdapter)


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
            tf.constant(record_batches.NO_STOP, tf.int64),
            buffer_size or record_batches.BATCH_BYTES,
        )

    @classmethod
    def num_examples(cls, filename: os.PathLike[str] | str) -> int:
        """Returns the number of records in a shard; takes the same time whatever its size.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is not a finished ArrayRecord file.
        """
        return record_batches.num_records(os.fspath(filename))


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

    def read(path: bytes, position: npt.NDArray[np.int64]) -> tuple[Batch, tuple[int, int]]:
        batch = Batch(batch_bytes)
        start, stop = position.tolist()
        return batch, batch.read(os.fsdecode(path), start, stop)

    dataset = record_batches.batches_of(read, path, tf.stack([start, stop]))
    # The dataset's own skip and take would read what they then throw away.
    dataset.skip = skip
    dataset.take = take
    return dataset

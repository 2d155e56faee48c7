# SPDX-License-Identifier: Apache-2.0
"""Makes TFDS read many small shards as tf.data in one go.

TFDS interleaves the files of a split: each of them becomes a pipeline of tf.data, 16 of which are under
way at a time. To start one takes as long as to read some hundred records. A run of many sessions, or one
that publishes often, has thousands of shards of a few episodes; so these are interleaved here, in Python:

    range(number of files) [.shuffle] .batch        the order of the files, as one element
      .flat_map(record_batches.batches_of)          one call of Python reads a batch of records, from
                                                    as many files as it takes

The records come in the order that TFDS gives them. What a `tfds.ReadConfig` can ask for beyond that is done by
TFDS's own code.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import os
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from envlogger import errors
from envlogger.tfds import array_record, live_iterators, record_batches
from envlogger.tfds.record_batches import Batch

_Dataset: TypeAlias = Any  # tf.data.Dataset
_Files: TypeAlias = Sequence[Any]  # of tfds.core.utils.shard_utils.FileInstruction

# What TFDS's function is expected to take. Another one is left alone.
_PARAMETERS = (
    "file_instructions",
    "read_config",
    "shuffle_files",
    "disable_shuffling",
    "file_format",
)

# The options of a `tfds.ReadConfig` that are followed here, or by who calls. Where another one is set, one of a
# later TFDS among them, TFDS reads the files itself.
_OPTIONS = {
    "assert_cardinality",
    "enable_ordering_guard",
    "file_format",
    "interleave_block_length",
    "interleave_cycle_length",
    "num_parallel_calls_for_decode",
    "num_parallel_calls_for_interleave_files",
    "options",
    "override_buffer_size",
    "shuffle_reshuffle_each_iteration",
    "shuffle_seed",
    "skip_prefetch",
    "try_autocache",
}
# What TFDS takes for `interleave_cycle_length` where nobody says it, and the files are in no order.
_CYCLE_LENGTH = 16

# Fewer files are no trouble. Larger ones are worth being read at the same time.
_MANY_FILES = 32
_SMALL_FILE_BYTES = 512 << 10

# The number of no file.
_NONE = -1


def extend(reader: Any) -> None:
    """Has a module, `tensorflow_datasets.core.reader`, read small ArrayRecord shards by this one.

    It may be called again.
    """
    stock = reader._read_files
    if tuple(inspect.signature(stock).parameters) != _PARAMETERS or hasattr(stock, "__wrapped__"):
        return

    @functools.wraps(stock)
    def read_files(
        file_instructions: _Files,
        read_config: Any,
        shuffle_files: bool,
        disable_shuffling: bool,
        file_format: Any,
    ) -> _Dataset:
        if (
            array_record.is_registered(reader.file_adapters, file_format)
            and not disable_shuffling
            and _is_plain(read_config)
            and _are_small(file_instructions)
        ):
            return _read(file_instructions, read_config, shuffle_files)
        return stock(file_instructions, read_config, shuffle_files, disable_shuffling, file_format)

    reader._read_files = read_files


def _is_plain(read_config: Any) -> bool:
    """Whether a `tfds.ReadConfig` asks for nothing but what is done here."""
    default = type(read_config)()
    return read_config.interleave_cycle_length is not None and all(
        getattr(read_config, field.name) == getattr(default, field.name)
        for field in dataclasses.fields(read_config)
        if field.name not in _OPTIONS
    )


def _are_small(files: _Files) -> bool:
    if len(files) < _MANY_FILES:
        return False
    try:
        total = sum(os.stat(file.filename).st_size for file in files)
    except OSError:
        return False  # whoever reads it will say so
    return total < _SMALL_FILE_BYTES * len(files)


def _read(files: _Files, read_config: Any, shuffle_files: bool) -> _Dataset:
    import tensorflow as tf

    live_iterators.end_at_exit()
    order = tf.data.Dataset.range(len(files))
    if shuffle_files:
        order = order.shuffle(
            len(files),
            seed=read_config.shuffle_seed,
            reshuffle_each_iteration=read_config.shuffle_reshuffle_each_iteration,
        )
    interleaving = Interleaving(
        files,
        read_config.interleave_block_length or 1,  # as in tf.data
        read_config.override_buffer_size or record_batches.BATCH_BYTES,
    )
    cycle_length = read_config.interleave_cycle_length
    start = interleaving.start(cycle_length if isinstance(cycle_length, int) else _CYCLE_LENGTH)
    dataset = order.batch(len(files), drop_remainder=True).flat_map(
        lambda places: record_batches.batches_of(interleaving.read, places, tf.constant(start))
    )
    if read_config.assert_cardinality:
        count = sum(file.take for file in files)
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(count))
    return dataset.with_options(read_config.options)


class Interleaving:
    """The order in which the records of some files are read, as that of tf.data's `interleave`.

    Some slots, each with a file, take turns; in its turn a slot gives the next `block_length` records. One
    whose file is at its end takes the next file in its next turn.

    Where the reading is, is a list of integers, which tf.data keeps: how many files were begun; the slot
    whose turn it is; how many records it has given; and for each slot the number of its file, or -1, and
    the position in that.

    Args:
      files: The files: `tfds.core.utils.shard_utils.FileInstruction`s.
      block_length: How many records of a file come one after the other.
      batch_bytes: How many bytes are read at a time.
    """

    def __init__(self, files: _Files, block_length: int, batch_bytes: int) -> None:
        self._files = files
        self._block_length = block_length
        self._batch_bytes = batch_bytes

    def start(self, cycle_length: int) -> npt.NDArray[np.int64]:
        """Returns the state to begin with; `cycle_length` is the number of slots."""
        return np.array([0, 0, 0, *[_NONE, 0] * cycle_length], np.int64)

    def read(
        self, order: npt.NDArray[np.int64], state: npt.NDArray[np.int64]
    ) -> tuple[Batch, list[int]]:
        """Reads the next records.

        Args:
          order: The numbers of the files.
          state: Where the reading is.

        Returns:
          The records, which are none at the end; and where the reading is then.
        """
        begun, turn, taken, *flat = state.tolist()
        slots = [flat[at : at + 2] for at in range(0, len(flat), 2)]
        num_open = sum(number != _NONE for number, _ in slots)
        batch = Batch(self._batch_bytes)
        while not batch.is_full and (num_open or begun < len(order)):
            slot = slots[turn]
            if slot[0] == _NONE and begun < len(order):
                number = int(order[begun])
                slot[:] = number, self._files[number].skip
                begun += 1
                num_open += 1
            if slot[0] != _NONE:
                before = len(batch.records)
                is_over = self._read_file(batch, slot, self._block_length - taken)
                taken += len(batch.records) - before
                if is_over:
                    slot[0] = _NONE
                    num_open -= 1
                elif taken < self._block_length:
                    continue  # the file is at its end, or the batch is full
            turn, taken = (turn + 1) % len(slots), 0
        return batch, [begun, turn, taken, *itertools.chain(*slots)]

    def _read_file(self, batch: Batch, slot: list[int], count: int) -> bool:
        """Reads from the file of a slot, and moves its position; returns whether it was at its end."""
        number, position = slot
        file = self._files[number]
        stop = file.skip + file.take
        path = os.fspath(file.filename)
        slot[1], found = batch.read(path, position, stop, count)
        if slot[1] == found < stop:
            return batch.fail(
                errors.CorruptDatasetError(
                    f"{path} has {found} records, dataset_info.json says {file.examples_in_shard}. This "
                    "copy of the dataset is not of one piece; copy it again."
                )
            )
        return bool(position >= stop)

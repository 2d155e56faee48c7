# SPDX-License-Identifier: Apache-2.0
"""From chunks of episodes to elements: cuts, shuffles, decodes and batches them.

An element (a transition, a window) is a list of row numbers of the chunk: two, or `length`. Elements
are cut out in blocks, so that what overlapping windows take does not grow with the episode.

    chunk   rows (N, ...)                                at (E, k)
      without a shuffle: slices of it, so that a row is decoded once for all elements that hold it
    block   rows (hi - lo, ...)                          at (B, k), from lo on
      decode, gather
    batch   rows (B, k, ...)

      else: rows per element, so that elements can be taken apart before anything is decoded
    block   rows (B, k, ...)
      unbatch, shuffle, batch, decode
    batch   rows (B, k, ...)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import tensorflow as tf
import tensorflow_datasets as tfds

from envlogger.options import check_count, check_kind
from envlogger.tfds.loaders import decoding, on_disk, sources
from envlogger.tfds.loaders.columns import Column, Rows, Tensor
from envlogger.tfds.loaders.shuffling import Shuffle

# A block is of this size when decoded: large enough for few calls, small enough for many cores.
_BLOCK_BYTES = 1 << 20
_BLOCK_ELEMENTS = 4096

# Batches that are read from disk at the same time.
_READ_BYTES = 256 << 20
_MOST_READS = 16


@dataclasses.dataclass(frozen=True)
class Cut:
    """Elements of a chunk.

    Attributes:
      rows: The stored rows of each column, by name: (N, ...).
      at: Which rows each of the E elements has: (E, k) int64, rising.
      extras: What else the elements have, by name: (E, ...) tensors, or tuples of them.
    """

    rows: dict[str, Rows]
    at: Tensor
    extras: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Batching:
    """How elements are handed out: what all loaders of elements have in common.

    Attributes:
      shuffle: What to shuffle.
      batch_size: Elements per batch; None for single elements.
      drop_remainder: Whether to leave out a last batch that is not full.
      interleave: The elements of so many episodes alternate.
      read_config: A `tfds.ReadConfig`.
    """

    shuffle: Shuffle
    batch_size: int | None
    drop_remainder: bool
    interleave: int
    read_config: Any

    @classmethod
    def of(
        cls,
        batch_size: int | None,
        drop_remainder: bool,
        shuffle: Shuffle | None,
        interleave: int,
        read_config: Any,
    ) -> Self:
        """Returns the options as the loaders take them, checked and with their defaults.

        Raises:
          OptionError: One of them is not allowed.
        """
        if batch_size is not None:
            batch_size = check_count("batch_size", batch_size)
        interleave = check_count("interleave", interleave)
        shuffle = check_kind("shuffle", shuffle, Shuffle) or Shuffle()
        read_config = check_kind("read_config", read_config, tfds.ReadConfig) or tfds.ReadConfig()
        return cls(shuffle, batch_size, drop_remainder, interleave, read_config)


def chunks(parts: Sequence[sources.Part], columns: Sequence[Column], batching: Batching) -> Any:
    """Returns chunks of episodes: rows by column (N, ...), and the lengths of the episodes (n,) int64.

    The rows of columns that are not late are decoded.
    """
    where = ", ".join(part.where for part in parts)

    def parse(element: dict[str, Tensor]) -> tuple[dict[str, Rows], Tensor]:
        _, rows, lengths = on_disk.parse(element[sources.RECORD], columns, where)
        for column in columns:
            if not decoding.is_late(column):
                rows[column.name] = decoding.decode(column, rows[column.name])
        return rows, lengths

    records = sources.read_records(
        parts, batching.shuffle, batching.read_config, on_disk.store_of(columns)
    )
    records = records.batch(sources.chunk_size(parts, batching.interleave))
    return sources.map_in_parallel(records, parse, batching.read_config)


def block_size(columns: Sequence[Column], width: int, batching: Batching) -> int:
    """Returns how many elements of `width` rows to decode at a time; never more than a batch."""
    size = sum(map(decoding.row_bytes, columns)) * width
    count = max(min(_BLOCK_BYTES // max(size, 1), _BLOCK_ELEMENTS), 1)
    return min(count, batching.batch_size or count)


def fills_batches(late: Sequence[Column], batching: Batching) -> bool:
    """Whether the rows of all columns that are late go straight from disk into batches."""
    return batching.batch_size is not None and bool(late) and all(map(on_disk.fills_arrays, late))


def map_blocks(
    dataset: Any,
    function: Callable[..., Any],
    late: Sequence[Column],
    num_rows: int,
    batching: Batching,
) -> Any:
    """Maps blocks, on as many cores as `read_config` says.

    Where it leaves that open, and blocks are whole batches that are read from disk, so many are read at the
    same time as take 256 MiB, or one: TensorFlow would have one under way for each core, however large.

    Args:
      dataset: Of blocks.
      function: What is mapped.
      late: The columns that it decodes.
      num_rows: Of a block.
      batching: How elements are handed out.
    """
    config = batching.read_config
    if (
        not fills_batches(late, batching)
        or config.num_parallel_calls_for_decode != tf.data.AUTOTUNE
    ):
        return sources.map_in_parallel(dataset, function, config)
    size = sum(map(decoding.row_bytes, late)) * num_rows
    calls = min(max(_READ_BYTES // max(size, 1), 1), _MOST_READS)
    return dataset.map(sources.as_is(function), num_parallel_calls=calls)


def in_blocks(dataset: Any, size: int, batching: Batching) -> Any:
    """Returns batches of any size as batches of `size`, shuffled if that was asked for."""
    shuffle = batching.shuffle
    drop = batching.drop_remainder and size == batching.batch_size
    if shuffle.steps:
        dataset = sources.unbatch(dataset).shuffle(shuffle.steps, seed=shuffle.seed)
        return dataset.batch(size, drop_remainder=drop)
    return dataset.rebatch(size, drop_remainder=drop)


def hand_out(dataset: Any, size: int | None, batching: Batching) -> Any:
    """Returns batches of `size` (None: of any size) as single elements or batches, as was asked for."""
    if batching.batch_size is None:
        return sources.unbatch(dataset)
    if batching.batch_size == size:
        return dataset
    dataset = dataset.rebatch(batching.batch_size, drop_remainder=batching.drop_remainder)
    # tf.distribute looks for the batches that it has to divide, and does not see through the map. Else it
    # takes what was batched before for them, in TensorFlow 2.21, and leaves out `rebatch`.
    return dataset.map(sources.as_is(lambda element: element))


def take(rows: Any, indices: Tensor) -> Any:
    """Returns rows by their numbers, of each part of a nest."""
    return tf.nest.map_structure(lambda part: tf.gather(part, indices), rows)


def copied(rows: Any) -> Any:
    """Returns a copy of rows that may be a slice of others.

    TensorFlow 2.21's `rebatch` logs an error for each slice that it is given, and its slices are such.
    """
    count = rows.nrows() if isinstance(rows, tf.RaggedTensor) else tf.shape(rows)[0]
    return tf.gather(rows, tf.range(count))


class Values:
    """The rows of B elements of k rows each, decoded when they are asked for.

    Args:
      part: Returns rows of a column by its name: all of the elements, (B, k, ...), or of each the one of a
        number below k, (B, ...).
    """

    def __init__(self, part: Callable[[str, int | None], Any]) -> None:
        self._part = part

    def all(self, name: str) -> Any:
        """Returns the values of a column: (B, k, ...)."""
        return self._part(name, None)

    def nth(self, name: str, index: int) -> Any:
        """Returns the values that a column has in one row of each element: (B, ...)."""
        return self._part(name, index)


def elements(
    source: Any,
    cut: Callable[..., Cut],
    build: Callable[[Values, dict[str, Any]], Any],
    columns: Sequence[Column],
    widths: Mapping[str, int],
    is_overlapping: bool,
    batching: Batching,
) -> Any:
    """Returns a dataset of elements.

    Args:
      source: A dataset of what `cut` takes: of tuples.
      cut: Cuts one chunk.
      build: Makes a batch: from the values of each column, and the extras.
      columns: Those of the rows.
      widths: How many of an element's k rows, the first ones, are needed of each column, by name.
      is_overlapping: Whether a row is part of more than one element, so that it had better be decoded
        before it is copied.
      batching: How to hand out the elements.
    """
    shuffle = batching.shuffle
    late = [column for column in columns if decoding.is_late(column)]
    is_cut_up = shuffle.steps > 0 or batching.interleave > 1
    # Rows that lie on disk as they are go from there into the batch, as often as they are in it.
    is_filled = fills_batches(late, batching) and (
        is_cut_up or not is_overlapping or not any(map(on_disk.is_image, late))
    )
    in_slices = is_overlapping and not is_cut_up and not is_filled
    width = max(widths.values(), default=1)
    size = (is_filled and batching.batch_size) or block_size(columns, width, batching)

    def cut_blocks(*chunk: Any) -> Any:
        whole = cut(*chunk)
        count = tf.shape(whole.at, tf.int64)[0]

        def block(index: Tensor) -> Any:
            # Not a slice; see `copied`.
            part = tf.range(index * size, tf.minimum((index + 1) * size, count))
            at, extras = take((whole.at, whole.extras), part)
            if in_slices:
                low, high = tf.reduce_min(at), tf.reduce_max(at) + 1
                rows = tf.nest.map_structure(lambda rows: rows[low:high], whole.rows)
                return rows, extras, at - low
            first = _first(at, widths)
            return {name: take(whole.rows[name], first[name]) for name in widths}, extras

        return tf.data.Dataset.range(-(-count // size)).map(sources.as_is(block))

    def finish_slice(rows: dict[str, Rows], extras: dict[str, Any], at: Tensor) -> Any:
        decoded = rows | {c.name: decoding.decode(c, rows[c.name]) for c in late}
        first = _first(at, widths)

        def part(name: str, index: int | None) -> Any:
            return take(decoded[name], first[name] if index is None else at[:, index])

        return build(Values(part), extras)

    def finish_elements(rows: dict[str, Rows], extras: dict[str, Any]) -> Any:
        late_by_name = {column.name: column for column in late}

        def part(name: str, index: int | None) -> Any:
            stored = rows[name] if index is None else _nth(rows[name], index, widths[name])
            column = late_by_name.get(name)
            if column is None:
                return stored
            if index is None:
                return _decode_elements(column, stored, widths[name])
            return decoding.decode(column, stored)

        return build(Values(part), extras)

    dataset = source.flat_map(sources.as_is(cut_blocks))
    if in_slices:
        dataset = sources.map_in_parallel(dataset, finish_slice, batching.read_config)
        dataset = hand_out(dataset, None, batching)
    else:
        is_exact = shuffle.steps > 0 or is_filled
        dataset = in_blocks(dataset, size, batching) if is_exact else dataset
        dataset = map_blocks(dataset, finish_elements, late, size * width, batching)
        dataset = hand_out(dataset, size if is_exact else None, batching)
    return sources.prefetch(dataset, batching.read_config)


def _first(at: Tensor, widths: Mapping[str, int]) -> dict[str, Tensor]:
    """Returns the rows (E, width) that are needed of each column, of (E, k)."""
    parts = {width: at[:, :width] for width in set(widths.values())}
    return {name: parts[width] for name, width in widths.items()}


def _nth(rows: Rows, index: int, width: int) -> Rows:
    """Returns one row of each element, (B, ...), of rows (B, k, ...) of k = `width` rows each."""

    def take_of(part: Any) -> Any:
        if not isinstance(part, tf.RaggedTensor):
            return part[:, index]
        return tf.gather(part.merge_dims(0, 1), tf.range(part.nrows()) * width + index)

    return tf.nest.map_structure(take_of, rows)


def _decode_elements(column: Column, rows: Rows, width: int) -> Any:
    """Decodes rows (B, k, ...)."""
    flat = tf.nest.map_structure(_merge_two, rows)
    return tf.nest.map_structure(
        lambda values: _split_two(values, width), decoding.decode(column, flat)
    )


def _merge_two(rows: Rows) -> Rows:
    if isinstance(rows, tf.RaggedTensor):
        return rows.merge_dims(0, 1)
    count = -1 if None in rows.shape[:2] else rows.shape[0] * rows.shape[1]
    return tf.reshape(rows, tf.concat([[count], tf.shape(rows)[2:]], 0))


def _split_two(values: Any, width: int) -> Any:
    if isinstance(values, tf.RaggedTensor):
        return tf.RaggedTensor.from_uniform_row_length(values, width, validate=False)
    count = -1 if values.shape[0] is None else values.shape[0] // width
    result = tf.reshape(values, tf.concat([[count, width], tf.shape(values)[1:]], 0))
    return tf.ensure_shape(result, (None, width, *values.shape[1:]))

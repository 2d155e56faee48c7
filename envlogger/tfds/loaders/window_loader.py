# SPDX-License-Identifier: Apache-2.0
"""`windows`: one element per run of consecutive steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from envlogger import errors
from envlogger.options import check_bool, check_count
from envlogger.tfds.loaders import blocks, columns, episode_rows, on_disk, sources
from envlogger.tfds.loaders.columns import Rows, Tensor
from envlogger.tfds.loaders.shuffling import Shuffle

MASK = "mask"


def windows(
    source: sources.Source,
    split: Any = "train",
    *,
    length: int,
    stride: int | None = None,
    pad: bool = False,
    fields: Sequence[str] | None = None,
    batch_size: int | None = None,
    drop_remainder: bool = False,
    shuffle: Shuffle | None = None,
    interleave: int = 1,
    read_config: Any = None,
) -> Any:
    """Returns windows: `length` consecutive steps of an episode.

    The windows of an episode of T steps start at its steps 0, stride, 2 * stride, ... Without padding,
    all of them are full; the steps after the last full window are left out, and so are episodes shorter
    than `length`. With padding, there is one window more if that leaves steps out: zeros (empty
    strings, False) follow its last step. An example, of T = 8 and length 4:

        stride 4              0123 4567
        stride 3              0123 3456
        stride 3, pad         0123 3456 67..         mask of the last: 1100
        stride 6              0123
        stride 6, pad         0123 67..

    Only the steps that a window holds are decoded, and of large episodes of images only these are read: a
    stride larger than `length` saves that much. Where windows overlap, an image is decoded once for all
    of them, unless `shuffle.steps` or `interleave` take them apart.

    Args:
      source: As in `steps`, as are the other arguments.
      split: The episodes to read.
      length: How many steps a window has.
      stride: How many steps later the next window starts; by default `length`, so that they do not
        overlap.
      pad: Whether to give windows that run over the end of their episode.
      fields: The fields of the step to load; by default all.
      batch_size: How many windows to batch; None for single windows.
      drop_remainder: Whether to leave out a last batch that is not full.
      shuffle: What to shuffle, and with which seed; `steps` is of windows.
      interleave: The windows of so many episodes alternate.
      read_config: A `tfds.ReadConfig`.

    Returns:
      A `tf.data.Dataset` of dicts, nested as the features of the step, of (length, ...) tensors, or
      (B, length, ...) in batches; and `mask`, bool (length,): False where a step is padding. Where all
      episodes are shorter than `length`, and not padded, there is no element. Images whose size is
      unknown must be of one size.

    Raises:
      OptionError, DatasetError, UnsupportedValueError: As in `steps`.
      NameConflictError: The steps have a field `mask`.
    """
    length = check_count("length", length)
    stride = length if stride is None else check_count("stride", stride)
    pad = check_bool("pad", pad)
    batching = blocks.Batching.of(batch_size, drop_remainder, shuffle, interleave, read_config)
    parts = sources.open_source(source, split, "windows")
    chosen = on_disk.leave_on_disk(
        parts, columns.open_columns(parts, fields, "windows"), reads_all=stride <= 2 * length
    )
    if any(column.path[0] == MASK for column in chosen):
        raise errors.NameConflictError(
            f"windows: the steps of {parts[0].where} have a field {MASK!r}, which is the name of the "
            "mask of padding. Leave it out: windows(..., fields=[...])."
        )

    def cut(rows: dict[str, Rows], lengths: Tensor) -> blocks.Cut:
        counts = _count(lengths, length, stride, pad)
        elements = episode_rows.members(counts)
        first_row = tf.gather(episode_rows.starts_of(lengths), elements.episode)
        start = first_row + elements.position * stride
        stop = first_row + tf.gather(lengths, elements.episode)
        if interleave > 1:
            start, stop = blocks.take((start, stop), episode_rows.interleaved(elements, interleave))
        at = start[:, None] + tf.range(length, dtype=tf.int64)
        mask = at < stop[:, None]
        # Padding repeats the last step, for now: a row that is decoded anyway.
        return blocks.Cut(rows, tf.minimum(at, stop[:, None] - 1), {MASK: mask})

    def build(found: blocks.Values, extras: dict[str, Tensor]) -> dict[str, Any]:
        mask = tf.ensure_shape(extras[MASK], (None, length))
        values = {column.name: found.all(column.name) for column in chosen}
        if pad:
            values = tf.nest.map_structure(lambda value: _zero_where_not(mask, value), values)
        return {**columns.pack(values, chosen), MASK: mask}

    return blocks.elements(
        blocks.chunks(parts, chosen, batching),
        cut,
        build,
        chosen,
        widths={column.name: length for column in chosen},
        is_overlapping=stride < length,
        batching=batching,
    )


def _count(lengths: Tensor, length: int, stride: int, pad: bool) -> Tensor:
    """Returns how many windows episodes have: (n,) int64."""
    beyond = lengths - length
    if not pad:
        return tf.where(beyond < 0, tf.zeros_like(lengths), beyond // stride + 1)
    # Until a window reaches the end; but each starts before it.
    until_end = -(-tf.maximum(beyond, 0) // stride) + 1
    return tf.minimum(until_end, -(-lengths // stride))


def _zero_where_not(mask: Tensor, value: Any) -> Any:
    """Returns values (B, k, ...) with zeros, or empty ones, where the mask (B, k) is False."""
    if isinstance(value, tf.RaggedTensor):
        rows = _empty_where_not(tf.reshape(mask, [-1]), value.merge_dims(0, 1))
        return tf.RaggedTensor.from_uniform_row_length(rows, mask.shape[1], validate=False)
    rows = tf.reshape(value, tf.concat([[tf.size(mask)], tf.shape(value)[2:]], 0))
    # It copies whole rows; tf.where asks for each element of them.
    rows = tf.raw_ops.Select(condition=tf.reshape(mask, [-1]), x=rows, y=tf.zeros_like(rows))
    return tf.reshape(rows, tf.shape(value))


def _empty_where_not(keep: Tensor, rows: Any) -> Any:
    if rows.uniform_row_length is not None:  # (R, 3, None): there, the inner rows are emptied
        inner = _empty_where_not(tf.repeat(keep, rows.uniform_row_length), rows.values)
        return tf.RaggedTensor.from_uniform_row_length(
            inner, rows.uniform_row_length, validate=False
        )
    lengths = rows.row_lengths()
    # What `rows.value_rowids()` says, in a quarter of the ops.
    kept = tf.where(tf.gather(keep, episode_rows.members(lengths).episode))[:, 0]
    row_lengths = tf.where(keep, lengths, tf.zeros((), tf.int64))
    return tf.RaggedTensor.from_row_lengths(
        tf.gather(rows.values, kept), row_lengths, validate=False
    )

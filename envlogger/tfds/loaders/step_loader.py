# SPDX-License-Identifier: Apache-2.0
"""`steps`: one element per step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from envlogger.tfds.loaders import blocks, columns, decoding, episode_rows, on_disk, sources
from envlogger.tfds.loaders.columns import Column, Rows, Tensor
from envlogger.tfds.loaders.shuffling import Shuffle


def steps(
    source: sources.Source,
    split: Any = "train",
    *,
    fields: Sequence[str] | None = None,
    batch_size: int | None = None,
    drop_remainder: bool = False,
    shuffle: Shuffle | None = None,
    interleave: int = 1,
    read_config: Any = None,
) -> Any:
    """Returns the steps of all episodes: what `flat_map` over stock TFDS's episodes gives, but faster.

        for step in envlogger.tfds.steps("data/catch/1.0.0", fields=["observation", "action"]):
            step["observation"]  # float32 (10, 5)

    The order is TFDS's, which interleaves files (16 at a time, 16 episodes of each) unless
    `read_config` has `interleave_cycle_length=1`: then it is the order in which they were recorded.

    In RLDS's alignment, step t holds observation t, the action that was taken in it, and the reward and
    discount that came of it. In the last step, these three are padding.

    Args:
      source: The version directory of a dataset; a `tfds.core.DatasetBuilder`; or a list of these, whose
        fields must be stored in the same way. They are read one after the other; with `shuffle.files`,
        mixed at random in proportion to their numbers of episodes.
      split: A split, a slice of one such as `train[:80%]`, several joined by `+`, or a
        `tfds.core.ReadInstruction`. For a list, it is taken of each dataset.
      fields: The fields of the step to load, such as `observation` or `observation/camera`; by default
        all. Nothing else is parsed.
      batch_size: How many steps to batch; None for single steps. Faster than `.batch` afterwards.
      drop_remainder: Whether to leave out a last batch that is not full, so that shapes are static.
      shuffle: What to shuffle, and with which seed.
      interleave: The steps of so many episodes alternate.
      read_config: A `tfds.ReadConfig`. Its `try_autocache` has no effect: call `.cache()` where you want
        it. `add_tfds_id` has an effect in `episodes` only.

    Returns:
      A `tf.data.Dataset` of dicts, nested as the features of the step. Values are as stock TFDS gives
      them; in batches, (B, ...). Values of varying shape are batched as `tf.RaggedTensor`, and images of
      varying size can't be batched.

    Raises:
      OptionError: An argument has a value that is not allowed; there is no such split or field.
      DatasetError: The directory is not a dataset in RLDS form, or the datasets of a list disagree.
      UnsupportedValueError: A feature is one that TFDS cannot read; leave it out by `fields`.
    """
    batching = blocks.Batching.of(batch_size, drop_remainder, shuffle, interleave, read_config)
    parts = sources.open_source(source, split, "steps")
    chosen = on_disk.leave_on_disk(parts, columns.open_columns(parts, fields, "steps"))
    late = [column for column in chosen if decoding.is_late(column)]

    def rows_of(rows: dict[str, Rows], lengths: Tensor) -> dict[str, Any]:
        if interleave > 1:
            order = episode_rows.interleaved(episode_rows.members(lengths), interleave)
            rows = blocks.take(rows, order)
        return rows if late else columns.pack(rows, chosen)

    dataset = blocks.chunks(parts, chosen, batching)
    dataset = sources.map_in_parallel(dataset, rows_of, batching.read_config)
    dataset = _batch_and_decode(dataset, chosen, late, batching)
    return sources.prefetch(dataset, batching.read_config)


def _batch_and_decode(
    dataset: Any, chosen: Sequence[Column], late: Sequence[Column], batching: blocks.Batching
) -> Any:
    """Makes steps of rows (N, ...), which hold the stored values of the columns that are late."""
    size, shuffle, config = batching.batch_size, batching.shuffle, batching.read_config
    block = blocks.block_size(chosen, 1, batching)
    # What has no common shape is decoded one by one, or where it is found out that it has one after all.
    unstackable = [column for column in late if not decoding.is_stackable(column)]
    single = [] if size else unstackable
    if size and (unstackable or blocks.fills_batches(late, batching)):
        block = size
    batched = [column for column in late if column not in single]

    def decode(rows: dict[str, Rows]) -> dict[str, Any]:
        values = {c.name: decoding.decode(c, rows[c.name]) for c in batched}
        if size and block < size:  # to be batched again
            rest = {c.name: rows[c.name] for c in chosen if c not in batched}
            values |= tf.nest.map_structure(blocks.copied, rest)
        return {**rows, **values} if single else columns.pack({**rows, **values}, chosen)

    def decode_single(rows: dict[str, Rows]) -> dict[str, Any]:
        values = {c.name: decoding.decode_one(c, rows[c.name]) for c in single}
        return columns.pack({**rows, **values}, chosen)

    if batched:
        dataset = blocks.in_blocks(dataset, block, batching)
        dataset = blocks.map_blocks(dataset, decode, late, block, batching)
        dataset = blocks.hand_out(dataset, block, batching)
    elif shuffle.steps and size:
        dataset = blocks.in_blocks(dataset, size, batching)
    elif shuffle.steps:
        dataset = sources.unbatch(dataset).shuffle(shuffle.steps, seed=shuffle.seed)
    else:
        dataset = blocks.hand_out(dataset, None, batching)
    if single:
        dataset = sources.map_in_parallel(dataset, decode_single, config)
    return dataset

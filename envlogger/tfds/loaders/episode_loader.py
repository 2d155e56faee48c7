# SPDX-License-Identifier: Apache-2.0
"""`episodes`: one element per episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds

from envlogger import errors
from envlogger.tfds.loaders import blocks, columns, decoding, on_disk, sources
from envlogger.tfds.loaders.columns import Tensor
from envlogger.tfds.loaders.shuffling import Shuffle


def episodes(
    source: sources.Source,
    split: Any = "train",
    *,
    fields: Sequence[str] | None = None,
    episode_fields: Sequence[str] | None = None,
    shuffle: Shuffle | None = None,
    read_config: Any = None,
) -> Any:
    """Returns the episodes, with their steps as columns.

        for episode in envlogger.tfds.episodes("data/catch/1.0.0", fields=["observation", "reward"]):
            episode["steps"]["observation"]  # float32 (T, 10, 5)
            episode["steps"]["reward"]  # float64 (T,)

    Args:
      source: As in `steps`, as are `split`, `shuffle` and `read_config`; `shuffle.steps` must be 0.
      split: The episodes to read.
      fields: The fields of the step to load, such as `observation` or `observation/camera`; by default
        all.
      episode_fields: The fields of the episode to load besides its steps, such as `episode_id`; by
        default all. An empty list for none.
      shuffle: What to shuffle, and with which seed.
      read_config: A `tfds.ReadConfig`; with `add_tfds_id`, episodes have a field `tfds_id`.

    Returns:
      A `tf.data.Dataset` of dicts: the fields of the episode as stock TFDS gives them, and `steps`, a
      dict of columns (T, ...). Columns of values that vary in shape are `tf.RaggedTensor`s; images whose
      size is unknown must be of one size in an episode.

    Raises:
      OptionError, DatasetError, UnsupportedValueError: As in `steps`.
    """
    batching = blocks.Batching.of(None, False, shuffle, 1, read_config)
    if batching.shuffle.steps:
        raise errors.OptionError(
            "episodes: got Shuffle(steps=...), but the steps of an episode stay in order. Use "
            "Shuffle(episodes=...), or `steps`."
        )
    parts = sources.open_source(source, split, "episodes")
    chosen = on_disk.leave_on_disk(parts, columns.open_columns(parts, fields, "episodes"))
    context = _context(parts, episode_fields)
    where = ", ".join(part.where for part in parts)

    def parse(element: dict[str, Tensor]) -> dict[str, Any]:
        records, rows, _ = on_disk.parse(element.pop(sources.RECORD)[None], chosen, where)
        values = {c.name: decoding.decode(c, rows[c.name]) for c in chosen}
        episode = context.deserialize_example(records[0]) if len(context) else {}
        return {**episode, **element, sources.STEPS: columns.pack(values, chosen)}

    dataset = sources.read_records(
        parts, batching.shuffle, batching.read_config, on_disk.store_of(chosen)
    )
    dataset = sources.map_in_parallel(dataset, parse, batching.read_config)
    return sources.prefetch(dataset, batching.read_config)


def _context(parts: Sequence[sources.Part], names: Sequence[str] | None) -> Any:
    """Returns the features of the episode besides its steps, as far as they were chosen.

    Raises:
      OptionError: There is no such field.
      DatasetError: The datasets do not agree about one.
    """
    chosen = _select(parts[0], names)
    for part in parts[1:]:
        theirs = _select(part, names)
        for name in sorted({*chosen, *theirs}):
            found = [table[name].to_json() for table in (chosen, theirs) if name in table]
            if len(found) < 2 or found[0] != found[1]:
                raise errors.DatasetError(
                    f"{part.where}: its episodes' field {name!r} is not that of {parts[0].where}. "
                    "Select the fields that the datasets have in common: episodes(..., "
                    "episode_fields=[...])."
                )
    return tfds.features.FeaturesDict(chosen)


def _select(part: sources.Part, names: Sequence[str] | None) -> dict[str, Any]:
    features = {key: item for key, item in part.features.items() if key != sources.STEPS}
    if names is None:
        return features
    if isinstance(names, str):
        raise errors.OptionError(f"episodes: episode_fields: got {names!r}, expected a list.")
    for name in names:
        if name not in features:
            raise errors.OptionError(
                f"episodes: episode_fields: got {name!r}, but the episodes of {part.where} have only: "
                f"{', '.join(features) or 'none'}."
            )
    return {name: features[name] for name in names}

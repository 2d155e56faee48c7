# SPDX-License-Identifier: Apache-2.0
"""Images that stay on disk until they are decoded.

Nearly all bytes of an episode of images are images, and what takes time is to copy them: out of the file,
out of the record, into blocks and out of them. Where episodes are large and lie in their files as they
are, a loader therefore reads the rest of an episode, and in place of a row that is an image it hands on
where that is: two numbers, the episode's and the step's. What was cut out and shuffled is read when it is
decoded, straight into the batch; and what is never decoded is never read.

Which files are read, in which order, and which of their episodes, is TFDS's matter as ever: it is given
datasets of numbers in place of datasets of records.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_datasets as tfds

from envlogger import errors
from envlogger.tfds import example, images, live_iterators, lru, png, shard_pool, structure
from envlogger.tfds.loaders import columns as columns_lib
from envlogger.tfds.loaders import episode_rows
from envlogger.tfds.loaders.buffers import Buffers
from envlogger.tfds.loaders.columns import Column, Rows, Tensor
from envlogger.tfds.loaders.sources import STEPS, Part
from envlogger.tfds.partial_record import ElementsOnDisk, ListOnDisk, PartialRecord

# Of what episodes have besides images, and of where these are.
_CACHE_BYTES = 64 << 20
_ELEMENT_BYTES = 150  # a tuple of two integers, and its place in a list

# Rows are read and decoded in groups of this size, so that they stay in the processor's cache.
_GROUP_BYTES = 1 << 18

# From here on, a row is worth being read by itself.
_LARGE_ROW = 1 << 13


@dataclasses.dataclass(frozen=True)
class _Episode:
    """What is known of an episode.

    Attributes:
      path: The file that it is in.
      features: Its features.
      rows: The stored rows of the columns that stay on disk, by name.
      num_steps: How many rows each of them has.
    """

    path: str
    features: Mapping[str, example.RawFeature]
    rows: dict[str, Sequence[memoryview]]
    num_steps: int


class EpisodesOnDisk:
    """The episodes of some datasets, which have a number each. Threads may share them.

    It is also what TFDS takes for the adapter of a file format: see `make_tf_data`.

    Args:
      parts: The datasets.
      compares: Whether episodes are compared with their hashes when they are first read, which takes
        reading all of them.
    """

    def __init__(self, parts: Sequence[Part], compares: bool) -> None:
        self._compares = compares
        shards: dict[str, shard_pool.Shard] = {}
        for part in parts:
            for file in part.split.file_instructions:
                path = os.fspath(file.filename)
                count = file.examples_in_shard
                shards[path] = shard_pool.Shard(path, count, _file_format(part))
        self._pool = shard_pool.ShardPool(list(shards.values()))
        self._numbers = {path: self._pool.records_of(i) for i, path in enumerate(shards)}
        self._columns: list[Column] = []
        self._buffers = Buffers()
        self._known: lru.LruCache[int, _Episode] = lru.LruCache(_CACHE_BYTES)

    def leave(self, columns: Sequence[Column], parts: Sequence[Part]) -> list[Column]:
        """Returns the columns, of which some now stay on disk."""
        samples = [self._sample(part) for part in parts]
        found = []
        for column in columns:
            if _is_large(column) and all(_is_on_disk(sample, column) for sample in samples):
                column = dataclasses.replace(column, on_disk=self)
                self._columns.append(column)
            found.append(column)
        return found

    def make_tf_data(self, filename: Any, buffer_size: int | None = None) -> Any:
        """Returns the numbers of the episodes in a file, where TFDS asks for its records."""
        del buffer_size
        live_iterators.end_at_exit()

        def range_of(path: bytes) -> tuple[np.int64, np.int64]:
            numbers = self._numbers[os.fsdecode(path)]
            return np.int64(numbers.start), np.int64(numbers.stop)

        start, stop = _call(range_of, [filename], [tf.int64, tf.int64])
        start.set_shape([])
        stop.set_shape([])
        return tf.data.Dataset.range(start, stop)

    def read_others(self, numbers: Tensor, columns: Sequence[Column]) -> tuple[Tensor, Tensor]:
        """Reads what does not stay on disk.

        Args:
          numbers: (n,) int64: of the episodes.
          columns: Those of the steps. What belongs to an episode is read in any case.

        Returns:
          (n,) string: serialized Examples; and (n,) int64: the numbers of steps.
        """
        names = {name for column in columns for name in columns_lib.stored_names(column)}

        def read(numbers: npt.NDArray[np.int64]) -> tuple[Any, npt.NDArray[np.int64]]:
            episodes = [self._episode(number) for number in numbers.tolist()]
            records = [
                example.serialize(
                    {
                        name: _in_memory(episode.features[name])
                        for name in episode.features
                        if name in names or not name.startswith(f"{STEPS}/")
                    }
                )
                for episode in episodes
            ]
            lengths = [episode.num_steps for episode in episodes]
            return structure.object_array(records), np.array(lengths, np.int64)

        records, lengths = _call(read, [numbers], [tf.string, tf.int64])
        records.set_shape([None])
        lengths.set_shape([None])
        return records, lengths

    def values(self, column: Column, places: Rows) -> Tensor:
        """Returns the values of N rows, (N, ...), of a column that `is_decoded`.

        Args:
          column: The column.
          places: (N, 2) int64: of each row, the numbers of its episode and step.
        """
        shape, dtype = tuple(column.feature.shape), np.dtype(column.feature.np_dtype)

        def read(places: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
            values = self._buffers.empty((len(places), *shape), dtype)
            fill = self._decode_into if is_image(column) else self._read_into
            fill(values, column, places.tolist())
            return values

        values = _call(read, [places], column.feature.tf_dtype)
        return tf.ensure_shape(values, (places.shape[0], *shape))

    def strings(self, column: Column, places: Rows) -> Tensor:
        """Returns N rows, (N,) string, as they are stored."""

        def read(places: npt.NDArray[np.int64]) -> Any:
            return structure.object_array(
                [bytes(row) for row in self._rows(column, places.tolist())]
            )

        return tf.ensure_shape(_call(read, [places], tf.string), places.shape[:1])

    def _read_into(
        self, values: npt.NDArray[Any], column: Column, places: Sequence[Sequence[int]]
    ) -> None:
        """Reads rows that are the bytes of an array each."""
        first = 0
        for number, start, stop in _runs(places):
            rows = values[first : first + stop - start]
            first += stop - start
            episode = self._episode(number)
            stored = episode.rows[column.name]
            try:
                if isinstance(stored, ElementsOnDisk):
                    stored.read_run_into(start, rows)
                    continue
                for row, data in zip(rows, stored[start:stop], strict=True):
                    row[...] = np.frombuffer(data, values.dtype).reshape(row.shape)
            except (errors.CorruptDatasetError, ValueError) as error:
                raise _damaged(episode, column, error) from error

    def _decode_into(
        self, values: npt.NDArray[Any], column: Column, places: Sequence[Sequence[int]]
    ) -> None:
        """Reads and decodes rows that are images."""
        size = max(_GROUP_BYTES * len(values) // max(values.nbytes, 1), 1)
        for first in range(0, len(places), size):
            group = places[first : first + size]
            rows = self._rows(column, group)
            some = values[first : first + size]
            if png.decode_into(some, rows):
                continue
            for i, row in enumerate(rows):
                try:
                    some[i] = _decode_image(column.feature, row)
                except (errors.CorruptDatasetError, ValueError) as error:
                    raise _damaged(self._episode(group[i][0]), column, error) from error

    def _rows(self, column: Column, places: Sequence[Sequence[int]]) -> list[memoryview]:
        """Returns rows as they are stored, which may share memory; those in a row are read at once."""
        rows: list[memoryview] = []
        for number, start, stop in _runs(places):
            episode = self._episode(number)
            stored = episode.rows[column.name]
            try:
                if isinstance(stored, ElementsOnDisk):
                    rows += stored.run(start, stop)
                else:
                    rows += stored[start:stop]
            except (errors.CorruptDatasetError, ValueError) as error:
                raise _damaged(episode, column, error) from error
        return rows

    def _episode(self, number: int) -> _Episode:
        episode = self._known.get(number)
        if episode is None:
            opened = self._pool.open(number)
            if opened is not None:
                if self._compares:
                    self._pool.compare(number)
                path, record = opened
                part = PartialRecord(record)
                episode = self._find_rows(path, part)
                size = part.num_bytes
            else:
                path, whole = self._pool.read(number)
                episode = self._find_rows(path, example.parse(whole))
                size = len(whole)
            size += _ELEMENT_BYTES * episode.num_steps * len(self._columns)
            self._known.put(number, episode, size)
        return episode

    def _find_rows(self, path: str, features: Mapping[str, example.RawFeature]) -> _Episode:
        rows: dict[str, Sequence[memoryview]] = {}
        for column in self._columns:
            try:
                rows[column.name] = _rows_of(features[f"{STEPS}/{column.name}"], column)
            except (KeyError, ValueError) as error:
                missing = isinstance(error, KeyError)
                detail = "it is not in the record" if missing else str(error)
                raise errors.CorruptDatasetError(f"{path}: {column.name}: {detail}.") from error
        lengths = {name: len(found) for name, found in rows.items()}
        if len(set(lengths.values())) > 1:
            raise errors.CorruptDatasetError(
                f"{path}: the fields of an episode differ in length, so the record is damaged: got "
                f"{lengths}."
            )
        return _Episode(path, features, rows, min(lengths.values()))

    def _sample(self, part: Part) -> Mapping[str, example.RawFeature]:
        """Returns the features of the first episode of a dataset; none if it is not read in parts."""
        path = os.fspath(part.split.file_instructions[0].filename)
        try:
            opened = self._pool.open(self._numbers[path][0])
            return {} if opened is None else PartialRecord(opened[1])
        except errors.CorruptDatasetError:
            return {}  # whoever reads it will say so


def leave_on_disk(
    parts: Sequence[Part], columns: Sequence[Column], *, reads_all: bool = True
) -> list[Column]:
    """Returns the columns, of which those stay on disk that are images and lie there as they are.

    Args:
      parts: The datasets.
      columns: The columns.
      reads_all: Whether all of them is read sooner or later; the loader then compares the hashes.
    """
    is_possible = all(_file_format(part) in shard_pool.FORMATS for part in parts)
    if not is_possible or not any(map(_is_large, columns)):
        return list(columns)
    return EpisodesOnDisk(parts, reads_all).leave(columns, parts)


def store_of(columns: Sequence[Column]) -> EpisodesOnDisk | None:
    """Returns where the columns are that stay on disk; None if there are none."""
    return next((c.on_disk for c in columns if c.on_disk is not None), None)


def parse(
    records: Tensor, columns: Sequence[Column], where: str
) -> tuple[Tensor, dict[str, Rows], Tensor]:
    """Parses a chunk of episodes: as `columns.parse` does, except for what stays on disk.

    Args:
      records: (n,) string: serialized Examples; if columns stay on disk, int64: numbers of episodes.
      columns: What to parse.
      where: The dataset, for messages.

    Returns:
      (n,) string: serialized Examples, which have the features of the episodes at least; the rows of
      each column, of those on disk the places, (N, 2) int64; and the numbers of steps, (n,) int64.
    """
    store = store_of(columns)
    if store is None:
        return records, *columns_lib.parse(records, columns, where)
    numbers, others = records, [column for column in columns if column.on_disk is None]
    records, lengths = store.read_others(numbers, others)
    rows: dict[str, Rows] = {}
    if others:
        rows, lengths = columns_lib.parse(records, others, where, lengths)
    episode, position = episode_rows.members(lengths)
    places = tf.stack([tf.gather(numbers, episode), position], axis=1)
    return records, rows | {c.name: places for c in columns if c.on_disk is not None}, lengths


def fills_arrays(column: Column) -> bool:
    """Whether the rows of a column go straight from disk into the array that they are wanted in."""
    return column.on_disk is not None and is_decoded(column)


def is_image(column: Column) -> bool:
    """Whether the rows of a column are images, which take longer to decode than to copy."""
    return isinstance(column.feature, tfds.features.Image)


def is_decoded(column: Column) -> bool:
    """Whether `EpisodesOnDisk.values` decodes a column; if not, its rows are `strings`."""
    feature = column.feature
    if not is_image(column):
        return True
    shape = tuple(feature.shape)
    return (
        feature.to_json_content().encoding_format == "png"
        and None not in shape
        and shape[2] in png.COLOR_TYPES
        and feature.np_dtype == np.uint8
    )


def _is_large(column: Column) -> bool:
    """Whether the rows of a column are images, or as large: each of them one string."""
    feature = column.feature
    if column.rank or isinstance(column.info, Mapping):
        return False
    if type(feature) is tfds.features.Image:
        return True
    if type(feature) is not tfds.features.Tensor or None in feature.shape:
        return False
    return (
        feature.to_json_content().encoding == "bytes"
        and feature.np_dtype.kind in "biuf"
        and math.prod(feature.shape) * feature.np_dtype.itemsize >= _LARGE_ROW
    )


def _runs(places: Sequence[Sequence[int]]) -> list[list[int]]:
    """Returns where steps follow one another: the number of the episode, start and stop."""
    runs: list[list[int]] = []
    for number, step in places:
        if runs and runs[-1][0] == number and runs[-1][2] == step:
            runs[-1][2] += 1
        else:
            runs.append([number, step, step + 1])
    return runs


def _damaged(episode: _Episode, column: Column, error: Exception) -> errors.CorruptDatasetError:
    return errors.CorruptDatasetError(f"{episode.path}: {column.name}: {error}")


def _in_memory(raw: example.RawFeature) -> example.RawFeature:
    return example.RawFeature(raw.kind, raw.data)


def _is_on_disk(features: Mapping[str, example.RawFeature], column: Column) -> bool:
    name = f"{STEPS}/{column.name}"
    return name in features and isinstance(features[name], ListOnDisk)


def _file_format(part: Part) -> str:
    return str(part.builder.info.file_format.value)


def _rows_of(raw: example.RawFeature, column: Column) -> Sequence[memoryview]:
    if not isinstance(raw, ListOnDisk):
        return example.decode_bytes(raw)
    if is_image(column):
        return raw.elements()
    return raw.elements_of(math.prod(column.feature.shape) * column.feature.np_dtype.itemsize)


def _decode_image(feature: Any, row: memoryview) -> npt.NDArray[np.uint8]:
    """Decodes a PNG; TensorFlow, which is slower, decodes what can be understood in two ways."""
    channels = feature.shape[2]
    header = bytes(row[:26])
    if header[:8] == png.SIGNATURE and header[24:] == bytes((8, png.COLOR_TYPES[channels])):
        image = images.decode(row, channels)
        if image.shape != tuple(feature.shape):
            raise ValueError(f"got an image of shape {image.shape}")
        return image
    value: npt.NDArray[np.uint8] = feature.decode_example(tf.constant(bytes(row))).numpy()
    return value


def _call(function: Callable[..., Any], inputs: Sequence[Any], dtypes: Any) -> Any:
    """Calls Python within a pipeline. Of a function that is stateful, no iterator can be saved."""
    return tf.numpy_function(function, inputs, dtypes, stateful=False)

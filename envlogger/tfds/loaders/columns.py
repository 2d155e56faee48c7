# SPDX-License-Identifier: Apache-2.0
"""The fields of a step as columns: which there are, and how chunks of episodes are parsed into them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import tensorflow as tf
import tensorflow_datasets as tfds

from envlogger import errors
from envlogger.options import select_names
from envlogger.tfds.loaders.sources import STEPS, Part

# A tf.Tensor or tf.RaggedTensor; where a feature is stored in several parts, a dict of them.
Rows: TypeAlias = Any
Tensor: TypeAlias = Any
TensorInfo: TypeAlias = Any  # tfds.features.TensorInfo


@dataclasses.dataclass(frozen=True)
class Column:
    """A leaf of the step's features.

    Attributes:
      path: Its keys, from the step downwards: `("observation", "camera")`.
      feature: The `FeatureConnector` that decodes one value.
      info: How a step's value is stored: a `TensorInfo`, or a dict of them.
      rank: In how many `Sequence`s the feature lies, within the step.
      on_disk: The `EpisodesOnDisk` that its rows are read from when they are decoded; None for rows that
        are parsed with the record.
    """

    path: tuple[str, ...]
    feature: Any
    info: Any
    rank: int
    on_disk: Any = None

    @property
    def name(self) -> str:
        """The path as users write it: `observation/camera`."""
        return "/".join(self.path)

    def stored_parts(self) -> dict[str, TensorInfo]:
        """Returns how the column is stored, by the name of the part in the `Example`."""
        return dict(_flatten(self.info, f"{STEPS}/{self.name}"))


def _flatten(info: Any, name: str) -> Iterator[tuple[str, TensorInfo]]:
    if isinstance(info, Mapping):
        for key, item in info.items():
            yield from _flatten(item, f"{name}/{key}")
    else:
        yield name, info


def open_columns(
    parts: Sequence[Part], fields: Sequence[str] | None, loader: str
) -> tuple[Column, ...]:
    """Returns the columns of the steps that are to be loaded.

    Args:
      parts: The datasets; they must agree about these columns.
      fields: Names of fields, or of dicts of them, such as `observation` or `observation/camera`; None
        for all fields.
      loader: The function that asks, for messages.

    Raises:
      OptionError: There is no such field.
      DatasetError: The datasets do not agree.
      UnsupportedValueError: Stock TFDS cannot read a feature.
    """
    first, *others = ([*_columns(part)] for part in parts)
    chosen = _select(first, fields, parts[0].where, loader)
    for part, columns in zip(parts[1:], others, strict=True):
        theirs = {column.name: column for column in _select(columns, fields, part.where, loader)}
        mine = {column.name: column for column in chosen}
        for name in sorted({*mine, *theirs}):
            stored = [_identity(table[name]) for table in (mine, theirs) if name in table]
            if len(stored) < 2 or stored[0] != stored[1]:
                raise errors.DatasetError(
                    f"{part.where}: its field {name!r} is not stored as in {parts[0].where}: got "
                    f"{theirs[name].feature if name in theirs else 'no such field'}, expected "
                    f"{mine[name].feature if name in mine else 'no such field'}. Select the fields "
                    f"that the datasets have in common: {loader}(..., fields=[...])."
                )
    for column in chosen:
        _check(column, parts[0].where, loader)
    return tuple(chosen)


def _columns(part: Part) -> Iterator[Column]:
    features = part.step_features
    leaves = zip(
        features.flat_features,
        features.flat_serialized_info,
        features.flat_sequence_ranks,
        strict=True,
    )
    for path, (feature, info, rank) in zip(_paths(features, ()), leaves, strict=True):
        yield Column(path, feature, info, rank)


def _paths(feature: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yields the paths of the leaves, in the order of TFDS's `flat_features`."""
    if isinstance(feature, tfds.features.FeaturesDict):
        for key, item in sorted(feature.items()):
            yield from _paths(item, (*path, key))
    elif isinstance(feature, tfds.features.Sequence):
        yield from _paths(feature.feature, path)
    else:
        yield path


def _identity(column: Column) -> Any:
    return column.feature.to_json(), column.rank, repr(column.info)


def _select(
    columns: Sequence[Column], fields: Sequence[str] | None, where: str, loader: str
) -> list[Column]:
    known = [column.name for column in columns]
    names = {*select_names(f"{loader}: fields", fields, known, f"the steps of {where}")}
    return [column for column in columns if column.name in names]  # in their own order


def _check(column: Column, where: str, loader: str) -> None:
    """Refuses what stock TFDS cannot read below `steps`, either.

    Raises:
      UnsupportedValueError: It is such a feature.
    """
    for name, info in column.stored_parts().items():
        rank = info.sequence_rank
        is_fixed = None not in info.shape[rank:] and info.shape[:rank] == (None,) * rank
        if not is_fixed or 0 in info.shape or _stored_dtype(info) is None:
            raise errors.UnsupportedValueError(
                f"{loader}: {name} of {where} is stored as {info}, which TFDS cannot read inside of "
                f"steps. Leave it out: {loader}(..., fields=[...])."
            )


def _stored_dtype(info: TensorInfo) -> Any:
    """Returns the dtype of the list in the `Example`, as TFDS chooses it."""
    dtype = info.tf_dtype
    if dtype.is_integer or dtype.is_bool:
        return tf.int64
    if dtype.is_floating:
        return tf.float32
    return tf.string if dtype == tf.string else None


def pack(values: Mapping[str, Any], columns: Sequence[Column]) -> dict[str, Any]:
    """Returns the values of columns, by name, as a dict that is nested as the step is."""
    tree: dict[str, Any] = {}
    for column in columns:
        node = tree
        for key in column.path[:-1]:
            node = node.setdefault(key, {})
        node[column.path[-1]] = values[column.name]
    return tree


# --- parsing ---------------------------------------------------------------------------------------


def parse(
    records: Tensor, columns: Sequence[Column], where: str, lengths: Tensor | None = None
) -> tuple[dict[str, Rows], Tensor]:
    """Parses a chunk of episodes.

    Args:
      records: (n,) string: serialized `tf.train.Example`s.
      columns: What to parse of them.
      where: The dataset, for messages.
      lengths: (n,) int64: the number of steps of each episode; by default that of the first column.

    Returns:
      The stored rows of each column, by its name: (N, ...) tensors, or ragged ones, where N is the
      number of steps of all n episodes; and the number of steps of each episode, (n,) int64. At
      runtime, episodes whose columns differ in length are an InvalidArgumentError.
    """
    specs: dict[str, Any] = {}
    for column in columns:
        for name, info in column.stored_parts().items():
            specs.update(_specs(name, info))
    lists = tf.io.parse_example(records, specs)

    # Every list has so many items per step.
    ends, sizes = [], []
    for column in columns:
        for name, info in column.stored_parts().items():
            is_ragged = info.sequence_rank > 0
            key = f"{name}/ragged_row_lengths_0" if is_ragged else name
            ends.append(lists[key].row_splits)
            sizes.append(1 if is_ragged else math.prod(info.shape))
    ends = tf.stack(ends, axis=1)
    counts = ends[1:] - ends[:-1]
    if lengths is None:
        lengths = counts[:, 0] // sizes[0]
    expected = lengths[:, None] * tf.constant(sizes, tf.int64)
    names = ", ".join(column.name for column in columns)
    check = tf.debugging.Assert(
        tf.reduce_all(counts == expected),
        [
            f"{where}: the fields of an episode differ in length, so the record is damaged. Items, "
            f"an episode a row, of {names}; and how many were expected:",
            counts,
            expected,
        ],
        summarize=100,
    )
    with tf.control_dependencies([check]):
        lengths = tf.identity(lengths)
    total = tf.reduce_sum(lengths, keepdims=True)
    rows = {
        column.name: _rows(column.info, f"{STEPS}/{column.name}", lists, total)
        for column in columns
    }
    return rows, lengths


def stored_names(column: Column) -> list[str]:
    """Returns the names of the features of the `Example` that hold a column."""
    parts = column.stored_parts().items()
    return [key for name, info in parts for key in _specs(name, info)]


def _specs(name: str, info: TensorInfo) -> dict[str, Any]:
    values = tf.io.RaggedFeature(_stored_dtype(info), row_splits_dtype=tf.int64)
    if not info.sequence_rank:
        return {name: values}
    row_lengths = tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64)
    return {
        f"{name}/ragged_flat_values": values,
        **{f"{name}/ragged_row_lengths_{i}": row_lengths for i in range(info.sequence_rank)},
    }


def _rows(info: Any, name: str, lists: Mapping[str, Any], total: Tensor) -> Rows:
    if isinstance(info, Mapping):
        return {key: _rows(item, f"{name}/{key}", lists, total) for key, item in info.items()}
    rank = info.sequence_rank
    if not rank:
        values = lists[name].flat_values
        shape = tf.concat([total, tf.constant(info.shape, tf.int64, (len(info.shape),))], 0)
        values = tf.ensure_shape(tf.reshape(values, shape), (None, *info.shape))
        return _cast(values, info)
    values = tf.reshape(lists[f"{name}/ragged_flat_values"].flat_values, (-1, *info.shape[rank:]))
    return tf.RaggedTensor.from_nested_row_lengths(
        _cast(values, info),
        [lists[f"{name}/ragged_row_lengths_{i}"].flat_values for i in range(rank)],
    )


def _cast(values: Tensor, info: TensorInfo) -> Tensor:
    return values if values.dtype == info.tf_dtype else tf.cast(values, info.tf_dtype)

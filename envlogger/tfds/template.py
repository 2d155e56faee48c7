# SPDX-License-Identifier: Apache-2.0
"""Records of episodes that differ in nothing but their values.

Most episodes of a run have the same number of steps, or one of a few, and all steps the same nesting.
Their records are then the same, byte for byte, but for the values of fixed size, which stand at the
same places. A template is such a record, mapped as arrays into which the next episode's columns are
copied; nothing else needs to be worked out again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from envlogger.tfds import example
from envlogger.tfds.episode import Episode
from envlogger.tfds.features import Chunks, Encoding, Feature
from envlogger.tfds.structure import Path

# Above this the copying itself is the work, and a template would only copy once more.
MAX_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class _Hole:
    """Where the rows of a column go.

    Attributes:
      path: The column.
      start: The first row of it that goes there.
      rows: The place, as an array of the column's shape.
      is_varint: Whether each value must be a varint of one byte.
    """

    path: Path
    start: int
    rows: npt.NDArray[Any]
    is_varint: bool


def make(
    episode: Episode,
    raw: Mapping[str, example.RawFeature],
    columns: Iterable[tuple[Feature, str]],
    id_name: str,
) -> Template | None:
    """Returns a template for episodes like this one; None where values have no fixed places.

    Args:
      episode: An episode without metadata.
      raw: The features of its record.
      columns: Those of the steps that hold `episode.columns`, and their names.
      id_name: The name of the feature with the episode's id.
    """
    chosen = list(columns)
    if sum(feature.size for feature in raw.values()) > MAX_BYTES or not all(
        feature.encoding in (Encoding.PLAIN, Encoding.BYTES) and not feature.is_ragged
        for feature, _ in chosen
    ):
        return None
    record = example.serialize(raw)
    buffer = bytearray(record)
    stops = example.list_stops(raw)
    holes = [_hole(feature, stops[name], buffer, episode) for feature, name in chosen]
    stop = stops[id_name]
    template = Template(buffer, holes, slice(stop - len(episode.episode_id.encode()), stop))
    # It may turn out that an integer needs more than one byte.
    return template if template.fill(episode) == record else None


class Template:
    """The record of an episode, to be filled with others; see `make`."""

    def __init__(self, buffer: bytearray, holes: list[_Hole], place_of_id: slice) -> None:
        self._buffer = buffer
        self._holes = holes
        self._id = place_of_id

    def fill(self, episode: Episode) -> bytes | None:
        """Returns the record of an episode, or None where a value does not fit its place.

        Args:
          episode: An episode of the same pattern, end and kind of last step, without metadata.
        """
        for hole in self._holes:
            column = episode.columns.get(hole.path)
            if column is None or isinstance(column, Chunks):
                return None
            rows = np.asarray(column)[hole.start :]
            if hole.is_varint and int(np.bitwise_or.reduce(rows, axis=None)) & ~0x7F:
                return None
            hole.rows[...] = rows
        name = episode.episode_id.encode()
        if len(name) != self._id.stop - self._id.start:
            return None
        self._buffer[self._id] = name
        return bytes(self._buffer)


def _hole(feature: Feature, stop: int, buffer: bytearray, episode: Episode) -> _Hole:
    """Returns the place of a column in a record, less the padding of RLDS at its end.

    Args:
      feature: The column.
      stop: Where its list ends.
      buffer: The record.
      episode: The episode whose record it is.
    """
    shape = tuple(dim for dim in feature.shape if dim is not None)
    is_varint = feature.encoding is Encoding.PLAIN and feature.dtype.kind in "biu"
    if feature.encoding is Encoding.BYTES:
        dtype = feature.dtype.newbyteorder("<")
    else:
        dtype = np.dtype("u1" if is_varint else "<f4")
    row = np.empty(shape, dtype)
    stride = row.nbytes
    if feature.encoding is Encoding.BYTES:
        stride += len(example.element_header(row.nbytes))
    num_steps = len(episode)
    first = stop - num_steps * stride + stride - row.nbytes
    start = int(episode.pattern.is_shifted(feature.path))
    rows: npt.NDArray[Any] = np.ndarray(
        (num_steps - start, *shape), dtype, buffer, first, (stride, *row.strides)
    )
    return _Hole(feature.path, start, rows, is_varint)

# SPDX-License-Identifier: Apache-2.0
"""Windows of consecutive steps by index, for PyTorch, Grain and plain numpy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from envlogger import episode_items, errors
from envlogger.episode_items import Item
from envlogger.options import check_bool, check_count

_MASK = "mask"


class Windows(episode_items.EpisodeItems):
    """A map-style dataset of windows: `length` consecutive steps of an episode.

        dataset = envlogger.Windows("data/walker/1.0.0", length=32, stride=16, pad=True)
        dataset[0]["observation"]["velocity"]  # (32, 9)
        dataset[0]["mask"]  # bool (32,): False where a step is padding

    Its values are those of `envlogger.tfds.windows`, as numpy. The windows of an episode start at its
    steps 0, stride, 2 * stride, ... Without padding, all of them are full; the steps after the last full
    window are left out, and so are episodes shorter than `length`. With padding, there is one window
    more if that leaves steps out: zeros (empty strings, False) follow its last step. An example, of an
    episode of 8 steps and length 4:

        stride 4              0123 4567
        stride 3              0123 3456
        stride 3, pad         0123 3456 67..         mask of the last: 1100
        stride 6              0123
        stride 6, pad         0123 67..

    Only the images of a window are decoded. Threads may share it; it can be pickled, and used after a
    fork.

    Args:
      source: The directory of a dataset, or a `Reader`, whose `cache_bytes` says how much memory to
        take.
      split: The split to read, where `source` is a directory; None for all of them.
      length: How many steps a window has.
      stride: How many steps later the next window starts; by default `length`, so that they do not
        overlap.
      pad: Whether to give windows that run over the end of their episode.
      fields: The fields of the step, such as `observation/camera`; by default all.

    Raises:
      OptionError: An argument has a value that is not allowed; there is no such split or field; or no
        episode is as long as a window.
      DatasetError: The directory is not a dataset in RLDS form.
      NameConflictError: The steps have a field `mask`.
    """

    def __init__(
        self,
        source: episode_items.Source,
        split: str | None = None,
        *,
        length: int,
        stride: int | None = None,
        pad: bool = False,
        fields: Sequence[str] | None = None,
    ) -> None:
        self._length = check_count("length", length)
        self._stride = self._length if stride is None else check_count("stride", stride)
        self._pad = check_bool("pad", pad)
        self._fields = fields
        super().__init__(source, split)
        self._lengths = self._reader.episode_lengths()
        if len(self._lengths) and not len(self):
            raise errors.OptionError(
                f"length: got {length}, but the longest episode has {self._lengths.max()} steps, so "
                "there is no window. Make it shorter, or pass pad=True."
            )
        if len(self._lengths) and _MASK in self._reader.episodes[0].columns(fields, slice(0, 1)):
            raise errors.NameConflictError(
                f"Windows: the steps have a field {_MASK!r}, which is the name of the mask of padding. "
                "Leave it out: Windows(..., fields=[...])."
            )

    def _count(self, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        beyond = lengths - self._length
        if not self._pad:
            return np.maximum(beyond // self._stride + 1, 0)
        # Until a window reaches the end; but each starts before it.
        until_end = -(-np.maximum(beyond, 0) // self._stride) + 1
        counts: npt.NDArray[np.int64] = np.minimum(until_end, -(-lengths // self._stride))
        return counts

    def _cut(self, episode: int, numbers: npt.NDArray[np.int64]) -> Iterator[Item]:
        at = numbers[:, None] * self._stride + np.arange(self._length)
        mask = at < self._lengths[episode]
        # Overlapping windows share what is decoded; padding repeats the last step, for now.
        rows, places = np.unique(np.minimum(at, self._lengths[episode] - 1), return_inverse=True)
        columns = self._reader.episodes[episode].columns(self._fields, rows)
        places = places.reshape(at.shape)
        for where, is_step in zip(places, mask, strict=True):
            item = _take(columns, where)
            if not is_step.all():
                _clear(item, ~is_step)
            yield {**item, _MASK: is_step.copy()}


def _take(tree: Any, rows: npt.NDArray[np.int64]) -> Any:
    if isinstance(tree, dict):
        return {key: _take(value, rows) for key, value in tree.items()}
    return tree[rows]


def _clear(tree: dict[str, Any], rows: npt.NDArray[np.bool_]) -> None:
    """Puts zeros, or what is empty, into rows."""
    for column in tree.values():
        if isinstance(column, dict):
            _clear(column, rows)
        elif column.dtype != object:
            column[rows] = 0
        elif isinstance(column.flat[0], np.ndarray):
            for i in np.flatnonzero(rows):
                column[i] = column[i][:0]
        else:
            column[rows] = b""

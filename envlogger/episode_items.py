# SPDX-License-Identifier: Apache-2.0
"""What the map-style datasets have in common: items that are cut out of episodes, by index."""

from __future__ import annotations

import abc
import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

from envlogger import errors
from envlogger import reader as readers
from envlogger.backends import in_memory_backend

# A dataset's directory, or a reader of it.
Source: TypeAlias = (
    readers.Reader | str | os.PathLike[str] | in_memory_backend.InMemoryBackendWriter
)
Item: TypeAlias = dict[str, Any]


class EpisodeItems(abc.ABC):
    """Items by index: those of the first episode, then those of the second one, and so on.

    It holds the episodes that the reader had when it was made.

    Args:
      source: A `Reader`, or what one is made of.
      split: The split to read, where `source` is not a reader; None for all of them.
    """

    def __init__(self, source: Source, split: str | None) -> None:
        name = type(self).__name__
        if isinstance(source, readers.Reader):
            if split is not None:
                raise errors.OptionError(
                    f"{name}: split: got {split!r} beside a Reader, which has a split of its own. "
                    "Pass it to the Reader."
                )
            self._reader = source
        else:
            self._reader = readers.Reader(source, split)
        counts = self._count(self._reader.episode_lengths())
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])

    @property
    def reader(self) -> readers.Reader:
        """The reader that the items are read with."""
        return self._reader

    def __len__(self) -> int:
        """Returns the number of items."""
        return int(self._starts[-1])

    def __getitem__(self, index: SupportsIndex) -> Item:
        """Returns an item.

        Raises:
          IndexError: There is no such item.
          CorruptDatasetError: Its episode is damaged.
        """
        return self.__getitems__([operator.index(index)])[0]

    def __getitems__(self, indices: Sequence[SupportsIndex]) -> list[Item]:
        """Returns items, in the order of `indices`; each episode is decoded once for all of them.

        Raises:
          IndexError: There is no such item.
          CorruptDatasetError: An episode is damaged.
        """
        wanted = np.array([self._check(index) for index in indices], np.int64)
        episodes = self._starts.searchsorted(wanted, side="right") - 1
        items: list[Any] = [None] * len(wanted)
        for episode in np.unique(episodes).tolist():
            places = np.flatnonzero(episodes == episode)
            found = self._cut(episode, wanted[places] - self._starts[episode])
            for place, item in zip(places.tolist(), found, strict=True):
                items[place] = item
        return items

    def __iter__(self) -> Iterator[Item]:
        """Yields all items in order."""
        return map(self.__getitem__, range(len(self)))

    @abc.abstractmethod
    def _count(self, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Returns how many items episodes of so many steps have."""

    @abc.abstractmethod
    def _cut(self, episode: int, numbers: npt.NDArray[np.int64]) -> Iterable[Item]:
        """Yields the items of an episode that have these numbers."""

    def _check(self, index: SupportsIndex) -> int:
        number, count = operator.index(index), len(self)
        if not -count <= number < count:
            raise IndexError(
                f"{type(self).__name__}: index {number} is out of range: there are {count} items."
            )
        return number + count if number < 0 else number


def leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Returns the arrays of a nest of dicts, by path."""
    found: dict[tuple[str, ...], Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found.update(leaves(value, (*path, key)))
        else:
            found[*path, key] = value
    return found


def nth(tree: Any, index: int) -> Any:
    """Returns what the arrays of a nest of dicts have at an index, nested likewise."""
    if isinstance(tree, dict):
        return {key: nth(value, index) for key, value in tree.items()}
    return tree[index]

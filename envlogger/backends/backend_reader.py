# SPDX-License-Identifier: Apache-2.0
"""The interface of what gives steps back."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from envlogger import closing, step_data
from envlogger.backends import sequences, stacking


@dataclasses.dataclass(frozen=True, slots=True)
class EpisodeInfo:
    """Where an episode lies among all steps.

    Attributes:
        start: The index of its first step in `steps`.
        num_steps: How many steps it has.
        metadata: What was set for the episode; None if nothing was, or if it wasn't asked for.
    """

    start: int
    num_steps: int
    metadata: Any = None


class BackendReader(closing.Closing):
    """Random access to recorded steps and episodes.

    To write a backend, override the abstract methods. Indices that reach them are always in range.
    The sequences keep no state of their own: a reader is as thread-safe as those methods are, and
    `copy()` gives each thread or process a reader of its own.
    """

    @abc.abstractmethod
    def _get_num_steps(self) -> int:
        """Returns the number of steps in all episodes."""

    @abc.abstractmethod
    def _get_nth_step(self, i: int) -> step_data.StepData:
        """Returns step `i`, 0 <= i < number of steps."""

    @abc.abstractmethod
    def _get_num_episodes(self) -> int:
        """Returns the number of episodes."""

    @abc.abstractmethod
    def _get_nth_episode_info(self, i: int, include_metadata: bool = False) -> EpisodeInfo:
        """Returns where episode `i` lies, 0 <= i < number of episodes.

        Args:
            i: The episode.
            include_metadata: Whether the metadata is wanted. Without, it may be left None.
        """

    @abc.abstractmethod
    def _copy(self) -> Self:
        """Returns a new reader of the same data which shares no mutable state with this one."""

    @abc.abstractmethod
    def metadata(self) -> dict[str, Any] | None:
        """Returns the dataset's metadata, or None if there is none."""

    @abc.abstractmethod
    def close(self) -> None:
        """Releases all resources. May be called more than once; the reader is of no use after."""

    def refresh(self) -> None:
        """Takes in what has been recorded since; does nothing where that is seen anyway."""

    @property
    def steps(self) -> Sequence[step_data.StepData]:
        """All steps of all episodes, in the order in which they were recorded."""
        return sequences.LazySequence(
            self._get_num_steps, self._get_nth_step, lambda indices: self._scan_steps(indices)
        )

    @property
    def episodes(self) -> Sequence[sequences.EpisodeSteps]:
        """All episodes, each a sequence of its steps."""
        return sequences.LazySequence(self._get_num_episodes, self._get_nth_episode)

    def episode_metadata(self) -> Sequence[Any]:
        """Returns the metadata of all episodes; None for those that have none."""
        return sequences.LazySequence(self._get_num_episodes, self._get_nth_episode_metadata)

    def copy(self) -> Self:
        """Returns a new reader of the same data, which must be closed by itself."""
        return self._copy()

    def episode_lengths(self) -> npt.NDArray[np.int64]:
        """Returns the number of steps of each episode, int64 (N,)."""
        infos = map(self._get_nth_episode_info, range(self._get_num_episodes()))
        return np.array([info.num_steps for info in infos], np.int64)

    # What follows may be overridden where there is a faster way.

    def _scan_steps(self, indices: range) -> Iterator[step_data.StepData]:
        """Yields steps, whose indices are in range."""
        return map(self._get_nth_step, indices)

    def _get_nth_episode(self, i: int) -> sequences.EpisodeSteps:
        """Returns episode `i`, 0 <= i < number of episodes."""
        episode = self._get_nth_episode_info(i)
        start = episode.start

        def scan(steps: range) -> Iterator[step_data.StepData]:
            return self._scan_steps(range(start + steps.start, start + steps.stop, steps.step))

        return sequences.EpisodeSteps(
            episode.num_steps,
            lambda step: self._get_nth_step(start + step),
            scan,
            lambda fields, rows: stacking.stack(list(scan(range(episode.num_steps))), fields, rows),
        )

    def _get_nth_episode_metadata(self, i: int) -> Any:
        return self._get_nth_episode_info(i, include_metadata=True).metadata

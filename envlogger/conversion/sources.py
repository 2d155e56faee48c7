# SPDX-License-Identifier: Apache-2.0
"""What can be converted, and how to tell."""

from __future__ import annotations

import abc
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from envlogger import step_data
from envlogger.conversion import tasks
from envlogger.tfds import schema
from envlogger.tfds.episode import End

# A task has about so many bytes of a source: what a kill costs at most, and a shard has.
TASK_BYTES = 64 << 20


class Source(abc.ABC):
    """A log or dataset. It may be opened by many processes at once.

    Attributes:
      kind: What it is, for people.
      path: The directory it is in.
      splits: Its splits.
    """

    kind: str
    path: str
    splits: Sequence[str] = ("train",)

    @abc.abstractmethod
    def plan(self, max_episodes: int, num_workers: int) -> list[tasks.Task]:
        """Returns what is to be done, in the order of the episodes.

        Args:
          max_episodes: How many episodes a task has at most.
          num_workers: How many processes there are to share the work.
        """

    @abc.abstractmethod
    def run(
        self, task: tasks.Task, of: schema.Schema, place: tasks.Place, report: tasks.Report
    ) -> tasks.Result:
        """Does a task; see `tasks.encode` and `tasks.copy`."""

    @abc.abstractmethod
    def is_current(self, task: tasks.Task, result: tasks.Result) -> bool:
        """Whether the result of a task is what it would be now."""

    @abc.abstractmethod
    def state(self) -> Any:
        """Returns, as JSON, what changes when the source does."""

    @abc.abstractmethod
    def close(self) -> None:
        """Closes the files."""


class StepSource(Source):
    """A source of steps, which are encoded. Subclasses are made of a path alone."""

    @property
    @abc.abstractmethod
    def metadata(self) -> Mapping[str, Any]:
        """The metadata of the dataset, with encoded `environment_specs`."""

    @property
    @abc.abstractmethod
    def num_episodes(self) -> int:
        """How many episodes there are."""

    @property
    @abc.abstractmethod
    def num_bytes(self) -> int:
        """The size of its files."""

    @abc.abstractmethod
    def episode(self, index: int) -> tuple[Iterator[step_data.StepData], Any]:
        """Returns the steps of an episode, and its metadata."""

    def episode_id(self, index: int, session_id: str) -> str:
        """Returns the id that an episode gets in a session."""
        return f"{session_id}-{index:09d}"

    def end(self, index: int) -> End:
        """Returns how an episode ended, unless its last step is LAST."""
        return End.RESET

    def plan(self, max_episodes: int, num_workers: int) -> list[tasks.Task]:
        """Returns ranges of about the same size."""
        count = self.num_episodes
        fair = -(-count // num_workers)
        size = max(min(max_episodes, fair, count * TASK_BYTES // max(self.num_bytes, 1)), 1)
        return [
            tasks.Task("train", index, start, min(start + size, count))
            for index, start in enumerate(range(0, count, size))
        ]

    def run(
        self, task: tasks.Task, of: schema.Schema, place: tasks.Place, report: tasks.Report
    ) -> tasks.Result:
        """Encodes the episodes of a task."""
        return tasks.encode(self, task, of, place, report)

    def is_current(self, task: tasks.Task, result: tasks.Result) -> bool:
        """Whether the result is one of a task of steps; `state` sees the rest."""
        return result.schema is not None


def file_states(directory: str) -> list[Any]:
    """Returns the files below a directory with their states, in order."""
    found = []
    for place, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(place, name)
            found.append([os.path.relpath(path, directory), *tasks.state_of(path)[1:]])
    return sorted(found)

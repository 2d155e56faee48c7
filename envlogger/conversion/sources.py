# SPDX-License-Identifier: Apache-2.0
"""What can be converted, and how to tell."""

from __future__ import annotations

import abc
import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from envlogger import step_data
from envlogger.conversion import tasks
from envlogger.tfds import schema
from envlogger.tfds.episode import End

# A task has about so many bytes of a source: what a kill costs at most, and a shard has.
TASK_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class Change:
    """How a source differs from what it was when it was opened.

    Attributes:
      what: For people.
      is_growth: Whether all that was there is there still, and something has come behind it.
    """

    what: str
    is_growth: bool


class Source(abc.ABC):
    """A log or dataset, as it was when it was opened: what comes behind that later is not in it.

    It can be pickled, for processes that share the work: so all of them see the same.

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

    @property
    @abc.abstractmethod
    def num_episodes(self) -> int:
        """How many episodes there are."""

    @abc.abstractmethod
    def state(self) -> Any:
        """Returns, as JSON, what it was like when it was opened: another where it has changed."""

    @abc.abstractmethod
    def change(self) -> Change | None:
        """Returns how it has changed since it was opened, or None where it has not."""

    @abc.abstractmethod
    def close(self) -> None:
        """Closes the files."""


class StepSource(Source):
    """A source of steps, which are encoded. Subclasses are made of a path alone.

    Make it before the files are read: then whatever comes while they are is a change.

    Args:
      path: The directory it is in.
      data: The one below which its files are, if that is another one.
    """

    # What the names of its files end in: others are none of its business, as a destination in there.
    _ENDING: ClassVar[str] = ""
    # Those that are replaced when episodes are added.
    _REPLACED: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, path: str, data: str | None = None) -> None:
        self.path = path
        self._data = data or path
        self._files = self._look()

    @property
    @abc.abstractmethod
    def metadata(self) -> Mapping[str, Any]:
        """The metadata of the dataset, with encoded `environment_specs`."""

    @functools.cached_property
    def num_bytes(self) -> int:
        """The size of its files."""
        return sum(size for size, _ in self._files.values())

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
        """Whether the result is one of a task of steps; `change` sees the rest."""
        return result.schema is not None

    def state(self) -> Any:
        """Returns its files."""
        return [[name, *state] for name, state in sorted(self._files.items())]

    def change(self) -> Change | None:
        """Returns what has become of its files."""
        now = self._look()
        changed = [
            name
            for name in sorted(self._files.keys() | now.keys())
            if now.get(name) != self._files.get(name)
        ]
        growth, rest = [], []
        for name in changed:
            before, after = self._files.get(name), now.get(name)
            if before is None:
                growth.append(f"{name} is new")
            elif after is None:
                rest.append(f"{name} is gone")
            elif after[0] > before[0]:
                growth.append(f"{name} has grown from {before[0]} to {after[0]} bytes")
            elif os.path.basename(name) not in self._REPLACED:
                rest.append(f"{name} is another one")
        if not changed:
            return None
        shown = [*rest, *growth] or changed
        more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
        return Change(", ".join(shown[:3]) + more, is_growth=not rest)

    def _look(self) -> dict[str, tuple[int, int]]:
        """Returns size and time of the files, by their paths."""
        found = {}
        for place, _, names in os.walk(self._data):
            for name in names:
                path = os.path.join(place, name)
                # One that is gone by now is like one that was never there.
                if name.endswith(self._ENDING) and (status := tasks.state_of(path)):
                    found[os.path.relpath(path, self._data)] = (status[1], status[2])
        return found

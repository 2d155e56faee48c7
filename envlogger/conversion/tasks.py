# SPDX-License-Identifier: Apache-2.0
"""A conversion's tasks: each makes the shards of a range of episodes, and knows of no other."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias

from envlogger import step_data
from envlogger.conversion.episode_encoder import EpisodeEncoder, parts_of
from envlogger.tfds import feature_json, schema, sealer, shard_files, step_log
from envlogger.tfds.episode import End

# Called after each episode.
Report: TypeAlias = Callable[[], None]


@dataclasses.dataclass(frozen=True)
class Task:
    """A range of the episodes of a split.

    Attributes:
      split: The split.
      index: The number of the task among those of the split.
      start: The first episode, among those of the split.
      stop: The one behind the last.
    """

    split: str
    index: int
    start: int
    stop: int


@dataclasses.dataclass
class Part:
    """A finished shard.

    Attributes:
      name: The name of its file in the directory of the conversion.
      num_episodes: How many records it has.
      num_bytes: The size of the file.
      step_counts: The number of steps of each episode, where they were counted.
    """

    name: str
    num_episodes: int
    num_bytes: int
    step_counts: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Result:
    """What a task has made.

    Attributes:
      parts: The shards, in order.
      schema: The features of their episodes; None where records were copied as they are.
      state: What the file that was copied was like (size, time), to see whether it changes.
    """

    parts: list[Part]
    schema: schema.Schema | None = None
    state: list[int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the result for a line of the progress file."""
        return {
            "parts": [dataclasses.asdict(part) for part in self.parts],
            "schema": None if self.schema is None else schema_to_json(self.schema),
            "state": self.state,
        }

    @classmethod
    def from_json(cls, node: Mapping[str, Any]) -> Result:
        """Returns the result that `to_json` described."""
        parts = [Part(**part) for part in node["parts"]]
        of = node["schema"]
        return cls(parts, None if of is None else schema_from_json(of), node["state"])


class Episodes(Protocol):
    """Where steps come from: what `encode` needs of a source."""

    def episode(self, index: int) -> tuple[Iterator[step_data.StepData], Any]:
        """Returns the steps of an episode, and what its `episode_fn` returned; no step: no episode."""

    def episode_id(self, index: int, session_id: str) -> str:
        """Returns the id that an episode gets in a session."""

    def end(self, index: int) -> End:
        """Returns how an episode ended, unless its last step is LAST."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where shards are made, and how.

    Attributes:
      directory: The directory of the conversion.
      file_format: The format of the shards.
      session_id: What the ids of episodes begin with.
      max_episodes_per_file: How many episodes a shard has at most.
    """

    directory: str
    file_format: str
    session_id: str
    max_episodes_per_file: int

    def new_name(self) -> str:
        """Returns a name for a shard that nobody else will ever take."""
        return f"part-{uuid.uuid4().hex}"

    def path(self, name: str) -> str:
        """Returns where a shard is made."""
        return os.path.join(self.directory, name)


def encode(source: Episodes, task: Task, of: schema.Schema, place: Place, report: Report) -> Result:
    """Encodes the episodes of a task.

    Args:
      source: Where they come from.
      task: Which ones.
      of: The features as far as they are known.
      place: Where the shards go.
      report: Called after each episode.

    Raises:
      UnsupportedValueError, CorruptDatasetError: An episode cannot be read or stored.
      OSError: A shard could not be written.
    """
    encoder = EpisodeEncoder(of)
    shards = _Shards(place)
    is_whole = False
    reported = task.start
    with contextlib.ExitStack() as stack:
        stack.callback(shards.abandon)
        while not is_whole:
            is_whole = True
            for index in range(task.start, task.stop):
                steps, metadata = source.episode(index)
                name = source.episode_id(index, place.session_id)
                for number, (part, end) in enumerate(parts_of(steps, step_log.EPISODE_BYTES)):
                    end = end if end is End.SPLIT else source.end(index)
                    part_name = f"{name}.{number}" if number else name
                    if not is_whole:
                        encoder.fit(part_name, part, metadata, end)
                        continue
                    before = encoder.version
                    record = encoder.encode(part_name, part, metadata, end)
                    if encoder.version != before and shards.num_records:
                        # Features have turned up, or changed, that the records before do not have.
                        # The rest is looked at for more of them, and then all is encoded again.
                        is_whole = False
                        shards.abandon()
                    else:
                        shards.add(record, len(part))
                if index >= reported:
                    reported += 1
                    report()
        parts = shards.close()
        stack.pop_all()
    return Result(parts, encoder.schema)


def copy(path: str, file_format: str, task: Task, place: Place, report: Report) -> Result:
    """Copies the records of a shard as they are.

    Raises:
      CorruptDatasetError: The shard is missing or damaged.
      OSError: The new one could not be written.
    """
    state = state_of(path)
    name = place.new_name()
    count = task.stop - task.start
    shard_files.copy(path, file_format, place.path(name), place.file_format, count, report)
    return Result([Part(name, count, os.path.getsize(place.path(name)))], None, state)


def state_of(path: str) -> list[int]:
    """Returns what tells whether a file has been changed or replaced."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return []  # whoever reads it says so
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def schema_to_json(of: schema.Schema) -> dict[str, Any]:
    """Returns a schema in full; `features.json` does not say all."""
    return {
        "steps": feature_json.list_to_json(of.steps.values()),
        "episode": feature_json.list_to_json(of.episode.values()),
        "image_format": of.image_format,
    }


def schema_from_json(node: Mapping[str, Any]) -> schema.Schema:
    """Returns the schema that `schema_to_json` described."""
    steps, episode = (
        {feature.path: feature for feature in feature_json.list_from_json(node[name])}
        for name in ("steps", "episode")
    )
    return schema.Schema(steps, episode, node["image_format"])


class _Shards:
    """The shards of a task, one after the other."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._parts: list[Part] = []
        self._writer: shard_files.ShardWriter | None = None
        self._size = 0

    @property
    def num_records(self) -> int:
        """How many records have been added."""
        return sum(part.num_episodes for part in self._parts)

    def add(self, record: bytes, num_steps: int) -> None:
        if self._writer is None:
            name = self._place.new_name()
            path = self._place.path(name)
            self._writer = shard_files.open_writer(path, self._place.file_format, record)
            self._parts.append(Part(name, 0, 0))
            self._size = 0
        self._writer.add(record)
        part = self._parts[-1]
        part.num_episodes += 1
        part.step_counts.append(num_steps)
        self._size += len(record)
        is_full = part.num_episodes >= self._place.max_episodes_per_file
        if is_full or self._size >= sealer.SHARD_BYTES:
            self._finish()

    def close(self) -> list[Part]:
        self._finish()
        return self._parts

    def abandon(self) -> None:
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None
        for part in self._parts:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._place.path(part.name))
        self._parts = []

    def _finish(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._parts[-1].num_bytes = os.path.getsize(self._writer.path)
            self._writer = None

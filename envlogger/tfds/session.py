# SPDX-License-Identifier: Apache-2.0
"""A session: what one writer has under way in a dataset, in a directory of its own.

    .envlogger/sessions/<id>/
      writer       locked (flock) while the writer lives
      sealer       locked while somebody seals the session's rows
      journal      JSON lines: what the segments do not say themselves
      progress     how many rows of each stream are in published shards
      segment-0-0 …  the step log of each stream
      spare-0-0 …    files for segments to come, of each layout, whose pages are there already
      shard-<pid>-1  the shard under way, of the process that writes it

A session has one stream of steps, or as many as environments step together; each stream's steps follow one
another in a log of their own, and all else they share.

Whoever gets the writer's lock finds the writer dead, however it died; and whoever then gets the
sealer's lock may seal what is left. The kernel gives both back when a process ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import platform
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from envlogger import version
from envlogger.converters import json_codec
from envlogger.tfds import dataset_files, feature_json, schema, shards, structure
from envlogger.tfds.dataset_files import Identity
from envlogger.tfds.features import Feature
from envlogger.tfds.step_log import Layout
from envlogger.tfds.structure import Structure

WRITER_LOCK = "writer"
SEALER_LOCK = "sealer"
_JOURNAL = "journal"
_PROGRESS = "progress"


@dataclasses.dataclass(frozen=True)
class Options:
    """What a session was opened with.

    Attributes:
      identity: Name and version for a dataset that is new.
      split: The split that its episodes go to.
      max_episodes_per_file: How many episodes a shard has at most.
      image_format: How uint8 images are stored.
      description: What `metadata.json` is to say about the session; has an `id`.
      metadata: The caller's metadata, with `environment_specs`.
      citation: How to cite a dataset that is new.
      about: What a dataset that is new is.
      is_aligned: Whether its rows are steps of RLDS already; those of an environment are not.
      num_streams: How many streams of steps it has.
    """

    identity: Identity
    split: str
    max_episodes_per_file: int
    image_format: str
    description: Mapping[str, Any]
    metadata: Mapping[str, Any]
    about: str = ""
    citation: str = ""
    is_aligned: bool = False
    num_streams: int = 1

    @property
    def session_id(self) -> str:
        """The id of the session, unique across datasets."""
        return str(self.description["id"])

    def to_json(self) -> dict[str, Any]:
        """Returns the options for the journal."""
        encoded: dict[str, Any] = json_codec.encode(dataclasses.asdict(self))
        return encoded

    @classmethod
    def from_json(cls, node: Mapping[str, Any]) -> Options:
        """Returns the options that `to_json` described."""
        fields = json_codec.decode(node)
        return cls(**{**fields, "identity": Identity(**fields["identity"])})


def describe(
    options: Mapping[str, Any],
    converted_from: str | None = None,
    session_id: str | None = None,
) -> dict[str, Any]:
    """Returns what `metadata.json` says about a session that begins now.

    Args:
      options: What the caller asked for.
      converted_from: What its episodes were before, if they were not recorded.
      session_id: Its id; None makes one.
    """
    described = {
        "id": session_id or f"{time.strftime('%Y%m%dT%H%M%S')}-{os.urandom(4).hex()}",
        "start": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {
            "envlogger": version.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "options": dict(options),
    }
    return described if converted_from is None else {**described, "converted_from": converted_from}


class Journal:
    """Reads or extends the journal of a session.

    A line that was torn by the death of its writer is not there: nothing refers to it yet.

    Args:
      directory: The session's directory.

    Attributes:
      options: What the session was opened with, once its first line is there.
      layouts: The layouts of its segments, by number.
      structures: The structures that its rows name by their place here.
      episode_features: The features of its episodes' metadata.
      is_closed: Whether the writer said that it is done.
    """

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, _JOURNAL)
        self._position = 0
        self._descriptor = -1
        self.options: Options | None = None
        self.layouts: dict[int, Layout] = {}
        self.structures: list[tuple[Structure, ...]] = []
        self.episode_features: list[Feature] = []
        self.is_closed = False

    def refresh(self) -> None:
        """Reads what has been added."""
        try:
            size = os.path.getsize(self._path)
        except FileNotFoundError:
            return
        if size == self._position:
            return
        with open(self._path, "rb") as file:
            file.seek(self._position)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._position += len(whole)
        for line in whole.splitlines():
            self._apply(json.loads(line))

    def add_options(self, options: Options) -> None:
        """Begins the journal."""
        self._append({"options": options.to_json()})

    def add_layout(self, layout: Layout) -> None:
        """Adds a layout, before a segment has it."""
        self._append({"layout": layout.to_json()})

    def add_structure(self, structures: tuple[Structure, ...]) -> None:
        """Adds a structure, before a row has it."""
        self._append({"structure": [structure.to_json(item) for item in structures]})

    def add_episode_feature(self, feature: Feature) -> None:
        """Adds a feature of the episodes' metadata, before an episode has it."""
        self._append({"episode_feature": feature_json.list_to_json([feature])})

    def add_close(self) -> None:
        """Says that no more rows will come."""
        self._append({"close": True})

    def sync(self) -> None:
        """Makes the journal survive a loss of power."""
        if self._descriptor >= 0:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Closes the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, entry: Mapping[str, Any]) -> None:
        if self._descriptor < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o666)
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        written = os.write(self._descriptor, line)
        if written != len(line):
            # The disk is full. What got there would run into the next line.
            os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)
            raise OSError(28, "No space left on device", self._path)
        self._apply(entry)

    def _apply(self, entry: Mapping[str, Any]) -> None:
        for kind, value in entry.items():
            if kind == "options":
                self.options = Options.from_json(value)
            elif kind == "layout":
                layout = Layout.from_json(value)
                self.layouts[layout.number] = layout
            elif kind == "structure":
                self.structures.append(tuple(map(structure.from_json, value)))
            elif kind == "episode_feature":
                self.episode_features += feature_json.list_from_json(value)
            elif kind == "close":
                self.is_closed = True

    def schema(self) -> schema.Schema:
        """Returns the schema of the session's episodes; the newest layout knows most."""
        image_format = self.options.image_format if self.options else "png"
        result = schema.Schema(image_format=image_format)
        for number in sorted(self.layouts):
            for feature in self.layouts[number].features:
                result.steps[feature.path] = feature
        for feature in self.episode_features:
            result.episode[feature.path] = feature
        return result


class Lock:
    """A lock that ends with the process that holds it; its forks don't have it.

    Args:
      directory: The session's directory.
      name: Which of its locks.
    """

    _taken: ClassVar[weakref.WeakSet[Lock]] = weakref.WeakSet()

    def __init__(self, directory: str, name: str = WRITER_LOCK) -> None:
        self._path = os.path.join(directory, name)
        self._descriptor = -1

    def acquire(self, *, wait: bool = True, is_shared: bool = False) -> bool:
        """Takes the lock; returns whether that succeeded, which it does if it may wait.

        Args:
          wait: Whether it may.
          is_shared: Whether to take it together with others who do so, and none who does not: as those
            do who only look. Its file must be there, and may be read-only.
        """
        flags = os.O_RDONLY if is_shared else os.O_RDWR | os.O_CREAT
        descriptor = os.open(self._path, flags | os.O_CLOEXEC, 0o666)
        kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
        try:
            fcntl.flock(descriptor, kind | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        self._taken.add(self)
        return True

    def release(self) -> None:
        """Gives the lock back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._taken.discard(self)

    @classmethod
    def _drop_all(cls) -> None:
        for lock in list(cls._taken):
            lock.release()


# A lock lasts until the last copy of its descriptor is closed, and a fork has copies of them all:
# a worker that outlived its parent would keep the parent's session from being recovered.
os.register_at_fork(after_in_child=Lock._drop_all)


def above_standard(descriptor: int) -> int:
    """Returns a descriptor that a child's stdin, stdout and stderr do not take the place of.

    Daemons are started with these closed, and then 0 to 2 are given out for other files.
    """
    if descriptor > 2:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(descriptor)


def sync_directory(directory: str) -> None:
    """Makes the journal and the names of a session's files survive a loss of power."""
    with contextlib.suppress(FileNotFoundError):
        shards.sync_file(os.path.join(directory, _JOURNAL))
    shards.sync_file(directory)


def read_progress(directory: str, num_streams: int) -> list[int]:
    """Returns how many rows of each of a session's streams are in published shards.

    Raises:
      CorruptDatasetError: The file that says so is damaged.
    """
    path = os.path.join(directory, _PROGRESS)
    if not os.path.exists(path):
        return [0] * num_streams
    rows: list[int] = dataset_files.read_json(path)["rows"]
    return rows


def write_progress(directory: str, rows: Sequence[int]) -> None:
    """Sets how many rows of each of a session's streams are in published shards."""
    dataset_files.write_json(os.path.join(directory, _PROGRESS), {"rows": list(rows)})

# SPDX-License-Identifier: Apache-2.0
"""The directories that EnvLogger 1.x wrote.

    <log>/metadata.riegeli                one `Data`: the metadata of the dataset
    <log>/<time>/steps.riegeli            a shard: a `Data` for each step
    <log>/<time>/step_offsets.riegeli     `Datum`s, int64 (n,): the positions of the steps
    <log>/<time>/episode_metadata.riegeli a `Data` for each episode that has metadata
    <log>/<time>/episode_index.riegeli    `Datum`s, int64 (n, 2): an episode's first step, and the
                                          position of its metadata or -1

A writer that is killed leaves files that end anywhere; what is whole is read, with a warning. Damage is
an error.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from envlogger import errors
from envlogger.riegeli import chunks, storage
from envlogger.riegeli.records_file import RecordsFile
from envlogger.varints import Ints

METADATA = "metadata.riegeli"
STEPS = "steps.riegeli"
STEP_OFFSETS = "step_offsets.riegeli"
EPISODE_METADATA = "episode_metadata.riegeli"
EPISODE_INDEX = "episode_index.riegeli"


class LogWarning(UserWarning):
    """A log lacks something: its writer was killed, or a file was removed."""


class Shard:
    """A directory of steps: where they are, and what its index says about episodes.

    Args:
      path: The directory.
      max_chunk_bytes: As `RecordsFile` takes it.

    Attributes:
      path: The directory.
      positions: The position of each step in the file of the steps; int64 of shape (steps,).
      episode_starts: The first step of each episode in the index; int64 of shape (episodes,).
      metadata_positions: The position of each episode's metadata, or less than 1; likewise.
      has_episode_index: Whether there is an index of episodes at all.

    Raises:
      CorruptDatasetError: An index is damaged.
    """

    def __init__(self, path: Path, max_chunk_bytes: int = chunks.MAX_CHUNK_BYTES) -> None:
        self.path = path
        self._max_chunk_bytes = max_chunk_bytes
        indexed = self._read_index(STEP_OFFSETS, ())
        self.positions = self._find_steps(indexed)
        rows = self._read_index(EPISODE_INDEX, (2,))
        self.has_episode_index = rows is not None
        self.episode_starts, self.metadata_positions = self._check_episodes(rows)

    def open(self, name: str, *, verify: bool = False) -> RecordsFile:
        """Opens one of the shard's files."""
        return RecordsFile(self.path / name, verify=verify, max_chunk_bytes=self._max_chunk_bytes)

    def _read_index(self, name: str, row: tuple[int, ...]) -> Ints | None:
        """Returns what is whole of an index, of shape (n, *row); None if there is no such file."""
        found = [np.empty((0, *row), np.int64)]
        try:
            with self.open(name, verify=True) as file:
                for position, record in file.read_all():
                    found.append(_decode_index(file, position, record, row))
        except FileNotFoundError:
            return None
        except chunks.TruncatedError:
            pass  # what is lacking is found by the steps themselves
        return np.concatenate(found)

    def _find_steps(self, indexed: Ints | None) -> Ints:
        """Returns the positions of all steps that are there, warning where the index differs."""
        try:
            file = self.open(STEPS)
        except FileNotFoundError:
            if indexed is not None and len(indexed):
                self._warn(f"there is no {STEPS}: its {len(indexed)} steps are lost")
            return np.empty(0, np.int64)
        with file:
            if indexed is None:
                found, _ = _scan(file, 0)
                self._warn(f"there is no {STEP_OFFSETS}; {len(found)} steps were found without it")
                return found
            if not file.size and not len(indexed):
                self._warn("its writer was killed before it had written any steps")
                return indexed
            positions, is_whole = _extend(file, indexed)
            lost, more = len(indexed) - len(positions), len(positions) - len(indexed)
            if lost > 0:
                self._warn(f"{STEPS} ends early: the last {lost} of {len(indexed)} steps are lost")
            elif more > 0 or not is_whole:
                extra = (
                    f"steps that were not in the index yet are read as well ({more}), "
                    if more
                    else ""
                )
                self._warn(
                    f"its writer was killed: {extra}those that had not been written are lost"
                )
            return positions

    def _check_episodes(self, rows: Ints | None) -> tuple[Ints, Ints]:
        count = len(self.positions)
        if rows is None:
            if count:
                self._warn(
                    f"there is no {EPISODE_INDEX}: episodes begin at FIRST, without metadata"
                )
            rows = np.empty((0, 2), np.int64)
        starts = rows[:, 0]
        if (np.diff(starts) < 0).any() or starts.min(initial=0) < 0:
            raise errors.CorruptDatasetError(
                f"{self.path / EPISODE_INDEX}: the episodes do not follow each other. {_remove(EPISODE_INDEX)}"
            )
        kept = int(np.searchsorted(starts, count))
        if kept < len(starts):
            self._warn(f"the steps of {len(starts) - kept} of {len(starts)} episodes are lost")
        return starts[:kept], rows[:kept, 1]

    def _warn(self, what: str) -> None:
        warnings.warn(f"{self.path}: {what}.", LogWarning, stacklevel=2)


def is_log(directory: str | os.PathLike[str]) -> bool:
    """Returns whether EnvLogger 1.x wrote a directory with its Riegeli backend."""
    path = Path(directory).expanduser()
    return (path / METADATA).is_file() or bool(_shard_paths(path))


def open_shards(directory: str | os.PathLike[str], max_chunk_bytes: int) -> list[Shard]:
    """Returns the shards of a log, in order.

    Raises:
      CorruptDatasetError: An index is damaged.
    """
    return [Shard(path, max_chunk_bytes) for path in _shard_paths(directory)]


def read_metadata(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the metadata of a log; empty where there is none.

    Raises:
      CorruptDatasetError: It is damaged.
    """
    path = Path(directory) / METADATA
    try:
        with RecordsFile(path, verify=True) as file:
            for position, record in file.read_all():
                try:
                    value = storage.decode(record)
                except (ValueError, OverflowError) as error:
                    raise file.corrupt(position, f"the metadata is damaged: {error}") from error
                return value if isinstance(value, dict) else {}
            raise chunks.TruncatedError
    except (FileNotFoundError, chunks.TruncatedError):
        warnings.warn(
            f"{path}: the metadata of the log is not there, and so are no specs.",
            LogWarning,
            stacklevel=2,
        )
    return {}


def _shard_paths(directory: str | os.PathLike[str]) -> list[Path]:
    """Returns the subdirectories that hold steps, in the order of their names."""
    return sorted(
        {
            path.parent
            for name in (STEPS, STEP_OFFSETS)
            for path in Path(directory).glob(f"*/{name}")
        }
    )


def _extend(file: RecordsFile, indexed: Ints) -> tuple[Ints, bool]:
    """Returns the positions of steps, with those the index lacks, without those the file lacks.

    Also returns whether the file ends with a whole chunk.
    """
    begin = 0
    if len(indexed):
        last = int(indexed[-1])
        try:
            chunk = file.locate(last)
        except chunks.TruncatedError:
            found, is_whole = _scan(file, 0)
            return indexed[np.isin(indexed, found)], is_whole
        except errors.CorruptDatasetError:
            return indexed, True  # reading that step says so
        rest = np.arange(last + 1, chunk.begin + chunk.num_records)
        indexed = np.concatenate([indexed, rest])
        begin = chunk.end
    found, is_whole = _scan(file, begin)
    return np.concatenate([indexed, found]), is_whole


def _scan(file: RecordsFile, begin: int) -> tuple[Ints, bool]:
    """Returns the positions of all records from a chunk on, and whether the file ends with one.

    What is damaged is passed over.
    """
    found = [np.empty(0, np.int64)]
    while begin < file.size:
        try:
            for chunk in file.scan(begin):
                found.append(np.arange(chunk.begin, chunk.begin + chunk.num_records))
                begin = chunk.end
        except chunks.TruncatedError:
            return np.concatenate(found), False
        except errors.CorruptDatasetError:
            begin = file.resume(begin)
    return np.concatenate(found), True


def _decode_index(file: RecordsFile, position: int, record: bytes, row: tuple[int, ...]) -> Ints:
    try:
        values: npt.NDArray[Any] | None = storage.decode_datum(record)
        if values is None:
            return np.empty((0, *row), np.int64)
        if values.dtype != np.int64 or values.shape[1:] != row or values.ndim != len(row) + 1:
            raise ValueError(f"got {values.dtype} of shape {values.shape}")
    except (AttributeError, ValueError, OverflowError) as error:
        raise file.corrupt(
            position, f"the index is damaged: {error}. {_remove(file.path.name)}"
        ) from error
    return values


def _remove(name: str) -> str:
    return f"Without {name}, the steps are still read: move it away"

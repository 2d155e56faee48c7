# SPDX-License-Identifier: Apache-2.0
"""The directory of a dataset: opening it, the lock, and publishing shards.

    <data_directory>/
      dataset_info.json  features.json  metadata.json
      <name>-<split>.array_record-00000 …
      .envlogger/            ours; other readers ignore it
        lock                 held while publishing
        intent               there while somebody publishes
        index/<split>        the number of steps of each episode
        counts/<split>.json  the same, where readers had to count
        sessions/<id>/       what one writer has under way

A reader sees a valid dataset at every instant: a shard is complete before it gets its name, and
counts once `dataset_info.json` has been replaced. A version directory (`<name>/<x.y.z>`) does not
even exist before its first episode, since TFDS would prefer it to an older version: until then the
dataset is prepared beside it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import itertools
import os
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

from envlogger import errors
from envlogger.converters import json_codec
from envlogger.options import check_path
from envlogger.tfds import dataset_files, index_file, schema, session, shard_files, shards
from envlogger.tfds import record as records
from envlogger.tfds.dataset_files import FEATURES, INFO, METADATA, Info

STATE = ".envlogger"
ENVIRONMENT_SPECS = "environment_specs"
OURS = "envlogger"  # the key of metadata.json for what is not the caller's
FORMAT = 1  # of what is ours, see docs/format.md

_INTENT = "intent"
_MAX_TRIES = 100  # to open what others open and remove at the same time
_STAGING = "incomplete.envlogger_"  # TFDS passes over such names when it looks for versions
# What a directory may hold where a writer died before its first publish had really begun.
_PREPARED = frozenset(
    (STATE, *(f"{name}{end}" for name in (FEATURES, METADATA) for end in ("", ".tmp")))
)


@dataclasses.dataclass
class Contents:
    """What a dataset's JSON files say.

    Attributes:
      info: Name, version, splits and shards.
      schema: The features.
      metadata: `metadata.json`, decoded: the caller's metadata and `environment_specs`, and under
        `envlogger` the format and the sessions.
    """

    info: Info
    schema: schema.Schema
    metadata: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Shard:
    """A finished shard that is to be published.

    Attributes:
      path: The name of the file in the session's directory.
      session: The session's options.
      step_counts: The number of steps of each of its episodes.
      rows: How many rows of each of the session's streams are published once this is.
    """

    path: str
    session: session.Options
    step_counts: Sequence[int]
    rows: list[int]


def load(directory: str) -> Contents:
    """Returns what the JSON files of a dataset say.

    Raises:
      DatasetError: The directory does not hold a dataset.
      CorruptDatasetError: A file is missing or damaged.
    """
    path = os.path.join(directory, INFO)
    if not os.path.exists(path):
        raise dataset_files.not_a_dataset(directory)
    info = _parse(path, Info.from_json)
    features = _parse(os.path.join(directory, FEATURES), schema.Schema.from_json)
    metadata_path = os.path.join(directory, METADATA)
    metadata: Any = {}
    if os.path.exists(metadata_path):  # TFDS writes it only where there is something to say
        metadata = _parse(metadata_path, json_codec.decode)
    return Contents(info, features, metadata)


def _parse(path: str, parse: Any) -> Any:
    content = dataset_files.read_json(path)
    try:
        return parse(content)
    except (errors.UnsupportedValueError, errors.DatasetError) as error:
        raise type(error)(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, errors.EnvLoggerError):
            raise
        raise errors.CorruptDatasetError(
            f"{path}: the file does not have the form that TFDS gives it: {error!r}. "
            "Restore it from a copy."
        ) from error


def staging_path(directory: str) -> str:
    """Returns where a version directory is prepared until its first episode is published."""
    parent, version = os.path.split(directory)
    return os.path.join(parent, f"{_STAGING}{version}")


class DatasetDirectory:
    """A dataset that is open for writing. Any number of processes may have it open at once.

    Args:
      directory: Where it is or shall be; made if it is missing.
      name: The dataset's name, or None for the directory's or a default.
      version: Likewise.
      descriptor: An open descriptor of the directory, if another process has passed one on.

    Attributes:
      directory: The absolute path.
      descriptor: The descriptor of the directory.
      identity: Name and version.

    Raises:
      DatasetError: The directory cannot be made or written, or holds something else.
      OptionError: Name or version are illegal, or not those of the dataset.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        name: str | None = None,
        version: str | None = None,
        *,
        descriptor: int | None = None,
    ) -> None:
        self.directory = check_path("data_directory", directory)
        self.identity = dataset_files.identity_of(self.directory, name, version)
        # A descriptor follows the directory when it moves to its final name at the first publish.
        self.descriptor = self._open() if descriptor is None else descriptor
        try:
            self.contents()  # refuses a directory of another kind before anything is written
            self._check_identity(name, version)
        except BaseException:
            self.close()
            raise

    @property
    def root(self) -> str:
        """A path to the directory as it is now, published or not."""
        return f"/proc/self/fd/{self.descriptor}"

    def contents(self) -> Contents | None:
        """Returns what the dataset's files say now, or None before the first publish.

        Raises:
          DatasetError: The directory holds something that cannot be appended to.
        """
        if not os.path.exists(os.path.join(self.root, INFO)):
            return None
        contents = load(os.path.realpath(self.root))
        if (schema.RESTORE,) not in contents.schema.episode:
            raise errors.DatasetError(
                f"{self.directory}: the dataset there was written by another tool (format "
                f"{contents.info.file_format}), so nothing can be appended to it. "
                "Use another data_directory."
            )
        if contents.info.file_format != dataset_files.FILE_FORMAT:
            raise errors.DatasetError(
                f"{self.directory}: the dataset there is in {contents.info.file_format} files alone, "
                f"expected {dataset_files.FILE_FORMAT} files, which are what writers append to. Add "
                f"them once, in place: `envlogger convert {self.directory}`; writers go on with both. "
                "Or use another data_directory."
            )
        return contents

    def session_path(self, session_id: str) -> str:
        """Returns the directory of a session."""
        return os.path.join(self.root, STATE, "sessions", session_id)

    def make_session(self, session_id: str) -> session.Lock:
        """Makes the directory of a session and returns its writer's lock, which is taken."""
        while True:
            try:
                with self.lock():  # nobody may find it without its lock and think it dead
                    path = self.session_path(session_id)
                    os.makedirs(path)
                    lock = session.Lock(path)
                    lock.acquire()
                    for above in (os.path.dirname(path), os.path.join(self.root, STATE), self.root):
                        shards.sync_file(above)
                return lock
            except FileNotFoundError:
                if os.fstat(self.descriptor).st_nlink and not self._is_staged():
                    raise
                # Another writer has closed, without an episode, and removes the staging directory.
                os.close(self.descriptor)
                self.descriptor = self._open()

    def take_over(self, session_id: str) -> session.Lock | None:
        """Returns the taken lock of a session whose writer is dead; None if it lives."""
        lock = session.Lock(self.session_path(session_id))
        with self.lock():
            return lock if lock.acquire(wait=False) else None

    def session_ids(self) -> list[str]:
        """Returns the sessions that have something under way, or had when they died."""
        try:
            return sorted(os.listdir(os.path.join(self.root, STATE, "sessions")))
        except FileNotFoundError:  # there was none yet; or the staging directory has been removed
            return []

    def remove_session(self, session_id: str) -> None:
        """Removes what a session has left, all of which is published."""
        path = self.session_path(session_id)
        # The rows first: where this dies, `progress` still says that they are published.
        for segment in glob.glob(os.path.join(glob.escape(path), "segment-*")):
            os.unlink(segment)
        shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other writers, in this process and in others, from publishing."""
        lock = session.Lock(os.path.join(self.root, STATE), "lock")
        lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def publish(self, shard: Shard, of: schema.Schema) -> schema.Schema:
        """Adds a finished shard to its split, exactly once, whatever is killed meanwhile.

        Args:
          shard: The shard, which is moved.
          of: The schema of its episodes.

        Returns:
          The schema of the dataset, with what other writers have added to it.

        Raises:
          ValueMismatchError: Another writer has published episodes of another form meanwhile.
        """
        directory = self.session_path(shard.session.session_id)
        with self.lock():
            self._finish_publishing()
            contents = self.contents()
            published = None if contents is None else contents.schema
            merged = of
            if published is not None:
                merged = schema.merge(schema.with_varying(of, published), published)
            adapt_shard(os.path.join(directory, shard.path), len(shard.step_counts), of, merged)
            if contents is not None and published is not None:
                self._backfill(contents.info, published, merged)
            if published is None or merged.to_json() != published.to_json():
                dataset_files.write_json(os.path.join(self.root, FEATURES), merged.to_json())
            self._write_metadata(contents, shard.session)
            options = shard.session
            info = Info(options.identity, description=options.about, citation=options.citation)
            if contents is not None:
                info = contents.info
            intent = {
                "session": shard.session.session_id,
                "split": shard.session.split,
                "path": shard.path,
                "index": len(info.shard_lengths.get(shard.session.split, ())),
                "size": os.path.getsize(os.path.join(directory, shard.path)),
                "step_counts": list(shard.step_counts),
                "rows": shard.rows,
                "info": info.to_json() if contents is None else None,
            }
            # From here on the shard is as good as published: whoever comes next goes on.
            dataset_files.write_json(self._intent_path, intent)
            self._finish_publishing()
        return merged

    def finish_publishing(self) -> None:
        """Goes on with what a process that died while publishing had begun."""
        with self.lock():
            self._finish_publishing()

    def close(self) -> None:
        """Lets go of the directory. Where nothing was ever published, nothing stays."""
        if self.descriptor < 0:
            return
        try:
            # Not there where another writer has closed, without an episode, and removes it.
            with contextlib.suppress(FileNotFoundError):
                if self._is_staged():
                    with self.lock():
                        if self._is_staged() and not self.session_ids():
                            shutil.rmtree(os.readlink(self.root), ignore_errors=True)
        finally:
            os.close(self.descriptor)
            self.descriptor = -1

    @property
    def _intent_path(self) -> str:
        return os.path.join(self.root, STATE, _INTENT)

    def _finish_publishing(self) -> None:
        """Does what the intent says, each part of which is safe to repeat; needs the lock."""
        if os.path.exists(self._intent_path):
            intent = dataset_files.read_json(self._intent_path)
            info_path = os.path.join(self.root, INFO)
            stored = intent["info"]
            if os.path.exists(info_path):
                stored = dataset_files.read_json(info_path)
            info = Info.from_json(stored)
            split, index = intent["split"], intent["index"]
            lengths = info.shard_lengths.setdefault(split, [])
            session_path = os.path.join(self.root, STATE, "sessions", intent["session"])
            shard = os.path.join(session_path, intent["path"])
            if os.path.exists(shard):
                os.replace(shard, os.path.join(self.root, info.shard_name(split, index)))
                shards.sync_file(self.root)
            if len(lengths) == index:
                self._copy_to_other_formats(info, split, index, len(intent["step_counts"]))
                state = os.path.join(self.root, STATE)
                index_file.write(state, split, sum(lengths), intent["step_counts"])
                lengths.append(len(intent["step_counts"]))
                info.shard_bytes[split] = info.shard_bytes.get(split, 0) + intent["size"]
                dataset_files.write_json(info_path, info.to_json())
            if os.path.isdir(session_path):
                session.write_progress(session_path, intent["rows"])
            self._move_into_place()
            os.unlink(self._intent_path)
        elif os.path.exists(os.path.join(self.root, INFO)):
            self._move_into_place()

    def _write_metadata(self, contents: Contents | None, options: session.Options) -> None:
        stored = {} if contents is None else contents.metadata
        ours = stored.get(OURS) or {"format": FORMAT, "sessions": []}
        if any(known["id"] == options.session_id for known in ours["sessions"]):
            return
        ours = {**ours, "sessions": [*ours["sessions"], dict(options.description)]}
        content = {**stored, **options.metadata, OURS: ours}
        dataset_files.write_json(os.path.join(self.root, METADATA), json_codec.encode(content))

    def _backfill(self, info: Info, have: schema.Schema, want: schema.Schema) -> None:
        """Gives the episodes published so far padding for features that they lack.

        A shard that has more features than `features.json` says is valid, so a reader may come at
        any time, and a writer that dies here leaves work, but no damage.
        """
        if schema.covers(have, want):
            return
        for split, lengths in info.shard_lengths.items():
            for index, length in enumerate(lengths):
                adapt_shard(
                    os.path.join(self.root, info.shard_name(split, index)), length, have, want
                )
                self._copy_to_other_formats(info, split, index, length)

    def _copy_to_other_formats(self, info: Info, split: str, index: int, length: int) -> None:
        """Makes a shard anew in the formats that a dataset is there in besides ArrayRecord."""
        for other in info.formats:
            if other != info.file_format:
                shard_files.copy(
                    os.path.join(self.root, info.shard_name(split, index)),
                    info.file_format,
                    os.path.join(self.root, info.shard_name(split, index, other)),
                    other,
                    length,
                )

    def _open(self) -> int:
        """Returns a descriptor of the directory in which the dataset is, or is prepared."""
        tries = itertools.count(1)
        while True:
            try:
                descriptor = self._try_to_open()
            except OSError as error:
                if isinstance(error, errors.EnvLoggerError):
                    raise
                is_gone = isinstance(error, FileNotFoundError | FileExistsError)
                if is_gone and next(tries) < _MAX_TRIES:
                    continue  # another writer has moved or removed it in between
                raise errors.DatasetError(
                    f"{self.directory}: the directory cannot be made or written: {error.strerror}. "
                    "Use a data_directory that you may write to."
                ) from error
            if descriptor >= 0:
                return descriptor

    def _try_to_open(self) -> int:
        """Returns a descriptor, or -1 where the directory has been moved meanwhile."""
        path = self._locate()
        os.makedirs(os.path.join(path, STATE), exist_ok=True)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        descriptor = session.above_standard(os.open(path, flags))
        try:
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                if self._locate() == path:
                    self._check_writable(path, descriptor)
                    return descriptor
                shutil.rmtree(path, ignore_errors=True)  # staged beside what has come meanwhile
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return -1

    def _locate(self) -> str:
        directory = self.directory
        if os.path.exists(directory) and not os.path.isdir(directory):
            raise errors.DatasetError(
                f"{directory}: got a file, expected a directory. Use another data_directory."
            )
        entries = set(os.listdir(directory)) if os.path.isdir(directory) else set()
        foreign = entries - _PREPARED if STATE in entries else entries
        # In this order: another writer may be at its first publish.
        if (
            foreign
            and not os.path.exists(os.path.join(directory, STATE, _INTENT))
            and not os.path.exists(os.path.join(directory, INFO))
        ):
            shown = ", ".join(sorted(foreign)[:3])
            raise errors.DatasetError(
                f"{directory}: got a directory that holds something else than a dataset ({shown}). "
                "Use a new or empty data_directory."
            )
        if not entries and dataset_files.is_version_directory(directory):
            if os.path.islink(directory):
                raise errors.DatasetError(
                    f"{directory}: got a symbolic link, expected a directory or nothing, which the first "
                    "episode's puts itself in the place of. Make a link of the directory above, or use "
                    "another data_directory."
                )
            return staging_path(directory)
        return directory

    def _check_writable(self, path: str, descriptor: int) -> None:
        # By its descriptor: another writer may have moved it, or removed it.
        if not os.access(".", os.W_OK | os.X_OK, dir_fd=descriptor):
            raise errors.DatasetError(
                f"{path}: the directory is not writable. Use a data_directory that is."
            )

    def _check_identity(self, name: str | None, version: str | None) -> None:
        contents = self.contents()
        if contents is None:
            return
        found = contents.info.identity
        if (name or found.name, version or found.version) != (found.name, found.version):
            raise errors.OptionError(
                f"{self.directory}: the dataset there is {found.name}, version {found.version}; got "
                f"dataset_name {name!r} and version {version!r}. Leave these out, or use another "
                "data_directory."
            )
        self.identity = found

    def _is_staged(self) -> bool:
        return os.path.basename(os.readlink(self.root)).startswith(_STAGING)

    def _move_into_place(self) -> None:
        if self._is_staged():
            os.rename(os.readlink(self.root), self.directory)
            shards.sync_file(os.path.dirname(self.directory))


def adapt_shard(path: str, num_records: int, have: schema.Schema, want: schema.Schema) -> None:
    """Rewrites a shard, in one step, so that its records are those of `want`."""
    if schema.covers(have, want):
        return
    writer = shards.ShardWriter(f"{path}.tmp", shard_files.compression_of(path, num_records))
    try:
        for record in shards.read_all(path, num_records):
            writer.add(records.adapt(record, have, want))
        writer.close()
    except BaseException:
        writer.abandon()
        raise
    os.replace(writer.path, path)
    shards.sync_file(os.path.dirname(path))

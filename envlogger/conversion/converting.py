# SPDX-License-Identifier: Apache-2.0
"""Converts logs and datasets of other kinds, from beginning to end."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from typing import Any

from envlogger import errors, options
from envlogger.conversion import growing_schema, in_place, opening, pool
from envlogger.conversion.dataset_source import DatasetSource
from envlogger.conversion.progress import Progress
from envlogger.conversion.report import Report
from envlogger.conversion.sources import Source, StepSource
from envlogger.conversion.tasks import Place, Result, Task
from envlogger.conversion.work import WorkDirectory
from envlogger.converters import json_codec
from envlogger.tfds import (
    dataset,
    dataset_files,
    index_file,
    leftovers,
    schema,
    session,
    shard_files,
    shards,
)
from envlogger.tfds.dataset_files import Info

# TFDS passes over such names when it looks for versions.
_STAGING = "incomplete.envlogger_convert_"
_WORK = "conversion"
# What a finished dataset was converted from.
_MARKER = "converted.json"


def convert(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str] | None = None,
    *,
    file_format: str = dataset_files.FILE_FORMAT,
    workers: int = 1,
    max_episodes_per_file: int = 1000,
    progress: bool | None = None,
) -> Report:
    """Converts a log or dataset into a TFDS dataset in RLDS form, with all of its episodes in order.

        envlogger.convert("old/log", "data/catch/1.0.0")
        envlogger.convert("data/catch/1.0.0", file_format="tfrecord")  # in place, beside ArrayRecord

    Logs of EnvLogger 1.x and Minari datasets become datasets as `EnvLogger` records them, to which it can
    append. The records of datasets in RLDS form, of EnvLogger or of others, are copied byte for byte, with
    their features, metadata and splits.

    The destination is there once it is complete. Until then the work lies in a directory beside it (in
    `.envlogger`, where it is in place). If a conversion was killed, the same call goes on with what is
    missing; if it had been finished, the call does nothing.

    Args:
      source: The directory of the log or dataset. It is not changed, unless it is the destination.
      destination: A new directory. If it ends in `<name>/<x.y.z>`, the dataset has that name and version.
        None, or the source itself, adds the file format to a dataset in RLDS form, in place: then both
        formats are there, and stock TFDS reads it as tf.data and as a data source.
      file_format: "array_record" or "tfrecord".
      workers: How many processes share the work.
      max_episodes_per_file: How many episodes a shard has at most, where records are not copied.
      progress: Whether to show a bar with rate and time left on stderr; None for where it is a terminal.

    Returns:
      What was done.

    Raises:
      OptionError: An argument is not allowed.
      DatasetError: The source is nothing that can be converted or has no episodes; the destination holds
        something else; another process is at it; or the source has changed meanwhile. Where it has only
        grown, the destination is there, with the episodes that there were at the start.
      MissingExtraError: The package that reads the source is missing; the message names the extra.
      CorruptDatasetError: The source is damaged.
      OSError: It could not be written, as when the disk is full. Call it again to go on.
    """
    _check_options(file_format, workers, max_episodes_per_file)
    path = options.check_path("source", source)
    opened = opening.open_source(path)
    _warn_of_leftovers(path)
    try:
        target = path
        if destination is not None:
            target = options.check_path("destination", destination)
        if os.path.realpath(target) == os.path.realpath(path):
            if not isinstance(opened, DatasetSource):
                raise errors.DatasetError(
                    f"{path}: got {opened.kind}, which cannot be converted in place. Pass a new "
                    "directory as the destination."
                )
            return in_place.add_format(opened, file_format, workers, progress)
        return _Conversion(opened, target, file_format, max_episodes_per_file).run(
            workers, progress
        )
    finally:
        opened.close()


class _Conversion:
    """A conversion into a new directory."""

    def __init__(
        self, source: Source, target: str, file_format: str, max_episodes_per_file: int
    ) -> None:
        self._source = source
        self._target = target
        self._identity = dataset_files.identity_of(target, None, None)
        if isinstance(source, DatasetSource) and not dataset_files.is_version_directory(target):
            self._identity = source.info.identity
        self._file_format = file_format
        self._max_episodes = max_episodes_per_file
        self._known: schema.Schema | None = None  # the features of all tasks that are done
        parent, name = os.path.split(target)
        self._staging = os.path.join(parent, f"{_STAGING}{name}")
        self._of = {
            "source": _digest(source.state()),
            "format": file_format,
            "max_episodes_per_file": max_episodes_per_file,
        }

    def run(self, num_workers: int, progress: bool | None) -> Report:
        if self._marker(self._target) == self._of:
            return Report.of(self._target, was_done=True)
        self._check_target()
        if self._marker(self._staging) is None:
            self._check_source()
            path = os.path.join(self._staging, dataset.STATE, _WORK)
            # A dataset that grew meanwhile is another one, but most of its shards are the same.
            is_copy = isinstance(self._source, DatasetSource)
            of = {**self._of, "source": None} if is_copy else self._of
            work = WorkDirectory(path, self._plan(of, num_workers), _restart(self._staging))
            try:
                self._convert(work, num_workers, progress)
            except BaseException:
                work.close()
                raise
            work.remove()
        elif self._marker(self._staging) != self._of:
            raise errors.DatasetError(
                f"{self._staging}: another conversion was finished there, but for its last step. "
                f"{_restart(self._staging)}"
            )
        shutil.rmtree(os.path.join(self._staging, dataset.STATE, _WORK), ignore_errors=True)
        os.rename(self._staging, self._target)
        shards.sync_file(os.path.dirname(self._target))
        self._check_is_all()
        return Report.of(self._target)

    def _plan(self, of: Mapping[str, Any], num_workers: int) -> Mapping[str, Any]:
        tasks = self._source.plan(self._max_episodes, num_workers)
        return {
            "of": of,
            "tasks": [vars(task) for task in tasks],
            "session": session.describe(
                {
                    "split_name": "train",
                    "max_episodes_per_file": self._max_episodes,
                    "image_format": schema.Schema().image_format,
                },
                converted_from=self._source.kind,
            ),
        }

    def _convert(self, work: WorkDirectory, num_workers: int, progress: bool | None) -> None:
        tasks = [Task(**node) for node in work.plan["tasks"]]
        if isinstance(self._source, DatasetSource):
            tasks = self._source.plan(self._max_episodes, num_workers)
        place = Place(work.path, self._file_format, work.plan["session"]["id"], self._max_episodes)

        self._known = _united(list(work.results.values()))

        def is_done(task: Task) -> bool:
            return task in work.results and self._source.is_current(task, work.results[task])

        todo = [task for task in tasks if not is_done(task)]
        with Progress(tasks, todo, progress) as bar:
            while todo:
                for task, result in pool.run(
                    self._source, todo, place, num_workers, self._known_schema, bar.add
                ):
                    work.add(task, result)
                    self._known = _united([Result([], self._known), result])
                # Features that turned up late belong to the episodes before as well.
                todo = [
                    task
                    for task in tasks
                    if not is_done(task)
                    or (
                        (of := work.results[task].schema) is not None
                        and not growing_schema.is_same(of, self._known_schema())
                    )
                ]
                bar.again(todo)
        self._check_is_there()
        results = [work.results[task] for task in tasks]
        self._finish(work, tasks, results)

    def _known_schema(self) -> schema.Schema:
        return self._known or schema.Schema()

    def _finish(self, work: WorkDirectory, tasks: list[Task], results: list[Result]) -> None:
        """Makes a dataset of the shards, each part of which is safe to repeat."""
        info = Info(self._identity, formats=(self._file_format,))
        counts: dict[str, list[int]] = {}
        for split in self._source.splits:
            info.shard_lengths[split] = []
            info.shard_bytes[split] = 0
        for task, result in zip(tasks, results, strict=True):
            for part in result.parts:
                lengths = info.shard_lengths[task.split]
                part_path = work.part_path(part.name)
                shard_path = os.path.join(self._staging, info.shard_name(task.split, len(lengths)))
                if os.path.exists(part_path):
                    os.replace(part_path, shard_path)
                lengths.append(part.num_episodes)
                info.shard_bytes[task.split] += part.num_bytes
                counts.setdefault(task.split, []).extend(part.step_counts)
        if isinstance(self._source, StepSource):
            of = _united(results)
            assert of is not None, "there is an episode"
            _write_own(self._staging, self._source, work.plan["session"], of)
            content = info.to_json()
            index_file.write(self._staging_state, "train", 0, counts["train"])
        else:
            assert isinstance(self._source, DatasetSource)
            content = self._source.describe(info)
            self._source.copy_files(self._staging, self._staging_state)
        dataset_files.write_json(os.path.join(self._staging, dataset_files.INFO), content)
        shards.sync_file(self._staging)
        dataset_files.write_json(os.path.join(self._staging_state, _MARKER), self._of)

    @property
    def _staging_state(self) -> str:
        return os.path.join(self._staging, dataset.STATE)

    def _check_source(self) -> None:
        tasks = self._source.plan(self._max_episodes, 1)
        if not any(task.stop > task.start for task in tasks):
            raise errors.DatasetError(
                f"{self._source.path}: there is no episode in it ({self._source.kind}), so there is "
                "nothing to convert."
            )

    def _check_is_there(self) -> None:
        """Refuses to make a dataset of what was read while somebody changed it.

        Raises:
          DatasetError: Something that was to be read is another one now.
        """
        change = self._source.change()
        if change is not None and not change.is_growth:
            raise errors.DatasetError(
                f"{self._source.path}: it was changed while it was converted: {change.what}. So what was "
                f"read may fit neither what it was nor what it is, and there is no {self._target}. Remove "
                f"{self._staging}, and convert it again when nobody changes it."
            )

    def _check_is_all(self) -> None:
        """Tells that there is more in the source by now than in the destination.

        Raises:
          DatasetError: There is.
        """
        change = self._source.change()
        if change is None:
            return
        more = ""
        with contextlib.suppress(errors.EnvLoggerError, OSError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a writer that is at it right now
            now = opening.open_source(self._source.path)
            more = f", and {now.num_episodes} now"
            now.close()
        raise errors.DatasetError(
            f"{self._source.path}: it has changed while it was converted: {change.what}. {self._target} is "
            f"whole, but has only what was there at the start: {self._source.num_episodes} episodes{more}. "
            "For the others, convert it again when nobody writes to it, into a new destination; or into "
            "this one, after you have removed it."
        )

    def _check_target(self) -> None:
        """Refuses a destination that holds something.

        Raises:
          DatasetError: It does.
        """
        if (before := self._marker(self._target)) is not None:
            raise errors.DatasetError(
                f"{self._target}: got a dataset that was converted from {self._describe(before)}; "
                "expected a new directory. Use another destination, or remove this one, with all that "
                "has been recorded into it since."
            )
        if os.path.exists(self._target) and not os.path.isdir(self._target):
            raise errors.DatasetError(
                f"{self._target}: got a file, expected a new directory. Use another destination."
            )
        if os.path.isdir(self._target) and (found := sorted(os.listdir(self._target))):
            raise errors.DatasetError(
                f"{self._target}: the directory holds something else already "
                f"({', '.join(found[:3])}). Use a new destination, or remove it."
            )

    def _describe(self, marker: Mapping[str, Any]) -> str:
        """Returns what a dataset was converted from, and how, as far as that differs from this time."""
        if marker["source"] != self._of["source"]:
            return f"something else, or from {self._source.path} before it changed"
        others = (f"{key} {value!r}" for key, value in marker.items() if value != self._of[key])
        return f"{self._source.path} with {', '.join(others)}"

    def _marker(self, directory: str) -> Any:
        path = os.path.join(directory, dataset.STATE, _MARKER)
        return dataset_files.read_json(path) if os.path.exists(path) else None


def _write_own(
    directory: str, source: StepSource, description: Mapping[str, Any], of: schema.Schema
) -> None:
    """Writes the JSON files that go with episodes of this library's form."""
    metadata = dict(source.metadata)
    if dataset.OURS in metadata:
        raise errors.NameConflictError(
            f"{source.path}: its metadata has the key {dataset.OURS!r}, which is reserved."
        )
    metadata[dataset.OURS] = {"format": dataset.FORMAT, "sessions": [dict(description)]}
    dataset_files.write_json(
        os.path.join(directory, dataset_files.METADATA), json_codec.encode(metadata)
    )
    dataset_files.write_json(os.path.join(directory, dataset_files.FEATURES), of.to_json())


def _united(results: list[Result]) -> schema.Schema | None:
    """Returns the schema that all results have room in; None where they have none."""
    found = None
    for result in results:
        if result.schema is None or (found and growing_schema.is_same(found, result.schema)):
            continue
        found = result.schema if found is None else growing_schema.unite(found, result.schema)
    return found


def _warn_of_leftovers(path: str) -> None:
    """Warns where dead writers have left steps that are not converted."""
    if found := leftovers.find(path):
        warnings.warn(
            f"{path}: processes that recorded there have died (sessions: {', '.join(found)}), and the last "
            "of their steps are not published yet: they are not converted. Run `envlogger recover "
            f"{path}`, which publishes them, before you convert it.",
            UserWarning,
            stacklevel=3,
        )


def _digest(state: Any) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _restart(path: str) -> str:
    return f"To begin anew, remove {path}."


def _check_options(file_format: str, workers: int, max_episodes_per_file: int) -> None:
    if file_format not in shard_files.READERS:
        raise errors.OptionError(
            f"file_format: got {file_format!r}, expected one of "
            f"{', '.join(map(repr, shard_files.READERS))}."
        )
    options.check_count("workers", workers)
    options.check_count("max_episodes_per_file", max_episodes_per_file)


__all__ = ["convert"]

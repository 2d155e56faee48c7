# SPDX-License-Identifier: Apache-2.0
"""Datasets in TFDS's format as a source: their records are copied as they are."""

from __future__ import annotations

import os
from typing import Any

from envlogger import errors
from envlogger.conversion import sources, tasks
from envlogger.tfds import dataset, dataset_files, index_file, schema, shard_files, shards
from envlogger.tfds.dataset_files import Info

# What `dataset_info.json` says of the program that made a dataset under its name.
_OF_A_BUILDER = ("configName", "configDescription", "configTags", "moduleName")


class DatasetSource(sources.Source):
    """A dataset in RLDS form, in ArrayRecord or TFRecord shards, whoever wrote it.

    Its features are stored by the same bytes in either format, so none is decoded, and none changes.

    The files that describe it are read when it is opened, and the shards later. Both fit together: a
    writer that adds a feature does so in the shards before `features.json` says it, and shards with
    more than that says are valid.

    Attributes:
      info: What its `dataset_info.json` says.
      description: The file itself.

    Raises:
      DatasetError: It is in another format, or not in RLDS form.
      CorruptDatasetError: A file is missing or damaged.
    """

    kind = "a dataset in TFDS's format"

    def __init__(self, path: str) -> None:
        self.path = path
        info_path = os.path.join(path, dataset_files.INFO)
        self.description = dataset_files.read_json(info_path)
        try:
            self.info = Info.from_json(self.description)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise errors.CorruptDatasetError(
                f"{info_path}: the file does not have the form that TFDS gives it: {error!r}. "
                "Restore it from a copy."
            ) from error
        if self.info.file_format not in shard_files.READERS:
            raise errors.DatasetError(
                f"{path}: got a dataset in {self.info.file_format} files, expected "
                f"{' or '.join(shard_files.READERS)}. Convert it with `tfds convert_format` first."
            )
        # In this order, which is that of a writer backwards.
        node = dataset_files.read_json(os.path.join(path, dataset_files.FEATURES))
        self._features = node
        self._files = self._read_files()
        features = node.get("featuresDict", {}).get("features", {})
        if schema.STEPS not in features:
            raise errors.DatasetError(
                f"{path}: the dataset has no nested feature 'steps', so it is not in RLDS form. "
                "Convert it with `tfds convert_format`."
            )
        self.is_ours = schema.RESTORE in features
        self.splits = sorted(self.info.shard_lengths)

    @property
    def num_episodes(self) -> int:
        """How many episodes there are, in all splits."""
        return sum(sum(lengths) for lengths in self.info.shard_lengths.values())

    def plan(self, max_episodes: int, num_workers: int) -> list[tasks.Task]:
        """Returns a task for each shard: the new one has the same episodes."""
        found = []
        for split in self.splits:
            start = 0
            for index, length in enumerate(self.info.shard_lengths[split]):
                found.append(tasks.Task(split, index, start, start + length))
                start += length
        return found

    def run(
        self, task: tasks.Task, of: schema.Schema, place: tasks.Place, report: tasks.Report
    ) -> tasks.Result:
        """Copies the records of a shard."""
        return tasks.copy(self._path(task), self.info.file_format, task, place, report)

    def is_current(self, task: tasks.Task, result: tasks.Result) -> bool:
        """Whether the shard is still the one that was copied."""
        return result.schema is None and result.state == tasks.state_of(self._path(task))

    def state(self) -> Any:
        """Returns its JSON files; that shards change is seen by `is_current`."""
        return [self.description, self._features]

    def change(self) -> sources.Change | None:
        """Returns what has become of its JSON files."""
        try:
            now = DatasetSource(self.path)
        except errors.DatasetError as error:
            return sources.Change(str(error), is_growth=False)
        if now.state() == self.state():
            return None
        before, after = self.info.shard_lengths, now.info.shard_lengths
        is_growth = all(
            after.get(split, [])[: len(lengths)] == lengths for split, lengths in before.items()
        )
        parts = zip(
            (dataset_files.INFO, dataset_files.FEATURES), self.state(), now.state(), strict=True
        )
        what = " and ".join(name for name, one, other in parts if one != other)
        return sources.Change(f"another {what}", is_growth)

    def describe(self, info: Info) -> dict[str, Any]:
        """Returns the `dataset_info.json` of a copy; what else this one's says, it says as well."""
        content = {**self.description, **info.to_json()}
        if content["name"] != self.description["name"]:
            for key in _OF_A_BUILDER:
                content.pop(key, None)
        splits = {split["name"]: split for split in self.description.get("splits", [])}
        content["splits"] = [{**splits[split["name"]], **split} for split in content["splits"]]
        if len(info.formats) == 1:
            content.pop("alternativeFileFormats", None)
        return content

    def copy_files(self, directory: str, state: str) -> None:
        """Writes the files beside the shards: features, metadata, names of labels, and the index."""
        for name, content in self._files.items():
            with open(os.path.join(directory, name), "wb") as file:
                file.write(content)
            shards.sync_file(os.path.join(directory, name))
        for split in self.splits:
            own_state = os.path.join(self.path, dataset.STATE)
            counts = index_file.read(own_state, split, sum(self.info.shard_lengths[split]))
            if counts is not None:
                index_file.write(state, split, 0, counts.tolist())

    def close(self) -> None:
        """Does nothing: no file stays open."""

    def _read_files(self) -> dict[str, bytes]:
        """Returns what is beside the shards, but for what a copy has another one of."""
        found = {}
        for name in sorted(os.listdir(self.path)):
            path = os.path.join(self.path, name)
            is_described = name.endswith((".json", ".txt")) and os.path.isfile(path)
            if is_described and name != dataset_files.INFO:
                with open(path, "rb") as file:
                    found[name] = file.read()
        return found

    def _path(self, task: tasks.Task) -> str:
        return os.path.join(self.path, self.info.shard_name(task.split, task.index))

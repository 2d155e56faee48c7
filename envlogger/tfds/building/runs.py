# SPDX-License-Identifier: Apache-2.0
"""The runs that a dataset is made of: how they are found, and what they have in common."""

from __future__ import annotations

import dataclasses
import functools
import glob
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from envlogger import errors
from envlogger.conversion import opening
from envlogger.conversion.dataset_source import DatasetSource
from envlogger.converters import json_codec
from envlogger.options import check_path
from envlogger.tfds import dataset, dataset_files, schema

# Where the runs differ in their metadata, this key of the dataset's has a dict for each of them.
RUNS = "runs"


@dataclasses.dataclass(frozen=True)
class RecordFile:
    """A shard of a run.

    Attributes:
      run: The number of the run.
      path: The file.
      file_format: Its format.
      num_records: How many episodes it has.
      split: The split that they are in.
    """

    run: int
    path: str
    file_format: str
    num_records: int
    split: str


@dataclasses.dataclass(frozen=True)
class Run:
    """A run whose episodes are there as records.

    Attributes:
      path: The directory of its source.
      features: Its `features.json`.
      texts: The other files that say what its features mean (names of labels), by name.
      metadata: Its `metadata.json`, decoded.
      files: Its shards, in order.
    """

    path: str
    features: Mapping[str, Any]
    texts: Mapping[str, str]
    metadata: Mapping[str, Any]
    files: Sequence[RecordFile]

    @property
    def is_ours(self) -> bool:
        """Whether `envlogger.Reader` restores what was logged, and ids are unique."""
        return schema.RESTORE in self.features["featuresDict"]["features"]

    @functools.cached_property
    def schema(self) -> schema.Schema:
        """The features, to decode records with.

        Raises:
          UnsupportedValueError: There is one that cannot be decoded.
        """
        return schema.Schema.from_json(self.features)

    @property
    def own_metadata(self) -> dict[str, Any]:
        """What was said of the run when it was recorded."""
        return {key: value for key, value in self.metadata.items() if key != dataset.OURS}


def find(sources: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Returns the directories of the runs in sources, each once, in order.

    Args:
      sources: Directories of runs, directories above runs, and globs of these. Where there are several
        in one source, they are in the order of their names.

    Raises:
      DatasetError: There is no run in one of them.
    """
    found: dict[str, str] = {}
    for source in sources:
        pattern = check_path("sources", source)
        matches = (
            [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
        )
        runs = [run for match in matches for run in _runs_below(match)]
        if not runs:
            raise errors.DatasetError(
                f"{pattern}: there is no run in it. Name directories that were recorded into, directories "
                "above them, or globs such as 'runs/*/catch/1.0.0'."
            )
        for run in runs:
            found.setdefault(os.path.realpath(run), run)
    return list(found.values())


def _runs_below(directory: str) -> list[str]:
    runs, seen = [], set()
    for place, names, _ in os.walk(directory, followlinks=True):
        is_run, is_known = opening.is_source(place), os.path.realpath(place) in seen
        seen.add(os.path.realpath(place))
        if is_run:
            runs.append(place)
        if is_run or is_known:  # links may lead in a circle
            names.clear()
        # What is being prepared, by us or by TFDS, is no run yet.
        names[:] = sorted(n for n in names if not n.startswith((".", "incomplete.")))
    return runs


def open_dataset(source: DatasetSource, number: int) -> Run:
    """Returns the run that a dataset in RLDS form is; its records are used as they are."""
    info, path = source.info, source.path
    files = [
        RecordFile(
            number, os.path.join(path, info.shard_name(split, i)), info.file_format, n, split
        )
        for split in source.splits
        for i, n in enumerate(info.shard_lengths[split])
    ]
    texts = {}
    for name in sorted(os.listdir(path)):
        if name.endswith(".txt"):
            with open(os.path.join(path, name), encoding="utf-8") as file:
                texts[name] = file.read()
    features = dataset_files.read_json(os.path.join(path, dataset_files.FEATURES))
    metadata_path = os.path.join(path, dataset_files.METADATA)
    metadata = {}
    if os.path.exists(metadata_path):
        metadata = json_codec.decode(dataset_files.read_json(metadata_path))
    return Run(path, features, texts, metadata, files)


def unite(runs: Sequence[Run]) -> tuple[Mapping[str, Any], schema.Schema | None]:
    """Returns the `features.json` of a dataset of all runs, and the schema to adapt their records to.

    The schema is None where the records of all runs have the same features.

    Raises:
      ValueMismatchError: The runs do not fit together.
    """
    first = runs[0]
    different = [run for run in runs if _meaning(run) != _meaning(first)]
    if not different:
        return first.features, None
    foreign = next((run for run in runs if not run.is_ours), None)
    if foreign is not None:
        raise errors.ValueMismatchError(
            f"{different[0].path}: got other features than those of {first.path}, expected the same: "
            f"EnvLogger did not record {foreign.path}, so nothing can be added to its records. Map the "
            "runs to one form (map_step, map_episode), or leave one of them out."
        )
    merged = first.schema
    for run in runs[1:]:
        try:
            merged = schema.merge(merged, run.schema)
        except (errors.ValueMismatchError, errors.NameConflictError) as error:
            reason = str(error).rpartition(". ")[0]
            raise errors.ValueMismatchError(
                f"{run.path}: the run does not fit those before it: {reason}. Map the runs to one form "
                "(map_step, map_episode), or leave one of them out."
            ) from error
    return merged.to_json(), merged


def unite_metadata(runs: Sequence[Run], made_in: str, *, keep_specs: bool) -> dict[str, Any]:
    """Returns the `metadata.json` of a dataset of all runs.

    What all runs say is there once; where they differ, under `runs`, with the sessions of the run, which
    the ids of its episodes begin with.

    Args:
      runs: The runs.
      made_in: The directory of runs that were made for this dataset. They were made whenever it was built.
      keep_specs: Whether the environment's specs are those of the episodes still.
    """
    described, sessions = [], []
    for run in runs:
        ours = [dict(item) for item in (run.metadata.get(dataset.OURS) or {}).get("sessions", ())]
        if os.path.commonpath([made_in, run.path]) == made_in:
            for item in ours:
                item.pop("start", None)
        sessions += ours
        own = run.own_metadata
        if not keep_specs:
            own.pop(dataset.ENVIRONMENT_SPECS, None)
        described.append((own, [item["id"] for item in ours]))
    first = described[0][0]
    common = {
        key: value
        for key, value in first.items()
        if key != RUNS
        and all(_json(own.get(key, _NOTHING)) == _json(value) for own, _ in described)
    }
    apart: list[Any] = []
    for own, ids in described:
        apart += own.pop(RUNS, [])
        if rest := {key: value for key, value in own.items() if key not in common}:
            apart.append({"sessions": ids, **rest})
    metadata = {**common, RUNS: apart} if apart else common
    if sessions:
        metadata[dataset.OURS] = {"format": dataset.FORMAT, "sessions": sessions}
    return metadata


_NOTHING = {"__nothing__": True}  # no metadata is like this


def _json(value: Any) -> str:
    return json.dumps(json_codec.encode(value), sort_keys=True)


def _meaning(run: Run) -> tuple[Any, Mapping[str, str]]:
    """Returns what the records of a run hold."""
    return _bare(run.features), run.texts


def _bare(node: Any) -> Any:
    """Returns a `features.json` without descriptions."""
    if not isinstance(node, Mapping):
        return node
    return {
        key: _bare(item)
        for key, item in node.items()
        if key != "description" or not isinstance(item, str)
    }

# SPDX-License-Identifier: Apache-2.0
"""Makes records of what is not there as records, or not as it is to be stored."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from envlogger.conversion import growing_schema, opening, tasks
from envlogger.conversion.dataset_source import DatasetSource
from envlogger.conversion.sources import Source, StepSource
from envlogger.tfds import dataset, dataset_files, schema
from envlogger.tfds import features as features_lib
from envlogger.tfds.building import runs
from envlogger.tfds.building.engines import Engine
from envlogger.tfds.building.episodes import ChangedEpisodes
from envlogger.tfds.building.hooks import Hooks
from envlogger.tfds.building.runs import RecordFile, Run
from envlogger.tfds.features import Encoding

_MAX_EPISODES = 1000  # in a file of the scratch directory


@dataclasses.dataclass(frozen=True)
class _Job:
    """A part of a source whose episodes are to be encoded."""

    run: int
    path: str
    task: tasks.Task
    place: tasks.Place


@dataclasses.dataclass(frozen=True)
class _Encoding:
    """A source whose episodes are to be encoded, and the metadata of the run that comes of it."""

    path: str
    metadata: dict[str, Any]
    jobs: Sequence[_Job]

    def run(self, results: dict[_Job, tasks.Result], of: schema.Schema) -> Run:
        files = [
            RecordFile(
                job.run, job.place.path(part.name), job.place.file_format, part.num_episodes, split
            )
            for job in self.jobs
            for split in [job.task.split]
            for part in results[job].parts
        ]
        return Run(self.path, of.to_json(), {}, self.metadata, files)


def open_runs(paths: Sequence[str], hooks: Hooks, engine: Engine, scratch: str) -> list[Run]:
    """Returns runs whose episodes are there as records.

    Those that had to be encoded have one schema.

    Args:
      paths: The directories of the sources.
      hooks: The builder's.
      engine: Where the work is done.
      scratch: A directory for new records.

    Raises:
      DatasetError, CorruptDatasetError, UnsupportedValueError: A source cannot be read.
      OSError: There is no room in the scratch directory.
    """
    opened: list[Run | _Encoding] = []
    for number, path in enumerate(paths):
        source = opening.open_source(path)
        with contextlib.closing(source):
            if isinstance(source, DatasetSource) and not hooks.change_records:
                opened.append(runs.open_dataset(source, number))
            else:
                opened.append(_plan(source, number, os.path.join(scratch, f"run-{number}")))
    recorded = [item for item in opened if isinstance(item, Run)]
    waiting = [item for item in opened if isinstance(item, _Encoding)]
    known = _first_schema(recorded, waiting)
    results: dict[_Job, tasks.Result] = {}
    todo = jobs = [job for item in waiting for job in item.jobs]
    attempt = 0
    while todo:
        attempt += 1
        encode = functools.partial(_encode, hooks, tasks.schema_to_json(known))
        done = engine.map(f"Encoding episodes ({attempt})", encode, todo)
        results.update(zip(todo, done, strict=True))
        for result in done:
            known = growing_schema.unite(known, _schema_of(result))
        # Features that turned up in one run belong to the episodes of the others as well.
        todo = [job for job in jobs if not growing_schema.is_same(_schema_of(results[job]), known)]
    return [item if isinstance(item, Run) else item.run(results, known) for item in opened]


def _plan(source: Source, number: int, directory: str) -> _Encoding:
    os.mkdir(directory)
    if isinstance(source, StepSource):
        session_id = _session_id(source.path)
        described = {"id": session_id, "converted_from": source.kind}
        ours = {"format": dataset.FORMAT, "sessions": [described]}
        metadata = {**source.metadata, dataset.OURS: ours}
    else:
        session_id = ""  # the records have ids
        metadata = dataset.load(source.path).metadata
    place = tasks.Place(directory, dataset_files.FILE_FORMAT, session_id, _MAX_EPISODES)
    jobs = [_Job(number, source.path, task, place) for task in source.plan(_MAX_EPISODES, 1)]
    return _Encoding(source.path, metadata, jobs)


def _encode(hooks: Hooks, known: dict[str, Any], job: _Job) -> tasks.Result:
    """Encodes a part of a source; what it made before, with fewer features, is replaced."""
    episodes = ChangedEpisodes(job.path, job.task.split, job.place.session_id, hooks)
    with contextlib.closing(episodes):
        of = tasks.schema_from_json(known)
        return tasks.encode(episodes, job.task, of, job.place, lambda: None)


def _schema_of(result: tasks.Result) -> schema.Schema:
    assert result.schema is not None, "its episodes were encoded"
    return result.schema


def _first_schema(recorded: Sequence[Run], waiting: Sequence[_Encoding]) -> schema.Schema:
    """Returns what is known of the features of episodes before they are encoded."""
    if recorded and all(run.is_ours for run in recorded):
        return schema.Schema.from_json(runs.unite(recorded)[0])
    found = set()
    for item in waiting:
        if os.path.exists(os.path.join(item.path, dataset_files.INFO)):
            steps = dataset.load(item.path).schema.steps.values()
            found |= {f.encoding for f in steps if _is_picture(f)}
    # Pictures that were stored without compression stay so.
    return schema.Schema(image_format="raw" if found == {Encoding.BYTES} else "png")


def _is_picture(feature: features_lib.Feature) -> bool:
    return feature.dtype == np.uint8 and features_lib.is_image_shape(feature.shape)


def _session_id(path: str) -> str:
    """Returns the id of what was recorded in a directory, wherever that is now."""
    digest = hashlib.blake2b(digest_size=8)
    for place, directories, names in os.walk(path):
        directories.sort()
        for name in sorted(names):
            file_path = os.path.join(place, name)
            digest.update(os.path.relpath(file_path, path).encode(errors="surrogateescape"))
            with open(file_path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return f"log-{digest.hexdigest()}"

# SPDX-License-Identifier: Apache-2.0
"""Adds a file format to a dataset, beside the one that it has.

    dataset_info.json            "fileFormat": "tfrecord", "alternativeFileFormats": ["array_record"]
    <name>-<split>.array_record-00000   <name>-<split>.tfrecord-00000   ...

TFDS has this for datasets "in several formats". With TFRecord in the first place, stock TFDS reads the
dataset as tf.data, and finds the ArrayRecord shards for `tfds.data_source` by itself. Writers that append
to the dataset later write both.
"""

from __future__ import annotations

import os
import shutil

from envlogger.conversion import pool
from envlogger.conversion.dataset_source import DatasetSource
from envlogger.conversion.progress import Progress
from envlogger.conversion.report import Report
from envlogger.conversion.tasks import Place, Task
from envlogger.conversion.work import WorkDirectory
from envlogger.tfds import dataset, dataset_files, schema, session, shards

_WORK = "adding"


def add_format(
    source: DatasetSource, file_format: str, num_workers: int, progress: bool | None
) -> Report:
    """Adds a file format to a dataset, whose writers may go on meanwhile.

    Args:
      source: The dataset.
      file_format: The format.
      num_workers: How many processes share the work.
      progress: Whether to show a bar; None for where stderr is a terminal.

    Raises:
      DatasetError: Another process is at it; or nothing may be written there.
      CorruptDatasetError: A shard is missing or damaged.
      OSError: It could not be written. Call it again to go on.
    """
    directory = source.path
    state = os.path.join(directory, dataset.STATE)
    path = os.path.join(state, f"{_WORK}-{file_format}")
    if file_format in source.info.formats:
        shutil.rmtree(path, ignore_errors=True)  # of a process that died at the very end
        return Report.of(directory, was_done=True)
    # Nobody writes to a dataset without ArrayRecord, so nothing can have been left half done.
    if source.is_ours and dataset_files.FILE_FORMAT in source.info.formats:
        target = dataset.DatasetDirectory(directory)
        try:
            target.finish_publishing()  # what a writer that died had begun
        finally:
            target.close()
    work = WorkDirectory(path, {"of": file_format}, f"To begin anew, remove {path}.")
    lock = session.Lock(state, "lock")
    try:
        tasks = _todo(source, work)
        with Progress(source.plan(1, 1), tasks, progress) as bar:
            _copy(source, tasks, work, file_format, num_workers, bar)
            # Writers may have published, and rewritten, shards meanwhile; from here on they wait.
            lock.acquire()
            source = DatasetSource(directory)
            _copy(source, _todo(source, work), work, file_format, num_workers, bar)
        _finish(source, work, file_format)
    except BaseException:
        work.close()
        raise
    finally:
        lock.release()
    work.remove()
    return Report.of(directory)


def _todo(source: DatasetSource, work: WorkDirectory) -> list[Task]:
    return [
        task
        for task in source.plan(1, 1)
        if task not in work.results or not source.is_current(task, work.results[task])
    ]


def _copy(
    source: DatasetSource,
    tasks: list[Task],
    work: WorkDirectory,
    file_format: str,
    num_workers: int,
    bar: Progress,
) -> None:
    place = Place(work.path, file_format, "", 1)
    for task, result in pool.run(source, tasks, place, num_workers, schema.Schema, bar.add):
        work.add(task, result)


def _finish(source: DatasetSource, work: WorkDirectory, file_format: str) -> None:
    """Gives the shards their names and says that they are there; safe to repeat."""
    info = source.info
    for task in source.plan(1, 1):
        (part,) = work.results[task].parts
        if os.path.exists(work.part_path(part.name)):
            name = info.shard_name(task.split, task.index, file_format)
            os.replace(work.part_path(part.name), os.path.join(source.path, name))
    shards.sync_file(source.path)
    formats = sorted((*info.formats, file_format), key=lambda f: f != dataset_files.TFRECORD)
    content = {
        **source.description,
        "fileFormat": formats[0],
        "alternativeFileFormats": formats[1:],
    }
    dataset_files.write_json(os.path.join(source.path, dataset_files.INFO), content)

# SPDX-License-Identifier: Apache-2.0
"""Does tasks: in this process, or in others.

A worker is a process that reads the source, pickled, in a line, and then tasks, a JSON line each. It
answers in JSON lines, and ends as soon as nobody is there to give it tasks.
"""

from __future__ import annotations

import base64
import collections
import contextlib
import dataclasses
import json
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from envlogger import errors
from envlogger.conversion import tasks
from envlogger.conversion.sources import Source
from envlogger.conversion.tasks import Place, Result, Task
from envlogger.tfds import schema

# What a task may raise; an error goes by the first that it is one of.
_ERRORS = (
    errors.CorruptDatasetError,
    errors.DatasetError,
    errors.UnsupportedValueError,
    errors.NameConflictError,
    errors.ValueMismatchError,
    errors.OptionError,
    errors.MissingExtraError,
    errors.EnvLoggerError,
    OSError,
)

# How often a worker says how far it is.
_REPORT_SECONDS = 0.1

_BOOTSTRAP = """
import json, os, sys
sys.path[:] = json.loads(sys.argv[1])
from envlogger.conversion import pool
pool.main(json.loads(sys.argv[2]))
os._exit(0)
"""


def run(
    source: Source,
    todo: Sequence[Task],
    place: Place,
    num_workers: int,
    known: Callable[[], schema.Schema],
    report: Callable[[int], None],
) -> Iterator[tuple[Task, Result]]:
    """Yields the results of tasks, as they are done.

    Args:
      source: What is converted.
      todo: The tasks.
      place: Where the shards go.
      num_workers: How many processes do them; this one alone for 1.
      known: Returns what is known of the features, when a task is begun.
      report: Called with the number of episodes that have been dealt with since.

    Raises:
      EnvLoggerError, OSError: As a task does. What has been yielded is done.
    """
    if num_workers == 1 or len(todo) < 2:
        for task in todo:
            yield task, source.run(task, known(), place, lambda: report(1))
        return
    workers = _Workers(source, place, min(num_workers, len(todo)))
    try:
        yield from workers.run(todo, known, report)
    finally:
        workers.close()


class _Workers:
    """Processes that do tasks."""

    def __init__(self, source: Source, place: Place, count: int) -> None:
        arguments = [
            json.dumps([path for path in sys.path if isinstance(path, str)]),
            json.dumps(dataclasses.asdict(place)),
        ]
        # Not its path: where the source has grown, its episodes may have other numbers by now.
        pickled = base64.b64encode(pickle.dumps(source)).decode()
        self._answers: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        self._processes = [
            subprocess.Popen(
                [sys.executable or "", "-c", _BOOTSTRAP, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C is this process's to deal with
                text=True,
            )
            for _ in range(count)
        ]
        for number, process in enumerate(self._processes):
            threading.Thread(target=self._listen, args=(number, process), daemon=True).start()
            self._write(number, pickled)

    def run(
        self,
        todo: Sequence[Task],
        known: Callable[[], schema.Schema],
        report: Callable[[int], None],
    ) -> Iterator[tuple[Task, Result]]:
        waiting = collections.deque(todo)
        under_way: dict[int, Task] = {}
        for number in range(len(self._processes)):
            under_way[number] = self._give(number, waiting.popleft(), known())
        while under_way:
            number, line = self._answers.get()
            if not line:
                if number not in under_way:  # it has done its last task
                    continue
                raise errors.EnvLoggerError(
                    f"A worker ended by itself, with code {self._processes[number].wait()}, while it "
                    f"converted {under_way[number]}. Was it killed, or is the memory full? Run the "
                    "same conversion again to go on; with fewer workers it takes less memory."
                )
            answer = json.loads(line)
            if "error" in answer:
                raise _error(answer["error"])
            if "result" not in answer:
                report(answer["episodes"])
                continue
            report(answer["episodes"])
            yield under_way.pop(number), Result.from_json(answer["result"])
            if waiting:
                under_way[number] = self._give(number, waiting.popleft(), known())

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it may not have taken its task
                process.stdin.close()

    def _give(self, number: int, task: Task, of: schema.Schema) -> Task:
        content = {"task": vars(task), "schema": tasks.schema_to_json(of)}
        self._write(number, json.dumps(content))
        return task

    def _write(self, number: int, line: str) -> None:
        stream = self._processes[number].stdin
        assert stream is not None
        with contextlib.suppress(BrokenPipeError):  # its end is told by `_listen`
            stream.write(line + "\n")
            stream.flush()

    def _listen(self, number: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._answers.put((number, line))
        self._answers.put((number, ""))


def _error(answer: Mapping[str, Any]) -> Exception:
    """Returns an error of a worker as it was there."""
    kinds: dict[str, type[Exception]] = {kind.__name__: kind for kind in _ERRORS}
    error = kinds[answer["kind"]](*answer["args"])
    vars(error).update(answer["attributes"])
    return error


# --- in the worker ---------------------------------------------------------------------------------


def main(place: Mapping[str, Any]) -> None:
    """Does the tasks that come in, until there is nobody to give more."""
    warnings.simplefilter("ignore")  # whoever began the conversion has been warned
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_take_lines, args=(lines,), daemon=True).start()
    reporter = _Reporter()
    source: Source = pickle.loads(base64.b64decode(lines.get()))
    while True:
        node = json.loads(lines.get())
        try:
            of = tasks.schema_from_json(node["schema"])
            result = source.run(Task(**node["task"]), of, Place(**place), reporter.add)
            reporter.answer({"result": result.to_json()})
        except _ERRORS as error:
            reporter.answer({"error": _describe(error)})


def _describe(error: Exception) -> dict[str, Any]:
    """Returns what `_error` makes an error of."""
    kind = next(kind.__name__ for kind in _ERRORS if isinstance(error, kind))
    arguments = error.__reduce__()[1]  # those that pickle would make it of
    return {"kind": kind, "args": arguments, "attributes": vars(error)}


def _take_lines(lines: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(1)  # whoever gave the tasks is gone; a task under way is of no use to anybody


class _Reporter:
    """Tells now and then how many episodes have been dealt with."""

    def __init__(self) -> None:
        self._count = 0
        self._next = 0.0

    def add(self) -> None:
        self._count += 1
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _REPORT_SECONDS
            self.answer({})

    def answer(self, content: Mapping[str, Any]) -> None:
        print(json.dumps({**content, "episodes": self._count}), flush=True)
        self._count = 0

# SPDX-License-Identifier: Apache-2.0
"""What becomes of workers that die, and of the errors of those that do not."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
import textwrap

import pytest

from envlogger import errors
from envlogger.conversion import pool, tasks
from envlogger.tfds import schema

_SOURCES = """
    import os, time

    from envlogger import errors
    from envlogger.conversion import tasks


    class Waiting:
        '''Does the first task at once, and the others when a file is there.'''

        def __init__(self, path):
            self.path = path

        def run(self, task, of, place, report):
            while task.index and not os.path.exists(self.path):
                time.sleep(0.01)
            return tasks.Result([])


    class Raising:
        def __init__(self, error, *args):
            self.error, self.args = error, args

        def run(self, task, of, place, report):
            raise self.error(*self.args)
"""


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A module of sources that workers can import, too."""
    (tmp_path / "pool_sources.py").write_text(textwrap.dedent(_SOURCES))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pool_sources", raising=False)
    return importlib.import_module("pool_sources")


@pytest.fixture
def todo():
    return [tasks.Task("train", index, index, index + 1) for index in range(2)]


@pytest.fixture
def place(tmp_path):
    return tasks.Place(str(tmp_path), "array_record", "session", 10)


def test_a_worker_that_dies_when_its_work_is_done(sources, todo, place, tmp_path):
    go_on = tmp_path / "go_on"
    done = []
    with contextlib.closing(pool._Workers(sources.Waiting(str(go_on)), place, 2)) as workers:
        for task, _ in workers.run(todo, schema.Schema, lambda count: None):
            done.append(task.index)
            if task.index == 0:
                workers._processes[0].kill()
                while workers._answers.empty():  # its end is there before the other's result
                    pass
                go_on.touch()

    assert done == [0, 1]


@pytest.mark.parametrize(
    ("error", "args"),
    [
        (errors.MissingExtraError, ("brotli", "riegeli", "A Riegeli file in Brotli")),
        (errors.OptionError, ("no such split",)),
        (errors.CorruptDatasetError, ("damaged",)),
        (OSError, ("the disk is full",)),
        (OSError, (errno.ENOSPC, os.strerror(errno.ENOSPC))),
        (FileNotFoundError, (errno.ENOENT, os.strerror(errno.ENOENT), "one")),
        (FileExistsError, (errno.EEXIST, os.strerror(errno.EEXIST), "one", None, "other")),
    ],
)
def test_errors_are_what_they_were_in_the_worker(sources, todo, place, error, args):
    expected = error(*args)

    with pytest.raises(error) as raised:
        list(
            pool.run(
                sources.Raising(error, *args), todo, place, 2, schema.Schema, lambda count: None
            )
        )

    assert type(raised.value) is error
    assert str(raised.value) == str(expected)
    assert vars(raised.value) == vars(expected)
    if isinstance(expected, OSError):
        assert raised.value.errno == expected.errno
        assert raised.value.filename == expected.filename

# SPDX-License-Identifier: Apache-2.0
"""Whatever a conversion is killed at, the next one goes on, and each episode is there once."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import sys

import helpers
import processes
import pytest
import riegeli_samples

import envlogger
from envlogger import errors
from envlogger.conversion.work import WorkDirectory
from envlogger.testing import catch_env
from envlogger.testing.comparison import assert_same

_LOG = "catch_default"

# Converts in forks of this process, the n-th of which is killed at the n-th call that changes what is on
# disk, until one comes to its end; and then goes on in each of the directories.
_SWEEP = """
import os, signal, shutil, sys, warnings
warnings.simplefilter("ignore")
import envlogger
from envlogger.tfds import shards
source, root, file_format, make = sys.argv[1:]
NAMES = ("replace", "rename", "unlink", "fsync", "write", "open", "rmdir")
def convert(directory):
    if make == "in place":
        envlogger.convert(directory, file_format=file_format)
    else:
        envlogger.convert(source, directory, max_episodes_per_file=7, file_format=file_format)
def in_fork(work):
    child = os.fork()
    if not child:
        work()
        os._exit(0)
    return os.waitpid(child, 0)[1]
for number in range(0, 1000, 5):
    directory = f"{root}/{number}/1.0.0"
    if make == "in place":
        shutil.copytree(source, directory)
    def killed():
        calls = 0
        def patch(function):
            def call(*arguments, **options):
                nonlocal calls
                if calls == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                calls += 1
                return function(*arguments, **options)
            return call
        for name in NAMES:
            setattr(os, name, patch(getattr(os, name)))
        convert(directory)
    status = in_fork(killed)
    assert in_fork(lambda: convert(directory)) == 0, number
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL, number
print(number)
"""


def _sweep(source, root, file_format, make):
    count = int(processes.python(_SWEEP, source, root, file_format, make, timeout=250).stdout)
    assert count > 10
    return [root / str(number) / "1.0.0" for number in range(0, count + 1, 5)]


def _read(path):
    with envlogger.Reader(path) as reader:
        return helpers.sort_keys([list(episode) for episode in reader.episodes])


def test_killed_at_any_call(tmp_path):
    log = riegeli_samples.log(_LOG)
    expected = _read(log)
    for directory in _sweep(log, tmp_path, "array_record", "new"):
        assert_same(_read(directory), expected)
        assert os.listdir(directory.parent) == ["1.0.0"]
        assert sorted(os.listdir(directory / ".envlogger")) == ["converted.json", "index"]
        assert len(os.listdir(directory)) == 4 + 3
        assert len(helpers.data_source(directory)) == 20


def test_killed_at_any_call_in_place(tmp_path):
    source = tmp_path / "source" / "1.0.0"
    with envlogger.EnvLogger(
        catch_env.Catch(), data_directory=source, max_episodes_per_file=2, helper=False
    ) as env:
        for _ in range(30):
            env.step(1)
    expected = _read(source)
    for directory in _sweep(source, tmp_path / "copies", "tfrecord", "in place"):
        assert_same(_read(directory), expected)
        assert sorted(os.listdir(directory / ".envlogger")) == ["index", "lock", "sessions"]
        for name in os.listdir(directory):
            if ".array_record-" in name:
                assert os.path.exists(directory / name.replace("array_record", "tfrecord"))
        # Only what TFDS has TFRecord shards of is left for the reader.
        for file in directory.glob("*.array_record-*"):
            file.unlink()
        info = (directory / "dataset_info.json").read_text()
        info = info.replace('"alternativeFileFormats"', '"citation"').replace(
            '[\n  "array_record"\n ]', '""'
        )
        (directory / "dataset_info.json").write_text(info)
        assert_same(_read(directory), expected)


_SLOW = """
import sys, time, warnings
warnings.simplefilter("ignore")
import envlogger
envlogger.convert(sys.argv[1], sys.argv[2], workers=int(sys.argv[3]), max_episodes_per_file=1)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_amid_its_tasks(workers, tmp_path):
    log = tmp_path / "log"
    shutil.copytree(riegeli_samples.log(_LOG), log)
    target = tmp_path / "new" / "1.0.0"
    progress = target.parent / "incomplete.envlogger_convert_1.0.0/.envlogger/conversion/progress"
    command = [sys.executable, "-c", _SLOW, str(log), str(target), str(workers)]

    def num_done():
        return progress.read_bytes().count(b"\n") - 1 if progress.exists() else 0

    done = 0
    for _ in range(3 - workers):
        process = subprocess.Popen(command)
        processes.wait_for(lambda: num_done() > done + 2 or process.poll() is not None)  # noqa: B023
        workers_of = processes.children(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert num_done() >= done
        done = num_done()
        if workers > 1:  # those that are left end by themselves
            processes.wait_for(lambda: not any(map(_is_there, workers_of)))  # noqa: B023
    kept = {path.stat().st_ino for path in progress.parent.glob("part-*")}
    envlogger.convert(log, target, workers=workers, max_episodes_per_file=1)
    assert_same(_read(target), _read(log))
    made = {path.stat().st_ino for path in target.glob("*.array_record-*")}
    assert len(made) == 20
    assert len(kept & made) >= done > 2  # what was done was not done again


def _is_there(pid):
    return pathlib.Path(f"/proc/{pid}").exists()


def test_only_one_at_a_time(tmp_path):
    target = tmp_path / "x"
    path = tmp_path / "incomplete.envlogger_convert_x" / ".envlogger" / "conversion"
    work = WorkDirectory(str(path), {"of": None}, "")
    with pytest.raises(errors.DatasetError, match="another process is converting"):
        envlogger.convert(riegeli_samples.log(_LOG), target)
    work.remove()
    envlogger.convert(riegeli_samples.log(_LOG), target)
    assert_same(_read(target), _read(riegeli_samples.log(_LOG)))


def test_a_worker_that_is_killed_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "envlogger.conversion.pool._BOOTSTRAP", "import os; os.kill(os.getpid(), 9)"
    )
    log = riegeli_samples.log(_LOG)
    with pytest.raises(errors.EnvLoggerError, match="worker ended by itself, with code -9"):
        envlogger.convert(log, tmp_path / "x", workers=2)
    monkeypatch.undo()
    envlogger.convert(log, tmp_path / "x", workers=2, max_episodes_per_file=1000)
    assert_same(_read(tmp_path / "x"), _read(log))

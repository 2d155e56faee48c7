# SPDX-License-Identifier: Apache-2.0
"""Sources whose writers have died with steps that are not published: these are not converted silently."""

from __future__ import annotations

import json
import os
import signal

import helpers
import processes
import pytest
import snapshots

import envlogger
from envlogger import errors
from envlogger.testing import catch_env
from envlogger.tfds import leftovers, recovery, session

# Records five episodes, and dies.
_KILLED = f"""
import os, sys
import envlogger
from envlogger.testing import catch_env

env = envlogger.EnvLogger(catch_env.Catch(), data_directory=sys.argv[1], helper=False)
for _ in range(5):
    timestep = env.reset()
    while not timestep.last():
        timestep = env.step(1)
os.kill(os.getpid(), {int(signal.SIGKILL)})
"""


def _record_and_die(path):
    processes.python(_KILLED, path, status=-signal.SIGKILL)


def _record(path, num_episodes=5):
    with helpers.logger(path, catch_env.Catch()) as env:
        helpers.play_whole(env, num_episodes)


@pytest.fixture
def source(tmp_path):
    """Five published episodes, and five that are not."""
    path = tmp_path / "catch" / "1.0.0"
    _record(path)
    _record_and_die(path)
    return path


def test_a_copy_lacks_them_and_a_warning_says_so(source, tmp_path):
    before = snapshots.stamps(source)
    (name,) = os.listdir(source / ".envlogger" / "sessions")
    with pytest.warns(UserWarning, match=f"{name}.*`envlogger recover {source}`"):
        report = envlogger.convert(source, tmp_path / "copy")
    assert report.num_episodes == 5
    assert snapshots.stamps(source) == before  # it was only looked at
    recovery.recover(source)
    assert envlogger.convert(source, tmp_path / "whole").num_episodes == 10  # without a warning


def test_in_place_as_well(source):
    with pytest.warns(UserWarning, match="are not converted. Run `envlogger recover"):
        envlogger.convert(source, file_format="tfrecord")
    recovery.recover(source)
    report = envlogger.convert(source, file_format="tfrecord")
    assert (report.num_episodes, report.was_done) == (10, True)
    assert [len(episode) for episode in helpers.read(source)] == [10] * 10


@pytest.mark.parametrize("name", ["catch/1.0.0", "catch"])
def test_nothing_was_published_at_all(name, tmp_path):
    path = tmp_path / name
    _record_and_die(path)
    with pytest.raises(errors.DatasetError) as raised:
        envlogger.convert(path, tmp_path / "copy")
    helpers.check_message(raised, str(path), f"`envlogger recover {path}`")
    recovery.recover(path)
    assert envlogger.convert(path, tmp_path / "copy").num_episodes == 5


def test_writers_that_live_are_no_reason_to_warn(tmp_path):
    path = tmp_path / "catch" / "1.0.0"
    _record(path)
    with helpers.logger(path, catch_env.Catch()) as env:
        env.step(1)
        assert envlogger.convert(path, tmp_path / "copy").num_episodes == 5
    assert len(helpers.read(path)) == 6


def test_a_helper_that_is_at_it_is_no_reason_to_warn(source):
    (name,) = os.listdir(source / ".envlogger" / "sessions")
    lock = session.Lock(str(source / ".envlogger" / "sessions" / name), session.SEALER_LOCK)
    lock.acquire()
    assert leftovers.find(str(source)) == []
    lock.release()
    assert leftovers.find(str(source)) == [name]


def test_a_session_whose_steps_are_all_published(source):
    """Its writer died before it could remove the session."""
    (name,) = os.listdir(source / ".envlogger" / "sessions")
    progress = source / ".envlogger" / "sessions" / name / "progress"
    progress.write_text(json.dumps({"rows": [49]}))
    assert leftovers.find(str(source)) == [name]
    progress.write_text(json.dumps({"rows": [50]}))
    assert leftovers.find(str(source)) == []


def test_a_session_without_a_row(source):
    (name,) = os.listdir(source / ".envlogger" / "sessions")
    (source / ".envlogger" / "sessions" / name / "journal").write_bytes(b'{"options":')
    assert leftovers.find(str(source)) == []


def test_a_damaged_session_is_told_as_well(source, tmp_path):
    (name,) = os.listdir(source / ".envlogger" / "sessions")
    (source / ".envlogger" / "sessions" / name / "journal").write_bytes(b"nothing\n")
    with pytest.warns(UserWarning, match=name):
        envlogger.convert(source, tmp_path / "copy")


def test_where_nobody_has_recorded(tmp_path):
    assert leftovers.find(str(tmp_path)) == leftovers.find(str(tmp_path / "no")) == []


def test_looking_and_holding_exclude_each_other(tmp_path):
    holder, looker, other = (session.Lock(str(tmp_path)) for _ in range(3))
    with pytest.raises(FileNotFoundError):
        looker.acquire(is_shared=True)
    assert holder.acquire()
    assert not looker.acquire(wait=False, is_shared=True)
    holder.release()
    assert looker.acquire(is_shared=True)
    assert other.acquire(is_shared=True)
    assert not holder.acquire(wait=False)
    looker.release()
    other.release()
    assert holder.acquire(wait=False)
    holder.release()

# SPDX-License-Identifier: Apache-2.0
"""A run without an episode leaves nothing that breaks what was there before."""

from __future__ import annotations

import os
import signal

import helpers
import processes
import pytest
import snapshots
import tensorflow_datasets as tfds

import envlogger
from envlogger import errors

GOOD = helpers.GOOD


def _open(path, **kwargs):
    return helpers.scripted_logger(path, [GOOD], **kwargs)


def _load(root):
    """Returns the version that `tfds.load` chooses and the number of its episodes."""
    builder = tfds.builder("catch", data_dir=str(root))
    return str(builder.version), len(builder.as_data_source("train"))


@pytest.fixture
def root(tmp_path):
    """A root that has catch:1.0.0."""
    helpers.record(tmp_path / "catch" / "1.0.0", [GOOD])
    return tmp_path


@pytest.mark.parametrize("helper", [True, False])
def test_a_newer_version_without_episodes_hides_nothing(root, helper):
    env = helpers.ScriptedEnv([GOOD])
    path = root / "catch" / "2.0.0"
    with envlogger.EnvLogger(env, data_directory=path, helper=helper):
        assert _load(root) == ("1.0.0", 1)

    assert os.listdir(root / "catch") == ["1.0.0"]
    assert _load(root) == ("1.0.0", 1)


def test_nothing_is_hidden_while_the_first_episode_is_under_way(root):
    with _open(root / "catch" / "2.0.0") as logger:
        logger.reset()
        logger.step(0)
        assert _load(root) == ("1.0.0", 1)
        logger.flush()
        assert _load(root) == ("1.0.0", 1)

    assert _load(root) == ("2.0.0", 1)
    assert sorted(os.listdir(root / "catch")) == ["1.0.0", "2.0.0"]


def test_a_scheduler_that_drops_everything(root):
    with _open(root / "catch" / "2.0.0", scheduler=lambda _: False) as logger:
        helpers.play(logger, [[0, 1]])

    assert os.listdir(root / "catch") == ["1.0.0"]


def test_an_error_in_the_first_step(root):
    def fail(*_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), _open(root / "catch" / "2.0.0", step_fn=fail) as logger:
        logger.reset()

    assert os.listdir(root / "catch") == ["1.0.0"]


def test_an_error_before_the_first_step(root):
    with pytest.raises(errors.OptionError):
        _open(root / "catch" / "2.0.0", split_name="all")

    assert os.listdir(root / "catch") == ["1.0.0"]


def test_a_process_that_dies_at_once(root):
    code = f"""
import sys, os, signal
sys.path.insert(0, {os.path.dirname(__file__)!r})
import helpers, envlogger
logger = envlogger.EnvLogger(
    helpers.ScriptedEnv([[helpers.first()]]),
    data_directory={str(root / "catch" / "2.0.0")!r},
    helper=False,
)
os.kill(os.getpid(), signal.SIGKILL)
"""
    processes.python(code, status=-signal.SIGKILL)

    assert _load(root) == ("1.0.0", 1)
    with _open(root / "catch" / "2.0.0") as logger:
        helpers.play(logger, [[0, 1]])
    assert _load(root) == ("2.0.0", 1)
    assert sorted(os.listdir(root / "catch")) == ["1.0.0", "2.0.0"]


def test_an_empty_run_in_a_dataset_changes_nothing(root):
    path = root / "catch" / "1.0.0"

    def visible():
        return {name: data for name, data in snapshots.contents(path).items() if name[0] != "."}

    before = visible()
    with _open(path):
        pass
    with _open(path, split_name="eval"):
        pass

    assert visible() == before
    assert os.listdir(path / ".envlogger" / "sessions") == []


def test_two_empty_runs_at_once(root):
    with _open(root / "catch" / "2.0.0"), _open(root / "catch" / "2.0.0"):
        pass

    assert os.listdir(root / "catch") == ["1.0.0"]


def test_an_empty_run_beside_one_that_records(root):
    path = root / "catch" / "2.0.0"
    with _open(path) as logger, _open(path):
        helpers.play(logger, [[0, 1]])

    assert _load(root) == ("2.0.0", 1)
    assert sorted(os.listdir(root / "catch")) == ["1.0.0", "2.0.0"]


def test_an_empty_run_elsewhere_can_be_taken_up(tmp_path):
    with _open(tmp_path / "runs"):
        pass
    with pytest.raises(errors.DatasetError, match=r"no dataset_info\.json.*without any episode"):
        envlogger.Reader(tmp_path / "runs")

    helpers.record(tmp_path / "runs", [GOOD])

    assert len(helpers.read(tmp_path / "runs")) == 1

# SPDX-License-Identifier: Apache-2.0
"""Directories and options that do not fit: an error says what was got and what to do, and whatever is
there stays as it was."""

from __future__ import annotations

import json
import os
import shutil

import bad_input
import helpers
import numpy as np
import pytest
import riegeli_samples
import snapshots

import envlogger
from envlogger import errors

GOOD = helpers.GOOD


def test_a_directory_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")

    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(errors.DatasetError) as raised:
            helpers.logger(path, helpers.ScriptedEnv([GOOD]))

        assert isinstance(raised.value, OSError)
        helpers.check_message(raised, str(path), "data_directory")
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("is_there", [True, False])
def test_a_version_directory_that_is_a_link_to_nothing(tmp_path, is_there):
    if is_there:
        (tmp_path / "disk").mkdir()
    (tmp_path / "catch").mkdir()
    link = tmp_path / "catch" / "1.0.0"
    link.symlink_to(tmp_path / "disk")

    with pytest.raises(errors.DatasetError) as raised:
        helpers.logger(link, helpers.ScriptedEnv([GOOD]))

    helpers.check_message(raised, str(link), "got a symbolic link", "the directory above")
    assert os.listdir(tmp_path / "catch") == ["1.0.0"]


def test_a_link_to_a_dataset_is_as_good_as_the_dataset(tmp_path):
    helpers.record(tmp_path / "disk" / "catch" / "1.0.0", [GOOD])
    (tmp_path / "data" / "catch").mkdir(parents=True)
    link = tmp_path / "data" / "catch" / "1.0.0"
    link.symlink_to(tmp_path / "disk" / "catch" / "1.0.0")

    helpers.record(link, [GOOD])

    assert len(helpers.read(link)) == 2


@pytest.mark.parametrize("num_episodes", [0, 3])  # published before
@pytest.mark.parametrize("helper", [True, False])
def test_a_directory_that_is_removed_is_no_success(tmp_path, num_episodes, helper):
    path = tmp_path / "catch" / "1.0.0"
    logger = helpers.scripted_logger(path, [GOOD] * 20, max_episodes_per_file=1, helper=helper)
    for _ in range(num_episodes):
        helpers.play(logger, [[0, 1]])
    logger.flush()
    helpers.play(logger, [[0, 1]])
    shutil.rmtree(tmp_path / "catch")

    with pytest.raises(errors.DatasetError) as raised:
        logger.close()

    helpers.check_message(raised, str(path), "was removed while it was logged into")


def test_a_directory_that_cannot_be_made():
    with pytest.raises(errors.DatasetError) as raised:
        helpers.logger("/proc/nowhere/runs", helpers.ScriptedEnv([GOOD]))

    helpers.check_message(raised, "/proc/nowhere/runs", "cannot be made", "Use a data_directory")


def test_a_directory_that_is_not_writable(tmp_path, monkeypatch):
    # The tests may run as root, who may write anywhere.
    monkeypatch.setattr(os, "access", lambda *_, **__: False)

    with pytest.raises(errors.DatasetError) as raised:
        helpers.logger(tmp_path, helpers.ScriptedEnv([GOOD]))

    helpers.check_message(raised, str(tmp_path), "not writable", "Use a data_directory")


def test_a_directory_that_holds_something_else(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    before = snapshots.contents(tmp_path)

    with pytest.raises(errors.DatasetError) as raised:
        helpers.logger(tmp_path, helpers.ScriptedEnv([GOOD]))

    helpers.check_message(raised, str(tmp_path), "thesis.tex", "Use a new or empty data_directory")
    assert snapshots.contents(tmp_path) == before


def test_a_dataset_of_another_tool(tmp_path):
    (tmp_path / "dataset_info.json").write_text(
        json.dumps({"name": "x", "version": "1.0.0", "fileFormat": "tfrecord", "splits": []})
    )
    (tmp_path / "features.json").write_text(
        json.dumps(
            {
                "featuresDict": {
                    "features": {"steps": {"sequence": {"feature": {"featuresDict": {}}}}}
                }
            }
        )
    )

    with pytest.raises(errors.DatasetError) as raised:
        helpers.logger(tmp_path, helpers.ScriptedEnv([GOOD]))

    helpers.check_message(raised, str(tmp_path), "another tool", "Use another data_directory")


@pytest.mark.parametrize(
    ("observation", "action", "got"),
    [
        (np.zeros(3), 0, "observation: got float64 of shape (3,), expected float64 of shape ()"),
        (np.float32(0), 0, "observation: got float32 of shape (), expected float64 of shape ()"),
        ({"a": 0.0}, 0, "observation/a: got float64 of shape (), expected nothing"),
        (0.0, 0.5, "action: got float64 of shape (), expected int64 of shape ()"),
        (0.0, (0, 1), "action/0: got int64 of shape (), expected nothing"),
    ],
)
def test_a_dataset_of_another_schema_stays_as_it_was(tmp_path, observation, action, got):
    helpers.record(tmp_path, [GOOD])
    before = snapshots.contents(tmp_path)
    env = helpers.ScriptedEnv([[helpers.first(observation), helpers.last(observation)]], action)

    with pytest.raises(errors.ValueMismatchError) as raised:
        helpers.logger(tmp_path, env)

    assert isinstance(raised.value, ValueError)
    helpers.check_message(raised, got, "stays as it was", "Use another data_directory")
    assert snapshots.contents(tmp_path) == before
    bad_input.check_kept(tmp_path, [GOOD])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("split_name", "all"),
        ("split_name", "a b"),
        ("dataset_name", "My-Dataset"),
        ("version", "1.0"),
        ("max_episodes_per_file", 0),
        ("image_format", "gif"),
        ("image_format", ["raw"]),
        ("split_name", 5),
        ("split_name", "_"),
        ("max_episodes_per_file", "5"),
        ("max_episodes_per_file", 2.5),
        ("max_backlog_bytes", "1GB"),
        ("max_backlog_bytes", -1),
        ("sync_interval", 0),
        ("sync_interval", float("nan")),
        ("sync_interval", "10"),
        ("session_id", 5),
    ],
    ids=str,
)
def test_illegal_options(tmp_path, option, value):
    with pytest.raises(errors.OptionError) as raised:
        helpers.logger(tmp_path / "runs", helpers.ScriptedEnv([GOOD]), **{option: value})

    assert isinstance(raised.value, ValueError)
    helpers.check_message(raised, f"{option}: got {value!r}", "expected")
    assert not (tmp_path / "runs").exists()


def test_a_config_that_is_none(tmp_path):
    with pytest.raises(errors.OptionError, match=r"ds_config: got dict, expected a tfds.rlds"):
        helpers.logger(tmp_path / "runs", helpers.ScriptedEnv([GOOD]), ds_config={})


def test_no_directory_at_all():
    with pytest.raises(errors.OptionError, match="data_directory: got none, expected"):
        envlogger.EnvLogger(helpers.ScriptedEnv([GOOD]))


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "metadata.json"])
def test_a_dataset_that_is_damaged_is_not_appended_to(tmp_path, name):
    helpers.record(tmp_path, [GOOD])
    (tmp_path / name).write_text('{"a')
    before = snapshots.contents(tmp_path)

    with pytest.raises(errors.CorruptDatasetError) as raised:
        helpers.logger(tmp_path, helpers.ScriptedEnv([GOOD]))

    helpers.check_message(raised, name, "truncated or damaged", "Restore it from a copy")
    assert snapshots.contents(tmp_path) == before


def test_reading_a_directory_beside_the_one_that_is_meant(tmp_path):
    run = tmp_path / "data" / "catch" / "1.0.0"
    helpers.record(run, [GOOD])
    (run / "videos").mkdir()
    for path in (tmp_path / "data", run.parent, run / "videos"):
        with pytest.raises(errors.DatasetError) as raised:
            envlogger.Reader(path)
        helpers.check_message(raised, f"{path}: there is no", f"Did you mean {run}?")
    with pytest.raises(errors.DatasetError, match="nowhere: there is no such directory"):
        envlogger.Reader(tmp_path / "nowhere")


def test_reading_a_directory_beside_an_old_log():
    log = riegeli_samples.log("catch_shards")
    for path in (log.parent, next(log.glob("2*"))):
        with pytest.raises(errors.DatasetError) as raised:
            envlogger.Reader(path)
        helpers.check_message(raised, f"Did you mean {log}?")

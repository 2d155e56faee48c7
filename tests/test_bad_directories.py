# SPDX-License-Identifier: Apache-2.0
"""Directories and options that do not fit: an error says what was got and what to do, and whatever is
there stays as it was."""

from __future__ import annotations

import json
import os

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
    ],
)
def test_illegal_options(tmp_path, option, value):
    with pytest.raises(errors.OptionError) as raised:
        helpers.logger(tmp_path / "runs", helpers.ScriptedEnv([GOOD]), **{option: value})

    assert isinstance(raised.value, ValueError)
    helpers.check_message(raised, f"{option}: got {value!r}", "expected")
    assert not (tmp_path / "runs").exists()


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

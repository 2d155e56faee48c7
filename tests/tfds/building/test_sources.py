# SPDX-License-Identifier: Apache-2.0
"""Where builders find runs; and runs that are missing, double, damaged or do not fit."""

from __future__ import annotations

import shutil

import helpers
import pytest
import runs_builders
import sample_datasets

import envlogger
import envlogger.tfds
from envlogger import errors
from envlogger.testing.comparison import assert_same

pytestmark = pytest.mark.filterwarnings("ignore")  # TFDS's own


def test_sources_are_found_below_directories_and_by_globs(runs, tmp_path):
    root = runs[0].parents[2]
    for number, source in enumerate([root, root / "robot_?", root / "**" / "1.0.0"]):
        directory = runs_builders.build(
            runs_builders.Runs, tmp_path / f"{number}", [source, runs[1]]
        )
        with envlogger.Reader(directory) as reader:
            assert len(reader.episodes) == 30


def test_links_to_runs_and_in_a_circle(runs, tmp_path):
    collected = tmp_path / "collected"
    collected.mkdir()
    (collected / "run").symlink_to(runs[0])
    (collected / "again").symlink_to(runs[0])
    (collected / "circle").symlink_to(collected)
    directory = runs_builders.build(runs_builders.Runs, tmp_path / "data", [collected])

    assert_same(helpers.read(directory), helpers.read(runs[0]))


def test_no_sources(tmp_path):
    for source in (tmp_path, tmp_path / "no*"):
        with pytest.raises(errors.DatasetError) as raised:
            runs_builders.build(runs_builders.Runs, tmp_path / "data", [source])
        helpers.check_message(raised, str(source), "there is no run", "directories")
    assert not list((tmp_path / "data").rglob("dataset_info.json"))


def test_an_episode_that_is_there_twice(runs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(runs[0], copy)
    with pytest.raises(errors.DatasetError) as raised:
        runs_builders.build(runs_builders.Runs, tmp_path / "data", [runs[0], copy])
    helpers.check_message(raised, str(copy), "run-0-000000000", str(runs[0]), "ignore_duplicates")

    directory = runs_builders.build(
        runs_builders.Runs, tmp_path / "data", [runs[0], copy], ignore_duplicates=True
    )
    assert_same(helpers.read(directory), helpers.read(runs[0]))


def test_a_split_without_episodes(tmp_path):
    run = runs_builders.record_catch(tmp_path / "run", 0, num_episodes=1)
    with pytest.raises(errors.DatasetError, match="of 1 episodes none falls into the split '"):
        runs_builders.build(runs_builders.SplitRuns, tmp_path / "data", [run])


def test_runs_that_do_not_fit(runs, tmp_path):
    other = tmp_path / "other"
    helpers.record(other, [[helpers.first(), helpers.last()]])
    with pytest.raises(errors.ValueMismatchError) as raised:
        runs_builders.build(runs_builders.Runs, tmp_path / "data", [runs[0], other])
    helpers.check_message(raised, str(other), "observation", "map_step")

    with pytest.raises(errors.ValueMismatchError) as raised:
        runs_builders.build(runs_builders.Runs, tmp_path / "data", [runs[0], sample_datasets.OPENX])
    helpers.check_message(raised, str(sample_datasets.OPENX), str(runs[0]), "map_step")


def test_a_damaged_run(runs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(runs[0], copy)
    shard = min(copy.glob("*.array_record-*"))
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(errors.CorruptDatasetError, match=shard.name):
        runs_builders.build(runs_builders.Runs, tmp_path / "data", [copy])
    assert not list((tmp_path / "data").rglob("dataset_info.json"))

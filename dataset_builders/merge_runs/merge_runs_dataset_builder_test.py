# SPDX-License-Identifier: Apache-2.0
"""The template as `tfds build` runs it on the sample data, against these."""

from __future__ import annotations

import pathlib

import pytest
import runs_builders
import snapshots
import tensorflow_datasets as tfds

import envlogger
import envlogger.tfds
from envlogger.testing.comparison import assert_same

pytestmark = pytest.mark.filterwarnings("ignore")  # TFDS's own

_SAMPLES = pathlib.Path(__file__).parent / "sample_data"
_RUNS = [_SAMPLES / f"robot_{name}" / "catch" / "1.0.0" for name in "abc"]

BUILDS = {
    "here": (f"--manual_dir={_SAMPLES}",),
    "beam": (f"--manual_dir={_SAMPLES}", "--beam_pipeline_options=runner=DirectRunner"),
}


@pytest.fixture
def data_dir(built):
    return built("here")


def test_whole_episodes_are_there(data_dir):
    got = runs_builders.by_id(data_dir / "merge_runs" / "1.0.0")
    expected = {name: s for run in _RUNS for name, s in runs_builders.by_id(run).items()}

    assert len(expected) == 37
    (killed,) = expected.keys() - got.keys()
    assert killed.startswith("robot_b")
    for name, steps in got.items():
        assert_same(steps, expected[name])


def test_splits_metadata_and_masks(data_dir):
    with envlogger.Reader(data_dir / "merge_runs" / "1.0.0") as reader:
        metadata = reader.metadata()
    assert metadata["policy"] == "random"
    assert [run["robot"] for run in metadata["runs"]] == ["robot_a", "robot_b", "robot_c"]
    for split, count in (("train", 32), ("test", 4)):
        source = tfds.data_source("merge_runs", data_dir=data_dir, split=split)
        assert len(source) == count
        for episode in source:
            has_battery = episode["episode_id"].startswith(b"robot_c")
            for step in episode["steps"]:
                assert step["present"]["battery"] == has_battery


def test_as_the_readme_says(data_dir):
    dataset = tfds.load("merge_runs", data_dir=data_dir, split="train")
    assert sum(1 for episode in dataset for _ in episode["steps"]) == 320


def test_by_beam_to_the_same_bits(built):
    assert snapshots.contents(built("beam")) == snapshots.contents(built("here"))

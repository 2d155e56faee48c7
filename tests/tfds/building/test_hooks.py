# SPDX-License-Identifier: Apache-2.0
"""What builders over logged runs may say of them: splits, maps and filters."""

from __future__ import annotations

import json
import pathlib

import helpers
import numpy as np
import pytest
import riegeli_samples
import runs_builders
import sample_datasets
import tensorflow_datasets as tfds

import envlogger
import envlogger.tfds
from envlogger import errors
from envlogger.testing.comparison import assert_same
from envlogger.tfds.building import planning
from envlogger.tfds.building.hooks import Hooks

pytestmark = pytest.mark.filterwarnings("ignore")  # TFDS's own


# Splits


def test_splits_by_fraction_depend_on_ids_alone(runs, merged, tmp_path):
    def splits(directory):
        with_ids = tfds.builder_from_directory(str(directory)).as_data_source()
        return {e["episode_id"]: split for split, source in with_ids.items() for e in source}

    copy = tmp_path / "moved"
    envlogger.convert(runs[1], copy, file_format="tfrecord")
    fewer = runs_builders.build(runs_builders.SplitRuns, tmp_path / "data", [copy])

    assert len(splits(fewer)) == 10
    assert splits(fewer).items() <= splits(merged).items()


def test_fractions_are_what_they_say():
    choice = planning.Choice(Hooks(), {"a": 0.5, "b": 0.3, "c": 0.2})
    found = [choice.by_fraction(f"run-{i}") for i in range(10_000)]
    for split, fraction in choice.fractions.items():
        assert abs(found.count(split) / len(found) - fraction) < 0.02


@pytest.mark.parametrize(
    "fractions", [{"train": 0.5}, {"train": 1.5, "test": -0.5}, {"train": 0.9, "all": 0.1}]
)
def test_fractions_that_are_none(fractions):
    with pytest.raises(errors.OptionError):
        planning.Choice(Hooks(), fractions)


def test_splits_by_rule(runs, tmp_path):
    directory = runs_builders.build(runs_builders.RuledRuns, tmp_path, runs)

    with envlogger.Reader(directory) as reader:
        assert len(reader.episodes) == 27  # without the first of each
    for seed in range(3):
        with envlogger.Reader(directory, f"seed_{seed}") as reader:
            assert [m["number"] for m in reader.episode_metadata()] == list(range(1, 10))
            assert reader.steps[0].custom_data["text"] == f"{seed}"
        sources = runs_builders.records(runs[seed], "train")
        assert runs_builders.records(directory, f"seed_{seed}") == sources[1:]


# Maps and filters


def test_maps_and_filters(runs, tmp_path):
    directory = runs_builders.build(runs_builders.ChangedRuns, tmp_path, runs[:2])

    expected = {}
    for run in runs[:2]:
        for number, (name, steps) in enumerate(runs_builders.by_id(run).items()):
            if number != 2:
                expected[name] = [runs_builders.halved(step) for step in steps if step.action != 1]
    got = runs_builders.by_id(directory)
    assert list(got) == list(expected)
    assert_same(list(got.values()), list(expected.values()))
    assert helpers.read_metadata(directory) == [{"length": len(s)} for s in expected.values()]
    features = json.loads((directory / "features.json").read_text())["featuresDict"]["features"]
    steps = features["steps"]["sequence"]["feature"]["featuresDict"]["features"]
    assert steps["reward"]["tensor"] == {"shape": {}, "dtype": "float64", "encoding": "bytes"}
    with envlogger.Reader(directory) as reader:
        assert reader.metadata()["agent"] == "random"
        assert reader.observation_spec() is None  # a map may have changed it


@pytest.mark.parametrize(
    "source",
    [
        sample_datasets.GOLDEN,
        sample_datasets.OPENX,
        riegeli_samples.log("dtypes"),
    ],
)
def test_what_a_map_leaves_as_it_is_stays_so(source, tmp_path):
    directory = runs_builders.build(runs_builders.MappedRuns, tmp_path, [source])

    with envlogger.Reader(directory) as reader, envlogger.Reader(source) as before:
        assert_same(
            helpers.sort_keys([list(episode) for episode in reader.episodes]),
            helpers.sort_keys([list(episode) for episode in before.episodes]),
        )
        assert len(reader.episodes) > 0


def test_episodes_whose_process_died_stay_invalid(tmp_path):
    killed = (
        pathlib.Path(__file__).parents[3]
        / "dataset_builders"
        / "merge_runs"
        / "sample_data"
        / "robot_b"
    )
    directory = runs_builders.build(runs_builders.MappedRuns, tmp_path, [killed])

    assert [e["invalid"] for e in helpers.data_source(directory)] == [False] * 12 + [True]


def test_episodes_with_ids_of_the_callers(tmp_path):
    """Ids that a caller gave need not be unique; the split goes by them all the same."""
    runs = [tmp_path / f"run_{number}" for number in range(2)]
    for number, run in enumerate(runs):
        with envlogger.tfds.EpisodeWriter(run) as writer:
            for name in "ab":
                steps = [
                    {"observation": np.float64(number), "action": np.int64(i)} for i in range(3)
                ]
                writer.add_episode(steps, {"episode_id": name, "number": number})

    copies = runs_builders.build(runs_builders.Runs, tmp_path / "data", runs)
    sources = [record for run in runs for record in runs_builders.records(run, "train")]
    assert runs_builders.records(copies, "train") == sources

    mapped = runs_builders.build(runs_builders.MappedRuns, tmp_path / "data", runs)
    assert_same(helpers.read(mapped), helpers.read(copies))
    assert helpers.read_metadata(mapped) == [{"number": number} for number in (0, 0, 1, 1)]
    assert [e["episode_id"] for e in helpers.data_source(mapped)] == [b"a", b"b"] * 2


@pytest.mark.parametrize("hook", ["map_step", "map_episode", "split_of"])
def test_hooks_that_return_nothing(hook, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(runs_builders.NothingRuns, hook, lambda self, item: None, raising=False)
    with pytest.raises((errors.UnsupportedValueError, errors.OptionError)) as raised:
        runs_builders.build(runs_builders.NothingRuns, tmp_path, runs)
    helpers.check_message(raised, hook, "got None", "filter_episode")


def test_rlds_tells_the_truth_where_the_last_step_is_left_out(tmp_path):
    run = tmp_path / "run"
    helpers.record(run, [[helpers.first(0.0), helpers.mid(1.0), helpers.last(2.0)]])  # actions 0, 1
    directory = runs_builders.build(runs_builders.ChangedRuns, tmp_path / "data", [run])

    (steps,) = helpers.source_steps(directory)
    assert [step["observation"] for step in steps] == [0.0, 1.0]
    assert [step["is_last"] for step in steps] == [False, True]
    assert [step["is_terminal"] for step in steps] == [False, False]

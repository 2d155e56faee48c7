# SPDX-License-Identifier: Apache-2.0
"""Datasets that earlier versions wrote are read by this one. `golden/make.py` made them."""

from __future__ import annotations

import json
import shutil

import dm_env
import helpers
import pytest
import snapshots
import stored
from sample_datasets import GOLDEN, GOLDEN_EXPECTED

import envlogger
from envlogger.converters import json_codec
from envlogger.testing.comparison import assert_same


@pytest.fixture(scope="module")
def expected():
    return json_codec.decode(json.loads(GOLDEN_EXPECTED.read_text()))


def _restore(observation):
    *others, number, text, data = observation["python"]
    return {**observation, "python": (*others, complex(*number), text, data)}


@pytest.fixture(scope="module")
def run(expected):
    return [
        [
            envlogger.StepData(
                dm_env.TimeStep(
                    dm_env.StepType(row["step_type"]),
                    row["reward"],
                    row["discount"],
                    _restore(row["observation"]),
                ),
                row["action"],
                row["custom_data"],
            )
            for row in episode
        ]
        for episode in expected["episodes"]
    ]


def test_reader(expected, run):
    with envlogger.Reader(GOLDEN) as reader:
        assert_same([list(episode) for episode in reader.episodes], run)
        assert_same(list(reader.episode_metadata()), expected["episode_metadata"])
        metadata = reader.metadata()
        del metadata["environment_specs"]
        assert_same(metadata, expected["metadata"])
        assert reader.action_spec()[1].shape == (2,)
        assert set(reader.observation_spec()) == set(run[0][0].timestep.observation)


def test_data_source(expected, run):
    episodes = list(helpers.data_source(GOLDEN))

    stored.check(episodes, run, expected["episode_metadata"], is_numpy_path=True)


def test_tf_data(expected, run):
    episodes = helpers.tf_episodes(GOLDEN)

    stored.check(episodes, run, expected["episode_metadata"], is_numpy_path=False)


def test_reading_changes_nothing():
    before = snapshots.stamps(GOLDEN)
    with envlogger.Reader(GOLDEN) as reader:
        assert len(reader.steps) == 6
    assert snapshots.stamps(GOLDEN) == before


def test_it_can_be_appended_to(run, tmp_path):
    path = shutil.copytree(GOLDEN, tmp_path / "everything" / "1.0.0")
    timesteps = [row.timestep for row in run[0]]
    actions = [row.action for row in run[0][1:]]

    helpers.record(path, [timesteps], [actions])

    again = helpers.expected_steps(timesteps, actions)
    assert_same(helpers.read(path), [*run, again])

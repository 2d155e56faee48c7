# SPDX-License-Identifier: Apache-2.0
"""Minari datasets, as Minari's own DataCollector writes them."""

from __future__ import annotations

import gc
import os
import warnings

import gymnasium
import helpers
import numpy as np
import processes
import pytest
from dm_env import specs
from gymnasium import spaces

import envlogger
from envlogger import errors
from envlogger.conversion import minari_source
from envlogger.testing.comparison import assert_same

_NAME = "toy/everything-v0"


class _Everything(gymnasium.Env):
    """Four kinds of ends: terminated, truncated, both, and neither."""

    observation_space = spaces.Dict(
        {
            "box": spaces.Box(-1, 1, (3,), np.float32),
            "image": spaces.Box(0, 255, (4, 5, 4), np.uint8),
            "nested": spaces.Dict({"discrete": spaces.Discrete(5), "text": spaces.Text(8)}),
            "tuple": spaces.Tuple((spaces.MultiDiscrete([3, 4]), spaces.MultiBinary(3))),
        }
    )
    action_space = spaces.Tuple((spaces.Discrete(3, start=1), spaces.Box(-1, 1, (2,), np.float64)))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self._seed, self._count = seed, 0
        return self._observe()

    def step(self, action):
        self._count += 1
        is_over = self._count == 3
        ends = (is_over and self._seed in (0, 2), is_over and self._seed in (1, 2))
        observation, info = self._observe()
        return observation, self._count / 3, *ends, info

    def _observe(self):
        info = {"count": np.float32(self._count), "deep": {"array": np.arange(3) + self._count}}
        return self.observation_space.sample(), info


@pytest.fixture(scope="module", params=["hdf5", "arrow"])
def collected(request, tmp_path_factory):
    """A dataset, and what went into it: by episode, the results of `reset` and `step`; actions."""
    import minari

    root = tmp_path_factory.mktemp(request.param)
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(root)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Minari's, of what it was not told
            env = minari.DataCollector(_Everything(), record_infos=True, data_format=request.param)
            env.action_space.seed(0)
            episodes = []
            for seed in range(4):
                results, actions = [env.reset(seed=seed, options={"level": seed})], []
                for _ in range(3):
                    actions.append(env.action_space.sample())
                    results.append(env.step(actions[-1]))
                episodes.append((results, actions))
            made = env.create_dataset(
                _NAME, algorithm_name="random", author="me", description="A test."
            )
            env.close()
            num_episodes = made.total_episodes
            del env, made  # whose temporary directories are removed by their finalizers
            gc.collect()
    finally:
        os.environ.pop("MINARI_DATASETS_PATH")
        if before is not None:
            os.environ["MINARI_DATASETS_PATH"] = before
    assert num_episodes == 4
    return root / _NAME, episodes


def test_all_is_there(collected, tmp_path):
    source, episodes = collected
    target = tmp_path / "toy" / "1.0.0"
    envlogger.convert(source, target)
    with envlogger.Reader(target) as reader:
        assert len(reader.episodes) == 4
        for number, (results, actions) in enumerate(episodes):
            steps = list(reader.episodes[number])
            assert_same([step.timestep.observation for step in steps], [r[0] for r in results])
            assert_same([step.action for step in steps], [None, *actions])
            assert [step.timestep.reward for step in steps] == [None, 1 / 3, 2 / 3, 1.0]
            assert all(type(step.timestep.reward) is np.float64 for step in steps[1:])
            is_terminated, is_truncated = results[-1][2:4]
            assert [step.timestep.first() for step in steps] == [True, False, False, False]
            # The collector says of an episode that was reset before its end that it was truncated.
            assert is_terminated or is_truncated or number == 3
            assert [step.timestep.last() for step in steps] == [False, False, False, True]
            discounts = [step.timestep.discount for step in steps]
            assert discounts == [None, 1.0, 1.0, 0.0 if is_terminated else 1.0]
            for step, result in zip(steps, results, strict=True):
                # Minari does not give back all scalars as they were.
                np.testing.assert_equal(step.custom_data, result[-1])
            metadata = reader.episode_metadata()[number]
            assert (metadata["id"], metadata["seed"], metadata["total_steps"]) == (
                number,
                number,
                3,
            )
        assert reader.metadata()["minari"]["dataset_id"] == _NAME
        assert reader.metadata()["minari"]["algorithm_name"] == "random"
        assert reader.reward_spec().dtype == np.float64
        assert reader.observation_spec()["nested"]["discrete"].num_values == 5
        assert reader.action_spec()[0] == specs.BoundedArray((), np.int64, 1, 3)
    for rlds in (helpers.data_source(target), helpers.tf_episodes(target)):
        flags = [[bool(step["is_terminal"]) for step in episode["steps"]] for episode in rlds]
        assert flags == [[False, False, False, seed in (0, 2)] for seed in range(4)]


@pytest.mark.parametrize(("is_terminated", "is_truncated"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_how_an_episode_ends(is_terminated, is_truncated):
    episode = {
        "observations": np.arange(3),
        "actions": {"a": np.arange(2)},
        "rewards": np.ones(2),
        "terminations": np.array([False, is_terminated], bool),
        "truncations": np.array([False, is_truncated], bool),
        "infos": None,
    }
    steps = list(minari_source.steps_of(episode))
    assert [step.timestep.observation for step in steps] == [0, 1, 2]
    assert [step.action for step in steps] == [None, {"a": 0}, {"a": 1}]
    assert [step.custom_data for step in steps] == [None] * 3
    assert [step.timestep.discount for step in steps] == [None, 1.0, float(not is_terminated)]
    assert steps[-1].timestep.last() == bool(is_terminated or is_truncated)


def test_by_its_inner_directory_and_by_two_processes(collected, tmp_path):
    source, _ = collected
    envlogger.convert(source, tmp_path / "one")
    envlogger.convert(source / "data", tmp_path / "two", workers=2, max_episodes_per_file=1)
    assert_same(helpers.read(tmp_path / "two"), helpers.read(tmp_path / "one"))


def test_a_damaged_dataset(collected, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "main_data.hdf5").write_bytes(b"no HDF5")
    with pytest.raises(errors.CorruptDatasetError, match="Minari cannot read"):
        envlogger.convert(tmp_path / "x", tmp_path / "new")


_WITHOUT = """
import sys
sys.modules["minari"] = None
from envlogger.cli import main
sys.exit(main.main(["convert", *sys.argv[1:]]))
"""


def test_without_the_extra(collected, tmp_path):
    result = processes.python(_WITHOUT, collected[0], tmp_path / "new", status=1)
    assert "pip install 'envlogger[minari]'" in result.stderr
    assert os.listdir(tmp_path) == []

# SPDX-License-Identifier: Apache-2.0
"""Catch as `tfds build` makes it, against the environment."""

from __future__ import annotations

import contextlib
import io
import json
import pathlib

import catch_dataset_builder
import numpy as np
import pytest
import runs_builders
import snapshots
import tensorflow_datasets as tfds

import envlogger
import envlogger.tfds
from envlogger.testing import catch_env
from envlogger.testing.comparison import assert_same

pytestmark = pytest.mark.filterwarnings("ignore")  # TFDS's own

_SAMPLE = pathlib.Path(__file__).parent / "sample_data" / "catch" / "random" / "1.0.0"
_NUM_EPISODES = 200

BUILDS = {"catch": ()}


@pytest.fixture
def data_dir(built):
    return built("catch")


def _played(policy):
    """Returns what a policy sees, as it is logged."""
    env = catch_env.Catch(seed=0)
    choose = catch_dataset_builder._policies(0)[policy]
    for _ in range(_NUM_EPISODES):
        steps = [envlogger.StepData(env.reset(), None, None)]
        while not steps[-1].timestep.last():
            action = choose(steps[-1].timestep.observation)
            steps.append(envlogger.StepData(env.step(action), action, None))
        yield steps


@pytest.mark.parametrize("policy", ["random", "optimal"])
def test_episodes_are_what_the_environment_showed(data_dir, policy):
    got = runs_builders.by_id(data_dir / "catch" / policy / "1.0.0")

    assert len(got) == _NUM_EPISODES
    assert_same([got[name] for name in sorted(got)], list(_played(policy)))


def test_policies(data_dir):
    for policy, least, most in (("random", 0.1, 0.5), ("optimal", 1, 1)):
        with envlogger.Reader(data_dir / "catch" / policy / "1.0.0") as reader:
            returns = [metadata["return"] for metadata in reader.episode_metadata()]
            assert reader.metadata().items() >= {"policy": policy, "seed": 0}.items()
        assert least <= np.mean(np.array(returns) == 1) <= most


def test_the_sample_is_the_beginning(data_dir):
    """Reproducible by seed: the sample was built somewhere else."""
    directory = data_dir / "catch" / "random" / "1.0.0"
    for split in ("train", "test"):
        sample = runs_builders.records(_SAMPLE, split)
        assert len(sample) == 3
        assert runs_builders.records(directory, split)[:3] == sample


def test_same_seed_gives_the_same_bits(data_dir, tmp_path):
    builder = catch_dataset_builder.Builder(data_dir=str(tmp_path), config="random")
    builder.download_and_prepare()

    one, other = (snapshots.contents(d / "catch" / "random") for d in (data_dir, tmp_path))
    infos = [json.loads(files.pop("1.0.0/dataset_info.json")) for files in (one, other)]
    for info in infos:
        info.pop("moduleName")  # how the builder was imported
    assert infos[0] == infos[1]
    assert one == other


def test_as_the_readme_says(data_dir):
    random = tfds.load("catch", data_dir=data_dir, split="train")
    optimal = tfds.load("catch/optimal", data_dir=data_dir, split="train+test")
    assert 150 < len(random) < 200
    assert len(optimal) == _NUM_EPISODES
    for episode in optimal.take(5):
        rewards = [float(step["reward"]) for step in episode["steps"]]
        assert rewards == [0] * 8 + [1, 0]
    source = tfds.data_source("catch/optimal", data_dir=data_dir, split="test")
    assert all(episode["return"] == 1 for episode in source)


def test_page(data_dir):
    builder = tfds.builder("catch/random", data_dir=data_dir)
    info = builder.info
    assert info.description.startswith("Catch: a ball falls down")
    assert info.citation.startswith("@inproceedings{osband2020bsuite")
    assert info.config_description == "Each action is drawn uniformly."
    for name in ("observation", "action", "reward", "discount", "is_first", "is_last"):
        assert info.features["steps"][name].doc.desc
    frame = tfds.as_dataframe(builder.as_dataset(split="test").take(3), info)
    assert len(frame) == 3
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert tfds.benchmark(builder.as_dataset(split="test"), num_iter=5).stats is not None

# SPDX-License-Identifier: Apache-2.0
"""bsuite as `tfds build` makes it, against its environments."""

from __future__ import annotations

import pathlib

import bsuite_dataset_builder
import numpy as np
import pytest
import runs_builders
import tensorflow_datasets as tfds

import envlogger
import envlogger.tfds
from envlogger.testing.comparison import assert_same

pytestmark = pytest.mark.filterwarnings("ignore")  # TFDS's and bsuite's own

_SAMPLE = pathlib.Path(__file__).parent / "sample_data" / "bsuite" / "catch_scale" / "1.0.0"
_FAMILIES = [config.family for config in bsuite_dataset_builder.Builder.BUILDER_CONFIGS]

BUILDS = {"catch_scale": ("--config=catch_scale",)}


@pytest.fixture
def data_dir(built):
    return built("catch_scale")


def _play(env, seed, num_episodes, max_steps=1000):
    """Returns what a random policy sees, as it is logged."""
    rng = np.random.default_rng(seed)
    for _ in range(num_episodes):
        steps = [envlogger.StepData(env.reset(), None, None)]
        while not steps[-1].timestep.last() and len(steps) < max_steps:
            action = int(rng.integers(env.action_spec().num_values))
            steps.append(envlogger.StepData(env.step(action), action, None))
        yield steps


def test_episodes_are_what_the_environments_showed(data_dir):
    config = bsuite_dataset_builder.BsuiteConfig(name="again", family="catch_scale")
    settings = list(bsuite_dataset_builder._environments(config))
    assert [name for name, _ in settings] == [f"catch_scale/{i}" for i in range(20)]

    with envlogger.Reader(data_dir / "bsuite" / "catch_scale" / "1.0.0") as reader:
        got = [list(episode) for episode in reader.episodes]
        names = [metadata["bsuite_id"] for metadata in reader.episode_metadata()]
    assert_same(got, [steps for _, env in settings for steps in _play(env, 0, 10)])
    assert names == [name for name, _ in settings for _ in range(10)]


def test_the_sample_is_the_beginning(data_dir):
    """Reproducible by seed: the sample was built somewhere else."""
    directory = data_dir / "bsuite" / "catch_scale" / "1.0.0"
    sample = runs_builders.records(_SAMPLE, "train")
    assert len(sample) == 3
    assert runs_builders.records(directory, "train")[:3] == sample


@pytest.mark.parametrize("family", _FAMILIES)
def test_families_are_reproducible(family):
    def play(seed):
        config = bsuite_dataset_builder.BsuiteConfig(name="short", family=family, seed=seed)
        (_, first), *others = bsuite_dataset_builder._environments(config)
        played = list(_play(first, seed, 2, max_steps=30))
        return played + (list(_play(others[-1][1], seed, 2, max_steps=30)) if others else [])

    assert_same(play(3), play(3))


def test_all_families_are_there():
    from bsuite import sweep

    names = {name.partition("/")[0] for name in sweep.SWEEP}
    assert names - set(_FAMILIES) == {"mnist", "mnist_noise", "mnist_scale"}


def test_as_the_readme_says(data_dir):
    dataset = tfds.load("bsuite/catch_scale", data_dir=data_dir, split="train")
    assert len(dataset) == 200
    assert {e["bsuite_id"].numpy() for e in dataset.take(20)} == {
        b"catch_scale/0",
        b"catch_scale/1",
    }


def test_another_setting(tmp_path):
    config = bsuite_dataset_builder.BsuiteConfig(
        name="deep_sea_30", family="deep_sea", setting=10, num_episodes=3
    )
    builder = bsuite_dataset_builder.Builder(data_dir=str(tmp_path), config=config)
    builder.download_and_prepare()

    with envlogger.Reader(builder.data_dir) as reader:
        assert len(reader.episodes) == 3
        assert {m["bsuite_id"] for m in reader.episode_metadata()} == {"deep_sea/10"}
        assert reader.steps[0].timestep.observation.shape == (30, 30)

# SPDX-License-Identifier: Apache-2.0
"""The suite as `tfds build` makes it, against its tasks."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import dm_control_suite_dataset_builder
import numpy as np
import pytest
import rendering
import runs_builders
import tensorflow_datasets as tfds

import envlogger
import envlogger.tfds
from envlogger.testing.comparison import assert_same

pytestmark = pytest.mark.filterwarnings("ignore")  # TFDS's and dm_control's own

_FOLDER = pathlib.Path(__file__).parent
_SAMPLE = _FOLDER / "sample_data" / "dm_control_suite" / "cartpole_balance_short" / "1.0.0"
_SHORT = {
    "domain": "cartpole",
    "task": "balance",
    "pixels": False,
    "num_episodes": 2,
    "time_limit": 0.2,
    "seed": 0,
}
_PIXELS = {**_SHORT, "task": "swingup", "pixels": True, "time_limit": 0.05, "seed": 7}


BUILDS = {
    name: (f"--config={json.dumps({'name': name, **played})}",)
    for name, played in (("cartpole_balance_short", _SHORT), ("cartpole_swingup_pixels_7", _PIXELS))
}


@pytest.fixture
def state_dir(built):
    return built("cartpole_balance_short")


def _suite(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disabled")  # dm_control reads it when it is imported
    from dm_control import suite

    return suite


def test_episodes_are_what_the_task_showed(state_dir, monkeypatch):
    env = _suite(monkeypatch).load(
        "cartpole", "balance", task_kwargs={"random": 0, "time_limit": 0.2}
    )
    rng = np.random.default_rng(0)
    expected = []
    for _ in range(2):
        timestep, action, steps = env.reset(), None, []
        while True:
            timestep = timestep._replace(observation=dict(timestep.observation))
            steps.append(envlogger.StepData(timestep, action, {"time": env.physics.time()}))
            if timestep.last():
                break
            action = rng.uniform(-1, 1, (1,))
            timestep = env.step(action)
        expected.append(steps)

    directory = state_dir / "dm_control_suite" / "cartpole_balance_short" / "1.0.0"
    with envlogger.Reader(directory) as reader:
        assert_same([list(episode) for episode in reader.episodes], expected)
        assert reader.metadata().items() >= {
            "domain": "cartpole", "task": "balance", "policy": "random", "seed": 0
        }.items()  # fmt: skip
        assert reader.steps[0].timestep.observation["position"].dtype == np.float64


def test_the_sample_has_the_same_form(state_dir):
    """Not always the same bits: those depend on MuJoCo's version and on the processor."""
    directory = state_dir / "dm_control_suite" / "cartpole_balance_short" / "1.0.0"
    assert runs_builders.bare_features(directory) == runs_builders.bare_features(_SAMPLE)
    got, sample = runs_builders.by_id(directory), runs_builders.by_id(_SAMPLE)
    assert list(got) == list(sample) == [f"cartpole-balance-0-{row:09d}" for row in (0, 21)]
    for one, other in zip(got.values(), sample.values(), strict=True):
        for step, before in zip(one, other, strict=True):
            for name, value in before.timestep.observation.items():
                np.testing.assert_allclose(step.timestep.observation[name], value, atol=1e-6)


@rendering.needs_rendering
def test_pixels(built, tmp_path):
    data_dir = built("cartpole_swingup_pixels_7")
    directory = data_dir / "dm_control_suite" / "cartpole_swingup_pixels_7" / "1.0.0"
    env = {"MUJOCO_GL": "egl", **os.environ}
    command = [sys.executable, _FOLDER / "play.py", tmp_path / "again", json.dumps(_PIXELS)]
    subprocess.run(command, env=env, check=True)

    # The same seed gives the same bits.
    again = runs_builders.records(tmp_path / "again", "train")
    assert runs_builders.records(directory, "train") == again
    with envlogger.Reader(directory) as reader:
        assert list(reader.observation_spec()) == ["pixels"]
        image = reader.steps[0].timestep.observation["pixels"]
        assert reader.metadata()["seed"] == 7
    assert (image.shape, image.dtype) == ((84, 84, 3), np.uint8)
    assert image.std() > 1  # something is to be seen


def test_as_the_readme_says(state_dir):
    dataset = tfds.load(
        "dm_control_suite/cartpole_balance_short", data_dir=state_dir, split="train"
    )
    for episode in dataset:
        times = [float(step["time"]) for step in episode["steps"]]
        np.testing.assert_allclose(times, np.arange(21) * 0.01)


def test_configs_are_those_of_the_suite(monkeypatch):
    tasks = _suite(monkeypatch).TASKS_BY_DOMAIN
    assert {key: tuple(tasks[key]) for key in tasks} == dm_control_suite_dataset_builder.TASKS
    names = dm_control_suite_dataset_builder.Builder.builder_configs.keys()
    assert {"walker_walk", "walker_walk_pixels", "humanoid_cmu_run"} <= names

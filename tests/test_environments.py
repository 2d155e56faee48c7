# SPDX-License-Identifier: Apache-2.0
"""Real environments, recorded, and compared bit by bit in each of the ways to read them."""

from __future__ import annotations

import dataclasses
import pathlib
import pickle
import subprocess
import sys
from typing import Any

import helpers
import numpy as np
import pytest
import rendering
import tensorflow_datasets as tfds

import envlogger
import envlogger.tfds
from envlogger import step_data
from envlogger.testing import comparison


@dataclasses.dataclass(frozen=True)
class _Run:
    """A dataset: `<root>/<name>/1.0.0`, what was logged into it, and the environment's specs."""

    root: pathlib.Path
    name: str
    directory: pathlib.Path
    episodes: list[list[step_data.StepData]]
    specs: dict[str, Any]


@pytest.fixture(
    scope="module",
    params=[
        "walker_walk",
        "humanoid_run",
        pytest.param("cartpole_camera", marks=rendering.needs_rendering),
        "bsuite_catch",
    ],
)
def run(request, tmp_path_factory):
    name = request.param
    root = tmp_path_factory.mktemp(name)
    directory = root / name / "1.0.0"
    program = pathlib.Path(__file__).with_name("record_environment.py")
    subprocess.run([sys.executable, program, name, directory, root / "pickle"], check=True)
    episodes, specs = pickle.loads((root / "pickle").read_bytes())
    return _Run(root, name, directory, episodes, specs)


def test_runs_are_what_they_should_be(run):
    lengths = {
        "walker_walk": [41, 41, 2],
        "humanoid_run": [11, 11, 2],
        "cartpole_camera": [4, 4, 2],
        "bsuite_catch": [10, 10, 2],
    }
    assert [len(episode) for episode in run.episodes] == lengths[run.name]
    if run.name == "cartpole_camera":
        image = run.episodes[0][0].timestep.observation["pixels"]
        assert (image.shape, image.dtype) == ((48, 64, 3), np.uint8)
        assert image.std() > 1  # something is to be seen


def test_reader_gives_back_what_was_logged(run):
    comparison.assert_same(helpers.read(run.directory), run.episodes)
    assert [metadata["number"] for metadata in helpers.read_metadata(run.directory)] == [0, 1, 2]


def test_reader_gives_back_the_specs(run):
    with envlogger.Reader(run.directory) as reader:
        for slot, spec in run.specs.items():
            assert getattr(reader, f"{slot}_spec")() == spec


def test_data_source_gives_rlds_steps(run):
    source = tfds.data_source(run.name, data_dir=run.root, split="train")

    _assert_gives(run, source)


def test_tf_data_gives_rlds_steps(run):
    dataset = tfds.load(run.name, data_dir=run.root, split="train")

    _assert_gives(run, tfds.as_numpy(dataset))


def _assert_gives(run, dataset):
    for got, logged in zip(dataset, run.episodes, strict=True):
        assert got["agent"] == b"random"
        assert not got["invalid"]
        helpers.assert_same_leaves(list(got["steps"]), _rlds_steps(logged))


def _rlds_steps(episode):
    """Returns an episode's steps in RLDS's alignment: what was done at t, and what came of it."""
    padding = _zeros(episode[1])
    steps = []
    for step, following in zip(episode, [*episode[1:], None], strict=True):
        is_last = following is None
        following = following or padding
        steps.append(
            {
                "observation": step.timestep.observation,
                "action": following.action,
                "reward": following.timestep.reward,
                "discount": following.timestep.discount,
                "is_first": step.timestep.first(),
                "is_last": is_last,
                "is_terminal": step.timestep.last() and step.timestep.discount == 0,
                **step.custom_data,
            }
        )
    return steps


def _zeros(step):
    reward, discount, action = (
        np.zeros_like(value)
        for value in (step.timestep.reward, step.timestep.discount, step.action)
    )
    return step_data.StepData(step.timestep._replace(reward=reward, discount=discount), action)

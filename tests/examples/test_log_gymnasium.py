# SPDX-License-Identifier: Apache-2.0
"""Records classic control, MuJoCo and MiniGrid by the example, as its users do."""

from __future__ import annotations

import numpy as np
import programs
import pytest

import envlogger


@pytest.mark.parametrize(
    ("env", "name", "observation"),
    [
        ("CartPole-v1", "cartpole_v1", np.float32),
        ("HalfCheetah-v5", "halfcheetah_v5", np.float64),
        ("minigrid:MiniGrid-Empty-5x5-v0", "minigrid_empty_5x5_v0", None),
    ],
)
def test_it_records(env, name, observation, tmp_path):
    args = (f"--env={env}", "--episodes=2")

    result = programs.run("log_gymnasium.py", *args, "--info", cwd=tmp_path)

    assert result.stdout == f"Recorded 2 episodes to data/{name}/1.0.0\n"
    with envlogger.Reader(tmp_path / f"data/{name}/1.0.0") as reader:
        assert len(reader.episodes) == 2
        assert reader.metadata()["env"] == env
        step = reader.steps[1]
    if observation is None:
        assert step.timestep.observation["mission"] == "get to the green goal square"
    else:
        assert step.timestep.observation.dtype == observation
    if name == "halfcheetah_v5":
        assert set(step.custom_data["info"]) >= {"x_position", "reward_ctrl"}


def test_the_same_seed_gives_the_same_and_frames_are_recorded(tmp_path):
    args = ("--episodes=1", "--frames", "--seed=4")

    for directory in ("a", "b"):
        programs.run("log_gymnasium.py", *args, f"--data_directory={directory}", cwd=tmp_path)

    with envlogger.Reader(tmp_path / "a") as one, envlogger.Reader(tmp_path / "b") as other:
        frames = one.episodes[0].columns()["frame"]
        np.testing.assert_array_equal(frames, other.episodes[0].columns()["frame"])
    assert frames.shape[1:] == (400, 600, 3)
    assert frames.std() > 1


def test_bad_input(tmp_path):
    unknown = programs.run("log_gymnasium.py", "--env=NoSuch-v0", cwd=tmp_path, status=1)
    module = programs.run("log_gymnasium.py", "--env=nosuch:X-v0", cwd=tmp_path, status=1)
    count = programs.run("log_gymnasium.py", "--episodes=0", cwd=tmp_path, status=2)

    assert unknown.stderr.startswith("error: --env: Gymnasium cannot make 'NoSuch-v0': ")
    assert module.stderr.startswith("error: --env: Gymnasium cannot make 'nosuch:X-v0': ")
    assert "--episodes: got 0, expected at least 1" in count.stderr

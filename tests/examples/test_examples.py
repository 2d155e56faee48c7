# SPDX-License-Identifier: Apache-2.0
"""Runs the examples as their users do: as programs, on small numbers."""

from __future__ import annotations

import programs
import rendering

import envlogger


def test_random_agent_catch_records_and_appends(tmp_path):
    args = ("--num_episodes=3", f"--trajectories_dir={tmp_path / 'catch'}")

    first = programs.run("random_agent_catch.py", *args, cwd=tmp_path)
    programs.run("random_agent_catch.py", *args, cwd=tmp_path)

    assert first.stdout == f"Recorded 3 episodes to {tmp_path / 'catch'}\n"
    assert first.stderr == ""
    with envlogger.Reader(tmp_path / "catch") as reader:
        assert len(reader.episodes) == 6
        assert reader.metadata()["agent_type"] == "random"
        assert isinstance(reader.steps[0].custom_data["timestamp"], float)


def test_random_agent_catch_refuses_no_episodes(tmp_path):
    result = programs.run("random_agent_catch.py", "--num_episodes=0", cwd=tmp_path, status=2)

    assert "--num_episodes: got 0, expected at least 1" in result.stderr


def test_random_agent_catch_says_why_it_cannot_record(tmp_path):
    (tmp_path / "file").write_text("")

    result = programs.run(
        "random_agent_catch.py", "--trajectories_dir=file", cwd=tmp_path, status=1
    )

    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr


def test_log_dm_control_records_a_task(tmp_path):
    result = programs.run(
        "log_dm_control.py",
        "--domain=cartpole",
        "--task=swingup",
        "--episodes=2",
        "--time_limit=0.05",
        cwd=tmp_path,
    )

    assert result.stdout == "Recorded 2 episodes to data/cartpole_swingup/1.0.0\n"
    with envlogger.Reader(tmp_path / "data/cartpole_swingup/1.0.0") as reader:
        assert [len(episode) for episode in reader.episodes] == [6, 6]
        assert reader.metadata()["task"] == "swingup"
        assert list(reader.observation_spec()) == ["position", "velocity"]


@rendering.needs_rendering
def test_log_dm_control_records_camera_images(tmp_path):
    args = ("--domain=cartpole", "--task=swingup", "--episodes=1", "--time_limit=0.02", "--pixels")

    programs.run("log_dm_control.py", *args, f"--data_directory={tmp_path / 'data'}", cwd=tmp_path)

    with envlogger.Reader(tmp_path / "data") as reader:
        image = reader.steps[0].timestep.observation["pixels"]
    assert (image.shape, image.dtype) == ((84, 84, 3), "uint8")
    assert image.std() > 1  # something is to be seen


def test_log_dm_control_lists_what_there_is(tmp_path):
    domain = programs.run("log_dm_control.py", "--domain=valker", cwd=tmp_path, status=1)
    task = programs.run(
        "log_dm_control.py", "--domain=walker", "--task=fly", cwd=tmp_path, status=1
    )

    assert domain.stderr.startswith("error: --domain: got 'valker', expected one of acrobot, ")
    assert task.stderr == "error: --task: got 'fly', expected one of run, stand, walk\n"


def test_read_episodes_shows_what_was_recorded(tmp_path):
    programs.run(
        "random_agent_catch.py", "--num_episodes=3", "--trajectories_dir=catch", cwd=tmp_path
    )

    shown = programs.run("read_episodes.py", "catch", "--steps=2", cwd=tmp_path).stdout

    assert "observation                  BoundedArray(shape=(10, 5)" in shown
    assert "'agent_type': 'random'" in shown
    assert "3 episodes, 30 steps" in shown
    assert "Step 1: MID" in shown
    assert "Step 2" not in shown


def test_read_episodes_says_that_nothing_is_there(tmp_path):
    result = programs.run("read_episodes.py", "nowhere", cwd=tmp_path, status=1)

    assert result.stderr.startswith("error: ")
    assert "nowhere" in result.stderr


def test_demo_records_what_is_missing_and_shows_all(tmp_path):
    first = programs.run("demo.py", "--walker_episodes=1", "--catch_episodes=2", cwd=tmp_path)
    more = programs.run("demo.py", "--walker_episodes=1", "--catch_episodes=5", cwd=tmp_path)
    again = programs.run("demo.py", "--walker_episodes=1", "--catch_episodes=5", cwd=tmp_path)

    assert [result.stdout.splitlines()[:2] for result in (first, more, again)] == [
        [
            "demo_data/walker_walk/1.0.0: recorded 1 episodes",
            "demo_data/bsuite_catch/1.0.0: recorded 2 episodes",
        ],
        [
            "demo_data/walker_walk/1.0.0: 1 episodes are there; remove the directory to record anew",
            "demo_data/bsuite_catch/1.0.0: recorded 3 episodes",
        ],
        [
            "demo_data/walker_walk/1.0.0: 1 episodes are there; remove the directory to record anew",
            "demo_data/bsuite_catch/1.0.0: 5 episodes are there; remove the directory to record anew",
        ],
    ]
    assert more.stdout.splitlines()[2:] == again.stdout.splitlines()[2:]
    assert "  bsuite_catch         5           45      9.0" in again.stdout
    assert first.stderr == more.stderr == again.stderr == ""
    assert (tmp_path / "demo_data/report.png").read_bytes().startswith(b"\x89PNG")
    with envlogger.Reader(tmp_path / "demo_data/bsuite_catch/1.0.0") as reader:
        numbers = [metadata["number"] for metadata in reader.episode_metadata()]
    assert numbers == [0, 1, 2, 3, 4]

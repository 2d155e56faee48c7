# SPDX-License-Identifier: Apache-2.0
"""The agent of `behaviour_cloning_torch.py` learns to play from what a random agent did when it won."""

from __future__ import annotations

import re

import processes
import programs


def test_the_cloned_agent_catches_the_ball(tmp_path):
    result = programs.run("behaviour_cloning_torch.py", "--workers=2", "--epochs=8", cwd=tmp_path)

    returns = {
        agent: float(re.search(rf"{agent} agent +(-?[\d.]+)", result.stdout)[1])
        for agent in ("random", "cloned")
    }
    assert -0.8 <= returns["random"] <= -0.4
    assert returns["cloned"] >= 0.9

    second = programs.run(
        "behaviour_cloning_torch.py", "--epochs=1", "--test_episodes=1", cwd=tmp_path
    )

    assert "Using the log in offline_dqn/catch/1.0.0" in second.stdout
    assert re.search(r"Cloning \d+ of 1000 episodes", second.stdout)


def test_bad_input(tmp_path):
    result = programs.run("behaviour_cloning_torch.py", "--epochs=0", cwd=tmp_path, status=2)

    assert "--epochs: got 0, expected at least 1" in result.stderr


def test_a_log_in_which_nothing_was_won(tmp_path):
    result = programs.run(
        "behaviour_cloning_torch.py", "--episodes=1", "--seed=3", cwd=tmp_path, status=1
    )

    assert "error: the ball was caught in no episode. Record more" in result.stderr


def test_it_needs_no_tensorflow(tmp_path):
    arguments = ["--episodes=60", "--epochs=1", "--test_episodes=1"]
    source = f"""
import runpy, sys
sys.modules["tensorflow"] = None  # importing it is an error
sys.path.insert(0, {str(programs.EXAMPLES)!r})
sys.argv[1:] = {arguments!r}
runpy.run_module("behaviour_cloning_torch", run_name="__main__")
"""

    assert "cloned agent" in processes.python(source, cwd=tmp_path, timeout=280).stdout

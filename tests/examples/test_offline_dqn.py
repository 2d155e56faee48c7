# SPDX-License-Identifier: Apache-2.0
"""The agent of `offline_dqn.py` learns to play from a random agent's log alone."""

from __future__ import annotations

import re

import programs


def test_the_trained_agent_catches_the_ball(tmp_path):
    result = programs.run("offline_dqn.py", cwd=tmp_path)

    returns = {
        agent: float(re.search(rf"{agent} agent +(-?[\d.]+)", result.stdout)[1])
        for agent in ("random", "trained")
    }
    assert -0.8 <= returns["random"] <= -0.4
    assert returns["trained"] >= 0.9
    picture = tmp_path / "offline_dqn" / "learning_curve.png"
    assert picture.read_bytes().startswith(b"\x89PNG")

    second = programs.run("offline_dqn.py", "--updates=1", "--test_episodes=1", cwd=tmp_path)

    assert "Using the log in offline_dqn/catch/1.0.0" in second.stdout


def test_bad_input(tmp_path):
    result = programs.run("offline_dqn.py", "--updates=0", cwd=tmp_path, status=2)

    assert "--updates: got 0, expected at least 1" in result.stderr

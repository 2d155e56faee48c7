# SPDX-License-Identifier: Apache-2.0
"""The agent of `behaviour_cloning_torch.py` learns to play from what a random agent did when it won."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

_EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "behaviour_cloning_torch.py"


def _run(*args, cwd, status=0):
    result = subprocess.run(
        [sys.executable, str(_EXAMPLE), *args],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert result.returncode == status, result.stdout + result.stderr
    return result


def test_the_cloned_agent_catches_the_ball(tmp_path):
    result = _run("--workers=2", "--epochs=8", cwd=tmp_path)

    returns = {
        agent: float(re.search(rf"{agent} agent +(-?[\d.]+)", result.stdout)[1])
        for agent in ("random", "cloned")
    }
    assert -0.8 <= returns["random"] <= -0.4
    assert returns["cloned"] >= 0.9

    second = _run("--epochs=1", "--test_episodes=1", cwd=tmp_path)

    assert "Using the log in offline_dqn/catch/1.0.0" in second.stdout
    assert re.search(r"Cloning \d+ of 1000 episodes", second.stdout)


def test_bad_input(tmp_path):
    result = _run("--epochs=0", cwd=tmp_path, status=2)

    assert "--epochs: got 0, expected at least 1" in result.stderr


def test_a_log_in_which_nothing_was_won(tmp_path):
    result = _run("--episodes=1", "--seed=3", cwd=tmp_path, status=1)

    assert "error: the ball was caught in no episode. Record more" in result.stderr


def test_it_needs_no_tensorflow():
    assert "tensorflow" not in {
        line.split()[1].partition(".")[0]
        for line in _EXAMPLE.read_text().splitlines()
        if line.startswith(("import ", "from "))
    }

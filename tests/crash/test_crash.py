# SPDX-License-Identifier: Apache-2.0
"""A part of what `python -m tests.crash` can do: 50 random trials, and each sixth sub-step."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("arguments", [["--trials", "50"], ["--sweep", "--every", "6"]])
def test_nothing_is_lost_whoever_is_killed_and_when(arguments: list[str]) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.crash", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    count, losses = run.stdout.splitlines()[-1].split(", ")
    assert int(count.split()[0]) >= 50
    assert losses == "0 losses"

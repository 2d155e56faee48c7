# SPDX-License-Identifier: Apache-2.0
"""A part of what `python -m tests.riegeli.fuzz` can do."""

from __future__ import annotations

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def test_damaged_and_hostile_input_is_read_or_refused() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.riegeli.fuzz", "--inputs", "600"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.splitlines()[-1] == "600 inputs, 0 failures"

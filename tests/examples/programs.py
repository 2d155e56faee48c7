# SPDX-License-Identifier: Apache-2.0
"""Runs the examples as their users do: as programs."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import Any

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


def run(
    name: str, *args: Any, cwd: pathlib.Path, status: int = 0
) -> subprocess.CompletedProcess[str]:
    """Runs an example in a directory; raises unless it ends with a status."""
    environ = {**os.environ, "COLUMNS": "100"}
    environ.pop("TF_CPP_MIN_LOG_LEVEL", None)  # jax sets it, in tests of other things
    result = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, args)],
        cwd=cwd,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert result.returncode == status, result.stdout + result.stderr
    return result

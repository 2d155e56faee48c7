# SPDX-License-Identifier: Apache-2.0
"""Whether MuJoCo can render without a display; import this before dm_control."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

os.environ.setdefault("MUJOCO_GL", "egl")


def _can_render() -> bool:
    # In a process of its own: a missing library makes the import of dm_control fail for good.
    program = "import mujoco; mujoco.GLContext(8, 8).make_current()"
    return subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0


needs_egl = pytest.mark.skipif(
    # In CI a test that is skipped would be a test that is lost.
    not os.environ.get("CI") and not _can_render(),
    reason="MuJoCo cannot render here: apt-get install libegl1 libopengl0 (as root, `make` does)",
)

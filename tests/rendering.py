# SPDX-License-Identifier: Apache-2.0
"""Has MuJoCo render without a display, where it can; import this before dm_control."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def _can_render() -> bool:
    # In a process of its own: where a library is missing, dm_control cannot be imported any more.
    program = "import mujoco; mujoco.GLContext(8, 8).make_current()"
    env = {"MUJOCO_GL": "egl", **os.environ}
    return (
        subprocess.run([sys.executable, "-c", program], env=env, capture_output=True).returncode
        == 0
    )


# In CI a test that is skipped would be a test that is lost.
_RENDERS = bool(os.environ.get("CI")) or _can_render()

os.environ.setdefault("MUJOCO_GL", "egl" if _RENDERS else "disabled")

needs_rendering = pytest.mark.skipif(
    not _RENDERS,
    reason="MuJoCo cannot render: apt-get install libegl1 libopengl0 (run as root, `make` does it)",
)

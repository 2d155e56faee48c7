# SPDX-License-Identifier: Apache-2.0
"""Whether MuJoCo can render without a display."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def _can_render() -> bool:
    # In a process of its own, as whatever renders must be: Mesa's LLVM and TensorFlow's crash each other.
    program = "import mujoco; mujoco.GLContext(8, 8).make_current()"
    env = {"MUJOCO_GL": "egl", **os.environ}
    return (
        subprocess.run([sys.executable, "-c", program], env=env, capture_output=True).returncode
        == 0
    )


needs_rendering = pytest.mark.skipif(
    # In CI a test that is skipped would be a test that is lost; `.ci/run` says that it is CI.
    not os.environ.get("CI") and not _can_render(),
    reason="MuJoCo cannot render: apt-get install libegl1 libgl1-mesa-dri libopengl0",
)

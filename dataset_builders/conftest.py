# SPDX-License-Identifier: Apache-2.0
"""Runs `tfds build`, which needs the extra `build`: these tests run where that is installed.

A test module says in BUILDS what is to be built, by name: the arguments of `tfds build` behind the folder's name.
As many of all these builds are under way at a time as there are processors.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import sys
from concurrent import futures

import pytest

collect_ignore_glob = [] if importlib.util.find_spec("apache_beam") else ["*"]

_TFDS = pathlib.Path(sys.executable).with_name("tfds")


@pytest.fixture(scope="session")
def _builds(request, tmp_path_factory):
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {
            (path, name): pool.submit(_build, path.parent, arguments, tmp_path_factory.mktemp(name))
            for path, module in {item.path: item.module for item in request.session.items}.items()
            for name, arguments in getattr(module, "BUILDS", {}).items()
        }


@pytest.fixture
def built(request, _builds):
    """Returns a function that returns the --data_dir of a build of the test's module."""
    return lambda name: _builds[request.path, name].result()


def _build(folder, arguments, data_dir):
    command = [_TFDS, "build", folder, f"--data_dir={data_dir}", *arguments]
    done = subprocess.run(command, cwd=data_dir, timeout=240, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return data_dir

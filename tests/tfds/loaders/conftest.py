# SPDX-License-Identifier: Apache-2.0
"""A dataset of numbered steps, in each file format, and as numpy."""

from __future__ import annotations

import numbered
import pytest


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("datasets")


@pytest.fixture(scope="session", params=["array_record", "tfrecord"])
def any_format(root, request):
    return numbered.write(root / request.param / "toy" / "1.0.0", file_format=request.param)


@pytest.fixture(scope="session")
def directory(root):
    return numbered.write(root / "main" / "toy" / "1.0.0")


@pytest.fixture(scope="session")
def numpy_episodes():
    """The episodes in recorded order, as columns of numpy arrays."""
    return [
        numbered.columns(numbered.make_episode(i, length)["steps"])
        for i, length in enumerate(numbered.LENGTHS)
    ]

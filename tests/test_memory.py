# SPDX-License-Identifier: Apache-2.0
"""Memory of large records, which is used again for the next ones."""

from __future__ import annotations

import os

import helpers
import numpy as np
import processes
import pytest

_READ = """
    import resource, sys
    import envlogger

    def read():
        with envlogger.Reader(sys.argv[1], cache_bytes=0) as reader:
            for episode in reader.episodes:
                episode.columns()

    read()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    read()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Four episodes of 4 MB each."""
    path = tmp_path_factory.mktemp("run") / "1.0.0"
    image = np.zeros((256, 256, 3), np.uint8)
    episode = [helpers.first(image), *[helpers.mid(image)] * 19, helpers.last(image)]
    helpers.record(path, [episode] * 4, image_format="raw")
    return path


def _faults(run, **variables):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    return int(processes.python(_READ, run, env={**environment, **variables}).stdout)


def test_large_records_are_read_into_the_memory_of_those_before(run):
    assert _faults(run) < 4000  # a copy of an episode takes 1000 pages


def test_what_the_environment_says_is_left_alone(run):
    assert _faults(run, MALLOC_TRIM_THRESHOLD_="131072") > 8000

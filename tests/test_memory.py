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

    def columns():
        with envlogger.Reader(sys.argv[1], cache_bytes=0) as reader:
            for episode in reader.episodes:
                episode.columns()

    def steps():
        with envlogger.Reader(sys.argv[1], cache_bytes=0) as reader:
            for i in range(0, len(reader.steps), 5):
                reader.steps[i]

    read = {"columns": columns, "steps": steps}[sys.argv[2]]
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


def _faults(run, what="columns", **variables):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    return int(processes.python(_READ, run, what, env={**environment, **variables}).stdout)


def test_large_records_are_read_into_the_memory_of_those_before(run):
    assert _faults(run) < 4000  # a copy of an episode takes 1000 pages


def test_images_are_decoded_into_the_memory_of_those_before(tmp_path):
    path = tmp_path / "1.0.0"
    noise = np.random.default_rng(0).integers(0, 256, (20, 256, 256, 3), np.uint8)
    episode = [helpers.first(noise[0]), *map(helpers.mid, noise[1:])]
    helpers.record(path, [episode] * 4, image_format="png")

    assert _faults(path, "steps") < 400  # each of 16 images takes 48 pages, more than once


def test_what_the_environment_says_is_left_alone(run):
    assert _faults(run, MALLOC_TRIM_THRESHOLD_="131072") > 8000

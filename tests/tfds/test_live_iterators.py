# SPDX-License-Identifier: Apache-2.0
"""Scripts that end, or fail, while iterators of theirs are working ahead."""

from __future__ import annotations

import helpers
import numpy as np
import processes
import pytest

_SCRIPT = """
import sys, warnings
warnings.simplefilter("ignore")
import tensorflow as tf, tensorflow_datasets as tfds, envlogger.tfds
path, end = sys.argv[1:]
datasets = [
    tfds.builder_from_directory(path).as_dataset(split="train"),
    envlogger.tfds.steps(path, batch_size=2),
]
iterators = [iter(dataset.repeat().prefetch(4)) for dataset in datasets]
for iterator in iterators:
    next(iterator)
print("has steps", flush=True)
if end == "raise":
    raise ValueError("the script's own")
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "camera" / "1.0.0"
    rng = np.random.default_rng(0)

    def frame():
        return rng.integers(0, 256, (160, 160, 3), np.uint8)

    episodes = [[helpers.first(frame()), *(helpers.mid(frame()) for _ in range(30))]] * 6
    helpers.record(path, episodes, image_format="raw", max_episodes_per_file=1)
    return path


@pytest.mark.parametrize(("end", "code"), [("return", 0), ("raise", 1)])
def test_a_script_ends_while_iterators_are_alive(directory, end, code):
    done = processes.python(_SCRIPT, directory, end, status=code)

    assert done.stdout == "has steps\n"

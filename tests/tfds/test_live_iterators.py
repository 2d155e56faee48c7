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
path, how, end = sys.argv[1:]
if how == "stock":
    dataset = tfds.builder_from_directory(path).as_dataset(split="train")
else:
    dataset = envlogger.tfds.steps(path, batch_size=2)
iterator = iter(dataset.repeat().prefetch(4))
next(iterator)
print("has a step", flush=True)
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


@pytest.mark.parametrize("how", ["stock", "steps"])
@pytest.mark.parametrize(("end", "code"), [("return", 0), ("raise", 1)])
def test_a_script_ends_while_an_iterator_is_alive(directory, how, end, code):
    done = processes.python(_SCRIPT, directory, how, end, status=code)

    assert done.stdout == "has a step\n"

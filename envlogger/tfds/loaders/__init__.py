# SPDX-License-Identifier: Apache-2.0
"""Datasets in RLDS form as tf.data, decoded by the episode instead of by the step.

    import envlogger.tfds

    dataset = envlogger.tfds.transitions("data/catch/1.0.0", "train[:80%]", batch_size=256)

Stock TFDS gives each episode a nested dataset and decodes it step by step, at one call of a map
function per step. The functions here read the same files, decode whole columns at once, and give
the same values, bit for bit:

    episodes      one element per episode: its columns, each (T, ...)
    steps         one element per step: what `flat_map(lambda episode: episode["steps"])` gives
    transitions   (observation, action, n-step return, discount, next observation)
    windows       `length` consecutive steps of an episode

They take any dataset in TFDS's format that has RLDS's nested `steps`, whoever wrote it.

    files -> records -> shuffle -> chunks of episodes -> parse and decode what is cheap
          -> cut into elements -> shuffle -> batch -> decode images and the like -> prefetch

Images are decoded last, so that only those are decoded that an element holds, and shuffle buffers
hold them compressed.
"""

from envlogger import errors

try:
    import tensorflow as _tensorflow  # noqa: F401
except ModuleNotFoundError as error:
    raise errors.MissingExtraError(
        "tensorflow", "tensorflow", "Loading a dataset as tf.data"
    ) from error

from envlogger.tfds.loaders.episode_loader import episodes
from envlogger.tfds.loaders.shuffling import Shuffle
from envlogger.tfds.loaders.step_loader import steps
from envlogger.tfds.loaders.transition_loader import transitions
from envlogger.tfds.loaders.window_loader import windows

__all__ = [
    "Shuffle",
    "episodes",
    "steps",
    "transitions",
    "windows",
]

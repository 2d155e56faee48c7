# SPDX-License-Identifier: Apache-2.0
"""Datasets in TFDS's format and RLDS's form, stored in ArrayRecord shards.

Importing this package makes stock `tfds.load` and its siblings read ArrayRecord as tf.data. It imports
neither TensorFlow nor TFDS; where TFDS is not imported yet, the extension takes effect once it is.

    EpisodeWriter                                      writes episodes without an environment loop
    episodes, steps, transitions, windows, Shuffle     whole columns at once: see `loaders`
    LoggedRunsBuilder, LoggedEpisode                   TFDS builders over logged runs: see `building`
    import_rlds                                        the `rlds` package: see `rlds_support`

These are imported when they are first used.
"""

import types as _types
from typing import TYPE_CHECKING as _TYPE_CHECKING

from envlogger import _lazy
from envlogger.tfds import _on_import

if _TYPE_CHECKING:
    from envlogger.tfds.building.hooks import LoggedEpisode
    from envlogger.tfds.building.logged_runs_builder import LoggedRunsBuilder
    from envlogger.tfds.episode_writer import EpisodeWriter
    from envlogger.tfds.loaders import Shuffle, episodes, steps, transitions, windows
    from envlogger.tfds.rlds_support import import_rlds

__all__ = [
    # Writing
    "EpisodeWriter",
    # Training
    "Shuffle",
    "episodes",
    "steps",
    "transitions",
    "windows",
    # Building
    "LoggedEpisode",
    "LoggedRunsBuilder",
    # Others'
    "import_rlds",
]


def _extend(file_adapters: _types.ModuleType) -> None:
    from envlogger.tfds import array_record

    array_record.register(file_adapters)


def _extend_reader(reader: _types.ModuleType) -> None:
    from envlogger.tfds import small_shards

    small_shards.extend(reader)


_on_import.on_import("tensorflow_datasets.core.file_adapters", _extend)
_on_import.on_import("tensorflow_datasets.core.reader", _extend_reader)

__getattr__, __dir__ = _lazy.attach(
    globals(),
    {
        "EpisodeWriter": "envlogger.tfds.episode_writer",
        "LoggedEpisode": "envlogger.tfds.building.hooks",
        "LoggedRunsBuilder": "envlogger.tfds.building.logged_runs_builder",
        "Shuffle": "envlogger.tfds.loaders",
        "episodes": "envlogger.tfds.loaders",
        "import_rlds": "envlogger.tfds.rlds_support",
        "steps": "envlogger.tfds.loaders",
        "transitions": "envlogger.tfds.loaders",
        "windows": "envlogger.tfds.loaders",
    },
)

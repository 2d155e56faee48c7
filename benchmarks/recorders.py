# SPDX-License-Identifier: Apache-2.0
"""How each peer is made to record an environment. Runs where only that peer is installed."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

import dm_env


class Recorder:
    """Wraps a dm_env.Environment so that it is recorded; making one imports the peer.

    `bare` and `open` return environments whose `reset()` and `step(action)` are timed; `is_last`
    tells of what they return whether the episode is over.
    """

    is_last: Callable[[Any], bool] = staticmethod(dm_env.TimeStep.last)

    def bare(self, environment: dm_env.Environment) -> Any:
        """Returns the environment as the peer takes it, not recorded."""
        return environment

    def open(self, environment: Any, directory: str) -> Any:
        """Returns what `bare` returned, recorded into `directory`, which exists and is empty."""
        raise NotImplementedError

    def close(self, recorded: Any) -> None:
        """Returns when all is on disk."""
        recorded.close()


class EnvLogger(Recorder):
    """The library of this repository."""

    def __init__(self, image_format: str) -> None:
        import envlogger

        self._envlogger = envlogger
        self._image_format = image_format

    def open(self, environment: Any, directory: str) -> Any:
        """Records a TFDS dataset."""
        return self._envlogger.EnvLogger(
            environment,
            data_directory=os.path.join(directory, "1.0.0"),
            image_format=self._image_format,
        )


class EnvLogger12(Recorder):
    """EnvLogger 1.2 with its defaults: Riegeli records, transposed, brotli."""

    def __init__(self) -> None:
        import envlogger

        self._envlogger = envlogger

    def open(self, environment: Any, directory: str) -> Any:
        """Records Riegeli files."""
        return self._envlogger.EnvLogger(environment, data_directory=directory)


# Peer -> module, class and arguments; a module is imported only where its peer is installed.
_RECORDERS: dict[str, tuple[str, str, tuple[Any, ...]]] = {
    "ours-raw": ("recorders", "EnvLogger", ("raw",)),
    "ours-png": ("recorders", "EnvLogger", ("png",)),
    "envlogger-1.2": ("recorders", "EnvLogger12", ()),
    "tfds": ("rlds_recorders", "SequentialWriter", ()),
    "rlds": ("rlds_recorders", "EpisodeWriter", ()),
    "minari": ("minari_recorder", "Minari", ()),
}


def load(peer: str) -> Recorder:
    """Imports what `peer` needs; returns its recorder."""
    module, name, arguments = _RECORDERS[peer]
    recorder: Recorder = getattr(importlib.import_module(f"benchmarks.{module}"), name)(*arguments)
    return recorder

# SPDX-License-Identifier: Apache-2.0
"""Many runs, recorded here and there, as one release: a template to copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow_datasets as tfds

import envlogger.tfds


class Builder(envlogger.tfds.LoggedRunsBuilder):
    """The dataset `merge_runs`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Pass the directory that the runs are in as --manual_dir."
    SPLITS = {"train": 0.9, "test": 0.1}

    def sources(self, dl_manager: Any, scratch: str) -> Sequence[str]:
        """Returns where the runs are: all that are below the directory."""
        return [str(dl_manager.manual_dir)]

    def filter_episode(self, episode: envlogger.tfds.LoggedEpisode) -> bool:
        """Leaves out episodes in which the recording process died."""
        return not episode.invalid

# SPDX-License-Identifier: Apache-2.0
"""What a conversion says about itself when it is over."""

from __future__ import annotations

import dataclasses
import os
from typing import Self

from envlogger.tfds import dataset_files
from envlogger.tfds.dataset_files import Info


@dataclasses.dataclass(frozen=True)
class Report:
    """What a conversion has made.

    Attributes:
      directory: The dataset.
      num_episodes: How many episodes it has, in all splits.
      num_shards: How many files they are in, for each format.
      formats: The file formats that it is there in.
      was_done: Whether it was there already.
    """

    directory: str
    num_episodes: int
    num_shards: int
    formats: tuple[str, ...]
    was_done: bool

    def __str__(self) -> str:
        """Returns the report for people."""
        done = "was converted before" if self.was_done else "converted"
        return (
            f"{self.directory}: {done}: {self.num_episodes} episodes in {self.num_shards} shards "
            f"({', '.join(self.formats)})"
        )

    @classmethod
    def of(cls, directory: str, *, was_done: bool = False) -> Self:
        """Returns the report on a dataset."""
        content = dataset_files.read_json(os.path.join(directory, dataset_files.INFO))
        info = Info.from_json(content)
        lengths = [length for split in info.shard_lengths.values() for length in split]
        return cls(directory, sum(lengths), len(lengths), tuple(info.formats), was_done)

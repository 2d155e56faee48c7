# SPDX-License-Identifier: Apache-2.0
"""What the loaders shuffle."""

from __future__ import annotations

import dataclasses

from envlogger.options import check_bool, check_count


@dataclasses.dataclass(frozen=True)
class Shuffle:
    """What to shuffle; by default nothing.

    The three can be combined. They differ in what they cost and in how far elements get:

        files      nothing in memory; episodes of a file stay together as far as interleaving lets them
        episodes   a buffer of serialized episodes
        steps      a buffer of elements; images in it are still as they are stored, those of large
                   episodes on disk

    Attributes:
      files: Whether the shards are read in random order; and where there are several datasets, whether
        episodes are drawn from all of them at random instead of from one after the other.
      episodes: The size of the buffer that episodes are drawn from; 0 keeps their order.
      steps: The size of the buffer that elements (steps, transitions, windows) are drawn from; 0 keeps
        their order. With 1 there is nothing to choose from.
      seed: Makes the order the same in each run; each epoch still has another one. None for an order
        that cannot be foretold.

    Raises:
      OptionError: `files` is no bool; or a size is negative, or not an integer.
    """

    files: bool = False
    episodes: int = 0
    steps: int = 0
    seed: int | None = None

    def __post_init__(self) -> None:
        """Checks the options."""
        check_bool("Shuffle.files", self.files)
        check_count("Shuffle.episodes", self.episodes, at_least=0)
        check_count("Shuffle.steps", self.steps, at_least=0)
        if self.seed is not None:
            check_count("Shuffle.seed", self.seed, at_least=None)

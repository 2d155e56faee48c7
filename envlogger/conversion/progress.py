# SPDX-License-Identifier: Apache-2.0
"""The bar that shows how far a conversion is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from envlogger import closing, progress_bar
from envlogger.conversion.tasks import Task


class Progress(closing.Closing):
    """A bar on stderr with the number of episodes, their rate and the time left.

    Args:
      tasks: All that there is to do.
      todo: What is left of it.
      is_shown: Whether to show the bar; None for where stderr is a terminal.
    """

    def __init__(self, tasks: Sequence[Task], todo: Sequence[Task], is_shown: bool | None) -> None:
        total = _count(tasks)
        self._bar: Any = progress_bar.show(
            total, " episodes", is_shown, initial=total - _count(todo)
        )

    def add(self, count: int) -> None:
        """Says that so many more episodes have been dealt with."""
        self._bar.update(count)

    def again(self, tasks: Sequence[Task]) -> None:
        """Says that some tasks are to be done once more."""
        if tasks and not self._bar.disable:
            self._bar.total += _count(tasks)
            self._bar.set_description("with the features that turned up late")

    def close(self) -> None:
        """Ends the bar, and leaves it as it is."""
        self._bar.close()


def _count(tasks: Sequence[Task]) -> int:
    return sum(task.stop - task.start for task in tasks)

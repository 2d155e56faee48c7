# SPDX-License-Identifier: Apache-2.0
"""The game of Catch, so that every peer's environment has it: it needs dm_env alone."""

from __future__ import annotations

from typing import Any

import dm_env
import numpy as np
from dm_env import specs

ROWS, COLUMNS = 10, 5


class Catch(dm_env.Environment):
    """A ball falls, and a paddle that moves left, stays or moves right is to catch it.

    Observations: float32 (10, 5), one where the ball and the paddle are. Actions: 0, 1 or 2.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._is_over = True
        self._row = self._ball = self._paddle = 0

    def reset(self) -> dm_env.TimeStep:
        """Lets a new ball fall."""
        self._is_over = False
        self._row, self._ball = 0, int(self._rng.integers(COLUMNS))
        self._paddle = COLUMNS // 2
        return dm_env.restart(self._observe())

    def step(self, action: Any) -> dm_env.TimeStep:
        """Moves the paddle by `action` - 1 and the ball down by one."""
        if self._is_over:
            return self.reset()
        self._paddle = min(max(self._paddle + int(action) - 1, 0), COLUMNS - 1)
        self._row += 1
        if self._row < ROWS - 1:
            return dm_env.transition(0.0, self._observe())
        self._is_over = True
        return dm_env.termination(1.0 if self._ball == self._paddle else -1.0, self._observe())

    def observation_spec(self) -> specs.BoundedArray:
        """Returns the board's."""
        return specs.BoundedArray((ROWS, COLUMNS), np.float32, 0, 1, "board")

    def action_spec(self) -> specs.DiscreteArray:
        """Returns that of left, stay and right."""
        return specs.DiscreteArray(3, np.int64, "action")

    def _observe(self) -> np.ndarray:
        board = np.zeros((ROWS, COLUMNS), np.float32)
        board[self._row, self._ball] = board[-1, self._paddle] = 1.0
        return board

# SPDX-License-Identifier: Apache-2.0
"""Catch: a small environment for tests and examples."""

from __future__ import annotations

import operator
from typing import Any

import dm_env
import numpy as np
from dm_env import specs

_ACTIONS = ("left", "stay", "right")


class Catch(dm_env.Environment):  # type: ignore[misc]
    """A ball falls down one column of a board; the paddle in the bottom row is to catch it.

        . . . o .     o   the ball: starts in a random column of the top row, one row down per step
        . . . . .
        . . . . .
        . . = . .     =   the paddle: starts in the middle, moves by one column or stays

    An episode has `rows` timesteps. The last one terminates it (discount 0) with reward 1 if the
    paddle is under the ball and -1 if it isn't; until then the reward is 0.

    Observations are float32 arrays of shape (rows, columns): 1 where ball and paddle are, 0
    elsewhere; each is a new array. Actions are 0 (left), 1 (stay) and 2 (right); the walls stop the
    paddle.

    Args:
        rows: Height of the board, at least 2.
        columns: Width of the board, at least 1.
        seed: Of the ball's columns. Equal seeds give equal sequences of episodes.

    Raises:
        ValueError: If the board is too small to play on.
    """

    def __init__(self, rows: int = 10, columns: int = 5, seed: int | None = 1) -> None:
        if rows < 2 or columns < 1:
            raise ValueError(f"the board must be at least 2 x 1, got {rows} x {columns}")
        self._rows = rows
        self._columns = columns
        # The legacy generator: EnvLogger 1.x drew from it, and recorded episodes depend on it.
        self._rng = np.random.RandomState(seed)
        self._ball_row = 0
        self._ball_column = 0
        self._paddle_column = 0
        self._episode_over = True

    def reset(self) -> dm_env.TimeStep:
        """Drops a new ball and centres the paddle."""
        self._episode_over = False
        self._ball_row = 0
        self._ball_column = self._rng.randint(self._columns)
        self._paddle_column = self._columns // 2
        return dm_env.restart(self._observation())

    def step(self, action: Any) -> dm_env.TimeStep:
        """Moves the paddle, then the ball; resets instead if no episode is under way.

        Args:
            action: An integer, numpy's or not: 0, 1 or 2.

        Raises:
            ValueError: If `action` is another integer.
        """
        if self._episode_over:
            return self.reset()
        move = operator.index(action)
        if not 0 <= move < len(_ACTIONS):
            raise ValueError(f"action must be in [0, {len(_ACTIONS)}), got {move}")

        self._paddle_column = min(max(self._paddle_column + move - 1, 0), self._columns - 1)
        self._ball_row += 1
        if self._ball_row < self._rows - 1:
            return dm_env.transition(reward=0.0, observation=self._observation())
        self._episode_over = True
        caught = self._paddle_column == self._ball_column
        return dm_env.termination(reward=1.0 if caught else -1.0, observation=self._observation())

    def observation_spec(self) -> specs.BoundedArray:
        """Returns the board's spec: float32 in [0, 1], of shape (rows, columns)."""
        return specs.BoundedArray((self._rows, self._columns), np.float32, 0, 1, name="board")

    def action_spec(self) -> specs.DiscreteArray:
        """Returns the spec of the three moves."""
        return specs.DiscreteArray(len(_ACTIONS), dtype=int, name="action")

    def _observation(self) -> np.ndarray[Any, Any]:
        board = np.zeros((self._rows, self._columns), dtype=np.float32)
        board[self._ball_row, self._ball_column] = 1
        board[self._rows - 1, self._paddle_column] = 1
        return board

# SPDX-License-Identifier: Apache-2.0
"""Gymnasium environments as dm_env ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import dm_env
import numpy as np

from envlogger import errors

if TYPE_CHECKING:
    import gymnasium


class GymnasiumEnvironment(dm_env.Environment):  # type: ignore[misc]
    """A `gymnasium.Env` as a `dm_env.Environment`.

        env = envlogger.GymnasiumEnvironment(gymnasium.make("CartPole-v1"), seed=1)
        with envlogger.EnvLogger(env, data_directory="data/cartpole/1.0.0") as env:
            ...

    Observations and rewards are those that the environment returned, bit for bit. `terminated` makes
    a LAST step with discount 0; `truncated` alone, a time limit as a rule, makes a LAST step that
    keeps the discount, which RLDS does not take for terminal. How spaces become specs says
    `envlogger.converters.gymnasium_spaces`.

    Args:
      env: The environment. Closing this one closes it.
      seed: The seed of the first reset, as Gymnasium recommends: the environment goes on from there.
        An iterable has one for each reset (`itertools.count(7)`); once it has ended, or where it
        gives None, the environment goes on by itself.
      options: What each reset is given.
      discount: The discount of steps that do not terminate the episode, in (0, 1].

    Attributes:
      env: The environment.
      info: What the last `reset` or `step` returned as its info.
      seed: The seed that the last reset was given, or None.
      options: What resets are given; may be set between them.

    Raises:
      MissingExtraError: Gymnasium is not installed.
      OptionError: An argument is not allowed.
      UnsupportedValueError: There is no spec for one of the environment's spaces.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        *,
        seed: int | Iterable[int | None] | None = None,
        options: Mapping[str, Any] | None = None,
        discount: float = 1.0,
    ) -> None:
        try:
            from envlogger.converters import gymnasium_spaces
        except ImportError as error:
            raise errors.MissingExtraError(
                "gymnasium", "gymnasium", "Adapting an environment of Gymnasium"
            ) from error
        if not 0 < discount <= 1:
            raise errors.OptionError(
                f"discount: got {discount!r}, expected a number in (0, 1]; 0 says that the episode "
                "was terminated."
            )
        self.env = env
        self.info: dict[str, Any] = {}
        self.seed: int | None = None
        self.options = options
        self._spaces = gymnasium_spaces
        self._seeds = _seeds(seed)
        self._discount = float(discount)
        self._observation_spec = gymnasium_spaces.to_spec(env.observation_space, ("observation",))
        self._action_spec = gymnasium_spaces.to_spec(env.action_space, ("action",))
        self._to_observation = gymnasium_spaces.to_spec_form(
            env.observation_space, ("observation",)
        )
        self._to_action = gymnasium_spaces.from_spec_form(env.action_space)
        self._reset_next_step = True

    def reset(self) -> dm_env.TimeStep:
        """Starts an episode."""
        self.seed = next(self._seeds, None)
        options = None if self.options is None else dict(self.options)
        observation, self.info = self.env.reset(seed=self.seed, options=options)
        self._reset_next_step = False
        return dm_env.restart(self._to_observation(observation))

    def step(self, action: Any) -> dm_env.TimeStep:
        """Takes a step; after a LAST step, and at the start, resets instead.

        Args:
          action: What `action_spec()` describes. For Sequence spaces that is arrays, the items
            stacked, of which the environment gets a sequence.
        """
        if self._reset_next_step:
            return self.reset()
        result = self.env.step(self._to_action(action))
        observation, reward, is_terminated, is_truncated, self.info = result
        self._reset_next_step = bool(is_terminated or is_truncated)
        step_type = dm_env.StepType.LAST if self._reset_next_step else dm_env.StepType.MID
        discount = 0.0 if is_terminated else self._discount
        if type(reward) not in _REWARDS:
            reward = float(reward)
        return dm_env.TimeStep(step_type, reward, discount, self._to_observation(observation))

    def render(self) -> Any:
        """Returns what the environment renders, in the `render_mode` that it was made with."""
        return self.env.render()

    def close(self) -> None:
        """Closes the environment."""
        self.env.close()

    def observation_spec(self) -> Any:
        """Returns the nest of specs that observations conform to."""
        return self._observation_spec

    def action_spec(self) -> Any:
        """Returns the nest of specs that actions conform to."""
        return self._action_spec

    def reward_spec(self) -> Any:
        """Returns the spec of rewards."""
        return self._spaces.reward_spec()

    def discount_spec(self) -> Any:
        """Returns the spec of discounts."""
        return self._spaces.discount_spec()


# Others that Gymnasium allows are made float: a column cannot hold float32 at one step and float64 at
# the next. A Python int can stand in a column of floats.
_REWARDS = frozenset((float, int, np.float64))


def _seeds(seed: int | Iterable[int | None] | None) -> Iterator[int | None]:
    if seed is None or isinstance(seed, int | np.integer):
        return itertools.chain([None if seed is None else int(seed)])
    if not isinstance(seed, Iterable):
        raise errors.OptionError(f"seed: got {seed!r}, expected an integer or an iterable of them.")
    return iter(seed)


__all__ = ["GymnasiumEnvironment"]

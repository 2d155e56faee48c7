# SPDX-License-Identifier: Apache-2.0
"""Base class of environments that stand in front of another environment."""

from __future__ import annotations

from typing import Any, NoReturn

import dm_env


class Forwarding:
    """Looks up on `self._environment` what it lacks itself, and cannot be pickled or copied.

    Python's own special names (`__like_this__`) are never forwarded: what they say about the inner
    object (how to copy it, how to turn it into an array) isn't true of the wrapper.
    """

    _environment: Any

    def __getattr__(self, name: str) -> Any:
        # Called only where the usual lookup failed. `_environment` itself is missing as long as
        # `__init__` hasn't run (during copy.copy, or in a subclass which sets its own attributes
        # first); to forward that lookup would call this method again, for ever.
        if name == "_environment" or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._environment, name)

    def __getstate__(self) -> NoReturn:
        self._refuse_pickling()

    def __setstate__(self, state: object) -> NoReturn:
        self._refuse_pickling()

    def _refuse_pickling(self) -> NoReturn:
        name = type(self).__name__
        raise TypeError(
            f"{name} instances cannot be serialized/pickled or copied: they own an environment. "
            f"Send the worker an environment factory (a function that builds the environment) and "
            f"construct the {name} from it there."
        )


class EnvironmentWrapper(Forwarding, dm_env.Environment):  # type: ignore[misc]
    """Forwards everything to the environment it wraps, and owns that environment.

    Subclasses override the methods they change and reach the wrapped environment as
    `self._environment`. Attributes that the wrapper lacks are looked up on the wrapped environment,
    so that a wrapper can stand wherever the environment itself was used.

    Args:
        environment: The environment to wrap. `close()` closes it.
    """

    def __init__(self, environment: dm_env.Environment) -> None:
        self._environment = environment

    def reset(self) -> dm_env.TimeStep:
        """Starts a new episode and returns its FIRST timestep."""
        return self._environment.reset()

    def step(self, action: Any) -> dm_env.TimeStep:
        """Applies `action`, or starts an episode where none is under way (`action` is ignored)."""
        return self._environment.step(action)

    def observation_spec(self) -> Any:
        """Returns the nest of specs that observations conform to."""
        return self._environment.observation_spec()

    def action_spec(self) -> Any:
        """Returns the nest of specs that actions conform to."""
        return self._environment.action_spec()

    def reward_spec(self) -> Any:
        """Returns the nest of specs that rewards conform to."""
        return self._environment.reward_spec()

    def discount_spec(self) -> Any:
        """Returns the nest of specs that discounts conform to."""
        return self._environment.discount_spec()

    def close(self) -> None:
        """Closes the wrapped environment."""
        self._environment.close()

# SPDX-License-Identifier: Apache-2.0
"""What is logged at every call of `reset()` and `step()`."""

from __future__ import annotations

from typing import Any, NamedTuple

import dm_env


class StepData(NamedTuple):
    """One call of the environment: the action that went in and the timestep that came out.

    An action stands beside the timestep it *led to*, not beside the observation it was chosen from:

        call         reset()   step(a0)   step(a1)   step(a2)
        action       None      a0         a1         a2
        step_type    FIRST     MID        MID        LAST
        observation  o0        o1         o2         o3
        reward       None      r1         r2         r3

    So `o1` and `r1` are what `a0` brought about, and the transition from `o0` is (o0, a0, r1, o1):
    action and reward stand one column to the right of the observation they start from. RLDS shifts
    them: there, the action beside an observation is the one taken in it, and the reward what came
    of it.

    Attributes:
        timestep: What the environment returned. Its reward and discount are None on FIRST.
        action: The action that led to `timestep`, shaped as the environment's action spec says.
            None on FIRST: no action leads to the start of an episode.
        custom_data: What `step_fn` returned for this step, or None.
    """

    timestep: dm_env.TimeStep
    action: Any
    custom_data: Any = None

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dm_env

from envlogger import step_data


def test_custom_data_is_optional():
    timestep = dm_env.restart(observation=3)

    data = step_data.StepData(timestep, None)

    assert data == step_data.StepData(timestep=timestep, action=None, custom_data=None)


def test_unpacks_in_the_order_of_envlogger_1():
    timestep = dm_env.transition(reward=1.0, observation=3)

    unpacked_timestep, action, custom_data = step_data.StepData(timestep, 2, "note")

    assert (unpacked_timestep, action, custom_data) == (timestep, 2, "note")

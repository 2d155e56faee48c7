# SPDX-License-Identifier: Apache-2.0
"""Records until bad input gives an error, and checks that what came before it is kept."""

from __future__ import annotations

import helpers
import pytest

from envlogger.testing.comparison import assert_same


def check_kept(path, episodes, actions=None):
    """Checks what Reader and tfds.data_source find."""
    actions = actions or helpers.count_up(episodes)
    assert_same(
        helpers.read(path),
        [helpers.expected_steps(e, a) for e, a in zip(episodes, actions, strict=True)],
    )
    assert [len(steps) for steps in helpers.source_steps(path)] == [len(e) for e in episodes]


def record_until_error(path, episodes, error, *, actions=None, **kwargs):
    """Plays episodes until an error comes, and returns it; closes properly."""
    actions = actions or helpers.count_up(episodes)
    with (
        helpers.scripted_logger(path, episodes, actions[0][0], **kwargs) as logger,
        pytest.raises(error) as raised,
    ):
        helpers.play(logger, actions)
    return raised

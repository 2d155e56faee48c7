# SPDX-License-Identifier: Apache-2.0
"""What `features.json` says of the fields of RLDS, where whoever made it says nothing."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from envlogger.tfds import schema

_EPISODE = {
    schema.STEPS: "The steps of the episode, in order.",
    schema.EPISODE_ID: "Names the episode.",
    schema.INVALID: "Whether the episode is not to be used: what recorded it died in it.",
    schema.PRESENT: "False where the episode has no such value, and holds padding.",
    schema.CUSTOM_DATA: "What the run recorded with the episode.",
}
_STEP = {
    schema.OBSERVATION: "What the environment showed at this step.",
    schema.ACTION: "The action taken after the observation of this step.",
    schema.REWARD: "The reward that came of the action.",
    schema.DISCOUNT: "The discount that came of the action.",
    schema.IS_FIRST: "Whether this is the first step of the episode.",
    schema.IS_LAST: "Whether this is the last step: its action, reward and discount are padding.",
    schema.IS_TERMINAL: "Whether the environment ended the episode here.",
    schema.PRESENT: "False where the step has no such value, and holds padding.",
    schema.CUSTOM_DATA: "What the run recorded with the step.",
}


def document(features: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a `features.json` in which the fields of RLDS have descriptions.

    Args:
      features: Its content. The descriptions that it has stay as they are.
    """
    node = copy.deepcopy(dict(features))
    episode = node["featuresDict"]["features"]
    _describe(episode, _EPISODE)
    _describe(episode[schema.STEPS]["sequence"]["feature"]["featuresDict"]["features"], _STEP)
    return node


def _describe(nodes: dict[str, Any], descriptions: Mapping[str, str]) -> None:
    for name, description in descriptions.items():
        if name in nodes:
            nodes[name].setdefault("description", description)

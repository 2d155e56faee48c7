# SPDX-License-Identifier: Apache-2.0
"""Steps as columns, for backends that have them one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dm_env
import numpy as np
import numpy.typing as npt

from envlogger import step_data
from envlogger.tfds import schema, structure
from envlogger.tfds.episode import SLOTS
from envlogger.tfds.stored_episode import select
from envlogger.tfds.structure import Leaves, Path


def stack(
    steps: Sequence[step_data.StepData], fields: Sequence[str] | None, rows: Any
) -> dict[str, Any]:
    """Returns what `sequences.EpisodeSteps.columns` says, of steps in the order they were logged."""
    count = len(steps)
    found: dict[Path, list[npt.NDArray[Any] | None]] = {}
    for t, step in enumerate(steps):
        timestep = step.timestep
        values = (timestep.observation, step.action, timestep.reward, timestep.discount)
        leaves: Leaves = {}
        for name, value in zip(SLOTS, (*values, step.custom_data), strict=True):
            is_custom = name == schema.CUSTOM_DATA and isinstance(value, dict)
            structure.flatten(value, () if is_custom else (name,), leaves)
        for path, leaf in leaves.items():
            place = t - 1 if path[0] in schema.SHIFTED else t
            if place >= 0:
                found.setdefault(path, [None] * count)[place] = leaf
    places = np.arange(count)
    columns: dict[Path, npt.NDArray[Any]] = {
        (schema.IS_FIRST,): np.array([step.timestep.first() for step in steps], np.bool_),
        (schema.IS_LAST,): places == count - 1,
        (schema.IS_TERMINAL,): (places == count - 1) & _is_terminal(steps),
    }
    for path, column in found.items():
        columns[path] = _stack(column)
        present = np.array([value is not None for value in column], np.bool_)
        if not present[: count - 1 if path[0] in schema.SHIFTED else count].all():
            columns[(schema.PRESENT, *path)] = present
    return structure.nest({path: columns[path][rows] for path in select(columns, fields)})


def _is_terminal(steps: Sequence[step_data.StepData]) -> bool:
    last = steps[-1].timestep if steps else dm_env.restart(None)
    leaves: Leaves = {}
    structure.flatten(last.discount, (), leaves)
    return last.last() and bool(leaves) and not any(np.any(leaf != 0) for leaf in leaves.values())


def _stack(values: Sequence[npt.NDArray[Any] | None]) -> npt.NDArray[Any]:
    """Returns values as a column, with zeros (empty strings) for None."""
    known = [value for value in values if value is not None]
    model = known[0]
    if any(value.shape != model.shape for value in known):
        empty: Any = np.zeros((0,) * model.ndim, model.dtype)
        column = np.empty(len(values), object)
    else:
        empty = b"" if model.dtype == object else 0
        column = np.empty((len(values), *model.shape), model.dtype)
    for i, value in enumerate(values):
        column[i] = empty if value is None else value[()] if value.shape == () else value
    return column

# SPDX-License-Identifier: Apache-2.0
"""Steps as columns, for backends that have them one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dm_env
import numpy as np
import numpy.typing as npt

from envlogger import errors, step_data
from envlogger.converters import exact
from envlogger.options import select_names
from envlogger.tfds import schema, structure
from envlogger.tfds.episode import SLOTS
from envlogger.tfds.structure import Leaves, Path

_FLAGS = (schema.IS_FIRST, schema.IS_LAST, schema.IS_TERMINAL)
_ADVICE = (
    "What is in the log already can be had as steps, one by one; select other fields, as in "
    "columns(['reward']), or convert the log (`envlogger convert`), which stores such values as JSON."
)


def stack(
    steps: Sequence[step_data.StepData], fields: Sequence[str] | None, rows: Any
) -> dict[str, Any]:
    """Returns what `sequences.EpisodeSteps.columns` says, of steps in the order they were logged.

    Raises:
      OptionError: As there.
      ValueMismatchError: Something is a dict, a list or a tuple in some of the steps only.
      UnsupportedValueError: There are values that no array holds.
    """
    count = len(steps)
    slots = _slots_of(fields)
    found: dict[Path, list[npt.NDArray[Any] | None]] = {}
    for t, step in enumerate(steps):
        for path, leaf in _leaves_of(step, slots).items():
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
    paths = {"/".join(path): path for path in columns}
    chosen = [paths[name] for name in select_names("fields", fields, paths, "the steps")]
    for path in chosen:
        if any(path[:size] in found for size in range(1, len(path)) if path[0] != schema.PRESENT):
            raise errors.ValueMismatchError(
                f"{errors.format_path(path[:-1])}: got both a value and something with values in it, in "
                f"different steps of an episode, expected either. {_ADVICE}"
            )
    return structure.nest({path: columns[path][rows] for path in chosen})


def _slots_of(fields: Sequence[str] | None) -> Sequence[str]:
    """Returns the slots that fields are in; what custom data has may have any name."""
    if fields is None or isinstance(fields, str):
        return SLOTS
    first = {str(field).partition("/")[0] for field in fields}
    return [slot for slot in SLOTS if slot in first] if first <= {*SLOTS, *_FLAGS} else SLOTS


def _leaves_of(step: step_data.StepData, slots: Sequence[str]) -> Leaves:
    timestep = step.timestep
    values = (timestep.observation, step.action, timestep.reward, timestep.discount)
    leaves: Leaves = {}
    for slot, value in zip(SLOTS, (*values, step.custom_data), strict=True):
        if slot in slots:
            # The keys of custom data are fields by themselves, unless these are names of RLDS.
            lies_apart = (
                slot == schema.CUSTOM_DATA
                and isinstance(value, Mapping)
                and not any(str(key).partition("/")[0] in schema.RESERVED for key in value)
            )
            try:
                structure.flatten(value, () if lies_apart else (slot,), leaves)
            except (errors.NameConflictError, errors.UnsupportedValueError) as error:
                raise type(error)(
                    f"{slot}: there are no columns of it: {error} {_ADVICE}"
                ) from error
    return leaves


def _is_terminal(steps: Sequence[step_data.StepData]) -> bool:
    last = steps[-1].timestep if steps else dm_env.restart(None)
    leaves: Leaves = {}
    structure.flatten(last.discount, (), leaves)
    return last.last() and bool(leaves) and not any(np.any(leaf != 0) for leaf in leaves.values())


def _stack(values: Sequence[npt.NDArray[Any] | None]) -> npt.NDArray[Any]:
    """Returns values as a column, with zeros (empty strings) for None.

    Where they differ in shape, or have no dtype that holds all of them as they are, it is one of objects.
    """
    known = [value for value in values if value is not None]
    model = known[0]
    dtype = _common_dtype(known)
    empty: Any
    if dtype is None:
        empty, column = None, np.empty(len(values), object)
    elif any(value.shape != model.shape for value in known):
        empty, column = np.zeros((0,) * model.ndim, dtype), np.empty(len(values), object)
        values = [None if value is None else value.astype(dtype, copy=False) for value in values]
    else:
        empty = b"" if dtype.kind == "O" else 0
        column = np.empty((len(values), *model.shape), dtype)
    for i, value in enumerate(values):
        column[i] = empty if value is None else value[()] if value.shape == () else value
    return column


def _common_dtype(values: Sequence[npt.NDArray[Any]]) -> np.dtype[Any] | None:
    """Returns the dtype that holds all values exactly; None if there is none."""
    dtypes = {value.dtype for value in values}
    if len(dtypes) == 1:
        return values[0].dtype
    if not all(dtype.kind in "biufc" for dtype in dtypes):
        return None
    wide: np.dtype[Any] = np.result_type(*dtypes)
    return wide if all(exact.convert(value, wide) is not None for value in values) else None

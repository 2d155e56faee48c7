# SPDX-License-Identifier: Apache-2.0
"""The types of the rows of an episode, from the flags that are stored."""

from __future__ import annotations

import functools

import dm_env
import numpy as np
import numpy.typing as npt

from envlogger import errors
from envlogger.tfds import example, schema

_FIRST, _MID, _LAST = dm_env.StepType


@functools.lru_cache(maxsize=256)  # most episodes are of a length that others have
def of_rows(is_first: bytes, count: int, is_over: bool) -> tuple[dm_env.StepType, ...]:
    """Returns the types of rows as they were logged.

    Args:
      is_first: The stored column of that name: an Int64List.
      count: How many rows the other columns have.
      is_over: Whether the environment ended the episode.

    Raises:
      CorruptDatasetError: The column has another number of rows.
    """
    flags = example.decode_int64s(example.RawFeature(example.INT64_LIST, is_first))
    if len(flags) != count:
        raise errors.CorruptDatasetError(
            f"{schema.STEPS}/{schema.IS_FIRST}: a record has {len(flags)} steps of this feature, "
            f"expected {count} as of the others."
        )
    types = [_FIRST if flag else _MID for flag in flags]
    if is_over and types:
        types[-1] = _LAST
    return tuple(types)


def of_flags(
    is_first: npt.NDArray[np.bool_] | None, is_last: npt.NDArray[np.bool_] | None, count: int
) -> tuple[dm_env.StepType, ...]:
    """Returns the types of the steps of RLDS: the first flag counts, where both are set.

    Args:
      is_first: bool (count,); where there is none, the first step is.
      is_last: bool (count,); where there is none, the last step is.
      count: The number of steps.
    """
    place = np.arange(count)
    firsts = place == 0 if is_first is None else is_first
    lasts = place == count - 1 if is_last is None else is_last
    return tuple(
        _FIRST if first else _LAST if last else _MID
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True)
    )

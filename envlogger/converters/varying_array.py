# SPDX-License-Identifier: Apache-2.0
"""A spec that dm_env lacks: arrays of one rank and dtype whose first dimension varies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from dm_env import specs


class VaryingArray(specs.Array):  # type: ignore[misc]
    """Describes arrays that differ in their first dimension, such as sequences of any length.

    Args:
      shape: The shape; the first dimension is -1.
      dtype: The dtype; `object` for strings.
      name: What the array is called, or None.

    Raises:
      ValueError: Another dimension varies, or the first does not.
    """

    __slots__ = ()

    def __init__(self, shape: Iterable[int], dtype: Any, name: str | None = None) -> None:
        super().__init__(shape, dtype, name)
        if not self.shape or self.shape[0] != -1 or min(self.shape[1:], default=0) < 0:
            raise ValueError(
                f"shape: got {self.shape}, expected -1 and then dimensions that are fixed."
            )

    def __repr__(self) -> str:
        return f"VaryingArray(shape={self.shape}, dtype={self.dtype!r}, name={self.name!r})"

    def __eq__(self, other: object) -> bool:
        """Checks that the other varies, too, and that shape and dtype are equal."""
        return isinstance(other, VaryingArray) and bool(super().__eq__(other))

    __hash__ = None  # type: ignore[assignment]

    def validate(self, value: Any) -> Any:
        """Returns a value as an array, of whatever length.

        Raises:
          ValueError: The dtype, the rank or another dimension than the first is not the spec's.
        """
        array = np.asarray(value)
        one = specs.Array((*array.shape[:1], *self.shape[1:]), self.dtype, self.name)
        return one.validate(array)

    def generate_value(self) -> Any:
        """Returns an array of length 0."""
        return np.zeros((0, *self.shape[1:]), self.dtype)

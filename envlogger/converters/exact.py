# SPDX-License-Identifier: Apache-2.0
"""Numbers in another dtype, where it holds them as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def convert(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any] | None:
    """Returns an array with another dtype; None if a value would not be the same, or is no number.

    So 0 becomes 0.0, but 2^53 + 1 does not become a float64, nor a complex number a float.
    """
    if array.dtype == dtype:
        return array
    if dtype.kind not in "biufc" or array.dtype.kind not in "biufc":
        return None
    if array.dtype.kind == "c" and dtype.kind != "c":
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        converted = array.astype(dtype)
        numbers = converted if array.dtype.kind == "c" else converted.real
        is_exact = numbers.astype(array.dtype).tobytes() == array.tobytes()
    return converted if is_exact else None

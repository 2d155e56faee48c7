# SPDX-License-Identifier: Apache-2.0
"""Numpy dtypes as strings and back, those of `ml_dtypes` (bfloat16, float8, ...) included."""

from __future__ import annotations

from typing import Any

import numpy as np


def name_of(dtype: np.dtype[Any]) -> str:
    """Returns the string that `from_name` turns back into `dtype`.

    Args:
        dtype: Any dtype without fields. Byte order is kept: `>f4` is not `float32`.

    Returns:
        `str(dtype)`, such as "float32", ">f4", "<U5", "datetime64[ns]", "bfloat16" or "object".

    Raises:
        TypeError: Where no such string exists: dtypes with fields, `StringDType`.
    """
    name = str(dtype)
    try:
        restored = from_name(name)
    except TypeError:
        restored = None
    if restored is None or restored != dtype:
        raise TypeError(
            f"dtype {dtype!r} has no name that gives it back; use a dtype without fields, for "
            "example one array per field"
        )
    return name


def from_name(name: str) -> np.dtype[Any]:
    """Returns the dtype with this name.

    Args:
        name: What `name_of` returned.

    Raises:
        TypeError: If there is no such dtype, or if it is one of `ml_dtypes` and that package is
            not installed.
    """
    try:
        return np.dtype(name)
    except (TypeError, ValueError) as not_numpys:  # ValueError: it has a comma in it.
        # numpy learns the names of ml_dtypes when that package is imported, which is left until one
        # is met: few logs have any.
        try:
            import ml_dtypes
        except ImportError:
            raise TypeError(
                f"numpy knows no dtype {name!r}; if ml_dtypes does, `pip install ml_dtypes`"
            ) from not_numpys
        scalar_type = getattr(ml_dtypes, name, None)
        if not (isinstance(scalar_type, type) and issubclass(scalar_type, np.generic)):
            raise TypeError(f"neither numpy nor ml_dtypes knows a dtype {name!r}") from not_numpys
        return np.dtype(scalar_type)

# SPDX-License-Identifier: Apache-2.0
"""Checks of options that several classes and functions take."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from envlogger import errors


def check_count(name: str, value: Any, *, at_least: int | None = 1) -> int:
    """Returns an integer option as int.

    Raises:
      OptionError: It is not an integer, or less than `at_least`.
    """
    expected = "an integer" if at_least is None else f"an integer of at least {at_least}"
    try:
        if isinstance(value, bool):
            raise TypeError
        count = operator.index(value)
    except TypeError:
        raise errors.OptionError(f"{name}: got {value!r}, expected {expected}.") from None
    if at_least is not None and count < at_least:
        raise errors.OptionError(f"{name}: got {count}, expected {expected}.")
    return count


def check_fraction(name: str, value: Any) -> float:
    """Returns an option in [0, 1] as float.

    Raises:
      OptionError: It is no number, or not in [0, 1].
    """
    if not isinstance(value, int | float | np.floating) or not 0 <= value <= 1:
        raise errors.OptionError(f"{name}: got {value!r}, expected a number in [0, 1].")
    return float(value)


def check_kind(name: str, value: Any, kind: type[Any]) -> Any:
    """Returns an option that may be None.

    Raises:
      OptionError: It is neither None nor of its kind.
    """
    if value is not None and not isinstance(value, kind):
        raise errors.OptionError(f"{name}: got {value!r}, expected a {kind.__name__} or None.")
    return value

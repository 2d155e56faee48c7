# SPDX-License-Identifier: Apache-2.0
"""Checks of options that several classes and functions take."""

from __future__ import annotations

import operator
import os
from collections.abc import Collection, Iterable
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


def check_bool(name: str, value: Any) -> bool:
    """Returns an option that is True or False.

    Raises:
      OptionError: It is neither.
    """
    if not isinstance(value, bool):
        raise errors.OptionError(f"{name}: got {value!r}, expected a bool.")
    return value


def check_path(name: str, value: Any) -> str:
    """Returns the absolute path of a directory; `~` is the home directory.

    Raises:
      OptionError: It is no path.
    """
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str) or not path:
        raise errors.OptionError(
            f"{name}: got {value!r}, expected a directory, such as 'data/catch/1.0.0'."
        )
    return os.path.abspath(os.path.expanduser(path))


def check_names(name: str, value: Any) -> list[str]:
    """Returns names of fields.

    Raises:
      OptionError: It is no sequence of names, or an empty one.
    """
    is_list = isinstance(value, Iterable) and not isinstance(value, str)
    names: list[str] = list(value) if is_list else []
    if not is_list or not all(isinstance(item, str) for item in names):
        raise errors.OptionError(
            f"{name}: got {value!r}, expected a list of names, such as ['observation', 'reward']."
        )
    if not names:
        raise errors.OptionError(f"{name}: got none, expected at least one name.")
    return names


def select_names(name: str, value: Any, known: Collection[str], owner: str) -> list[str]:
    """Returns those of the known names that were chosen, or lie below one that was; None chooses all.

    Args:
      name: The option.
      value: The names that were chosen: `observation` is also `observation/camera`.
      known: The names that there are.
      owner: Whose they are, for messages.

    Raises:
      OptionError: As `check_names`, or there is nothing of that name.
    """
    if value is None:
        return list(known)
    chosen: dict[str, None] = {}
    for field in check_names(name, value):
        found = [item for item in known if item == field or item.startswith(f"{field}/")]
        if not found:
            raise errors.OptionError(
                f"{name}: got {field!r}, but {owner} have only: {', '.join(known)}."
            )
        chosen.update(dict.fromkeys(found))
    return list(chosen)

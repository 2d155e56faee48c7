# SPDX-License-Identifier: Apache-2.0
"""Compares logged values bit by bit."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np


def assert_same(got: Any, expected: Any) -> None:
    """Raises unless two values are the same in every bit.

    The same are: types (of Python and of numpy), dtypes with their byte order, shapes, nesting, the
    order of keys, and the bits of each number, those of a NaN and the sign of a zero among them.

    Args:
      got: Any nest of dicts, lists, tuples (timesteps, too) over numpy arrays and Python values.
      expected: Likewise.

    Raises:
      AssertionError: They differ; says where and how.
    """
    _assert_same(got, expected, ())


def _assert_same(got: Any, expected: Any, path: Sequence[object]) -> None:
    at = "/".join(map(str, path)) or "(the value itself)"
    if type(got) is not type(expected):
        raise AssertionError(f"{at}: got {_show(got)}, expected {_show(expected)}")
    if isinstance(expected, dict):
        if list(got) != list(expected):
            raise AssertionError(f"{at}: got the keys {list(got)}, expected {list(expected)}")
        for key in expected:
            _assert_same(got[key], expected[key], (*path, key))
    elif isinstance(expected, list | tuple):
        if len(got) != len(expected):
            raise AssertionError(f"{at}: got {len(got)} items, expected {len(expected)}")
        names = getattr(expected, "_fields", range(len(expected)))
        for name, one, other in zip(names, got, expected, strict=True):
            _assert_same(one, other, (*path, name))
    elif isinstance(expected, np.ndarray) and expected.dtype == object:
        if got.shape != expected.shape or got.dtype != object:
            raise AssertionError(f"{at}: got {_show(got)}, expected {_show(expected)}")
        for index in np.ndindex(expected.shape):
            _assert_same(got[index], expected[index], (*path, *index))
    elif _bits(got) != _bits(expected):
        raise AssertionError(f"{at}: got {_show(got)}, expected {_show(expected)}")


def _bits(value: Any) -> Any:
    """Returns something that is equal for two values of one type if these are the same."""
    if isinstance(value, np.str_ | np.bytes_):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.str, value.dtype.name, value.shape, value.tobytes()
    if isinstance(value, float):
        return struct.pack("d", value)
    if isinstance(value, complex):
        return struct.pack("dd", value.real, value.imag)
    return value


def _show(value: Any) -> str:
    kind = type(value).__qualname__
    if isinstance(value, np.ndarray | np.generic):
        kind += f" ({value.dtype} of shape {value.shape})"
    return f"{kind} {value!r}"


__all__ = ["assert_same"]

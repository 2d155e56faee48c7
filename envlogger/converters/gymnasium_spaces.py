# SPDX-License-Identifier: Apache-2.0
"""Gymnasium's spaces as dm_env specs, and their values in the form that the specs describe.

    Box                 BoundedArray
    Discrete            DiscreteArray; BoundedArray where it does not start at 0
    MultiDiscrete       BoundedArray
    MultiBinary         BoundedArray, 0 to 1
    Text                StringArray; so are spaces of others whose dtype is str, as MiniGrid's missions
    Dict, Tuple         dict, tuple
    Sequence            what its items are, stacked: each leaf a VaryingArray (-1, ...)

Values stay what they are, bit for bit, where the spec describes them: a Python int is an int64. Python
numbers and lists of them otherwise take the space's dtype, and arrays do if that is exact for all
values of theirs. An array of another dtype (float64 where a Box says float32) is left alone.

Gymnasium is imported by whoever has a space of it; this module must be imported only then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from dm_env import specs
from gymnasium import spaces
from gymnasium.vector import utils

from envlogger import errors
from envlogger.converters.varying_array import VaryingArray

Convert: TypeAlias = Callable[[Any], Any]
_Path: TypeAlias = tuple[object, ...]


def to_spec(space: spaces.Space[Any], path: _Path = ()) -> Any:
    """Returns the nest of specs that describes the values of a space.

    Args:
      space: The space.
      path: Where it is, for messages.

    Raises:
      UnsupportedValueError: There is no spec for such a space, as for Graph and OneOf.
    """
    if isinstance(space, spaces.Dict):
        return {key: to_spec(part, (*path, key)) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(to_spec(part, (*path, i)) for i, part in enumerate(space.spaces))
    if isinstance(space, spaces.Sequence):
        return _stacked_spec(to_spec(space.feature_space, (*path, "*")), path)
    if isinstance(space, spaces.Discrete):
        if space.start == 0:
            return specs.DiscreteArray(int(space.n), space.dtype)
        return specs.BoundedArray((), space.dtype, space.start, space.start + (space.n - 1))
    if isinstance(space, spaces.Box):
        return specs.BoundedArray(space.shape, space.dtype, space.low, space.high)
    if isinstance(space, spaces.MultiDiscrete):
        last = space.start + (space.nvec - 1)
        return specs.BoundedArray(space.shape, space.dtype, space.start, last)
    if isinstance(space, spaces.MultiBinary):
        return specs.BoundedArray(space.shape, space.dtype, 0, 1)
    if _is_text(space):
        return specs.StringArray(())
    raise errors.UnsupportedValueError(
        f"{errors.format_path(path)}: got the space {space}, expected Box, Discrete, MultiDiscrete, "
        "MultiBinary, Text, or Dict, Tuple and Sequence of these. Change it by a wrapper such as "
        "gymnasium.wrappers.TransformObservation."
    )


def to_spec_form(space: spaces.Space[Any], path: _Path = ()) -> Convert:
    """Returns what turns values of a space into the form that `to_spec` describes."""
    if isinstance(space, spaces.Dict):
        parts = {key: to_spec_form(part, (*path, key)) for key, part in space.spaces.items()}
        return lambda value: _convert_dict(parts, value, path)
    if isinstance(space, spaces.Tuple):
        items = tuple(to_spec_form(part, (*path, i)) for i, part in enumerate(space.spaces))
        return lambda value: _convert_tuple(items, value, path)
    if isinstance(space, spaces.Sequence):
        return _sequence_to_spec_form(space, path)
    if _is_text(space):
        return _same
    dtype = np.dtype(space.dtype)
    return lambda value: (
        value if type(value) is np.ndarray and value.dtype == dtype else _fit(value, dtype)
    )


def from_spec_form(space: spaces.Space[Any]) -> Convert:
    """Returns what turns values in the form of the specs, such as actions, into values of a space."""
    if isinstance(space, spaces.Dict):
        parts = {key: from_spec_form(part) for key, part in space.spaces.items()}
        return lambda value: {key: part(value[key]) for key, part in parts.items()}
    if isinstance(space, spaces.Tuple):
        items = tuple(from_spec_form(part) for part in space.spaces)
        return lambda value: tuple(item(part) for item, part in zip(items, value, strict=True))
    if isinstance(space, spaces.Sequence):
        return lambda value: _unstack(space, value)
    if isinstance(space, spaces.Discrete) or _is_text(space):
        # Environments look it up in dicts, and an array of no dimensions has no hash.
        return lambda value: value[()] if type(value) is np.ndarray and not value.ndim else value
    return _same


def items(space: spaces.Space[Any]) -> Callable[[Any], Sequence[Any]]:
    """Returns what takes a batch apart into values of a space, as vector environments have them."""
    if isinstance(space, spaces.Dict):
        parts = {key: items(part) for key, part in space.spaces.items()}
        return lambda batch: [
            dict(zip(parts, values, strict=True))
            for values in zip(*(part(batch[key]) for key, part in parts.items()), strict=True)
        ]
    if isinstance(space, spaces.Tuple):
        each = tuple(items(part) for part in space.spaces)
        return lambda batch: list(
            zip(*(part(value) for part, value in zip(each, batch, strict=True)), strict=True)
        )
    return list  # arrays; tuples of what numpy cannot batch


def reward_spec() -> specs.Array:
    """Returns the spec of all rewards."""
    return specs.Array((), np.float64, "reward")


def discount_spec() -> specs.BoundedArray:
    """Returns the spec of all discounts."""
    return specs.BoundedArray((), np.float64, 0.0, 1.0, "discount")


def _same(value: Any) -> Any:
    return value


def _is_text(space: spaces.Space[Any]) -> bool:
    if isinstance(space, spaces.Text):
        return True
    return type(space).__module__.partition(".")[0] != "gymnasium" and space.dtype in (
        np.dtype(str),
        str,
    )


def _fit(value: Any, dtype: np.dtype[Any]) -> Any:
    """Returns a leaf that is not simply an array of its space's dtype."""
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype != dtype and np.can_cast(value.dtype, dtype, "safe"):
            return value.astype(dtype)
        return value
    if isinstance(value, list | tuple):
        return np.asarray(value, dtype)
    # A Python number is described by a spec of the dtype that numpy would give it.
    return value if np.asarray(value).dtype == dtype else dtype.type(value)


def _convert_dict(parts: Mapping[str, Convert], value: Any, path: _Path) -> dict[str, Any]:
    if not isinstance(value, Mapping) or value.keys() != parts.keys():
        got = sorted(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
        raise _mismatch(path, got, f"a dict with the keys {sorted(map(str, parts))}")
    return {key: part(value[key]) for key, part in parts.items()}


def _convert_tuple(items: tuple[Convert, ...], value: Any, path: _Path) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple) or len(value) != len(items):
        got = f"{len(value)} items" if isinstance(value, list | tuple) else type(value).__name__
        raise _mismatch(path, got, f"a tuple of {len(items)}")
    return tuple(item(part) for item, part in zip(items, value, strict=True))


def _mismatch(path: _Path, got: Any, expected: str) -> errors.ValueMismatchError:
    return errors.ValueMismatchError(
        f"{errors.format_path(path)}: got {got}, but the environment's space says {expected}. "
        "Correct the space or the value."
    )


def _stacked_spec(spec: Any, path: _Path) -> Any:
    """Returns the nest of specs of a sequence of items with such specs."""
    if isinstance(spec, dict):
        return {key: _stacked_spec(item, (*path, key)) for key, item in spec.items()}
    if isinstance(spec, tuple):
        return tuple(_stacked_spec(item, (*path, i)) for i, item in enumerate(spec))
    if isinstance(spec, VaryingArray):
        raise errors.UnsupportedValueError(
            f"{errors.format_path(path)}: got a Sequence in a Sequence, whose values vary in two "
            "dimensions; expected one. Pad the inner one by a wrapper."
        )
    return VaryingArray((-1, *spec.shape), spec.dtype)


def _sequence_to_spec_form(space: spaces.Sequence, path: _Path) -> Convert:
    convert = to_spec_form(space.feature_space, (*path, "*"))
    spec = to_spec(space.feature_space, (*path, "*"))

    def stack(value: Any) -> Any:
        if space.stack:
            value = list(utils.iterate(space.stacked_feature_space, value))
        return _stack([convert(item) for item in value], spec)

    return stack


def _stack(items: list[Any], spec: Any) -> Any:
    if isinstance(spec, dict):
        return {key: _stack([item[key] for item in items], part) for key, part in spec.items()}
    if isinstance(spec, tuple):
        return tuple(_stack([item[i] for item in items], part) for i, part in enumerate(spec))
    dtype = spec.dtype if not items or spec.dtype == object else np.asarray(items[0]).dtype
    column: npt.NDArray[Any] = np.empty((len(items), *spec.shape), dtype)
    for i, item in enumerate(items):
        column[i] = item
    return column


def _unstack(space: spaces.Sequence, value: Any) -> Any:
    """Returns the sequence whose items were stacked; one that is a sequence already stays so."""
    leaf = value
    while isinstance(leaf, dict | tuple) and leaf:
        leaf = next(iter(leaf.values())) if isinstance(leaf, dict) else leaf[0]
    convert = from_spec_form(space.feature_space)
    items = tuple(convert(_nth(value, i)) for i in range(len(leaf)))
    if not space.stack:
        return items
    empty = utils.create_empty_array(space.feature_space, len(items))
    return utils.concatenate(space.feature_space, items, empty)


def _nth(nest: Any, index: int) -> Any:
    if isinstance(nest, dict):
        return {key: _nth(item, index) for key, item in nest.items()}
    if isinstance(nest, tuple):
        return tuple(_nth(item, index) for item in nest)
    return nest[index, ...]  # of no dimensions, but an array


__all__ = ["discount_spec", "from_spec_form", "items", "reward_spec", "to_spec", "to_spec_form"]

# SPDX-License-Identifier: Apache-2.0
"""dm_env specs as plain data and back.

A spec becomes a dict; the nest around it (dicts, lists, tuples) stays as it is:

    Array          shape  dtype  name
    BoundedArray   shape  dtype  name  minimum  maximum
    DiscreteArray  shape  dtype  name  minimum  maximum  num_values
    StringArray    shape  dtype  name  string_type
    VaryingArray   shape  dtype  name

`shape` is an int64 array of shape (rank,), whose first item is -1 where that dimension varies, `dtype` a str, `name` a str or None, `minimum` and
`maximum` are arrays of the spec's dtype (scalar bounds have shape ()), `num_values` is an int, and
`string_type` is "str" or "bytes". The keys are those of EnvLogger 1.x, which had no `string_type`;
its readers ignore that key and see an `Array` of objects. `json_codec` makes JSON of all that.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import dm_env
import numpy as np
from dm_env import specs

from envlogger import errors
from envlogger.converters import dtype_names
from envlogger.converters.varying_array import VaryingArray

_ENVIRONMENT_SPECS = ("observation_spec", "action_spec", "reward_spec", "discount_spec")
_STRING_TYPES = {"str": str, "bytes": bytes}
_SPEC_TYPES = (
    specs.Array,
    specs.BoundedArray,
    specs.DiscreteArray,
    specs.StringArray,
    VaryingArray,
)
_SUPPORTED = (
    "dm_env.specs.Array and its subclasses, and dicts (any Mapping), lists and tuples of them"
)

_Path = tuple[object, ...]


def encode_environment_specs(env: dm_env.Environment | None) -> dict[str, Any]:
    """Encodes the four specs of an environment.

    Args:
        env: The environment, or None where there is none.

    Returns:
        A dict from "observation_spec", "action_spec", "reward_spec" and "discount_spec" to what
        `encode` makes of them; empty where `env` is None.

    Raises:
        UnsupportedValueError, ValueError: As `encode`; the path begins with the name of the spec.
    """
    if env is None:
        return {}
    return {name: _encode(getattr(env, name)(), (name,)) for name in _ENVIRONMENT_SPECS}


def decode_environment_specs(encoded: Mapping[str, Any] | None) -> dict[str, Any]:
    """Decodes what `encode_environment_specs` returned.

    Args:
        encoded: The encoded specs. Names may be missing: some logs have none at all.

    Returns:
        A dict which always has all four names; None stands for a missing spec.

    Raises:
        TypeError, ValueError: As `decode`; the path begins with the name of the spec.
    """
    encoded = encoded or {}
    return {
        name: _decode(encoded[name], (name,)) if name in encoded else None
        for name in _ENVIRONMENT_SPECS
    }


def encode(spec: Any) -> Any:
    """Turns a nest of specs into plain data.

    Args:
        spec: A spec, or a dict (any Mapping), list or tuple of nests. A type of spec that dm_env
            doesn't define is encoded as its nearest base among dm_env's, with a warning.

    Returns:
        The same nest with each spec replaced by a dict (see the module's docstring). Mappings
        become dicts. Bounds are the spec's own arrays, not copies; they are read-only.

    Raises:
        UnsupportedValueError: For anything else, such as None or a NamedTuple, and for dtypes with
            fields; says where it is.
        ValueError: If a minimum exceeds its maximum once cast to the spec's dtype: dm_env would not
            construct that spec again.
    """
    return _encode(spec, ())


def decode(encoded: Any) -> Any:
    """Turns what `encode` returned, now or in EnvLogger 1.x, into specs.

    Args:
        encoded: A nest of dicts, lists and tuples. A dict is a spec if it has a `shape` and its
            `dtype` is a str; so an observation may itself be called "shape" or "dtype". EnvLogger
            1.x's logs hold None for the shape () and for bounds without elements.

    Returns:
        A nest of new specs, equal in type, shape, dtype, name and (bit by bit) bounds.

    Raises:
        TypeError: If `encoded` is not such a nest; says where.
        ValueError: If a dict doesn't describe a possible spec; says where.
    """
    return _decode(encoded, ())


def _encode(spec: Any, path: _Path) -> Any:
    if isinstance(spec, specs.Array):
        return _encode_array(spec, path)
    if isinstance(spec, Mapping):
        return {key: _encode(value, (*path, key)) for key, value in spec.items()}
    # Exact types: a NamedTuple could not be given back as what it was.
    if type(spec) is list:
        return [_encode(value, (*path, i)) for i, value in enumerate(spec)]
    if type(spec) is tuple:
        return tuple(_encode(value, (*path, i)) for i, value in enumerate(spec))
    raise errors.UnsupportedValueError(
        f"Cannot encode the spec {_at(path)}: got {type(spec).__qualname__}; supported are "
        f"{_SUPPORTED}."
    )


def _decode(encoded: Any, path: _Path) -> Any:
    if isinstance(encoded, Mapping):
        if "shape" in encoded and isinstance(encoded.get("dtype"), str):
            return _decode_array(encoded, path)
        return {key: _decode(value, (*path, key)) for key, value in encoded.items()}
    if isinstance(encoded, list):
        return [_decode(value, (*path, i)) for i, value in enumerate(encoded)]
    if isinstance(encoded, tuple):
        return tuple(_decode(value, (*path, i)) for i, value in enumerate(encoded))
    raise TypeError(
        f"Cannot decode the spec {_at(path)}: got {type(encoded).__qualname__}, expected a dict, a "
        "list or a tuple."
    )


def _encode_array(spec: Any, path: _Path) -> dict[str, Any]:
    if type(spec) not in _SPEC_TYPES:
        base = next(kind for kind in type(spec).__mro__ if kind in _SPEC_TYPES)
        warnings.warn(
            f"The spec {_at(path)} is a {type(spec).__qualname__}, which dm_env doesn't define; it "
            f"is recorded as its base {base.__name__}.",
            stacklevel=2,
        )
    try:
        dtype = dtype_names.name_of(spec.dtype)
    except TypeError as error:
        raise errors.UnsupportedValueError(
            f"Cannot encode the spec {_at(path)}: {error}."
        ) from error
    encoded = {"shape": np.array(spec.shape, dtype=np.int64), "dtype": dtype, "name": spec.name}
    if isinstance(spec, specs.StringArray):
        encoded["string_type"] = spec.string_type.__name__
    if isinstance(spec, specs.BoundedArray):
        # dm_env compares the bounds as they were passed and then casts them: -1 as uint8 is 255.
        if np.any(spec.minimum > spec.maximum):
            raise ValueError(
                f"Cannot encode the spec {_at(path)}: as {dtype}, its minimum {spec.minimum} "
                f"exceeds its maximum {spec.maximum}: no value conforms to it. Correct the bounds."
            )
        encoded["minimum"] = spec.minimum
        encoded["maximum"] = spec.maximum
    if isinstance(spec, specs.DiscreteArray):
        encoded["num_values"] = spec.num_values
    return encoded


def _decode_array(encoded: Mapping[str, Any], path: _Path) -> Any:
    try:
        name = encoded.get("name")
        dtype = dtype_names.from_name(encoded["dtype"])
        shape = () if encoded["shape"] is None else tuple(int(n) for n in encoded["shape"])
        if "string_type" in encoded:
            return specs.StringArray(shape, _STRING_TYPES[encoded["string_type"]], name)
        if "num_values" in encoded:
            return specs.DiscreteArray(int(encoded["num_values"]), dtype, name)
        if "minimum" in encoded and "maximum" in encoded:
            minimum, maximum = (
                np.zeros(shape, dtype) if encoded[key] is None and 0 in shape else encoded[key]
                for key in ("minimum", "maximum")
            )
            return specs.BoundedArray(shape, dtype, minimum, maximum, name)
        return VaryingArray(shape, dtype, name) if -1 in shape else specs.Array(shape, dtype, name)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"Cannot decode the spec {_at(path)} from {dict(encoded)!r}: {error}"
        ) from error


def _at(path: _Path) -> str:
    return f"at {'/'.join(map(str, path))!r}" if path else "at the top level"

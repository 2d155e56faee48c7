# SPDX-License-Identifier: Apache-2.0
"""Metadata as strict JSON and back, without loss.

What JSON can say stays as it is, so that other tools read it: None, bool, str, list, finite
floats, ints of up to 64 bits, and dicts whose keys are str. Everything else becomes a dict with a
single key that names what it is:

    tuple                         {"__tuple__": [item, ...]}
    bytes                         {"__bytes__": base64}
    float, not finite             {"__float__": "inf" | "-inf" | "nan" | "0x" and the 16 hex digits}
    complex                       {"__complex__": [real, imaginary]}
    int over 64 bits              {"__int__": hex}
    str with lone surrogates      {"__str__": base64 of its UTF-8 with surrogatepass}
    dict, any other               {"__dict__": [[key, value], ...]}
    numpy array                   {"__ndarray__": {"dtype": ..., "shape": [...], "values": [...]}}
    numpy scalar                  {"__scalar__": {"dtype": ..., "values": [value]}}

`values` are the elements in C order. Where plain numbers or strings would not give the same bits
(NaN, complex, bfloat16, dates), or where there are many, `base64` stands in its place: the bytes of
the elements in C order, little-endian whatever the dtype says. A user's dict which looks like one
of these, with one key `__of_this_form__`, is written as `__dict__`.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from envlogger import errors
from envlogger.converters import dtype_names

# Beyond this, numbers are no longer there to be read by people; base64 is smaller and faster.
_MAX_PLAIN_ELEMENTS = 1024
_TAG = re.compile(r"__\w+__")
_CANONICAL_NAN = struct.pack(">d", math.nan)
_SUPPORTED = (
    "None, bool, int, float, complex, str, bytes, numpy arrays and scalars, and lists, tuples and dicts "
    "(any Mapping) of them"
)

_Path = tuple[object, ...]


def encode(value: Any) -> Any:
    """Returns `value` in a form that `json.dumps(..., allow_nan=False)` accepts.

    Args:
        value: None, bool, int, float, complex, str, bytes, numpy arrays and scalars of dtypes without
            fields, and any nest of lists, tuples and dicts of those. Mappings other than dict are
            taken as dicts. Object arrays are fine if their elements are.

    Returns:
        New lists and dicts, which share nothing mutable with `value`.

    Raises:
        UnsupportedValueError: For anything else, and for subclasses of the types above (a NamedTuple, an enum),
            which would not come back as what they were. Says where it is.
    """
    return _encode(value, ())


def decode(obj: Any) -> Any:
    """Returns the value of which `encode` made `obj`.

    Args:
        obj: What `json.loads` returned.

    Returns:
        The value: same types, same bits. Arrays are new, writable and C-contiguous.

    Raises:
        TypeError: If `obj` is not what JSON can hold; says where.
        ValueError: If a special form is unknown or broken; says where.
    """
    return _decode(obj, ())


def _encode(value: Any, path: _Path) -> Any:
    # Exact types throughout: np.float64 is a float and IntEnum an int, and neither may become one.
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is int:
        return value if -(2**63) <= value < 2**64 else {"__int__": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"__float__": _name_float(value)}
    if kind is complex:
        return {"__complex__": [_encode(part, path) for part in (value.real, value.imag)]}
    if kind is str:
        return value if is_unicode(value) else {"__str__": _to_base64(_surrogates_to_bytes(value))}
    if kind is bytes:
        return {"__bytes__": _to_base64(value)}
    if kind is list:
        return [_encode(item, (*path, i)) for i, item in enumerate(value)]
    if kind is tuple:
        return {"__tuple__": [_encode(item, (*path, i)) for i, item in enumerate(value)]}
    if isinstance(value, Mapping):
        return _encode_dict(value, path)
    if kind is np.ndarray:
        return {"__ndarray__": _encode_array(value, path)}
    if isinstance(value, np.generic):
        return {"__scalar__": _encode_scalar(value, path)}
    raise errors.UnsupportedValueError(
        f"Cannot make JSON of the value {_at(path)}: got {kind.__module__}.{kind.__qualname__}; "
        f"supported are {_SUPPORTED}. Convert it to one of these."
    )


def _decode(obj: Any, path: _Path) -> Any:
    if obj is None or isinstance(obj, bool | int | float | str):
        return obj
    if isinstance(obj, list):
        return [_decode(item, (*path, i)) for i, item in enumerate(obj)]
    if not isinstance(obj, dict):
        raise TypeError(f"Not JSON {_at(path)}: got {type(obj).__qualname__}.")
    tag = _tag(obj)
    if tag is None:
        return {key: _decode(value, (*path, key)) for key, value in obj.items()}
    if tag not in _DECODERS:
        raise ValueError(
            f"Unknown form {tag!r} {_at(path)}; known are {', '.join(_DECODERS)}. A later version "
            "of envlogger may have written it: upgrade."
        )
    try:
        return _DECODERS[tag](obj[tag], path)
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        struct.error,
    ) as error:
        raise ValueError(f"Broken {tag!r} {_at(path)}: {error}") from error


def _encode_dict(value: Mapping[Any, Any], path: _Path) -> Any:
    plain = all(type(key) is str and is_unicode(key) for key in value) and _tag(value) is None
    if plain:
        return {key: _encode(item, (*path, key)) for key, item in value.items()}
    pairs = [
        [_encode(key, (*path, key)), _encode(item, (*path, key))] for key, item in value.items()
    ]
    return {"__dict__": pairs}


def _decode_dict(pairs: Any, path: _Path) -> dict[Any, Any]:
    return {_decode(key, path): _decode(value, (*path, key)) for key, value in pairs}


def _tag(value: Mapping[Any, Any]) -> str | None:
    """Returns the key if `value` has one only and that has the form of a tag."""
    if len(value) != 1:
        return None
    (key,) = value
    return key if isinstance(key, str) and _TAG.fullmatch(key) else None


def _encode_array(array: np.ndarray[Any, Any], path: _Path) -> dict[str, Any]:
    return {
        "dtype": _dtype_name(array.dtype, path),
        "shape": list(array.shape),
        **_encode_elements(array, path),
    }


def _decode_array(body: Any, path: _Path) -> np.ndarray[Any, Any]:
    dtype = dtype_names.from_name(body["dtype"])
    return _decode_elements(body, dtype, tuple(body["shape"]), path)


def _encode_scalar(scalar: np.generic, path: _Path) -> dict[str, Any]:
    # An array would drop trailing NULs of these two, so they don't pass through one.
    if isinstance(scalar, np.str_):
        return {"dtype": "str", "values": [_encode(str.__str__(scalar), path)]}
    if isinstance(scalar, np.bytes_):
        return {"dtype": "bytes", "base64": _to_base64(bytes(scalar))}
    array = np.asarray(scalar)
    return {"dtype": _dtype_name(array.dtype, path), **_encode_elements(array, path)}


def _decode_scalar(body: Any, path: _Path) -> Any:
    if body["dtype"] == "str":
        return np.str_(_decode(body["values"][0], path))
    if body["dtype"] == "bytes":
        return np.bytes_(_from_base64(body["base64"]))
    return _decode_elements(body, dtype_names.from_name(body["dtype"]), (), path)[()]


def _encode_elements(array: np.ndarray[Any, Any], path: _Path) -> dict[str, Any]:
    """Returns the elements, in C order, under `values` or `base64`."""
    if array.dtype.kind == "O":
        elements = array.reshape(-1).tolist()
        return {"values": [_encode(item, (*path, i)) for i, item in enumerate(elements)]}
    values = _plain_values(array)
    if values is not None:
        return {"values": values}
    little_endian = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return {"base64": _to_base64(little_endian.tobytes())}


def _decode_elements(
    body: Any, dtype: np.dtype[Any], shape: tuple[int, ...], path: _Path
) -> np.ndarray[Any, Any]:
    if dtype.kind == "O":
        elements = np.empty(len(body["values"]), dtype=object)
        for i, item in enumerate(body["values"]):
            elements[i] = _decode(item, (*path, i))
        return elements.reshape(shape)
    if "values" in body:
        return np.array(body["values"], dtype=dtype).reshape(shape)
    data = bytearray(_from_base64(body["base64"]))
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise ValueError(f"{len(data)} bytes, expected {expected} for {dtype} of shape {shape}")
    little_endian: np.ndarray[Any, Any] = np.ndarray(shape, dtype.newbyteorder("<"), buffer=data)
    return little_endian.astype(dtype, copy=False)


def _plain_values(array: np.ndarray[Any, Any]) -> list[Any] | None:
    """Returns the elements as JSON numbers, bools or strings, or None if the bits would change."""
    dtype = array.dtype
    numbers = dtype.kind in "biuf" and dtype.char != "g"  # A long double isn't a JSON number.
    if array.size > _MAX_PLAIN_ELEMENTS or not (numbers or dtype.kind == "U"):
        return None
    if dtype.kind == "f" and not np.isfinite(array).all():
        return None
    try:
        values: list[Any] = array.reshape(-1).tolist()
    except ValueError:  # A code point beyond Unicode.
        return None
    if dtype.kind == "U" and not all(map(is_unicode, values)):
        return None
    return values if np.array(values, dtype=dtype).tobytes() == array.tobytes() else None


def _dtype_name(dtype: np.dtype[Any], path: _Path) -> str:
    try:
        return dtype_names.name_of(dtype)
    except TypeError as error:
        raise errors.UnsupportedValueError(
            f"Cannot make JSON of the array {_at(path)}: {error}."
        ) from error


def _name_float(value: float) -> str:
    """Returns the name of a float that is not finite; a NaN with an unusual payload keeps it."""
    bits = struct.pack(">d", value)
    return str(value) if math.isinf(value) or bits == _CANONICAL_NAN else f"0x{bits.hex()}"


def _float_of_name(name: str) -> float:
    if name.startswith("0x"):
        value: float = struct.unpack(">d", bytes.fromhex(name[2:]))[0]
        return value
    return float(name)


def is_unicode(text: str) -> bool:
    """Whether a text has an encoding in UTF-8: lone surrogates have none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _surrogates_to_bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _surrogates_from_bytes(data: bytes) -> str:
    return data.decode(errors="surrogatepass")


def _to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error


def _at(path: _Path) -> str:
    return f"at {'/'.join(map(str, path))!r}" if path else "at the top level"


_DECODERS: dict[str, Callable[[Any, _Path], Any]] = {
    "__tuple__": lambda items, path: tuple(
        _decode(item, (*path, i)) for i, item in enumerate(items)
    ),
    "__bytes__": lambda text, path: _from_base64(text),
    "__float__": lambda name, path: _float_of_name(name),
    "__complex__": lambda parts, path: complex(*(_decode(part, path) for part in parts)),
    "__int__": lambda digits, path: int(digits, 16),
    "__str__": lambda text, path: _surrogates_from_bytes(_from_base64(text)),
    "__dict__": _decode_dict,
    "__ndarray__": _decode_array,
    "__scalar__": _decode_scalar,
}

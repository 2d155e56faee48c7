# SPDX-License-Identifier: Apache-2.0
"""What a logged value looked like: its nesting, its Nones and the Python type of each leaf.

A dataset stores leaves: typed arrays, one feature each. A structure is what turns leaves back into
the very value that was logged. It mirrors the value's dicts, lists and tuples; where the value has
None it has None; where the value has a leaf it has a short code:

| code | the leaf was | stored as |
|---|---|---|
| `b` `i` `f` `c` | a Python bool, int, float, complex | bool, int64, float64, complex128 |
| `s` `y` | a Python str, bytes | bytes (str as UTF-8) |
| `a` | a numpy array of the feature's dtype | itself |
| `g` | a numpy scalar of the feature's dtype | itself |
| `a` `g` + dtype | the same, of a dtype that is stored as another (`>f4`, `<U5`) | native; bytes |
| `gU` `gS` | a numpy str, a numpy bytes | bytes |
| `as` `ay` | an object array of str, of bytes | bytes |
| `j` | anything, in a dataset that was converted | JSON, see `converters.json_codec` |
| `z` + dtype + `:` + shape | an array whose rows are empty, which TFDS would store as a list | nothing |

Keys are strings, or ints (multi-agent environments have them), and name the leaf in the dataset.
Values of subclasses come back as what they derive from: an IntEnum as int, an OrderedDict as dict, a
namedtuple as tuple, a matrix as array.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from envlogger import errors
from envlogger.converters import json_codec

Path: TypeAlias = tuple[str, ...]
Structure: TypeAlias = Any  # None | str | dict[str | int, Structure] | list | tuple
Leaves: TypeAlias = dict[Path, npt.NDArray[Any]]

_PYTHON_SCALARS: dict[type, tuple[str, Any]] = {
    bool: ("b", np.bool_),
    int: ("i", np.int64),
    float: ("f", np.float64),
    complex: ("c", np.complex128),
}
_KINDS = {"b": "b", "i": "iu", "f": "f", "c": "c"}  # of the dtypes whose `tolist` gives that type
_PYTHON_TYPES = {code: kind for kind, (code, _) in _PYTHON_SCALARS.items()}
_SUPPORTED = (
    "supported are numpy arrays and scalars of bool, integer, float, complex, datetime and string "
    "dtypes, Python bool, int, float, complex, str, bytes and None, in dicts, lists and tuples"
)


def flatten(value: Any, path: Path, leaves: Leaves) -> Structure:
    """Adds the leaves of `value` to `leaves`, by path, and returns its structure.

    Raises:
      UnsupportedValueError: A leaf or a key is of a type that cannot be stored without loss.
      NameConflictError: Two leaves would have one path.
    """
    if value is None:
        return None
    if isinstance(value, Mapping):
        items = [(check_key(key, path), item) for key, item in value.items()]
        return {key: flatten(item, (*path, str(key)), leaves) for key, item in items}
    if isinstance(value, list | tuple):
        parts = [flatten(item, (*path, str(i)), leaves) for i, item in enumerate(value)]
        return parts if isinstance(value, list) else tuple(parts)
    code, array = encode_leaf(value, path)
    if path in leaves:
        raise errors.NameConflictError(
            f"Two values are named {errors.format_path(path)!r}, such as by the keys 1 and '1'. "
            "Rename one of them."
        )
    leaves[path] = array
    return code


def unflatten(structure: Structure, path: Path, leaf: Callable[[Path], Any]) -> Any:
    """Returns the value whose structure and leaves these are; the twin of `flatten`."""
    if structure is None:
        return None
    if isinstance(structure, dict):
        return {k: unflatten(item, (*path, str(k)), leaf) for k, item in structure.items()}
    if isinstance(structure, list | tuple):
        parts = [unflatten(item, (*path, str(i)), leaf) for i, item in enumerate(structure)]
        return parts if isinstance(structure, list) else tuple(parts)
    return decode_leaf(structure, leaf(path))


def leaf_paths(structure: Structure, path: Path) -> Iterator[Path]:
    """Yields the path of each leaf that is there (not None) in `structure`."""
    if isinstance(structure, dict):
        for key, item in structure.items():
            yield from leaf_paths(item, (*path, str(key)))
    elif isinstance(structure, list | tuple):
        for i, item in enumerate(structure):
            yield from leaf_paths(item, (*path, str(i)))
    elif structure is not None:
        yield path


def to_json(structure: Structure) -> Any:
    """Returns `structure` as plain JSON: a tuple as ["T", …], a list as ["L", …]."""
    if isinstance(structure, dict):
        if all(isinstance(key, str) for key in structure):
            return {key: to_json(item) for key, item in structure.items()}
        return ["D", *([key, to_json(item)] for key, item in structure.items())]
    if isinstance(structure, list | tuple):
        return ["L" if isinstance(structure, list) else "T", *map(to_json, structure)]
    return structure


def from_json(data: Any) -> Structure:
    """Returns the structure that `to_json` described."""
    if isinstance(data, dict):
        return {key: from_json(item) for key, item in data.items()}
    if isinstance(data, list):
        kind, items = data[0], data[1:]
        if kind == "D":
            return {key: from_json(item) for key, item in items}
        parts = [from_json(item) for item in items]
        return parts if kind == "L" else tuple(parts)
    return data


def encode_leaf(value: Any, path: Path) -> tuple[str, npt.NDArray[Any]]:
    """Returns the code of a leaf and the array that stores it, native and C-ordered.

    Raises:
      UnsupportedValueError: `value` is of a type that cannot be stored without loss.
    """
    if type(value) is np.ndarray:
        return _encode_array("a", value, path)
    if isinstance(value, np.str_):
        return "gU", object_array([_encode_text(value)]).reshape(())
    if isinstance(value, np.bytes_):
        return "gS", object_array([bytes(value)]).reshape(())
    if isinstance(value, np.generic):
        return _encode_array("g", np.asarray(value), path)
    for kind, (code, dtype) in _PYTHON_SCALARS.items():
        if isinstance(value, kind):
            try:
                return code, np.array(kind(value), dtype)
            except OverflowError:
                raise errors.UnsupportedValueError(
                    f"{errors.format_path(path)}: got the int {value}, expected one of 64 bits. "
                    "Log it as a str, or as an array of smaller ints."
                ) from None
    if isinstance(value, str):
        return "s", object_array([_encode_text(value)]).reshape(())
    if isinstance(value, bytes | bytearray | memoryview):
        return "y", object_array([bytes(value)]).reshape(())
    if isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray):
        return _encode_array("a", np.asarray(value), path)
    if hasattr(value, "__array__") and not isinstance(value, np.ndarray):
        # Arrays of other libraries (JAX, PyTorch, TensorFlow) come back as numpy arrays.
        return _encode_array("a", np.asarray(value), path)
    raise errors.UnsupportedValueError(
        f"{errors.format_path(path)}: got {type(value).__module__}.{type(value).__qualname__}; "
        f"{_SUPPORTED}. Convert it to one of these."
    )


def encode_as_json(value: Any) -> bytes:
    """Returns a value of any nesting as a leaf of the code `j` is stored.

    Raises:
      UnsupportedValueError: There is something in it that no log or dataset can hold.
    """
    return json.dumps(json_codec.encode(value), separators=(",", ":"), allow_nan=False).encode()


def decode_leaf(code: str, stored: npt.NDArray[Any]) -> Any:
    """Returns the leaf that `encode_leaf` stored, with its own type."""
    if code in _PYTHON_TYPES:
        return _PYTHON_TYPES[code](stored[()])
    if code == "s":
        return _decode_text(bytes(stored[()]))
    if code == "y":
        return stored[()]
    if code == "a":
        return stored
    if code == "g":
        return stored[()]
    if code == "gU":
        return np.str_(_decode_text(bytes(stored[()])))
    if code == "gS":
        return np.bytes_(stored[()])
    if code == "j":
        return json_codec.decode(json.loads(bytes(stored[()])))
    if code == "as":
        return object_array([_decode_text(x) for x in stored.reshape(-1)]).reshape(stored.shape)
    if code == "ay":
        return stored
    if code[0] == "z":
        dtype, shape = logged_form(code, stored)
        return np.empty(shape, dtype)
    dtype = np.dtype(code[1:])
    if dtype.kind in "US":
        items = list(map(_decode_text, stored.reshape(-1))) if dtype.kind == "U" else stored
        array = np.array(items, dtype).reshape(stored.shape)
    elif dtype.kind in "mM":
        array = stored.view(dtype.newbyteorder("=")).astype(dtype)
    else:
        array = stored.astype(dtype)
    return array if code[0] == "a" else array[()]


def decode_leaves(code: str, rows: Any) -> list[Any]:
    """Returns the leaves that rows of a column store; what `decode_leaf` gives for each of them.

    Args:
      code: The code of all the rows.
      rows: An array (n, ...), of which nothing is kept; or a list of n arrays, which are kept.
    """
    if isinstance(rows, list):
        return rows if code == "a" else [decode_leaf(code, row) for row in rows]
    return leaf_decoder(code, rows.dtype, rows.ndim)(rows)


@functools.lru_cache(maxsize=256)
def leaf_decoder(
    code: str, dtype: np.dtype[Any], ndim: int
) -> Callable[[npt.NDArray[Any]], list[Any]]:
    """Returns what `decode_leaves` does with an array of these dimensions."""
    if ndim > 1 and dtype.kind != "O":
        if code == "a":
            return copy_rows
        return lambda rows: [decode_leaf(code, row.copy()) for row in rows]
    if ndim == 1:
        if dtype.kind in _KINDS.get(code, ""):
            return np.ndarray.tolist
        if code == "s":
            return lambda rows: list(map(_decode_text, rows))
        if code == "y" or (code == "g" and dtype.kind != "O"):
            return list
    return lambda rows: [decode_leaf(code, np.array(row, dtype)) for row in rows]


def copy_rows(rows: npt.NDArray[Any]) -> list[Any]:
    """Returns the rows of an array, each as an array of its own."""
    return [row.copy() for row in rows]


def logged_form(code: str, stored: npt.NDArray[Any]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Returns the dtype and shape that a leaf had; strings that were no `<U`, `S` arrays are objects."""
    if code[0] == "z":
        name, _, shape = code[1:].partition(":")
        return np.dtype(name), tuple(map(int, shape.split(",")))
    if code[0] in "ag" and len(code) > 2:
        return np.dtype(code[1:]), stored.shape
    return stored.dtype, stored.shape


def _encode_array(code: str, array: npt.NDArray[Any], path: Path) -> tuple[str, npt.NDArray[Any]]:
    dtype = array.dtype
    kind = dtype.kind
    if 0 in array.shape[1:] and (kind in "OUS" or dtype.newbyteorder("=") == np.uint32):
        code = f"z{dtype.str}:{','.join(map(str, array.shape))}"
        return code, np.empty(0, object if kind in "OUS" else np.uint32)
    if kind == "O":
        return _encode_objects(array, path)
    if kind in "US":
        try:
            items = array.reshape(-1).tolist()
        except (ValueError, SystemError) as error:
            raise errors.UnsupportedValueError(
                f"{errors.format_path(path)}: got an array of {dtype} that is not text: {error}. "
                "Is its memory initialised?"
            ) from error
        encoded = [_encode_text(item) for item in items] if kind == "U" else items
        return code + dtype.str, object_array(encoded).reshape(array.shape)
    if kind in "mM":
        native = np.ascontiguousarray(array, dtype.newbyteorder("=")).reshape(array.shape)
        return code + dtype.str, native.view(np.int64)
    # numpy reports ml_dtypes' bfloat16 as a void dtype that has a name of its own.
    storable = (kind in "biufc" and dtype.itemsize <= (16 if kind == "c" else 8)) or (
        dtype.name == "bfloat16"
    )
    if not storable:
        raise errors.UnsupportedValueError(
            f"{errors.format_path(path)}: got an array of dtype {dtype}; {_SUPPORTED}. "
            "Convert it to one of these."
        )
    if not dtype.isnative:
        code += dtype.str
        array = array.astype(dtype.newbyteorder("="))
    return code, np.ascontiguousarray(array).reshape(array.shape)


def _encode_objects(array: npt.NDArray[Any], path: Path) -> tuple[str, npt.NDArray[Any]]:
    items = array.reshape(-1).tolist()
    if all(isinstance(item, str) for item in items):
        return "as", object_array([_encode_text(item) for item in items]).reshape(array.shape)
    if all(isinstance(item, bytes) for item in items):
        return "ay", object_array(items).reshape(array.shape)
    odd = sorted({type(item).__name__ for item in items})
    raise errors.UnsupportedValueError(
        f"{errors.format_path(path)}: got an object array of {', '.join(odd)}; object arrays can "
        "hold only str, or only bytes. Use a numeric dtype, or nest the items in a list or dict."
    )


def object_array(items: Sequence[Any]) -> npt.NDArray[Any]:
    """Returns strings as an object array, (N,): numpy's own constructors strip NULs, and pad."""
    array = np.empty(len(items), object)
    array[:] = items
    return array


def _encode_text(text: str) -> bytes:
    # Lone surrogates (file names, broken input) are legal in a Python str.
    return text.encode("utf-8", "surrogatepass")


def _decode_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def check_key(key: Any, path: Path) -> str | int:
    """Returns a key of a dict as it names a leaf.

    Raises:
      NameConflictError: It is neither an int nor a str that can be a name.
    """
    if isinstance(key, str) and key and json_codec.is_unicode(key):
        return str.__str__(key)  # str() of an enum would give the name of the member
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        return int(key)
    raise errors.NameConflictError(
        f"{errors.format_path(path)}: got the key {key!r}, expected a str that is not empty and "
        "without lone surrogates, or an int. Rename it."
    )


def nest(leaves: Mapping[Path, Any]) -> dict[str, Any]:
    """Returns leaves, by path, as a nest of dicts."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = leaf
    return tree

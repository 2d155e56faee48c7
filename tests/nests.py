# SPDX-License-Identifier: Apache-2.0
"""Hypothesis strategies for nests of values, and what a dataset is to hold of them.

A template describes the values at one place of a run: they share nesting, dtypes and shapes, as those
of an environment do, and differ in their bits. `draw(template, n, rng)` returns the n-th of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

NUMBERS = [
    *(np.dtype(name) for name in ("bool", "int8", "int16", "int32", "int64")),
    *(np.dtype(name) for name in ("uint8", "uint16", "uint32", "uint64")),
    *(np.dtype(name) for name in ("float16", "float32", "float64", "complex64", "complex128")),
    BFLOAT16,
    *(np.dtype(name) for name in ("datetime64[ns]", "datetime64[D]", "timedelta64[us]")),
    *(np.dtype(name) for name in (">i2", ">u4", ">f4", ">f8", ">c8", ">M8[s]")),
]
TEXTS = [np.dtype(name) for name in ("<U3", ">U2", "S4")]
_PYTHON = (bool, int, float, complex, str, bytes)
_CHARACTERS = ["", "a", "\0", "é", "北", "\ud800", "b\0c", "🙂", "x" * 200]
_SPECIAL_FLOATS = {
    2: np.array([0x8000, 0x7C00, 0xFC00, 0x7E00, 0x7C01, 0xFE01, 1], np.uint16),
    4: np.array(
        [0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFC00123, 1], np.uint32
    ),
    8: np.array(
        [1 << 63, 0x7FF << 52, 0xFFF << 52, 0x7FF8 << 48, (0x7FF << 52) + 1, 0xFFF8 << 48, 1],
        np.uint64,
    ),
}


@dataclasses.dataclass(frozen=True)
class Leaf:
    """Values of one kind: a Python type, or a dtype (`str` and `bytes` for object arrays) and shape.

    A first dimension of None varies from value to value.
    """

    kind: Any
    shape: tuple[int | None, ...] = ()
    is_array: bool = True


def shapes(*, can_vary: bool = True) -> st.SearchStrategy[tuple[int | None, ...]]:
    fixed = st.lists(st.integers(0, 3), max_size=3).map(tuple)
    if not can_vary:
        return fixed
    varying = st.lists(st.integers(1, 2), max_size=2).map(lambda dims: (None, *dims))
    images = st.sampled_from([(4, 5, 3), (3, 2, 1), (2, 2, 4)])
    return fixed | varying | images


def leaves(*, can_vary: bool = True) -> st.SearchStrategy[Leaf]:
    kinds = st.sampled_from([*NUMBERS, *TEXTS, str, bytes])
    return (
        st.sampled_from(_PYTHON).map(lambda kind: Leaf(kind, is_array=False))
        | st.builds(Leaf, kinds, shapes(can_vary=can_vary))
        | st.sampled_from([*NUMBERS, np.str_, np.bytes_]).map(
            lambda kind: Leaf(kind, is_array=False)
        )
    )


KEYS = (
    st.sampled_from(["a", "b", "a/b", "with space", "ключ", "0", "-", "a.b", "_", "🙂", "a" * 100])
    | st.text(min_size=1, max_size=4).filter(lambda t: t.isprintable())
    | st.integers(-2, 30)
)


def nests(*, optional: bool = False, of: Any = None) -> st.SearchStrategy[Any]:
    """Templates: leaves in dicts, lists and tuples; where `optional`, parts may be None now and then."""
    base = leaves() if of is None else of
    if optional:
        base = base | base.map(Optional) | st.none()
    return st.recursive(
        base,
        lambda inner: (
            st.dictionaries(KEYS, inner, max_size=3)
            | st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
        ),
        max_leaves=5,
    ).filter(has_distinct_names)


@dataclasses.dataclass(frozen=True)
class Optional:
    """A template whose values are None for each third time."""

    template: Any


def has_distinct_names(template: Any) -> bool:
    """Whether no two leaves, and no leaf and nest, have one name in the dataset."""
    names: list[str] = []
    groups: set[tuple[str, ...]] = set()

    def visit(node: Any, path: tuple[str, ...]) -> None:
        if isinstance(node, Mapping):
            items = list(node.items())
        elif isinstance(node, list | tuple):
            items = list(enumerate(node))
        else:
            if node is not None:
                names.append("/".join(path))
            return
        groups.add(path)
        keys = [str(key) for key, _ in items]
        if len(set(keys)) < len(keys):
            names.extend(["same", "same"])
        for key, item in items:
            visit(item, (*path, str(key)))

    visit(template, ("root",))
    return len(set(names)) == len(names) and not any("/".join(g) in names for g in groups)


def varies(template: Any) -> bool:
    """Whether some values of a template differ in shape."""
    if isinstance(template, Optional):
        return varies(template.template)
    if isinstance(template, Mapping):
        return any(map(varies, template.values()))
    if isinstance(template, list | tuple):
        return any(map(varies, template))
    return template is not None and None in template.shape


def draw(template: Any, n: int, rng: np.random.Generator) -> Any:
    """Returns the n-th value of a template."""
    if template is None:
        return None
    if isinstance(template, Optional):
        return None if n % 3 == 2 else draw(template.template, n, rng)
    if isinstance(template, dict):
        return {key: draw(item, n, rng) for key, item in template.items()}
    if isinstance(template, list | tuple):
        return type(template)(draw(item, n, rng) for item in template)
    if not template.is_array:
        return _scalar(template.kind, rng)
    # The first two lengths differ: that is how the recorder learns that they do.
    shape = tuple(n % 4 if dim is None else dim for dim in template.shape)
    return _array(template.kind, shape, rng)


def _scalar(kind: Any, rng: np.random.Generator) -> Any:
    if isinstance(kind, np.dtype):
        # Numpy has no scalars of another byte order.
        return _array(kind.newbyteorder("=") if kind.kind != "V" else kind, (), rng)[()]
    if kind in (str, np.str_):
        return kind(_CHARACTERS[rng.integers(len(_CHARACTERS))])
    if kind in (bytes, np.bytes_):
        return kind(rng.bytes(rng.integers(4)) + b"\0" * rng.integers(2))
    if kind is int:
        return int(_array(np.dtype(np.int64), (), rng)[()])
    if kind is complex:
        return complex(_scalar(float, rng), _scalar(float, rng))
    return kind(_array(np.dtype(kind), (), rng)[()])  # bool, float


def _array(kind: Any, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    if not isinstance(kind, np.dtype):  # str or bytes
        array = np.empty(shape, object)
        for index in np.ndindex(shape):
            array[index] = _scalar(kind, rng)
        return array
    size = int(np.prod(shape))
    if kind.kind == "U":
        # A NUL at the end is not seen in numpy, so none is put there.
        words = [_CHARACTERS[rng.integers(1, len(_CHARACTERS))].rstrip("\0") for _ in range(size)]
        return np.array(words, kind).reshape(shape)
    if kind == np.bool_:
        return rng.integers(0, 2, shape).astype(np.bool_)
    data = np.frombuffer(rng.bytes(size * kind.itemsize), np.uint8).copy()
    if kind.kind in "fcV":
        part = kind.itemsize // 2 if kind.kind == "c" else kind.itemsize
        specials = _SPECIAL_FLOATS[part]
        words = data.view(specials.dtype)
        chosen = rng.random(words.shape) < 0.3
        words[chosen] = specials[rng.integers(len(specials), size=int(chosen.sum()))]
    elif rng.random() < 0.5:
        data[:] = rng.choice(np.array([0, 1, 127, 128, 255], np.uint8), data.shape)
    array = data.view(kind.newbyteorder("=") if kind.kind not in "VS" else kind).reshape(shape)
    return array.byteswap().view(kind) if not kind.isnative else array


def stored_leaves(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], np.ndarray]:
    """Returns what TFDS is to hold of a value: arrays (strings as object arrays of bytes) by path."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, list | tuple):
        items = list(enumerate(value))
    else:
        return {path: _stored(value)}
    found: dict[tuple[str, ...], np.ndarray] = {}
    for key, item in items:
        found.update(stored_leaves(item, (*path, str(key))))
    return found


def _stored(value: Any) -> np.ndarray:
    if isinstance(value, str | bytes):
        return _objects([value], ())
    array = np.asarray(value)
    if array.dtype.kind in "OUS":
        # Where TFDS has only lists, an array without elements is one of these without any.
        shape = (0,) if 0 in array.shape[1:] else array.shape
        return _objects(array.reshape(-1).tolist(), shape)
    if array.dtype.kind in "mM":
        return array.astype(array.dtype.newbyteorder("=")).view(np.int64)
    if array.dtype.kind != "V":
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype == np.uint32 and 0 in array.shape[1:]:
        return np.empty(0, np.uint32)
    return array


def _objects(items: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(len(items), object)
    encoded = [i.encode("utf-8", "surrogatepass") if isinstance(i, str) else i for i in items]
    array[:] = list(map(bytes, encoded))
    return array.reshape(shape)

# SPDX-License-Identifier: Apache-2.0
"""Features as `features.json` has them: only classes that stock TFDS has."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from envlogger import errors
from envlogger.tfds import structure
from envlogger.tfds.features import STRING, Encoding, Feature, Shape, dtype_name
from envlogger.tfds.structure import Path

_TFDS = "tensorflow_datasets.core.features."


def to_json(features: Mapping[Path, Feature], description: str = "") -> dict[str, Any]:
    """Returns features, by path, as the FeaturesDict that `features.json` holds."""
    return _dict_to_json(structure.nest(features), description)


def _dict_to_json(tree: Mapping[str, Any], description: str = "") -> dict[str, Any]:
    entries = {
        key: _dict_to_json(item) if isinstance(item, dict) else _feature_to_json(item)
        for key, item in tree.items()
    }
    node: dict[str, Any] = {
        "pythonClassName": _TFDS + "features_dict.FeaturesDict",
        "featuresDict": {"features": entries},
    }
    if description:
        node["description"] = description
    return node


def _feature_to_json(feature: Feature) -> dict[str, Any]:
    dtype = dtype_name(feature.dtype)
    encoding, shape = feature.encoding, feature.shape
    node: dict[str, Any]
    if encoding in (Encoding.PNG, Encoding.JPEG):
        node = {
            "pythonClassName": _TFDS + "image_feature.Image",
            "image": {
                "shape": _shape_to_json(shape),
                "dtype": dtype,
                "encodingFormat": encoding.value,
            },
        }
    elif encoding is Encoding.STRING and shape == ():
        node = {"pythonClassName": _TFDS + "text_feature.Text", "text": {}}
    elif encoding is Encoding.SEQUENCE:
        node = {
            "pythonClassName": _TFDS + "sequence_feature.Sequence",
            "sequence": {"feature": _tensor_to_json(dtype, shape[1:], "none"), "length": "-1"},
        }
    else:
        plain = encoding in (Encoding.PLAIN, Encoding.STRING)
        node = _tensor_to_json(dtype, shape, "none" if plain else encoding.value)
    if feature.description:
        node["description"] = feature.description
    return node


def _tensor_to_json(dtype: str, shape: Shape, encoding: str) -> dict[str, Any]:
    return {
        "pythonClassName": _TFDS + "tensor_feature.Tensor",
        "tensor": {"shape": _shape_to_json(shape), "dtype": dtype, "encoding": encoding},
    }


def from_json(node: Mapping[str, Any], path: Path = ()) -> dict[Path, Feature]:
    """Returns the leaves, by path, of a FeaturesDict of a `features.json`.

    Raises:
      UnsupportedValueError: A feature is of a class that this library cannot decode.
    """
    if "featuresDict" in node:
        leaves: dict[Path, Feature] = {}
        for key, item in node["featuresDict"].get("features", {}).items():
            leaves.update(from_json(item, (*path, key)))
        return leaves
    if "translation" in node:
        languages = node["translation"].get("languages", [])
        return {
            (*path, key): Feature((*path, key), STRING, (), Encoding.STRING) for key in languages
        }
    if "sequence" in node:
        length = int(node["sequence"].get("length") or -1)
        inner = from_json(node["sequence"]["feature"], path)
        return {
            key: _sequence_of(feature, None if length == -1 else length, node, is_dict=key != path)
            for key, feature in inner.items()
        }
    return {path: _feature_from_json(node, path)}


def _sequence_of(
    item: Feature, length: int | None, node: Mapping[str, Any], *, is_dict: bool
) -> Feature:
    if item.encoding is Encoding.SEQUENCE:
        raise _unsupported(item.path, f"{node.get('pythonClassName')} of sequences")
    if item.encoding is Encoding.PLAIN and item.is_ragged:
        raise _unsupported(item.path, f"{node.get('pythonClassName')} of shape {item.shape}")
    plain = item.encoding in (Encoding.PLAIN, Encoding.STRING)
    return dataclasses.replace(
        item,
        shape=(length, *item.shape),
        encoding=Encoding.SEQUENCE,
        description=node.get("description", ""),
        item_encoding=None if plain and not is_dict else item.encoding,
    )


def _feature_from_json(node: Mapping[str, Any], path: Path) -> Feature:
    description = node.get("description", "")
    if "tensor" in node:
        tensor = node["tensor"]
        dtype = _dtype_from_name(tensor["dtype"])
        encoding = Encoding(tensor.get("encoding") or "none")
        if dtype == STRING:
            encoding = Encoding.STRING
        return Feature(path, dtype, _shape_from_json(tensor), encoding, description)
    if "text" in node:
        return Feature(path, STRING, (), Encoding.STRING, description)
    if "classLabel" in node:
        return Feature(path, np.dtype(np.int64), (), Encoding.PLAIN, description)
    if "boundingBox" in node:
        dtype = _dtype_from_name(node["boundingBox"].get("dtype") or "float32")
        return Feature(path, dtype, (4,), Encoding.PLAIN, description)
    if "image" in node:
        image = node["image"]
        # Without a stated format TFDS writes PNG; the reader looks at the bytes anyway.
        encoding = Encoding(image.get("encodingFormat") or "png")
        dtype = _dtype_from_name(image.get("dtype") or "uint8")
        shape = _shape_from_json(image)
        if dtype != np.uint8 or len(shape) != 3 or shape[2] not in (None, 1, 3, 4):
            raise _unsupported(path, f"an Image of {dtype} of shape {shape}")
        return Feature(path, dtype, shape, encoding, description)
    raise _unsupported(path, f"the feature class {node.get('pythonClassName')}")


def _unsupported(path: Path, got: str) -> errors.UnsupportedValueError:
    return errors.UnsupportedValueError(
        f"{errors.format_path(path)}: got {got}, which is not supported. Supported are Tensor, Scalar, "
        "Text, ClassLabel, BBoxFeature, Translation, Image of uint8, and dicts and Sequences of these. "
        "Read the dataset with tfds.data_source or tfds.load instead."
    )


def list_to_json(features: Iterable[Feature]) -> list[Any]:
    """Returns features in full, in order: what a session's journal keeps of them."""
    return [
        [list(feature.path), _feature_to_json(feature), list(feature.shape)] for feature in features
    ]


def list_from_json(nodes: Iterable[Any]) -> list[Feature]:
    """Returns the features that `list_to_json` described."""
    return [
        dataclasses.replace(from_json(node, tuple(path))[tuple(path)], shape=tuple(shape))
        for path, node, shape in nodes
    ]


def _shape_to_json(shape: Shape) -> dict[str, list[str]]:
    # TFDS writes -1 for a dimension that is not known, and numbers as strings (protobuf's JSON).
    if not shape:
        return {}
    return {"dimensions": [str(-1 if dim is None else dim) for dim in shape]}


def _shape_from_json(node: Mapping[str, Any]) -> Shape:
    dims = [int(dim) for dim in node.get("shape", {}).get("dimensions", [])]
    return tuple(None if dim == -1 else dim for dim in dims)


def _dtype_from_name(name: str) -> np.dtype[Any]:
    if name in ("string", "object", "str"):
        return STRING
    if name == "bfloat16":
        try:
            import ml_dtypes
        except ImportError as error:
            raise errors.MissingExtraError("ml_dtypes", "tensorflow", "Reading bfloat16") from error
        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype(name)

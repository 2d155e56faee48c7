# SPDX-License-Identifier: Apache-2.0
"""Takes the features from a `tfds.rlds.rlds_base.DatasetConfig`, as EnvLogger 1.x's backend did."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from envlogger import errors
from envlogger.tfds import feature_json, features, schema
from envlogger.tfds.dataset_files import Identity, Info
from envlogger.tfds.features import Encoding, Feature
from envlogger.tfds.structure import Path

_FIELDS = {
    "observation_info": schema.OBSERVATION,
    "action_info": schema.ACTION,
    "reward_info": schema.REWARD,
    "discount_info": schema.DISCOUNT,
}


def to_schema(ds_config: Any, image_format: str) -> schema.Schema:
    """Returns the schema that a DatasetConfig describes.

    A feature that TFDS would not read back exactly as it is declared (plain float64, say) keeps its
    dtype and shape and gets an encoding that is exact.

    Raises:
      UnsupportedValueError: A feature is of a class that this library cannot write.
      NameConflictError: A metadata feature has a reserved name.
    """
    result = schema.Schema(image_format=image_format, is_given=True)
    for field, slot in _FIELDS.items():
        info = getattr(ds_config, field)
        if info is not None:
            _add(result, _leaves(info, (slot,)), to_episode=False)
    step_info = ds_config.step_metadata_info or {}
    schema.check_names(step_info, "step_metadata_info")
    _add(result, _leaves(step_info, ()), to_episode=False)
    episode_info = ds_config.episode_metadata_info or {}
    schema.check_names(episode_info, "episode_metadata_info")
    _add(result, _leaves(episode_info, ()), to_episode=True)
    return result


def to_info(ds_config: Any) -> Info:
    """Returns name, description and citation of a DatasetConfig."""
    description = "\n".join(
        text for text in (ds_config.overall_description, ds_config.description) if text
    )
    return Info(Identity(ds_config.name, ""), description=description, citation=ds_config.citation)


def _add(result: schema.Schema, leaves: Mapping[Path, Feature], *, to_episode: bool) -> None:
    for feature in leaves.values():
        result.add(_exact(feature, result.image_format), to_episode=to_episode)


def _leaves(info: Any, path: Path) -> dict[Path, Feature]:
    """Returns the leaves of a feature connector, a dict of them, or a dtype."""
    # Whoever has a DatasetConfig has imported TFDS, of which this is a part.
    from google.protobuf import json_format  # type: ignore[import-untyped]

    if isinstance(info, Mapping):
        leaves: dict[Path, Feature] = {}
        for key, item in info.items():
            leaves.update(_leaves(item, (*path, str(key))))
        return leaves
    if hasattr(info, "to_proto"):  # a feature connector, as `features.json` describes it
        return _writable(feature_json.from_json(json_format.MessageToDict(info.to_proto()), path))
    dtype = np.dtype(getattr(info, "as_numpy_dtype", info))  # tf.int64, np.int64, "int64"
    if dtype.kind in "OUS":
        dtype = features.STRING
    return {path: Feature(path, dtype, (), Encoding.PLAIN)}


def _writable(leaves: dict[Path, Feature]) -> dict[Path, Feature]:
    """Refuses what this library can read, but not write: sequences of dicts and of encoded items.

    Raises:
      UnsupportedValueError: There is such a feature.
    """
    for feature in leaves.values():
        if feature.item_encoding is not None:
            raise errors.UnsupportedValueError(
                f"{errors.format_path(feature.path)}: got a Sequence of a dict or of encoded items, "
                "which is not supported. Use a Tensor, or a Sequence of numbers or of text."
            )
    return leaves


def _exact(feature: Feature, image_format: str) -> Feature:
    """Returns the feature with an encoding that TFDS reads back exactly."""
    exact = features.choose(
        feature.path, feature.dtype, feature.shape, image_format, feature.description
    )
    given = feature.encoding
    if given in (Encoding.PNG, Encoding.JPEG):
        if feature.dtype != np.uint8 or feature.shape[2] not in (1, 3):
            raise errors.UnsupportedValueError(
                f"{errors.format_path(feature.path)}: got an Image of "
                f"{schema.describe(feature.dtype, feature.shape)}, expected uint8 with 1 or 3 "
                "channels. Use a Tensor with encoding='bytes'."
            )
        return feature
    if given in (Encoding.BYTES, Encoding.ZLIB) and feature.dtype not in (
        np.uint32,
        features.STRING,
    ):
        return feature
    if given is Encoding.SEQUENCE and (
        feature.dtype in (features.STRING, np.float32)
        or (feature.dtype.kind in "biu" and feature.dtype != np.uint64)
    ):
        return feature
    if exact.encoding in (Encoding.PNG, Encoding.JPEG):
        return dataclasses.replace(exact, encoding=Encoding.BYTES)  # a Tensor was asked for
    return exact

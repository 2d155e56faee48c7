# SPDX-License-Identifier: Apache-2.0
"""Takes the features from what users of TFDS have: a `DatasetConfig`, or a builder's `FeaturesDict`."""

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
      OptionError: It is something else.
    """
    if not hasattr(ds_config, "step_metadata_info"):
        raise errors.OptionError(
            f"ds_config: got {type(ds_config).__qualname__}, expected a "
            "tfds.rlds.rlds_base.DatasetConfig."
        )
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


def from_features(given: Any, image_format: str) -> schema.Schema:
    """Returns the schema that a `tfds.features.FeaturesDict` of episodes describes.

    Args:
      given: Features as a builder's `_info` has them: `steps`, a Dataset of the features of a step, and
        those of the episode.
      image_format: How uint8 images are stored whose features the caller did not give.

    Raises:
      OptionError: It is something else, or `is_first`, `is_last` or `is_terminal` is no bool.
      UnsupportedValueError, NameConflictError: As `to_schema` does.
    """
    if not hasattr(given, "to_proto") or "steps" not in given:
        raise errors.OptionError(
            f"features: got {type(given).__qualname__}, expected a tfds.features.FeaturesDict with "
            "'steps', such as the one that a builder gives to DatasetInfo."
        )
    found = schema.Schema.from_json(_to_json(given))
    result = schema.Schema(image_format=image_format, is_given=True)
    for path, flag in list(result.steps.items()):
        known = found.steps.pop(path, flag)
        if (known.dtype, known.shape) != (flag.dtype, flag.shape):
            raise errors.OptionError(
                f"features: {schema.STEPS}/{errors.format_path(path)}: got "
                f"{schema.describe(known.dtype, known.shape)}, expected bool of shape ()."
            )
    schema.check_names({p[0] for p in found.steps} - set(_FIELDS.values()), "features")
    schema.check_names({p[0] for p in found.episode}, "features")
    for to_episode, leaves in ((False, found.steps), (True, found.episode)):
        _add(result, _writable(leaves), to_episode=to_episode)
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
    if isinstance(info, Mapping):
        leaves: dict[Path, Feature] = {}
        for key, item in info.items():
            leaves.update(_leaves(item, (*path, str(key))))
        return leaves
    if hasattr(info, "to_proto"):  # a feature connector, as `features.json` describes it
        return _writable(feature_json.from_json(_to_json(info), path))
    dtype = np.dtype(getattr(info, "as_numpy_dtype", info))  # tf.int64, np.int64, "int64"
    if dtype.kind in "OUS":
        dtype = features.STRING
    return {path: Feature(path, dtype, (), Encoding.PLAIN)}


def _to_json(connector: Any) -> dict[str, Any]:
    """Returns what `features.json` says of a feature connector of TFDS."""
    # Whoever has one has imported TFDS, of which this is a part.
    from google.protobuf import json_format  # type: ignore[import-untyped]

    node: dict[str, Any] = json_format.MessageToDict(connector.to_proto())
    return node


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

# SPDX-License-Identifier: Apache-2.0
"""What a dataset holds: the features of its steps and of its episodes, and which values fit them.

The environment's specs give names, nesting and bounds; what the environment really returns gives
dtype and shape. A feature is added when its first value is seen; from then on it is fixed, and a
value that does not fit raises on that very step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from envlogger import errors
from envlogger.tfds import feature_json
from envlogger.tfds import features as features_lib
from envlogger.tfds.features import Encoding, Feature
from envlogger.tfds.structure import Path

# The names of RLDS (https://github.com/google-research/rlds, "RLDS format").
OBSERVATION = "observation"
ACTION = "action"
REWARD = "reward"
DISCOUNT = "discount"
IS_FIRST = "is_first"
IS_LAST = "is_last"
IS_TERMINAL = "is_terminal"
STEPS = "steps"
EPISODE_ID = "episode_id"
INVALID = "invalid"

# Ours: what a step_fn or episode_fn returned that is not a dict; which values are not padding; and
# what the Reader needs to restore the logged values exactly.
CUSTOM_DATA = "custom_data"
PRESENT = "present"
RESTORE = "envlogger"

_RLDS_NAMES = (OBSERVATION, ACTION, REWARD, DISCOUNT, IS_FIRST, IS_LAST, IS_TERMINAL, STEPS)
RESERVED = frozenset((*_RLDS_NAMES, CUSTOM_DATA, PRESENT, RESTORE))
# A step holds these as they came of the next call of `step()`.
SHIFTED = (ACTION, REWARD, DISCOUNT)

_BOOL = np.dtype(np.bool_)
_STEP_FLAGS = {
    IS_FIRST: "Whether this is the first step of the episode.",
    IS_LAST: "Whether this is the last step: its action, reward and discount are padding (zeros).",
    IS_TERMINAL: "Whether the environment ended the episode here, with discount 0.",
}
_DESCRIPTIONS = {
    ACTION: "The action taken after the observation of this step.",
    REWARD: "The reward that came of the action.",
    DISCOUNT: "The discount that came of the action.",
}
_EPISODE_FIELDS = (
    Feature((EPISODE_ID,), features_lib.STRING, (), Encoding.STRING, "Unique across datasets."),
    Feature((INVALID,), _BOOL, (), Encoding.PLAIN, "Whether the process died in this episode."),
    Feature(
        (RESTORE,),
        features_lib.STRING,
        (),
        Encoding.STRING,
        "JSON: how envlogger.Reader restores the logged values exactly.",
    ),
)


def is_ours(feature: Feature) -> bool:
    """Whether a feature of the episode is one that this library fills by itself.

    A `ds_config` may give `episode_id` or `invalid` another type; then they are the caller's.
    """
    return any(feature.path == f.path and feature.dtype == f.dtype for f in _EPISODE_FIELDS)


@dataclasses.dataclass
class Schema:
    """The features of a dataset.

    Attributes:
      steps: The features of a step, by path.
      episode: The features of an episode besides its steps, by path.
      image_format: How uint8 images are stored: "png", "raw" or "jpeg".
      is_given: Whether the caller gave the features; then none is inferred.
    """

    steps: dict[Path, Feature] = dataclasses.field(default_factory=dict)
    episode: dict[Path, Feature] = dataclasses.field(default_factory=dict)
    image_format: str = "png"
    is_given: bool = False

    def __post_init__(self) -> None:
        """Adds the fields that every dataset has."""
        for name, description in _STEP_FLAGS.items():
            path = (name,)
            self.steps.setdefault(path, Feature(path, _BOOL, (), Encoding.PLAIN, description))
        for feature in _EPISODE_FIELDS:
            self.episode.setdefault(feature.path, feature)

    def copy(self) -> Schema:
        """Returns a schema that can be extended without changing this one."""
        return dataclasses.replace(self, steps=dict(self.steps), episode=dict(self.episode))

    def slot(self, name: str) -> list[Feature]:
        """Returns the features of a field of the step, such as those of the observation."""
        return [feature for path, feature in self.steps.items() if path[0] == name]

    def metadata_features(self) -> list[Feature]:
        """Returns the features of the episode that the caller's `episode_fn` fills."""
        ours = {(RESTORE,), (STEPS,)}
        return [
            feature
            for path, feature in self.episode.items()
            if path not in ours and path[0] != PRESENT
        ]

    def infer(self, path: Path, array: npt.NDArray[Any], shape: features_lib.Shape) -> Feature:
        """Returns the feature that stores values like `array` at `path`, without adding it."""
        known = self.steps.get(path)
        # A varying feature that has had a value without pixels can't be one of images.
        has_empty = 0 in array.shape or (known is not None and 0 in known.shape)
        image_format = "raw" if has_empty else self.image_format
        return features_lib.choose(path, array.dtype, shape, image_format, describe_field(path))

    def add(self, feature: Feature, *, to_episode: bool = False) -> None:
        """Adds (or replaces) a feature.

        Raises:
          NameConflictError: Its path, joined by '/', is that of another feature.
        """
        target = self.episode if to_episode else self.steps
        name = "/".join(feature.path)
        for path in target:
            if "/".join(path) == name and path != feature.path:
                raise errors.NameConflictError(
                    f"{name}: the keys {path} and {feature.path} would have one name in the "
                    "dataset. Rename one of them."
                )
            if path != feature.path and (
                path[: len(feature.path)] == feature.path or feature.path[: len(path)] == path
            ):
                raise errors.ValueMismatchError(
                    f"{name}: got {_nesting(feature.path, path)}, expected "
                    f"{_nesting(path, feature.path)} as before: a name stands for one of these. "
                    "Rename it, or record into another data_directory."
                )
        target[feature.path] = feature

    def add_mask(self, path: Path, *, to_episode: bool = False) -> None:
        """Adds the flag that tells the values at `path` from padding."""
        mask = Feature(
            (PRESENT, *path),
            _BOOL,
            (),
            Encoding.PLAIN,
            f"False where {'/'.join(path)} was None; its value there is padding.",
        )
        self.add(mask, to_episode=to_episode)

    def to_json(self) -> dict[str, Any]:
        """Returns the content of `features.json`."""
        node = feature_json.to_json(self.episode)
        steps = feature_json.to_json(self.steps, "One timestep, aligned as RLDS has it.")
        node["featuresDict"]["features"][STEPS] = {
            "pythonClassName": "tensorflow_datasets.core.features.dataset_feature.Dataset",
            "sequence": {"feature": steps, "length": "-1"},
        }
        return node

    @classmethod
    def from_json(cls, node: Mapping[str, Any]) -> Schema:
        """Returns the schema that a `features.json` describes.

        Raises:
          DatasetError: The dataset does not have the form of RLDS: there are no `steps`.
          UnsupportedValueError: A feature is of a class that this library cannot decode.
        """
        entries = dict(node.get("featuresDict", {}).get("features", {}))
        steps = entries.pop(STEPS, {}).get("sequence", {}).get("feature")
        if steps is None:
            raise errors.DatasetError(
                "The dataset has no nested feature 'steps', so it is not in RLDS form. "
                "Read it with tfds.load or tfds.data_source."
            )
        schema = cls()
        schema.steps = feature_json.from_json(steps)
        schema.episode = feature_json.from_json({"featuresDict": {"features": entries}})
        return schema


def merge(ours: Schema, theirs: Schema) -> Schema:
    """Returns the schema of a dataset that holds the episodes of both.

    A feature that only one of them has gets a mask: for the other's episodes it is padding.

    Raises:
      ValueMismatchError: They disagree about a feature, or about which observations there are.
    """
    merged = ours.copy()
    for attribute in ("steps", "episode"):
        mine, others = getattr(ours, attribute), getattr(theirs, attribute)
        to_episode = attribute == "episode"
        for path, feature in others.items():
            if path not in mine:
                merged.add(feature, to_episode=to_episode)
            elif not _same(mine[path], feature):
                raise errors.ValueMismatchError(
                    f"{errors.format_path(path)}: got {_describe_feature(mine[path])}, but the "
                    f"dataset has {_describe_feature(feature)}. Record into another data_directory."
                )
        for path in mine.keys() ^ others.keys():
            if path[0] == OBSERVATION and not to_episode:
                raise errors.ValueMismatchError(
                    f"{errors.format_path(path)}: not all episodes of the dataset have this "
                    "observation. Record into another data_directory."
                )
            if path[0] != PRESENT and (PRESENT, *path) not in getattr(merged, attribute):
                merged.add_mask(path, to_episode=to_episode)
    return merged


def with_varying(ours: Schema, theirs: Schema) -> Schema:
    """Returns ours, but with their features where only theirs hold values of more than one shape.

    So the episodes of a writer whose first values were all of one shape fit into a dataset to which another
    writer has added some that vary. What we store without loss is never stored with loss.
    """
    result = ours.copy()
    for mine, others in ((result.steps, theirs.steps), (result.episode, theirs.episode)):
        for path, feature in mine.items():
            if path in others and _holds_all_of(others[path], feature):
                mine[path] = others[path]
    return result


def _holds_all_of(varying: Feature, fixed: Feature) -> bool:
    return (
        varying.dtype == fixed.dtype
        and not fixed.is_ragged
        and _fits(varying, fixed.shape)
        and (varying.encoding is not Encoding.JPEG or fixed.encoding is Encoding.JPEG)
    )


def covers(have: Schema, want: Schema) -> bool:
    """Whether records of one schema have all the features of another, and store them alike."""
    return all(
        path in known and _same(known[path], feature)
        for known, wanted in ((have.steps, want.steps), (have.episode, want.episode))
        for path, feature in wanted.items()
    )


def _same(one: Feature, other: Feature) -> bool:
    return dataclasses.replace(one, description="") == dataclasses.replace(other, description="")


def _describe_feature(feature: Feature) -> str:
    return f"{describe(feature.dtype, feature.shape)}, stored as {feature.encoding.value}"


def conform(feature: Feature, code: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns a leaf as the feature stores it.

    Args:
      feature: What the dataset holds at the path.
      code: The leaf's code (see `structure`); a Python number may be of another dtype.
      array: The leaf.

    Raises:
      ValueMismatchError: The shape or dtype is another one, and no exact conversion exists.
    """
    if array.dtype == feature.dtype:
        if array.shape == feature.shape or _fits(feature, array.shape):
            return array
    elif code in "bif" and array.shape == feature.shape and feature.dtype.kind in "biuf":
        with np.errstate(over="ignore", invalid="ignore"):
            converted = array.astype(feature.dtype)
            exact = converted.astype(array.dtype).tobytes() == array.tobytes()
        if exact:
            return converted
    raise mismatch(feature, array)


def mismatch(feature: Feature, array: npt.NDArray[Any]) -> errors.ValueMismatchError:
    """Returns the error for a leaf that the dataset cannot take."""
    shown = f" (value {array.item()!r})" if array.shape == () else ""
    if feature.encoding in (Encoding.PNG, Encoding.JPEG) and not array.size:
        shown = f", and an image in {feature.encoding.value} has a pixel at least; use image_format='raw'"
    return errors.ValueMismatchError(
        f"{errors.format_path(feature.path)}: got {describe(array.dtype, array.shape)}{shown}, "
        f"expected {describe(feature.dtype, feature.shape)} as the dataset has it. Convert the value, "
        "or record into another data_directory."
    )


def describe_field(path: Path) -> str:
    """Returns what `features.json` says about the feature at a path; empty for most."""
    return _DESCRIPTIONS.get(path[0], "") if len(path) == 1 else ""


def describe(dtype: np.dtype[Any], shape: features_lib.Shape) -> str:
    """Returns a dtype and shape in words: `float32 of shape (3, None)`."""
    return f"{'string' if dtype == features_lib.STRING else dtype} of shape {shape}"


def generalise(feature: Feature, shape: features_lib.Shape) -> features_lib.Shape | None:
    """Returns the shape that covers the feature's and `shape`, or None if their ranks differ."""
    if len(shape) != len(feature.shape):
        return None
    return tuple(dim if dim == old else None for dim, old in zip(shape, feature.shape, strict=True))


def widened(feature: Feature, array: npt.NDArray[Any]) -> features_lib.Shape | None:
    """Returns the shape that covers a feature's and a leaf's, or None if it is the feature's."""
    shape = generalise(feature, array.shape)
    fits = shape is None or shape == feature.shape or array.dtype != feature.dtype
    return None if fits else shape


def check_names(names: Iterable[Any], source: str) -> None:
    """Refuses metadata keys that RLDS or this library uses for something else.

    Raises:
      NameConflictError: One of `names` is reserved.
    """
    for name in names:
        if str(name).partition("/")[0] in RESERVED:  # 'action/x' is how the x of an action is named
            raise errors.NameConflictError(
                f"{name}: got a key of this name from {source}, but it is reserved "
                f"({', '.join(sorted(RESERVED))}). Rename it."
            )


def _fits(feature: Feature, shape: features_lib.Shape) -> bool:
    if not feature.is_ragged or generalise(feature, shape) != feature.shape:
        return False
    is_image = feature.encoding in (Encoding.PNG, Encoding.JPEG)
    return not is_image or features_lib.is_image_shape(shape)


def _nesting(new: Path, old: Path) -> str:
    return "a dict of values" if len(new) > len(old) else "a value"

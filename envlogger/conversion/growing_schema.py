# SPDX-License-Identifier: Apache-2.0
"""Features that grow with the values: what a log holds is known once it has been read to its end.

While a run is recorded its features are soon fixed, and what does not fit is an error on that very
step. What is converted has been logged already, and must be kept whatever it is. So a feature widens to
hold each value exactly: a dimension varies, an integer becomes a float. Values that have no form in
common become JSON.

All this goes one way, and the order of the values does not matter in the end: parts of a log may be
looked at by different processes, and their schemas united.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from envlogger import errors
from envlogger.tfds import features, schema
from envlogger.tfds.features import Encoding, Feature, Shape
from envlogger.tfds.structure import Path

_JSON = "JSON, since TFDS has no feature for all of its values; envlogger.Reader returns them."
# What a step_fn or episode_fn returned, whole; the keys of a dict are features by themselves.
_METADATA = (schema.CUSTOM_DATA,)
_IMAGES = (Encoding.PNG, Encoding.JPEG)
# A dict that has one of these as a key cannot have its keys as features.
NOT_METADATA = schema.RESERVED | {schema.EPISODE_ID, schema.INVALID}


class WidenedError(Exception):
    """A feature has changed such that columns made before do not fit it."""


class FeatureTable:
    """The features of a schema's steps, or those of its episodes.

    Args:
      of: The schema, which is extended in place.
      to_episode: Which of the two.
    """

    def __init__(self, of: schema.Schema, *, to_episode: bool) -> None:
        self._schema = of
        self._to_episode = to_episode
        self.features: dict[Path, Feature] = of.episode if to_episode else of.steps
        self._json = {path for path, feature in self.features.items() if _is_json(feature)}

    def is_json(self, path: Path) -> bool:
        """Whether what is at a path is stored as JSON, whole."""
        return path in self._json

    def fit(self, path: Path, dtype: np.dtype[Any], shape: Shape, *, can_be_image: bool) -> Feature:
        """Returns the feature at a path, after it has been made to hold such values.

        Args:
          path: Where the values are.
          dtype: Their dtype.
          shape: Their shape, with None for a dimension that varies.
          can_be_image: Whether all of them have the shape of an image.

        Raises:
          WidenedError: See there; try again.
        """
        known = self.features.get(path)
        if known is None:
            if (conflict := self._conflict(path)) is not None:
                self.make_json(conflict)
            return self._choose(path, dtype, shape, can_be_image)
        merged = _merge_shapes(known.shape, shape)
        if merged is None:
            self.make_json(path)
        if dtype != known.dtype:
            wide = _wider(known.dtype, dtype)
            if wide is None:
                self.make_json(path)
            elif wide != known.dtype:
                self._choose(path, wide, merged, can_be_image)
                raise WidenedError
        is_image = known.encoding in _IMAGES
        if merged != known.shape or (is_image and not can_be_image):
            return self._choose(path, known.dtype, merged, can_be_image and is_image)
        return known

    def make_json(self, path: Path) -> NoReturn:
        """Has everything at a path, and below it, stored as JSON.

        Raises:
          WidenedError: Always.
        """
        for other in [p for p in self.features if _lies_below(p, path)]:
            del self.features[other]
            self.features.pop((schema.PRESENT, *other), None)
            self._json.discard(other)
        self.features[path] = Feature(path, features.STRING, (), Encoding.STRING, _JSON)
        self._json.add(path)
        raise WidenedError

    def add_mask(self, path: Path) -> None:
        """Adds the flag that tells the values at a path from padding, if it is not there."""
        if (schema.PRESENT, *path) not in self.features:
            self._schema.add_mask(path, to_episode=self._to_episode)

    def unite(self, other: Feature) -> None:
        """Makes the feature at the path of another one hold the values of both.

        Raises:
          WidenedError: See there; try again.
        """
        if any(_lies_below(other.path, path) for path in self._json):
            return
        if _is_json(other):
            self.make_json(other.path)
        is_image = other.encoding in _IMAGES
        self.fit(other.path, other.dtype, other.shape, can_be_image=is_image)

    def _choose(
        self, path: Path, dtype: np.dtype[Any], shape: Shape, can_be_image: bool
    ) -> Feature:
        image_format = self._schema.image_format if can_be_image else "raw"
        description = schema.describe_field(path)
        try:
            chosen = features.choose(path, dtype, shape, image_format, description)
        except errors.UnsupportedValueError:  # several dimensions vary
            self.make_json(path)
        self.features[path] = chosen
        return chosen

    def _conflict(self, path: Path) -> Path | None:
        """Returns what is to be JSON for a new feature to have a name of its own."""
        name = "/".join(path)
        for other in self.features:
            if path[: len(other)] == other or other[: len(path)] == path:
                return min(path, other, key=len)
            if "/".join(other) == name:
                is_metadata = self._to_episode or path[0] not in schema.RESERVED
                return _METADATA if is_metadata else path[:1]
        return None


def unite(one: schema.Schema, other: schema.Schema) -> schema.Schema:
    """Returns the schema that holds the episodes of both.

    A feature that only one of them has gets a mask.
    """
    result = one.copy()
    for to_episode in (False, True):
        mine, others = (dict(s.episode if to_episode else s.steps) for s in (one, other))
        table = FeatureTable(result, to_episode=to_episode)
        while True:
            try:
                for feature in others.values():
                    if feature.path[0] != schema.PRESENT:
                        table.unite(feature)
                break
            except WidenedError:
                continue
        masks = [p[1:] for p in (*mine, *others) if p[0] == schema.PRESENT]
        lacking = [p for p in mine.keys() ^ others.keys() if p[0] != schema.PRESENT]
        for path in (*masks, *sorted(lacking)):
            if path in table.features:
                table.add_mask(path)
        # A path above which all is JSON now is there by that one's name.
        for path in table.features.keys() - mine.keys() - others.keys():
            if path[0] != schema.PRESENT:
                table.add_mask(path)
    return result


def is_same(one: schema.Schema, other: schema.Schema) -> bool:
    """Whether records of one schema are records of the other."""
    return (one.steps, one.episode) == (other.steps, other.episode)


def _lies_below(path: Path, above: Path) -> bool:
    """Whether a feature is part of what is at a path, or is that itself."""
    if path[: len(above)] == above:
        return True
    return above == _METADATA and path[0] not in NOT_METADATA


def _is_json(feature: Feature) -> bool:
    return feature.description == _JSON


def _merge_shapes(one: Shape, other: Shape) -> Shape | None:
    """Returns the shape that covers both, or None if their ranks differ."""
    if len(one) != len(other):
        return None
    return tuple(a if a == b else None for a, b in zip(one, other, strict=True))


def _wider(one: np.dtype[Any], other: np.dtype[Any]) -> np.dtype[Any] | None:
    """Returns the dtype that numbers of both are stored as, or None if there is none."""
    kinds = {one.kind, other.kind}
    if kinds <= set("biuf") or kinds == {"c"}:
        wide: np.dtype[Any] = np.promote_types(one, other)
        return wide
    return None

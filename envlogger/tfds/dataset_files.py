# SPDX-License-Identifier: Apache-2.0
"""The files that describe a dataset: its identity, `dataset_info.json` and the others beside it."""

from __future__ import annotations

import dataclasses
import glob
import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from envlogger import errors
from envlogger.tfds import shards

INFO = "dataset_info.json"
FEATURES = "features.json"
METADATA = "metadata.json"

FILE_FORMAT = "array_record"
TFRECORD = "tfrecord"
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}"

# What TFDS accepts in `tfds.load(name)`, in versions and in splits.
# A file name has at most 255 bytes; it holds name and split.
_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")
_VERSION = re.compile(r"(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")
_SPLIT = re.compile(r"(?=[_-]*[A-Za-z0-9])[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")

_DEFAULT_NAME = "envlogger_dataset"
_DEFAULT_VERSION = "0.0.1"


@dataclasses.dataclass(frozen=True)
class Identity:
    """Name (`walker_walk`) and version (`1.0.0`) of a dataset."""

    name: str
    version: str


@dataclasses.dataclass
class Info:
    """What `dataset_info.json` says.

    Attributes:
      identity: Name and version.
      shard_lengths: The number of episodes in each shard, by split.
      shard_bytes: The size of all the shards of a split.
      template: How the shards are named.
      formats: The file formats that all shards are there in. Where TFRecord is among them, it comes
        first: that is the one that stock TFDS reads as tf.data, and `tfds.data_source` looks for the
        others by itself.
      description: What the dataset is.
      citation: How to cite it.
    """

    identity: Identity
    shard_lengths: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    shard_bytes: dict[str, int] = dataclasses.field(default_factory=dict)
    template: str = _TEMPLATE
    formats: Sequence[str] = (FILE_FORMAT,)
    description: str = ""
    citation: str = ""

    @property
    def file_format(self) -> str:
        """The format to read: ArrayRecord, if there is a choice."""
        return FILE_FORMAT if FILE_FORMAT in self.formats else self.formats[0]

    @property
    def can_grow(self) -> bool:
        """Whether shards can be added, and those that are there keep their names."""
        return "{NUM_SHARDS}" not in self.template and "{SHARD_X_OF_Y}" not in self.template

    def shard_name(self, split: str, index: int, file_format: str | None = None) -> str:
        """Returns the file name of a shard, in `self.file_format` or another."""
        count = len(self.shard_lengths.get(split, ()))
        fields = {
            "DATASET": self.identity.name,
            "SPLIT": split,
            "FILEFORMAT": file_format or self.file_format,
            "SHARD_INDEX": f"{index:05d}",
            "NUM_SHARDS": f"{count:05d}",
            "SHARD_X_OF_Y": f"{index:05d}-of-{count:05d}",
        }
        return re.sub(r"\{(\w+)\}", lambda field: fields[field[1]], self.template)

    def to_json(self) -> dict[str, Any]:
        """Returns the content of `dataset_info.json`; TFDS refuses any key that it does not know."""
        node: dict[str, Any] = {
            "name": self.identity.name,
            "version": self.identity.version,
            "fileFormat": self.formats[0],
            "splits": [
                {
                    "name": split,
                    "filepathTemplate": self.template,
                    "numBytes": str(self.shard_bytes.get(split, 0)),
                    "shardLengths": list(map(str, lengths)),
                }
                for split, lengths in sorted(self.shard_lengths.items())
            ],
        }
        if len(self.formats) > 1:
            node["alternativeFileFormats"] = list(self.formats[1:])
        if self.description:
            node["description"] = self.description
        if self.citation:
            node["citation"] = self.citation
        return node

    @classmethod
    def from_json(cls, node: Mapping[str, Any]) -> Info:
        """Returns the info that a `dataset_info.json` holds, whoever wrote it."""
        splits = node.get("splits", [])
        template = splits[0].get("filepathTemplate") if splits else _TEMPLATE
        return cls(
            identity=Identity(node["name"], node["version"]),
            shard_lengths={s["name"]: list(map(int, s.get("shardLengths", []))) for s in splits},
            shard_bytes={s["name"]: int(s.get("numBytes", 0)) for s in splits},
            template=template or "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            formats=(
                node.get("fileFormat", TFRECORD),
                *node.get("alternativeFileFormats", ()),
            ),
            description=node.get("description", ""),
            citation=node.get("citation", ""),
        )


def identity_of(directory: str, name: str | None, version: str | None) -> Identity:
    """Returns the identity of a dataset that is to be written into `directory`.

    A directory that ends in `<name>/<x.y.z>` says it, and then `tfds.load(name)` finds the dataset.

    Args:
      directory: An absolute path.
      name: What the caller asked for, or None.
      version: Likewise.

    Raises:
      OptionError: A name or version is not legal, or not that of the directory.
    """
    if name is not None and not _NAME.fullmatch(str(name)):
        raise errors.OptionError(
            f"dataset_name: got {name!r}, expected up to 100 lower-case letters, digits and "
            "underscores, with a letter first, such as 'walker_walk'."
        )
    if version is not None and not _VERSION.fullmatch(str(version)):
        raise errors.OptionError(
            f"version: got {version!r}, expected three numbers without leading zeros, such as "
            "'1.0.0'."
        )
    parent, last = os.path.split(directory)
    base = os.path.basename(parent)
    if is_version_directory(directory):
        if (name or base, version or last) != (base, last):
            raise errors.OptionError(
                f"data_directory: got {directory}, which is the dataset {base}, version {last}, but "
                f"also dataset_name {name!r} and version {version!r}. Leave these out, or make them "
                "agree."
            )
        return Identity(base, last)
    default = last if _NAME.fullmatch(last) else _DEFAULT_NAME
    return Identity(name or default, version or _DEFAULT_VERSION)


def is_version_directory(directory: str) -> bool:
    """Whether a path ends in `<name>/<x.y.z>`, where `tfds.load(name)` looks for datasets."""
    parent, last = os.path.split(directory)
    return bool(_VERSION.fullmatch(last) and _NAME.fullmatch(os.path.basename(parent)))


def check_split_name(split: str) -> None:
    """Refuses a split name that TFDS cannot read.

    Raises:
      OptionError: The name is not legal; `all` is TFDS's own word for all splits.
    """
    if not isinstance(split, str) or not _SPLIT.fullmatch(split) or split == "all":
        raise errors.OptionError(
            f"split_name: got {split!r}, expected up to 100 letters, digits, '_' and '-', one of them a "
            "letter or digit, and not 'all', which TFDS uses for all splits. Use a name such as 'train'."
        )


def read_json(path: str) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Raises:
      CorruptDatasetError: It is missing, or is not JSON, or not an object.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}, expected an object")
        return content
    except FileNotFoundError:
        raise errors.CorruptDatasetError(
            f"{path}: the file is missing, so the dataset cannot be read. Restore it from a copy."
        ) from None
    except ValueError as error:
        raise errors.CorruptDatasetError(
            f"{path}: the file is truncated or damaged: {error}. Restore it from a copy."
        ) from error


def write_json(path: str, content: Any) -> None:
    """Replaces a JSON file in one step: whoever reads it sees the old content or the new."""
    temporary = f"{path}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    shards.sync_file(os.path.dirname(path))


def not_a_dataset(directory: str) -> errors.DatasetError:
    """Returns the error for a directory without `INFO`, which says where there is what may be meant."""
    from envlogger.riegeli import log  # here: who records has no use for it

    advice = "Pass the directory that a run was logged into, such as data/catch/1.0.0."
    if not os.path.isdir(directory):
        return errors.DatasetError(
            f"{directory}: there is no such directory, and so no {INFO}. {advice}"
        )
    near = [os.path.dirname(os.path.abspath(directory))]
    for pattern in ("*", "*/*"):
        near += sorted(glob.glob(os.path.join(glob.escape(directory), pattern)))
    found = [path for path in near if os.path.exists(os.path.join(path, INFO)) or log.is_log(path)]
    if found:
        advice = f"Did you mean {' or '.join(found[:3])}?"
    return errors.DatasetError(
        f"{directory}: there is no {INFO}, so this is not a dataset, or one without any episode yet. {advice}"
    )

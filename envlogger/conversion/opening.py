# SPDX-License-Identifier: Apache-2.0
"""Tells what kind of source a directory is, and opens it."""

from __future__ import annotations

import os

from envlogger import errors
from envlogger.conversion import dataset_source, minari_source, riegeli_source
from envlogger.conversion.sources import Source
from envlogger.riegeli import log
from envlogger.tfds import dataset, dataset_files, leftovers


def is_source(path: str) -> bool:
    """Whether a directory holds something that can be converted."""
    return (
        os.path.exists(os.path.join(path, dataset_files.INFO))
        or log.is_log(path)
        or minari_source.find(path) is not None
    )


def open_source(path: str) -> Source:
    """Opens what is to be converted.

    Args:
      path: Its directory.

    Raises:
      DatasetError: There is nothing that can be converted.
      MissingExtraError: A package is missing that reads it.
      CorruptDatasetError: It is damaged.
    """
    has_info = os.path.exists(os.path.join(path, dataset_files.INFO))
    if not has_info and (leftovers.find(path) or leftovers.find(dataset.staging_path(path))):
        raise errors.DatasetError(
            f"{path}: who recorded a dataset there has died before any of it was published. Run "
            f"`envlogger recover {path}`, and then the same again."
        )
    if not os.path.isdir(path):
        what = "it is a file" if os.path.exists(path) else "there is no such directory"
        raise errors.DatasetError(f"{path}: {what}. Pass {_KINDS}.")
    if has_info:
        return dataset_source.DatasetSource(path)
    if log.is_log(path):
        return riegeli_source.RiegeliSource(path)
    if minari_source.find(path) is not None:
        return minari_source.MinariSource(path)
    below = sorted(
        name
        for name in os.listdir(path)
        if os.path.exists(os.path.join(path, name, dataset_files.INFO))
    )
    hint = f" Is it {os.path.join(path, below[-1])}?" if below else ""
    raise errors.DatasetError(
        f"{path}: the directory holds nothing that can be converted.{hint} Pass {_KINDS}."
    )


_KINDS = (
    f"a directory that holds a {dataset_files.INFO} (a dataset of TFDS), a {log.METADATA} (a log of "
    "EnvLogger 1.x), or the `data` of a Minari dataset"
)

# SPDX-License-Identifier: Apache-2.0
"""What is said of a shard that cannot be read, whatever its format and whoever reads it."""

from __future__ import annotations

from envlogger.errors import CorruptDatasetError


def missing(path: str, expected: int) -> CorruptDatasetError:
    """Returns the error for a shard that is not there."""
    return CorruptDatasetError(
        f"{path}: the shard is missing; dataset_info.json says it has {expected} episodes. "
        "Restore it from a copy."
    )


def cut_off(path: str, found: int, expected: int) -> CorruptDatasetError:
    """Returns the error for a shard that has another number of records than it should."""
    return CorruptDatasetError(
        f"{path}: the shard is damaged or was not finished; {found} records can be read, "
        f"dataset_info.json says {expected}. Restore it from a copy."
    )


def damaged(path: str, index: int, reason: object) -> CorruptDatasetError:
    """Returns the error for a record that cannot be read."""
    return CorruptDatasetError(
        f"{path}: episode {index} of the shard is damaged: {reason}. The other episodes can be read."
    )

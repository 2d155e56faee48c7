# SPDX-License-Identifier: Apache-2.0
"""How many steps each episode has.

For what this library records, that is in `.envlogger/index/`, which the writers keep. For other
datasets, and where it is missing or damaged, the steps are counted, and what was found is kept in
`.envlogger/counts/<split>.json`, if the directory may be written to:

    {"<file name of a shard>": {"size": 131072, "mtime_ns": 1, "steps": [10, 10, 10]}}

Writers never touch that file, and readers replace it in one step. What it says of a shard counts for
as long as the shard has that size and time; only the others are counted.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from envlogger.tfds import dataset, index_file
from envlogger.tfds.dataset_files import Info

_COUNTS = "counts"


def load(
    directory: str, info: Info, split: str, count_steps: Callable[[int], Sequence[int]]
) -> npt.NDArray[np.int64]:
    """Returns the number of steps of each episode of a split, int64 (N,).

    Args:
      directory: The directory of the dataset.
      info: What `dataset_info.json` says.
      split: The split.
      count_steps: Returns the numbers of steps of the episodes of the split's n-th shard; called where
        they are not known.
    """
    state = os.path.join(directory, dataset.STATE)
    counts = index_file.read(state, split, sum(info.shard_lengths[split]))
    if counts is not None:
        return counts
    path = os.path.join(state, _COUNTS, f"{split}.json")
    known = _read(path)
    entries: dict[str, Any] = {}
    for index, length in enumerate(info.shard_lengths[split]):
        name = info.shard_name(split, index)
        stamp = _stamp(os.path.join(directory, name))
        entry = known.get(name)
        if not _is_valid(entry, stamp, length):
            # The stamp is from before: a shard that is replaced meanwhile is counted anew.
            entry = {**stamp, "steps": list(count_steps(index))}
        entries[name] = entry
    if entries != known:
        _write(path, entries)
    return np.array([n for entry in entries.values() for n in entry["steps"]], np.int64)


def _stamp(path: str) -> dict[str, int]:
    try:
        status = os.stat(path)
    except OSError:  # which is said when it is read
        return {"size": -1, "mtime_ns": -1}
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _is_valid(entry: Any, stamp: dict[str, int], length: int) -> bool:
    return (
        isinstance(entry, dict)
        and {**entry, **stamp} == entry
        and isinstance(entry.get("steps"), list)
        and len(entry["steps"]) == length
        and all(type(count) is int and count >= 0 for count in entry["steps"])
    )


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):  # not there; or damaged, and then counted anew
        return {}
    return content if isinstance(content, dict) else {}


def _write(path: str, content: dict[str, Any]) -> None:
    """Replaces the file, if that is possible."""
    directory = os.path.dirname(path)
    with contextlib.suppress(OSError):  # read-only, or full
        os.makedirs(directory, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=directory)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(content, file)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise

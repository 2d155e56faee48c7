# SPDX-License-Identifier: Apache-2.0
"""Where the work of a builder is done: in this process, or by Beam. The result is the same."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import tensorflow_datasets as tfds
import tqdm

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Engine(Protocol):
    """Calls a function for many items, in any order and any place."""

    def map(
        self, what: str, function: Callable[[_Item], _Result], items: Sequence[_Item]
    ) -> list[_Result]:
        """Returns the results, in the order of the items.

        Args:
          what: What is done, for people; different for each call.
          function: The function. It and what it takes and returns can be pickled.
          items: What it is called with.
        """


class HereEngine:
    """Does the work in this process."""

    def map(
        self, what: str, function: Callable[[_Item], _Result], items: Sequence[_Item]
    ) -> list[_Result]:
        """Returns the results, in the order of the items."""
        return [function(item) for item in tqdm.tqdm(items, desc=what, disable=None, leave=False)]


class BeamEngine:
    """Does the work by Beam. Its workers see the same file system.

    Args:
      runner: Beam's runner, or None for the one that the options name.
      options: Beam's pipeline options.
      scratch: A directory for what the workers return.
    """

    def __init__(self, runner: Any, options: Any, scratch: str) -> None:
        self._runner = runner
        self._options = options
        self._scratch = scratch

    def map(
        self, what: str, function: Callable[[_Item], _Result], items: Sequence[_Item]
    ) -> list[_Result]:
        """Returns the results, in the order of the items."""
        beam = tfds.core.lazy_imports.apache_beam
        directory = tempfile.mkdtemp(dir=self._scratch)
        call = _Call(function, directory)
        with beam.Pipeline(runner=self._runner, options=self._options) as pipeline:
            _ = (
                pipeline
                | f"{what}: all" >> beam.Create(list(enumerate(items)), reshuffle=True)
                | what >> beam.Map(call)
            )
        return [_load(_path(directory, number)) for number in range(len(items))]


class _Call:
    """Calls a function, and leaves what it returned in a file."""

    def __init__(self, function: Callable[[Any], Any], directory: str) -> None:
        self._function = function
        self._directory = directory

    def __call__(self, numbered: tuple[int, Any]) -> None:
        number, item = numbered
        path = _path(self._directory, number)
        # Beam may do a part of the work twice.
        with tempfile.NamedTemporaryFile(dir=self._directory, delete=False) as file:
            pickle.dump(self._function(item), file)
        os.replace(file.name, path)


def _path(directory: str, number: int) -> str:
    return os.path.join(directory, f"result-{number}")


def _load(path: str) -> Any:
    with open(path, "rb") as file:
        return pickle.load(file)

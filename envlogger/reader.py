# SPDX-License-Identifier: Apache-2.0
"""Reads recorded runs back, step by step, as they were logged."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from envlogger import closing, errors, step_data
from envlogger.backends import (
    backend_reader,
    backend_type,
    in_memory_backend,
    riegeli_backend_reader,
    sequences,
    tfds_backend_reader,
)
from envlogger.converters import spec_codec
from envlogger.options import check_count, check_path
from envlogger.riegeli import log


class Reader(closing.Closing):
    """Random access to the steps and episodes of a recorded run. Needs no TensorFlow.

        with envlogger.Reader("data/catch/1.0.0") as reader:
            for episode in reader.episodes:
                for step in episode:
                    step.timestep.observation

    Args:
      data_directory: What was passed to `EnvLogger` as such (to EnvLogger 1.0 to 1.3, too, whose logs in
        Riegeli files are recognised), or the `InMemoryBackendWriter` that a run was logged into.
      split: The split to read; None for all of them, in the order of their names.
      backend: A `BackendReader`, used as it is; or which kind of data `data_directory` is.
      cache_bytes: How much memory to take for the episodes that were used last: where all that is read
        fits in, random access does not read twice. The very last one is kept in any case.

    Threads may share a reader. It can be pickled, and used after a fork; each process has open files
    and a cache of its own.

    Raises:
      DatasetError: The directory does not hold a dataset in RLDS form.
      OptionError: There is no such split, or there are no splits; `cache_bytes` is not a number of bytes.
      UnsupportedValueError: The dataset has a feature that cannot be decoded; the message has its path.
      CorruptDatasetError: One of its files is missing or damaged.
    """

    def __init__(
        self,
        data_directory: str | os.PathLike[str] | in_memory_backend.InMemoryBackendWriter = "",
        split: str | None = None,
        *,
        backend: backend_reader.BackendReader | backend_type.BackendType | None = None,
        cache_bytes: int = tfds_backend_reader.DEFAULT_CACHE_BYTES,
    ) -> None:
        check_count("cache_bytes", cache_bytes, at_least=0)
        self._backend = _make_backend(data_directory, split, backend, cache_bytes)
        self._read_specs()

    @property
    def steps(self) -> Sequence[step_data.StepData]:
        """All steps of all episodes, in the order in which they were recorded."""
        return self._backend.steps

    @property
    def episodes(self) -> Sequence[sequences.EpisodeSteps]:
        """All episodes, each a sequence of its steps, and with `columns()`: its steps as arrays."""
        return self._backend.episodes

    def episode_lengths(self) -> npt.NDArray[np.int64]:
        """Returns the number of steps of each episode, int64 (N,)."""
        return self._backend.episode_lengths()

    def episode_metadata(self) -> Sequence[Any]:
        """Returns what `episode_fn` returned last in each episode, or None."""
        return self._backend.episode_metadata()

    def metadata(self) -> dict[str, Any]:
        """Returns the metadata of the dataset, with the encoded `environment_specs`."""
        return dict(self._backend.metadata() or {})

    def observation_spec(self) -> Any:
        """Returns the environment's observation spec; None if it was not recorded."""
        return self._specs["observation_spec"]

    def action_spec(self) -> Any:
        """Returns the environment's action spec; None if it was not recorded."""
        return self._specs["action_spec"]

    def reward_spec(self) -> Any:
        """Returns the environment's reward spec; None if it was not recorded."""
        return self._specs["reward_spec"]

    def discount_spec(self) -> Any:
        """Returns the environment's discount spec; None if it was not recorded."""
        return self._specs["discount_spec"]

    def refresh(self) -> None:
        """Takes in the episodes that have been published since the reader was opened.

        Their indices come behind those of the episodes before, within a split.

        Raises:
          DatasetError, CorruptDatasetError: As when it was opened.
        """
        self._backend.refresh()
        self._read_specs()

    def copy(self) -> Self:
        """Returns a new reader of the same data, which must be closed by itself."""
        twin = type(self).__new__(type(self))
        twin._backend = self._backend.copy()
        twin._read_specs()
        return twin

    def close(self) -> None:
        """Closes the files. May be called more than once."""
        self._backend.close()

    def _read_specs(self) -> None:
        encoded = (self._backend.metadata() or {}).get("environment_specs") or {}
        try:
            self._specs: dict[str, Any] = dict(spec_codec.decode_environment_specs(encoded))
        except (TypeError, ValueError) as error:
            self._backend.close()
            raise errors.CorruptDatasetError(
                f"The metadata of the run holds damaged environment_specs: {error}. Restore "
                "its file (metadata.json, metadata.riegeli) from a copy."
            ) from error


def _make_backend(
    source: Any, split: str | None, backend: Any, cache_bytes: int
) -> backend_reader.BackendReader:
    if isinstance(backend, backend_reader.BackendReader):
        _check_no_split(split, "a BackendReader, which chooses by itself")
        return backend
    if isinstance(source, in_memory_backend.InMemoryBackendWriter):
        _check_no_split(split, "a run in memory, which has none")
        return in_memory_backend.InMemoryBackendReader(source)
    source = check_path("data_directory", source)
    if backend is None and log.is_log(source):
        backend = backend_type.BackendType.RIEGELI
    if backend == backend_type.BackendType.RIEGELI:
        _check_no_split(split, f"{source}, a log of EnvLogger 1.x, which has none")
        return riegeli_backend_reader.RiegeliBackendReader(source, cache_bytes=cache_bytes)
    if backend in (None, backend_type.BackendType.TFDS):
        return tfds_backend_reader.TFDSBackendReader(source, split, cache_bytes=cache_bytes)
    raise errors.OptionError(
        f"backend: got {backend!r} for {source!r}, expected a BackendReader, or to be left out for "
        "a directory that EnvLogger wrote."
    )


def _check_no_split(split: str | None, source: str) -> None:
    if split is not None:
        raise errors.OptionError(f"split: got {split!r}, expected None for {source}. Leave it out.")


__all__ = ["Reader"]

# SPDX-License-Identifier: Apache-2.0
"""Real logs and Riegeli files, and what must come out of them; see `riegeli/data/README.md`."""

from __future__ import annotations

import functools
import itertools
import json
import pathlib
import struct
import tarfile
import tempfile
from typing import Any

import dm_env
import numpy as np
from dm_env import specs

import envlogger

_ARCHIVE = pathlib.Path(__file__).parent / "riegeli" / "data" / "logs.tar.xz"
_SPECS = {kind.__name__: kind for kind in (specs.Array, specs.BoundedArray, specs.DiscreteArray)}

CASES = (
    "bigints",
    "catch_default",
    "catch_empty_session",
    "catch_nothing",
    "catch_shards",
    "catch_single_shard_unlimited",
    "dtypes",
    "dtypes_simple",
    "flush_each1_shards",
    "flush_each25",
    "images_uncompressed",
    "nested",
    "no_episodes",
    "no_obs",
    "opt_brotli",
    "opt_default_kw",
    "opt_padding",
    "opt_padding_simple",
    "opt_simple_smallchunk",
    "opt_snappy",
    "opt_transpose_smallchunk",
    "opt_transpose_tinychunk",
    "opt_transpose_uncompressed",
    "opt_transpose_zstd",
    "opt_uncompressed",
    "opt_zstd",
    "step_scheduler",
    "v13codec_catch",
    "v13codec_floats_zstd",
)
# Their writers were killed; how many episodes are there, and how many EnvLogger showed.
KILLED = {
    "killed_at_init": (0, 0),
    "killed_flush10": (6, 5),
    "killed_noflush": (0, 0),
    "killed_then_resumed": (9, 8),
}


@functools.cache
def _directory() -> tempfile.TemporaryDirectory[str]:
    directory = tempfile.TemporaryDirectory(prefix="envlogger-riegeli-")
    with tarfile.open(_ARCHIVE) as archive:
        archive.extractall(directory.name, filter="data")
    return directory


def root() -> pathlib.Path:
    """Returns the directory with all samples, which goes with this process."""
    return pathlib.Path(_directory().name)


def log(case: str) -> pathlib.Path:
    """Returns the directory that was logged into."""
    return root() / case / "log"


def files(kind: str = "*.riegeli") -> list[pathlib.Path]:
    """Returns Riegeli files of all samples."""
    return sorted(root().rglob(kind))


def name_of(path: pathlib.Path) -> str:
    """Returns what a sample is called, wherever it was unpacked."""
    return path.relative_to(root()).as_posix()


def with_records() -> list[pathlib.Path]:
    """Returns the files whose records are known."""
    return sorted((root() / "_riegeli_fuzz").glob("*.riegeli"))


def records_of(path: pathlib.Path) -> list[bytes]:
    """Returns the records that such a file holds."""
    raw = path.with_suffix(".records").read_bytes()
    records = []
    position = 0
    while position < len(raw):
        (size,) = struct.unpack_from("<I", raw, position)
        records.append(raw[position + 4 : position + 4 + size])
        position += 4 + size
    return records


class Expected:
    """What EnvLogger 1.2's reader returned."""

    def __init__(self, case: str) -> None:
        self.raw = json.loads((root() / case / "expected.json").read_text())
        path = root() / case / "expected.npz"
        self._blob = np.load(path)["blob"].tobytes() if path.exists() else b""

    @property
    def steps(self) -> list[envlogger.StepData]:
        steps = []
        for encoded in self.raw["steps"]:
            (step_type, *rest), action, custom_data = self._decode(encoded)
            timestep = dm_env.TimeStep(dm_env.StepType(step_type), *rest)
            steps.append(envlogger.StepData(timestep, action, custom_data))
        return steps

    @property
    def metadata(self) -> Any:
        return self._decode(self.raw["metadata"])

    @property
    def episode_metadata(self) -> list[Any]:
        return [self._decode(encoded) for encoded in self.raw["episode_metadata"]]

    @property
    def episode_lengths(self) -> list[int]:
        return [length for _, length in self.raw["episodes"]]

    @property
    def episodes(self) -> list[list[envlogger.StepData]]:
        steps = iter(self.steps)
        return [list(itertools.islice(steps, length)) for length in self.episode_lengths]

    def spec(self, name: str) -> Any:
        return self._decode(self.raw["specs"][name])

    def _decode(self, encoded: Any) -> Any:
        if encoded is None or not isinstance(encoded, dict):
            return encoded
        kind = encoded.get("t")
        if kind is None:
            return {key: self._decode(value) for key, value in encoded.items()}
        if kind == "spec":
            return self._decode_spec(encoded)
        if kind == "np":
            return np.frombuffer(bytes.fromhex(encoded["hex"]), encoded["dtype"])[0]
        if kind == "nd":
            raw = self._blob[encoded["off"] : encoded["off"] + encoded["len"]]
            return np.frombuffer(raw, encoded["dtype"]).reshape(encoded["shape"])
        if kind == "bytes":
            return bytes.fromhex(encoded["hex"])
        value = encoded["v"]
        if kind == "dict":
            return {self._decode(key): self._decode(item) for key, item in value}
        if kind == "int":
            return int(value)
        if kind in ("list", "tuple", "obj"):
            items = [self._decode(item) for item in value]
            if kind == "obj":
                return np.array([*items, None], object)[:-1].reshape(encoded["shape"])
            return items if kind == "list" else tuple(items)
        return value

    def _decode_spec(self, encoded: dict[str, Any]) -> Any:
        dtype = object if encoded["dtype"] == "object" else np.dtype(encoded["dtype"])
        if encoded["cls"] == "DiscreteArray":
            return specs.DiscreteArray(encoded["num_values"], dtype, encoded["name"])
        bounds = [self._decode(encoded[key]) for key in ("minimum", "maximum") if key in encoded]
        return _SPECS[encoded["cls"]](tuple(encoded["shape"]), dtype, *bounds, encoded["name"])

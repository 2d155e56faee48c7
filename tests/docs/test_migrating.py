# SPDX-License-Identifier: Apache-2.0
"""Runs the code of `docs/migrating.md`, and compares what it wrote before and after."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys
import textwrap

import helpers
import numpy as np
import pytest
import riegeli_samples
import test_readme

import envlogger
from envlogger.testing import catch_env
from envlogger.testing.comparison import assert_same

_DOCUMENT = test_readme.ROOT / "docs" / "migrating.md"
_NAMES = (
    *("riegeli_before", "riegeli_after", "riegeli_convert"),
    *("backend_before", "backend_after"),
    *("rlds", "rlds_before", "rlds_after"),
    *("builder", "builder_before", "builder_after"),
)

# What was logged by EnvLogger 1.x can't be written any more, and the error says so.
_RUN = """
import envlogger, envlogger.tfds
from envlogger import errors

envlogger.tfds.import_rlds()
blocks = {blocks!r}
scope = {{}}
for name, source in blocks.items():
    if "_" not in name:
        # TFDS looks for files beside the module of a builder.
        scope = {{"__name__": "doors.doors_dataset_builder"}}
    try:
        exec(compile(source, name, "exec"), scope)
    except errors.OptionError as error:
        assert name == "riegeli_before" and "Riegeli logs are no longer written" in str(error)
    else:
        assert name != "riegeli_before"
"""


def _blocks() -> dict[str, str]:
    return dict(zip(_NAMES, test_readme.python_blocks(_DOCUMENT), strict=True))


def _raw_steps(rng: np.random.Generator) -> list[dict[str, object]]:
    return [
        {
            "image": rng.integers(0, 256, (64, 64, 3), np.uint8),
            "wrist_image": rng.integers(0, 256, (64, 64, 3), np.uint8),
            "state": rng.normal(size=10).astype(np.float32),
            "action": rng.normal(size=10).astype(np.float32),
            "language_instruction": "open the door",
        }
        for _ in range(int(rng.integers(3, 6)))
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("migrating")
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 2)):
        (place / "raw" / split).mkdir(parents=True)
        for number in range(count):
            path = place / "raw" / split / f"episode_{number}.npy"
            np.save(path, np.array(_raw_steps(rng), object), allow_pickle=True)
    (place / "doors").mkdir()
    (place / "doors" / "__init__.py").touch()
    (place / "logs").mkdir()
    (place / "logs" / "old").symlink_to(riegeli_samples.log("catch_default"))
    script = place / "migrating.py"
    script.write_text(_RUN.format(blocks=_blocks()))
    run = subprocess.run(
        [sys.executable, script], cwd=place, capture_output=True, text=True, timeout=240
    )
    assert run.returncode == 0, run.stderr
    return place


def _columns(path: pathlib.Path, split: str) -> list[dict[str, object]]:
    with envlogger.Reader(path, split) as reader:
        return [episode.columns() for episode in reader.episodes]


def test_every_block_is_python() -> None:
    for source in _blocks().values():
        ast.parse(textwrap.dedent(source))


def test_logs_of_riegeli(place):
    with envlogger.Reader(place / "data/catch/1.0.0") as reader:
        assert len(reader.episodes) == 1
        assert reader.metadata()["agent"] == "random"
    with (
        envlogger.Reader(place / "logs/old") as old,
        envlogger.Reader(place / "data/old/1.0.0") as new,
    ):
        assert len(new.steps) > 0
        # EnvLogger 1.x kept keys in any order.
        steps = [helpers.sort_keys(list(reader.steps)) for reader in (new, old)]
        assert_same(*steps)


@pytest.mark.parametrize("name", ["writer_options", "flush_scheduler"])
def test_arguments_that_are_gone(name, tmp_path):
    assert f"`{name}`" in _DOCUMENT.read_text()
    with pytest.raises(TypeError, match=name):
        envlogger.EnvLogger(catch_env.Catch(), data_directory=tmp_path, **{name: None})
    assert not list(tmp_path.iterdir())


def test_the_backend_of_tfds(place):
    (before,) = _columns(place / "logs/catch_example", "train")
    (after,) = _columns(place / "data/catch_example/1.0.0", "train")
    for columns in (before, after):
        timestamps = columns.pop("timestamp")
        assert timestamps.dtype == np.float64
        assert (np.diff(timestamps) >= 0).all()
    assert before.keys() == after.keys()
    for field in ("action", "reward", "discount", "is_first", "is_last", "is_terminal"):
        assert before[field].dtype == after[field].dtype
        assert before[field].shape == after[field].shape
    assert before["observation"].shape == after["observation"].shape == (10, 10, 5)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_writer_of_rlds(place, split):
    before, after = _columns(place / "rlds_data/arm", split), _columns(place / "data/arm", split)
    assert len(before) == 3
    assert_same(helpers.sort_keys(after), helpers.sort_keys(before))
    with (
        envlogger.Reader(place / "rlds_data/arm", split) as old,
        envlogger.Reader(place / "data/arm", split) as new,
    ):
        operators = [metadata["operator"].decode() for metadata in old.episode_metadata()]
        assert [metadata["operator"] for metadata in new.episode_metadata()] == operators


@pytest.mark.parametrize("split", ["train", "val"])
def test_builders(place, split):
    found = []
    for path in ("tfds_data/doors/1.0.0", "data/doors/1.0.0"):
        with envlogger.Reader(place / path, split) as reader:
            about = [metadata["episode_metadata"] for metadata in reader.episode_metadata()]
            names = [dict(item)["file_path"] for item in about]
            names = [name if isinstance(name, str) else name.decode() for name in names]
            columns = [episode.columns() for episode in reader.episodes]
        found.append(dict(zip(names, columns, strict=True)))  # `tfds build` shuffles
    before, after = found
    paths = sorted(f"raw/{split}/{path.name}" for path in (place / "raw" / split).iterdir())
    assert list(after) == paths
    assert sorted(before) == paths
    for name in paths:
        assert_same(helpers.sort_keys(after[name]), helpers.sort_keys(before[name]))

# SPDX-License-Identifier: Apache-2.0
"""Stock TFDS on ArrayRecord against stock TFDS on TFRecord (`python -m benchmarks.file_formats`).

Records datasets, copies their records into TFRecord shards of the same number, and has
`builder.as_dataset` read both in turn: as people do, all steps into batches of 256; and episodes whose steps
are not decoded, so that as little as possible hides what reading costs. From the page cache. Runs in the Python that it is called with,
which needs `pip install 'envlogger[tensorflow]'`.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow greets otherwise

import tensorflow as tf
import tensorflow_datasets as tfds
import tqdm

import envlogger
import envlogger.tfds
from benchmarks import machine, report, workloads
from envlogger.tfds import dataset, dataset_files, shards

_RESULTS = Path(__file__).resolve().parent / "results"
_REPETITIONS = 5
_BATCH = 256
_TARGET = 0.9


@dataclasses.dataclass(frozen=True)
class Data:
    """A dataset to record."""

    workload: str
    shards: int
    episodes_per_shard: int
    episode_steps: int


_DATA = {
    "catch, 1 shard": Data("catch", 1, 5000, 10),
    "catch, 10 shards": Data("catch", 10, 500, 10),
    "catch, 1,000 shards": Data("catch", 1000, 5, 10),
    "control, 10 shards": Data("control", 10, 20, 100),
    "control, 1,000 shards": Data("control", 1000, 1, 100),
    "atari, 10 shards": Data("atari", 10, 4, 100),
    "robot, 5 shards": Data("robot", 5, 2, 50),
}


def main() -> None:
    """Records, copies, reads, and saves and prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.file_formats", description=main.__doc__
    )
    parser.add_argument("--only", nargs="+", choices=_DATA, default=list(_DATA))
    parser.add_argument("--repetitions", type=int, default=_REPETITIONS)
    parser.add_argument("--directory", help="where to record; the system's temporary directory")
    parser.add_argument("--output", type=Path, default=_RESULTS, help="where results are saved")
    arguments = parser.parse_args()
    document: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": machine.describe(arguments.directory or tempfile.gettempdir()),
        "versions": {"tensorflow": tf.__version__, "tensorflow-datasets": tfds.__version__},
        "results": {},
    }
    for name in tqdm.tqdm(arguments.only, unit="dataset"):
        with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
            paths = {
                "array_record": os.path.join(folder, "a", "data", "1.0.0"),
                "tfrecord": os.path.join(folder, "t", "data", "1.0.0"),
            }
            _record(paths["array_record"], _DATA[name])
            _copy(paths["array_record"], paths["tfrecord"])
            document["results"][name] = _measure(paths, arguments.repetitions)
    text = _markdown(document)
    arguments.output.mkdir(parents=True, exist_ok=True)
    stem = arguments.output / f"{document['date']}-file-formats"
    stem.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    stem.with_suffix(".md").write_text(text)
    print(text)


def _record(path: str, data: Data) -> None:
    load = workloads.make(data.workload, 0, 1, data.episode_steps)
    with envlogger.EnvLogger(
        load.environment,
        data_directory=path,
        image_format="raw",
        max_episodes_per_file=data.episodes_per_shard,
    ) as env:
        for _ in range(data.shards * data.episodes_per_shard):
            env.reset()
            for _ in range(data.episode_steps - 1):
                env.step(next(load.actions))


def _copy(source: str, target: str) -> None:
    """Makes a TFRecord dataset of the same records in as many shards."""
    info = dataset.load(source).info
    os.makedirs(target)
    for split, lengths in info.shard_lengths.items():
        for index, length in enumerate(lengths):
            name = info.shard_name(split, index)
            to = os.path.join(target, name.replace("array_record", "tfrecord"))
            with tf.io.TFRecordWriter(to) as writer:
                for record in shards.read_all(os.path.join(source, name), length):
                    writer.write(record)
    for name in (dataset_files.INFO, dataset_files.FEATURES, dataset_files.METADATA):
        text = Path(source, name).read_text()
        Path(target, name).write_text(text.replace('"array_record"', '"tfrecord"'))


def _measure(paths: dict[str, str], repetitions: int) -> dict[str, Any]:
    """Reads both in turn, in both ways; returns what each pass took."""
    return {
        "steps": _passes(
            {k: _load(p).flat_map(_steps_of).batch(_BATCH) for k, p in paths.items()}, repetitions
        ),
        "episodes": _passes(
            {k: _load(p, steps=tfds.decode.SkipDecoding()) for k, p in paths.items()}, repetitions
        ),
    }


def _load(path: str, **decoders: Any) -> Any:
    config = tfds.ReadConfig(try_autocache=False)
    builder = tfds.builder_from_directory(path)
    return builder.as_dataset(split="train", read_config=config, decoders=decoders or None)


def _steps_of(episode: dict[str, Any]) -> Any:
    return episode["steps"]


def _passes(datasets: dict[str, Any], repetitions: int) -> dict[str, list[float]]:
    passes: dict[str, list[float]] = {name: [] for name in datasets}
    for repetition in range(repetitions + 1):
        for name, items in datasets.items():
            begun = time.perf_counter()
            # It goes later: tf.data's tuner sleeps for up to seconds first, whatever the pipeline.
            iterator = iter(items)
            for _ in iterator:
                pass
            if repetition:  # the first one is to warm up
                passes[name].append(time.perf_counter() - begun)
            del iterator
    return passes


def _markdown(document: dict[str, Any]) -> str:
    about = document["machine"]
    rows = []
    for name, result in document["results"].items():
        row, data = [name], _DATA[name]
        episodes = data.shards * data.episodes_per_shard
        counts = {"steps": episodes * data.episode_steps, "episodes": episodes}
        for kind in ("steps", "episodes"):
            count, seconds = counts[kind], result[kind]
            # Of each pair of neighbours in time: what else the machine did touched both.
            pairs = zip(seconds["array_record"], seconds["tfrecord"], strict=True)
            ratio = statistics.median(t / a for a, t in pairs)
            rates = [report.number(count / statistics.median(times)) for times in seconds.values()]
            mark = "✓" if ratio >= _TARGET else "✗"
            row += [*rates, f"{mark} {ratio:.2f} x (≥ {_TARGET} x)"]
        rows.append(row)
    headers = ["dataset", "steps/s, ArrayRecord", "TFRecord", "x"]
    headers += ["episodes/s, ArrayRecord", "TFRecord", "x"]
    return "\n\n".join(
        [
            f"# as_dataset on ArrayRecord and on TFRecord, {document['date']}",
            f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}; load when it began "
            f"{about['load_average_at_start']:.1f}. "
            + ", ".join(f"{name} {version}" for name, version in document["versions"].items()),
            report.table(headers, rows),
            "The same records, read by stock TFDS; medians over passes in turn. Steps as people read them; "
            "episodes without decoding their steps.\n",
        ]
    )


if __name__ == "__main__":
    main()

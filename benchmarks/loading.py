# SPDX-License-Identifier: Apache-2.0
"""What loading as tf.data costs: ours against stock TFDS (`python -m benchmarks.loading`).

Records a few datasets, then reads them in turn with stock TFDS (`flat_map` over its nested datasets of
steps, into batches of 256) and with `envlogger.tfds`; and takes windows of 32 steps out of episodes of
10,000. Both read the same files, through the same reader, from the page cache. Runs in the Python that
it is called with, which needs `pip install 'envlogger[tensorflow]'`.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow greets otherwise

import dm_env
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
import tqdm
from dm_env import specs

import envlogger
import envlogger.tfds
from benchmarks import images, machine, report, workloads

_RESULTS = Path(__file__).resolve().parent / "results"
_BATCH = 256
_REPETITIONS = 5
_LONG = 10_000
_QUICKER = 10


@dataclasses.dataclass(frozen=True)
class Data:
    """A dataset to record: a workload, or frames of a camera.

    Attributes:
      workload: One of `workloads`, or "camera".
      steps: In all.
      episode_steps: Per episode.
      image_format: As EnvLogger takes it.
      target: How many times faster than stock TFDS `steps` is to be.
    """

    workload: str
    steps: int
    episode_steps: int
    image_format: str = "raw"
    target: float | None = None


_STEPS = {
    "catch": Data("catch", 100_000, 10, target=10),
    "control": Data("control", 100_000, 1000, target=10),
    "atari, raw": Data("atari", 10_000, 100, target=1.5),
    "camera 84², raw": Data("camera", 10_000, 100, target=1.5),
    "camera 84², PNG": Data("camera", 10_000, 100, "png", target=1.5),
    "robot, raw": Data("robot", 1_000, 100, target=1.5),
    "robot, PNG": Data("robot", 1_000, 100, "png", target=1.5),
}
_WINDOWS = {
    "control": Data("control", 5 * _LONG, _LONG),
    "camera 84², PNG": Data("camera", 2 * _LONG, _LONG, "png"),
    "camera 84², raw": Data("camera", 2 * _LONG, _LONG),
}


def main() -> None:
    """Records, loads, and saves and prints the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loading", description=main.__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the steps, two repetitions"
    )
    parser.add_argument("--only", nargs="+", choices=_STEPS, default=list(_STEPS))
    parser.add_argument("--directory", help="where to record; the system's temporary directory")
    parser.add_argument("--output", type=Path, default=_RESULTS, help="where results are saved")
    arguments = parser.parse_args()
    repetitions = 2 if arguments.quick else _REPETITIONS
    document: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "quick": arguments.quick,
        "machine": machine.describe(arguments.directory or tempfile.gettempdir()),
        "versions": {"tensorflow": tf.__version__, "tensorflow-datasets": tfds.__version__},
        "steps": {},
        "windows": {},
    }
    plans = [("steps", name, _STEPS[name], _load_steps) for name in arguments.only]
    plans += [("windows", name, data, _load_windows) for name, data in _WINDOWS.items()]
    for kind, name, data, load in tqdm.tqdm(plans, unit="dataset"):
        with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
            smaller = _QUICKER if arguments.quick else 1
            steps = max(data.steps // smaller, data.episode_steps)
            path = os.path.join(folder, "data", "1.0.0")
            _record(path, dataclasses.replace(data, steps=steps))
            document[kind][name] = _measure(load(path), repetitions)
    text = _markdown(document)
    arguments.output.mkdir(parents=True, exist_ok=True)
    stem = arguments.output / f"{document['date']}-loading"
    stem.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    stem.with_suffix(".md").write_text(text)
    print(text)


# --- what is recorded ------------------------------------------------------------------------------


def _record(path: str, data: Data) -> None:
    if data.workload == "camera":
        env: Any = _Camera(data.episode_steps)
        actions: Any = itertools.repeat(1)
    else:
        load = workloads.make(data.workload, 0, 1, data.episode_steps)
        env, actions = workloads.CutEnvironment(load.environment, data.episode_steps), load.actions
    with envlogger.EnvLogger(env, data_directory=path, image_format=data.image_format) as logger:
        for _ in range(data.steps // data.episode_steps):
            timestep = logger.reset()
            while not timestep.last():
                timestep = logger.step(next(actions))


class _Camera(workloads.CutEnvironment):
    """Gives frames (84, 84, 3) as of a camera."""

    def __init__(self, episode_steps: int) -> None:
        frames = images.natural_frames(np.random.default_rng(1), 500, 84)
        pool = [dm_env.transition(1.0, frame) for frame in frames]
        spec = specs.BoundedArray((84, 84, 3), np.uint8, 0, 255, "frame")
        action = specs.DiscreteArray(4, np.int64, "action")
        super().__init__(workloads.PooledEnvironment(pool, spec, action, 0), episode_steps)


# --- what is measured ------------------------------------------------------------------------------


def _load_steps(path: str) -> dict[str, Callable[[], Any]]:
    config = tfds.ReadConfig(try_autocache=False)
    builder = tfds.builder_from_directory(path)

    def stock() -> Any:
        dataset = builder.as_dataset(split="train", read_config=config)
        return dataset.flat_map(lambda episode: episode["steps"]).batch(_BATCH)

    return {
        "stock": stock,
        "steps(batch_size=256)": lambda: envlogger.tfds.steps(builder, batch_size=_BATCH),
        "steps().batch(256)": lambda: envlogger.tfds.steps(builder).batch(_BATCH),
    }


def _load_windows(path: str) -> dict[str, Callable[[], Any]]:
    load = envlogger.tfds.windows
    return {
        "stock": _load_steps(path)["stock"],
        "episodes": lambda: envlogger.tfds.episodes(path).map(lambda episode: episode["steps"]),
        "every step": lambda: load(path, length=32, batch_size=8),
        "ten": lambda: load(path, length=32, stride=_LONG // 10, batch_size=8),
        "one": lambda: load(path, length=32, stride=_LONG, batch_size=8),
    }


def _measure(makers: dict[str, Callable[[], Any]], repetitions: int) -> dict[str, Any]:
    """Reads each dataset in turn; returns medians of what a pass takes, by name."""
    datasets = {name: make() for name, make in makers.items()}
    runs: dict[str, list[tuple[float, float, int]]] = {name: [] for name in makers}
    for repetition in range(repetitions + 1):
        for name, dataset in datasets.items():
            wall, cpu, steps = time.perf_counter(), time.process_time(), 0
            # It goes later: tf.data's tuner sleeps for up to seconds first, whatever the pipeline.
            iterator = iter(dataset)
            for batch in iterator:
                steps += int(np.prod(batch["is_first"].shape))
            run = (time.perf_counter() - wall, time.process_time() - cpu, steps)
            del iterator
            if repetition:  # the first one is to warm up
                runs[name].append(run)
    return {
        name: {
            "wall_s": statistics.median(run[0] for run in found),
            "cpu_s": statistics.median(run[1] for run in found),
            "steps": found[0][2],
        }
        for name, found in runs.items()
    }


# --- tables ----------------------------------------------------------------------------------------


def _markdown(document: dict[str, Any]) -> str:
    about = document["machine"]
    return "\n\n".join(
        [
            f"# Loading as tf.data, {document['date']}",
            f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}; load when it began "
            f"{about['load_average_at_start']:.1f}. "
            + ", ".join(f"{name} {version}" for name, version in document["versions"].items()),
            *(["**A quick run: start-up counts for more than it does.**"] * document["quick"]),
            "## Steps, into batches of 256",
            _steps_table(document["steps"]),
            "Medians of passes over the whole dataset, the loaders in turn; x is how many times less "
            "than stock TFDS's. CPU is that of all threads, and what others do to the machine "
            "touches it less than the time.",
            f"## Windows of 32 steps out of episodes of {_LONG:,}",
            _windows_table(document["windows"]),
            "Time per episode, and the part that it is of what decoding the whole episode takes: our "
            "columns of it, and stock TFDS's steps. Images that are in no window are not read; of "
            "everything else, a whole record is read and parsed in any case.\n",
        ]
    )


def _steps_table(results: dict[str, Any]) -> str:
    headers = ["dataset", "", "steps/s", "µs CPU", "x time", "x CPU", "to reach"]
    rows = []
    for name, loaders in results.items():
        stock = loaders["stock"]
        for loader, run in loaders.items():
            is_stock = loader == "stock"
            target = _STEPS[name].target
            rows.append(
                [
                    name if is_stock else "",
                    "stock TFDS" if is_stock else loader,
                    report.number(run["steps"] / run["wall_s"]),
                    report.number(run["cpu_s"] / run["steps"] * 1e6),
                    *(
                        ["", "", ""]
                        if is_stock
                        else [
                            report.number(stock["wall_s"] / run["wall_s"]),
                            report.number(stock["cpu_s"] / run["cpu_s"]),
                            f"{target:g}",
                        ]
                    ),
                ]
            )
    return report.table(headers, rows)


def _windows_table(results: dict[str, Any]) -> str:
    headers = ["dataset", "", "ms/episode", "ms CPU", "of time", "of CPU", "of stock's time"]
    labels = {
        "stock": "stock TFDS, batches of 256",
        "episodes": "episodes()",
        "every step": "windows, stride 32",
        "ten": "windows, ten an episode",
        "one": "windows, one an episode",
    }
    rows = []
    for name, loaders in results.items():
        whole, stock = loaders["episodes"], loaders["stock"]
        episodes = max(whole["steps"] // _LONG, 1)
        for loader, run in loaders.items():
            rows.append(
                [
                    name if loader == "stock" else "",
                    labels[loader],
                    report.number(run["wall_s"] / episodes * 1e3),
                    report.number(run["cpu_s"] / episodes * 1e3),
                    f"{run['wall_s'] / whole['wall_s']:.0%}",
                    f"{run['cpu_s'] / whole['cpu_s']:.0%}",
                    f"{run['wall_s'] / stock['wall_s']:.1%}",
                ]
            )
    return report.table(headers, rows)


if __name__ == "__main__":
    main()

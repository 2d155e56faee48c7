# SPDX-License-Identifier: Apache-2.0
"""What recording environments that step together costs: `python -m benchmarks.batched`.

Records N environments by one `BatchedEnvLogger`, and by a loop over N `EnvLogger`s, whose environments
cost nothing: the time of the same loops without loggers is subtracted. Each run is a process of its own.
The steps are those of a robot's joints, 57 float64, in episodes of 100 and more. Runs in the Python that
it is called with.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dm_env
import numpy as np
import tqdm
from dm_env import specs

import envlogger
from benchmarks import machine, measure, meter, report

_RESULTS = Path(__file__).resolve().parent / "results"
_WIDTH = 57
_EPISODE_STEPS = 100
_COUNTS = (1, 8, 64)
_STEPS = 64_000  # of all environments together
_QUICKER = 8
_HEADERS = (
    "environments",
    "loggers",
    "open ms",
    "µs per step and environment",
    "p99 of all, µs",
    "close ms",
    "helpers",
    "descriptors",
    "memory of all, MB",
)


def main() -> None:
    """Measures both ways for each number of environments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batched", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="an eighth of the steps")
    parser.add_argument("--directory", help="where to record; the system's temporary directory")
    parser.add_argument("--output", type=Path, default=_RESULTS, help="where results are saved")
    arguments = parser.parse_args()
    steps = _STEPS // (_QUICKER if arguments.quick else 1)
    runs = [(count, ways) for count in _COUNTS for ways in (_one_logger, _a_logger_each)]
    context = multiprocessing.get_context("spawn")
    results = []
    for count, record in tqdm.tqdm(runs, unit="run"):
        with (
            tempfile.TemporaryDirectory(dir=arguments.directory) as folder,
            context.Pool(1) as pool,
        ):
            results.append(pool.apply(record, (folder, count, steps // count)))
    document = {
        "date": datetime.date.today().isoformat(),
        "quick": arguments.quick,
        "machine": machine.describe(arguments.directory or tempfile.gettempdir()),
        "results": results,
    }
    text = f"# Environments that step together, {document['date']}\n\n" + _markdown(document)
    arguments.output.mkdir(parents=True, exist_ok=True)
    stem = arguments.output / f"{document['date']}-batched"
    stem.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    stem.with_suffix(".md").write_text(text)
    print(text)
    print(f"Saved as {stem}.json, {stem}.md")


class _Joints(dm_env.Environment):  # type: ignore[misc]
    """N robots whose joints move; robot i has episodes of 100 + i steps. It steps one, or all."""

    def __init__(self, count: int) -> None:
        self.num_envs = count
        self._values = np.random.default_rng(0).normal(size=(1024, count, _WIDTH))
        self._lengths = _EPISODE_STEPS + np.arange(count)
        self._steps = np.zeros(count, np.int64)
        self._call = 0
        self._ones = np.ones(count)

    def reset(self) -> dm_env.TimeStep:
        self._steps[:] = 0
        return self._timestep()

    def step(self, actions: Any) -> dm_env.TimeStep:
        self._steps = np.where(self._steps == self._lengths, 0, self._steps + 1)
        return self._timestep()

    def _timestep(self) -> dm_env.TimeStep:
        self._call += 1
        kinds = np.where(self._steps == 0, 0, np.where(self._steps == self._lengths, 2, 1))
        return dm_env.TimeStep(kinds, self._ones, self._ones, self._values[self._call % 1024])

    def observation_spec(self) -> Any:
        return specs.Array((_WIDTH,), np.float64)

    def action_spec(self) -> Any:
        return specs.BoundedArray((8,), np.float64, -1.0, 1.0)

    def reward_spec(self) -> Any:
        return specs.Array((), np.float64)

    def discount_spec(self) -> Any:
        return specs.BoundedArray((), np.float64, 0.0, 1.0)


class _Joint(_Joints):
    """One robot, which gives what dm_env says."""

    def __init__(self) -> None:
        super().__init__(1)

    def _timestep(self) -> dm_env.TimeStep:
        kinds, reward, discount, values = super()._timestep()
        if kinds[0] == 0:
            return dm_env.restart(values[0])
        return dm_env.TimeStep(dm_env.StepType(int(kinds[0])), reward[0], discount[0], values[0])


def _one_logger(folder: str, count: int, steps: int) -> dict[str, Any]:
    """Records by one logger; runs in a process of its own."""
    actions = np.zeros((count, 8))
    bare = _Joints(count)
    bare_ns = _times(lambda: bare.step(actions), steps)
    opened = time.perf_counter()
    logger = envlogger.BatchedEnvLogger(
        _Joints(count), data_directory=os.path.join(folder, "1.0.0")
    )
    opened = time.perf_counter() - opened
    return _measure(
        "one", count, opened, bare_ns, steps, lambda: logger.step(actions), logger.close
    )


def _a_logger_each(folder: str, count: int, steps: int) -> dict[str, Any]:
    """Records by as many loggers as environments; runs in a process of its own."""
    action = np.zeros(8)
    alone = [_Joint() for _ in range(count)]

    def step_all(environments: list[Any]) -> None:
        for environment in environments:
            environment.step(action)

    bare_ns = _times(lambda: step_all(alone), steps)
    opened = time.perf_counter()
    loggers = [
        envlogger.EnvLogger(_Joint(), data_directory=os.path.join(folder, "1.0.0"))
        for _ in range(count)
    ]
    opened = time.perf_counter() - opened

    def close() -> None:
        for logger in loggers:
            logger.close()

    return _measure(str(count), count, opened, bare_ns, steps, lambda: step_all(loggers), close)


def _measure(
    loggers: str,
    count: int,
    opened: float,
    bare_ns: np.ndarray,
    steps: int,
    step: Callable[[], Any],
    close: Callable[[], Any],
) -> dict[str, Any]:
    meter.become_reaper()  # so that the helpers are found wherever they go
    times = _times(step, steps)
    helpers = meter.descendants()
    result = {
        "count": count,
        "loggers": loggers,
        "open_ms": opened * 1e3,
        "added_us": (float(times.mean()) - float(bare_ns.mean())) / 1e3 / count,
        "p99_us": float(np.percentile(times, 99)) / 1e3,
        "helpers": len(helpers),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "memory_mb": meter.memory_mb([os.getpid(), *helpers]),
        "peak_mb": measure.memory_mb(),
    }
    closed = time.perf_counter()
    close()
    return {**result, "close_ms": (time.perf_counter() - closed) * 1e3}


def _times(step: Callable[[], Any], steps: int) -> np.ndarray:
    """Returns the nanoseconds that each call took."""
    times = np.empty(steps, np.int64)
    for i in range(steps):
        before = time.perf_counter_ns()
        step()
        times[i] = time.perf_counter_ns() - before
    return times


def _markdown(document: dict[str, Any]) -> str:
    rows = [
        [
            str(row["count"]),
            row["loggers"],
            *(report.number(row[name]) for name in ("open_ms", "added_us", "p99_us", "close_ms")),
            str(row["helpers"]),
            str(row["descriptors"]),
            report.number(row["memory_mb"]),
        ]
        for row in document["results"]
    ]
    return f"{report.machine_line(document['machine'])}\n\n{report.table(_HEADERS, rows)}\n"


if __name__ == "__main__":
    main()

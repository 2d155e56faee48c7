# SPDX-License-Identifier: Apache-2.0
"""Records a run, or reads it, in a process of its own: what `benchmarks.reading` asks for.

Runs where EnvLogger 1.2 is installed, or this library. What to do is a JSON object in argv; what was
measured is printed as one.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks import measure, workloads


def record(workload: str, path: str, steps: int, episode_steps: int, **options: Any) -> None:
    """Records whole episodes."""
    import envlogger

    made = workloads.make(workload, 0, 1, episode_steps)
    env = workloads.CutEnvironment(made.environment, episode_steps)
    with envlogger.EnvLogger(env, data_directory=path, **options) as logger:
        for _ in range(steps // episode_steps):
            timestep = logger.reset()
            while not timestep.last():
                timestep = logger.step(next(made.actions))


def sequential(path: str, passes: int, **options: Any) -> dict[str, Any]:
    """Reads all steps, episode by episode; the reader is closed after each pass."""
    import envlogger

    reader = envlogger.Reader(path, **options)

    def read() -> int:
        count = 0
        for episode in reader.episodes:
            for _ in episode:
                count += 1
        reader.close()
        return count

    if not hasattr(reader, "refresh"):  # EnvLogger 1.2's cannot be used again once it is closed

        def read() -> int:
            return sum(1 for episode in reader.episodes for _ in episode)

    return _passes(read, passes)


def at_random(path: str, passes: int, count: int, warm: bool, **options: Any) -> dict[str, Any]:
    """Reads steps at random; `warm` reads all of them before."""
    import envlogger

    reader = envlogger.Reader(path, **options)
    steps = reader.steps
    if warm:
        for step in steps:
            del step
    rng = random.Random(0)
    chosen = [rng.randrange(len(steps)) for _ in range(count)]

    def read() -> int:
        for i in chosen:
            steps[i]
        return count

    return _passes(read, passes)


def columns(path: str, passes: int) -> dict[str, Any]:
    """Reads all episodes as columns."""
    import envlogger

    reader = envlogger.Reader(path)

    def read() -> int:
        count = sum(len(episode.columns()["is_first"]) for episode in reader.episodes)
        reader.close()
        return count

    return _passes(read, passes)


def data_source(path: str, passes: int) -> dict[str, Any]:
    """Reads all steps with stock `tfds.data_source`."""
    import tensorflow_datasets as tfds

    source = tfds.builder_from_directory(path).as_data_source("train")

    def read() -> int:
        return sum(1 for i in range(len(source)) for _ in source[i]["steps"])

    return _passes(read, passes)


def _passes(read: Callable[[], int], passes: int) -> dict[str, Any]:
    """Returns the times of some passes, after one to warm up, and the resident memory after each."""
    count = read()
    times, memory = [], []
    for _ in range(passes):
        begin = time.perf_counter()
        read()
        times.append(time.perf_counter() - begin)
        memory.append(measure.memory_mb("VmRSS"))
    return {"steps": count, "times_s": times, "memory_mb": memory}


_CALLS = {call.__name__: call for call in (record, sequential, at_random, columns, data_source)}


def main() -> None:
    """Does what argv says."""
    request = json.loads(sys.argv[1])
    print(json.dumps(_CALLS[request.pop("call")](**request)))


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Records or reads a log of EnvLogger 1.x, in a process of its own.

Runs where EnvLogger 1.2 is installed, which does both, or this library, which reads. What to do is a JSON
object in argv; what was measured is printed as one.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from typing import Any

import numpy as np

from benchmarks import workloads


def record(workload: str, path: str, steps: int, options: str | None) -> None:
    """Logs so many steps with EnvLogger 1.2, with options of its Riegeli writer."""
    import envlogger
    from envlogger.backends import riegeli_backend_writer

    chosen = {} if options is None else {"writer_options": options}
    backend = riegeli_backend_writer.RiegeliBackendWriter(data_directory=path, **chosen)
    made = workloads.make(workload, 0, 0)
    with envlogger.EnvLogger(made.environment, backend=backend) as logger:
        timestep = logger.reset()
        for _ in range(steps - 1):
            timestep = logger.reset() if timestep.last() else logger.step(next(made.actions))


def read(path: str, order: str, most: int) -> dict[str, Any]:
    """Reads steps; returns how long it took, and a hash of some of them."""
    import envlogger

    begin = time.perf_counter()
    reader = envlogger.Reader(path)
    count = len(reader.steps)
    opened = time.perf_counter() - begin
    chosen = range(count)
    if order == "random":
        chosen = np.random.default_rng(0).integers(count, size=count).tolist()
    steps = reader.steps
    begin, cpu = time.perf_counter(), time.process_time()
    for i in chosen[:most]:
        steps[i]
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    return {
        "open_s": opened,
        "wall_s": wall,
        "cpu_s": cpu,
        "steps": min(count, most),
        "hash": _hash(steps[i] for i in range(0, count, count // 50 + 1)),
    }


def _hash(steps: Any) -> str:
    """Returns a hash of what steps hold."""
    digest = hashlib.sha256()
    for step in steps:
        observation = step.timestep.observation
        leaves = observation.values() if isinstance(observation, dict) else [observation]
        for leaf in sorted(np.asarray(leaf).tobytes() for leaf in leaves):
            digest.update(leaf)
        rest = (step.timestep.reward, step.timestep.discount, step.action, step.custom_data)
        for value in rest:
            digest.update(b"None" if value is None else np.asarray(value).tobytes())
    return digest.hexdigest()


def main() -> None:
    """Does what argv says."""
    request = json.loads(sys.argv[1])
    result = {"record": record, "read": read}[request.pop("call")](**request)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

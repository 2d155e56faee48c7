# SPDX-License-Identifier: Apache-2.0
"""What converting logs of EnvLogger 1.x costs.

    python -m benchmarks.converting

EnvLogger 1.2 records the logs, in an environment of its own; `pip install 'envlogger[riegeli]'` is needed.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time

import envlogger
from benchmarks import installs, report, riegeli_reading

_PEER = "envlogger-1.2"
_STEPS = {"catch": 200_000, "atari": 4_000}


def main() -> None:
    """Records, converts with 1 and 2 workers, and prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.converting", description=main.__doc__
    )
    parser.add_argument("--only", nargs="+", choices=_STEPS, default=list(_STEPS))
    arguments = parser.parse_args()
    installs.ensure(_PEER)
    rows = []
    for name in arguments.only:
        with tempfile.TemporaryDirectory() as directory:
            log = os.path.join(directory, "log")
            os.mkdir(log)
            riegeli_reading.call(_PEER, "record", name, log, _STEPS[name], None)
            for workers in (1, 2):
                target = os.path.join(directory, str(workers), "1.0.0")
                before, cpu = time.perf_counter(), _cpu_seconds()
                done = envlogger.convert(log, target, workers=workers)
                seconds, cpu = time.perf_counter() - before, _cpu_seconds() - cpu
                rows.append(
                    [
                        name if workers == 1 else "",
                        str(workers),
                        report.number(done.num_episodes / seconds),
                        f"{_STEPS[name] / seconds:,.0f}",
                        report.number(cpu / _STEPS[name] * 1e6),
                    ]
                )
    headers = ("log", "workers", "episodes/s", "steps/s", "CPU per step, µs")
    print(report.table(headers, rows))


def _cpu_seconds() -> float:
    """Returns the CPU time of this process and of those that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    main()

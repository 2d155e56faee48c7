# SPDX-License-Identifier: Apache-2.0
"""What reading logs of EnvLogger 1.x costs: ours against EnvLogger 1.2's own C++ reader.

    python -m benchmarks.riegeli_reading

EnvLogger 1.2 records a few logs with its defaults (and two with other options); then both read them, in
turn, each time in a new process, from the page cache. Runs in the Python that it is called with, which
needs `pip install 'envlogger[riegeli]'`; EnvLogger 1.2 gets an environment of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import tqdm

from benchmarks import installs, machine, report

_RESULTS = Path(__file__).resolve().parent / "results"
_PEER = "envlogger-1.2"
_QUICKER = 10
_ORDERS = ("sequential", "random")


@dataclasses.dataclass(frozen=True)
class Log:
    """A log to record.

    Attributes:
      workload: One of `workloads`.
      steps: How many; the larger logs do not fit into our cache of chunks.
      random: How many of them are read in random order.
      options: Of the Riegeli writer; None for EnvLogger's: transpose,brotli:6,chunk_size:1M.
    """

    workload: str
    steps: int
    random: int
    options: str | None = None


_LOGS = {
    "catch": Log("catch", 200_000, 5_000),
    "control": Log("control", 100_000, 5_000),
    "atari": Log("atari", 4_000, 1_000),
    "robot": Log("robot", 400, 100),
    "catch, zstd, not transposed": Log("catch", 200_000, 5_000, "zstd:3,chunk_size:1M"),
    "atari, zstd": Log("atari", 4_000, 1_000, "transpose,zstd:3,chunk_size:1M"),
}


def main() -> None:
    """Records, reads, and saves and prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.riegeli_reading", description=main.__doc__
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the steps")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=_LOGS, default=list(_LOGS))
    parser.add_argument("--directory", help="where to record; the system's temporary directory")
    parser.add_argument("--output", type=Path, default=_RESULTS, help="where results are saved")
    arguments = parser.parse_args()
    installs.ensure(_PEER)
    document: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "quick": arguments.quick,
        "machine": machine.describe(arguments.directory or tempfile.gettempdir()),
        "versions": {
            "python": platform.python_version(),
            **{
                name: metadata.version(name) for name in ("numpy", "brotli", "cramjam", "zstandard")
            },
        },
        "results": {},
    }
    for name in tqdm.tqdm(arguments.only, unit="log"):
        log = _LOGS[name]
        smaller = _QUICKER if arguments.quick else 1
        with tempfile.TemporaryDirectory(dir=arguments.directory) as path:
            call(_PEER, "record", log.workload, path, log.steps // smaller, log.options)
            size = sum(file.stat().st_size for file in Path(path).rglob("*.riegeli"))
            document["results"][name] = {
                "bytes": size,
                "steps": log.steps // smaller,
                **_measure(path, log, smaller, arguments.repetitions),
            }
    text = _markdown(document)
    arguments.output.mkdir(parents=True, exist_ok=True)
    stem = arguments.output / f"{document['date']}-riegeli-reading"
    stem.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    stem.with_suffix(".md").write_text(text)
    print(text)


def _measure(path: str, log: Log, smaller: int, repetitions: int) -> dict[str, Any]:
    """Returns medians by order and reader."""
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _ in range(repetitions):
        for order in _ORDERS:
            most = (log.steps if order == "sequential" else log.random) // smaller
            for reader in (_PEER, "ours"):
                runs.setdefault((order, reader), []).append(call(reader, "read", path, order, most))
    hashes = {run["hash"] for found in runs.values() for run in found}
    if len(hashes) != 1:
        raise SystemExit(f"{log}: the readers gave different steps.")
    return {
        order: {
            reader: {
                key: statistics.median(run[key] for run in runs[order, reader])
                for key in ("open_s", "wall_s", "cpu_s", "steps")
            }
            for reader in (_PEER, "ours")
        }
        for order in _ORDERS
    }


def call(reader: str, function: str, *values: Any) -> Any:
    """Returns what a function of `riegeli_worker` returns, called where a reader is installed."""
    names = {"record": ("workload", "path", "steps", "options"), "read": ("path", "order", "most")}
    request = json.dumps({"call": function, **dict(zip(names[function], values, strict=True))})
    if reader == _PEER:
        command, variables = (
            installs.command(_PEER, "riegeli_worker", request),
            installs.variables(_PEER),
        )
    else:
        command, variables = [sys.executable, "-m", "benchmarks.riegeli_worker", request], None
    done = subprocess.run(command, env=variables, cwd=installs.ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{reader} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _markdown(document: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    headers = ("log", "read", "steps", "EnvLogger 1.2, µs", "ours, µs", "x", "x of CPU")
    rows = []
    for name, result in document["results"].items():
        for order in _ORDERS:
            peer, ours = result[order][_PEER], result[order]["ours"]
            rows.append(
                [
                    f"{name} ({result['bytes'] / 1e6:.1f} MB)" if order == "sequential" else "",
                    order,
                    f"{ours['steps']:,.0f}",
                    report.number(peer["wall_s"] / peer["steps"] * 1e6),
                    report.number(ours["wall_s"] / ours["steps"] * 1e6),
                    report.number(peer["wall_s"] / ours["wall_s"]),
                    report.number(peer["cpu_s"] / ours["cpu_s"]),
                ]
            )
    return (
        "\n\n".join(
            [
                f"# Reading logs of EnvLogger 1.x, {document['date']}",
                f"{report.machine_line(document['machine'])} {versions}.",
                *(["**A quick run.**"] * document["quick"]),
                report.table(headers, rows),
                "µs for each step, medians of processes that took turns; *x* is how many times faster than "
                "EnvLogger 1.2's C++ reader ours is. *sequential*: all steps in order, each once; *random*: "
                "any step, with equal probability. Both gave the same steps.",
            ]
        )
        + "\n"
    )


if __name__ == "__main__":
    main()

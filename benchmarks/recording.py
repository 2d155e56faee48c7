# SPDX-License-Identifier: Apache-2.0
"""The command: installs the peers, does the runs, saves and prints the table and the picture."""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import installs, machine, plan, report

_RESULTS = Path(__file__).resolve().parent / "results"
_REPETITIONS = 3


def main() -> None:
    """Runs the command line."""
    arguments = _parse()
    installs.run_inside("report", "recording")
    import tqdm

    from benchmarks import plots, results

    for name in dict.fromkeys(plan.PEERS[peer][0] for peer in arguments.peers):
        installs.ensure(name)
    document: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "quick": arguments.quick,
        "machine": machine.describe(arguments.directory or tempfile.gettempdir()),
    }
    repetitions = arguments.repetitions or (1 if arguments.quick else _REPETITIONS)
    runs = list(
        plan.runs(arguments.only, arguments.peers, arguments.regime, repetitions, arguments.quick)
    )
    done, failures = [], []
    with tqdm.tqdm(runs, unit="run", dynamic_ncols=True) as bar:
        for run in bar:
            bar.set_postfix_str(f"{run.regime} {run.workload} {run.peer}")
            try:
                done.append((run, results.do(run, arguments.directory)))
            except RuntimeError as e:
                failures.append(f"{run.regime} {run.workload} {run.peer}")
                bar.write(str(e))
    document["results"] = results.collect(done)
    document["failures"] = failures
    document["runs"] = [
        {"peer": r.peer, "workload": r.workload, "regime": r.regime, "seed": r.seed, **measured}
        for r, measured in done
    ]
    _save(document, arguments.output, plots)
    if failures:
        raise SystemExit(f"{len(failures)} of {len(runs)} runs failed: {', '.join(failures)}.")


def _save(document: dict[str, Any], output: Path, plots: Any) -> None:
    output.mkdir(parents=True, exist_ok=True)
    stem = output / f"{document['date']}-recording"
    text = report.markdown(document)
    stem.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    stem.with_suffix(".md").write_text(text)
    subtitle = f"{document['machine']['cpu']}, {document['machine']['cores']} cores"
    has_picture = plots.percentiles(document["results"], stem.with_suffix(".png"), subtitle)
    print(text)
    kinds = ("json", "md", "png") if has_picture else ("json", "md")
    print("Saved as", ", ".join(f"{stem}.{kind}" for kind in kinds))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=plan.WORKLOADS,
        default=list(plan.WORKLOADS),
    )
    parser.add_argument("--peers", nargs="+", choices=plan.PEERS)
    parser.add_argument("--regime", nargs="+", choices=plan.REGIMES, default=list(plan.REGIMES))
    parser.add_argument("--quick", action="store_true", help="one short repetition of each run")
    parser.add_argument("--repetitions", type=int, help=f"of each run; {_REPETITIONS}")
    parser.add_argument("--directory", help="where to record; the system's temporary directory")
    parser.add_argument("--output", type=Path, default=_RESULTS, help="where results are saved")
    arguments = parser.parse_args()
    arguments.peers = arguments.peers or (plan.QUICK_PEERS if arguments.quick else [*plan.PEERS])
    return arguments

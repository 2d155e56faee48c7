# SPDX-License-Identifier: Apache-2.0
"""The results as Markdown whose columns are aligned in plain text, too."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

from benchmarks import plan, targets

_HEADERS = (
    "workload",
    "peer",
    "steps",
    "mean",
    "p50",
    "p99",
    "p99.9",
    "max",
    "CPU",
    "steps/s",
    "loop only",
    "start-up",
    "close",
    "env MB",
    "all MB",
    "B/step",
    "x mean",
    "x p99.9",
    "x CPU",
    "x rate",
)
_EXPLANATION = """\
Times are in µs per step, start-up and close() in s; medians over repetitions, the peers in turn.

- *mean*, *p50* … *max*: time added to the environment's loop by a call of `step()` or `reset()`: what
  the call took, less the environment's own part. From the mean, what the same loop takes without the
  logger (the rows *no logger*) is subtracted too. 100 steps an episode (humanoid 1000, Catch 10).
- *CPU*: of all processes that recording started or used, from opening the logger until the last of
  them has ended, less that of the environment and of the loop itself.
- *steps/s*: steps by the time of the loop **and** of `close()`, after which all is on disk (nothing
  is synced but what the library syncs itself) and published; *loop only* leaves `close()` out.
- *start-up*: import, opening the logger and the first `reset()`.
- *env MB*: peak resident memory of the environment's process, with the pool of prepared values;
  *all MB*: largest sum of proportional sizes seen over all processes (saturated only).
- *x …*: how many times better than EnvLogger 1.2.
- *paced*: in each step the environment itself is busy for {busy}.
- *saturated*: the environment costs nothing; runs are long enough to take about the same time with
  each peer. The first fifth of the steps, 20,000 at most, is timed one by one; *steps/s* is of the others,
  which no clock slows down. *real*: the environment takes what it takes, measured inside.
- Not the same for all: TFDS and RLDS get float64 as plain tensors, which TFDS narrows to float32, and
  images as PNG; Minari's images are JPEG, with loss. All else is stored exactly.
"""


def markdown(document: dict[str, Any]) -> str:
    """Returns the whole report of `document`, which `recording` also saves as JSON."""
    rows = document["results"]
    busy = ", ".join(
        f"{us} µs ({name})" if us < 1000 else f"{us // 1000} ms ({name})"
        for name, us in plan.BUSY_US.items()
    )
    parts = [
        f"# Recording, {document['date']}",
        machine_line(document["machine"]),
        *(["**A quick run: too short for the rare and the slow.**"] if document["quick"] else []),
        "## To reach, against EnvLogger 1.2 (Riegeli)",
        targets_table(rows),
        "## Measured",
        *(
            f"### {regime.capitalize()}\n\n{_measured(rows, regime)}"
            for regime in plan.REGIMES
            if _rows(rows, regime)
        ),
        *_sleeping(rows),
        _EXPLANATION.format(busy=busy),
        "Left out: "
        + "; ".join(
            f"{plan.PEERS[peer][1]} on {name} ({why})"
            for (peer, name), why in plan.SKIPPED.items()
            if peer != "ours-png"
        )
        + "; png where no image has 1 or 3 channels, as it is the same as raw there.",
        *(f"Failed: {line}" for line in document["failures"]),
        "## Versions",
        table(("peer", "versions"), _versions(rows)),
    ]
    return "\n\n".join(parts) + "\n"


def targets_table(rows: list[dict[str, Any]]) -> str:
    """Returns the targets, reached and to reach, one line for each name."""
    lines: dict[str, dict[str, str]] = {}
    for target in targets.check(rows):
        mark = {True: "✓", False: "✗", None: " "}[target.is_met]
        lines.setdefault(target.name, {})[target.workload] = (
            f"{mark} {target.reached} ({target.bound})"
        )
    columns = ("catch", "control", "atari", "robot", "humanoid")
    return table(
        ("", *columns),
        [[name, *(cells.get(column, "") for column in columns)] for name, cells in lines.items()],
    )


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table with aligned columns, numbers to the right."""
    widths = [max(_width(str(row[i])) for row in [headers, *rows]) for i in range(len(headers))]
    right = [i > 1 and all(_is_number(row[i]) for row in rows) for i in range(len(headers))]
    lines = ["| " + " | ".join(map(_pad, headers, widths, right)) + " |"]
    lines += [
        "|"
        + "|".join(
            f"{'-' * (w + 1)}{':' if r else '-'}" for w, r in zip(widths, right, strict=True)
        )
        + "|"
    ]
    lines += ["| " + " | ".join(map(_pad, map(str, row), widths, right)) + " |" for row in rows]
    return "\n".join(lines)


def number(value: float | None) -> str:
    """Returns three digits: 0.123, 12.3, 1,230."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{1 if abs(value) >= 10 else 2}f}"


def machine_line(machine: dict[str, Any]) -> str:
    """Returns the machine in a sentence."""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, "
        f"{machine['system']}, Linux {machine['kernel']}, {machine['file_system']}; load when it "
        f"began {machine['load_average_at_start']:.1f}."
    )


def _rows(rows: list[dict[str, Any]], regime: str) -> list[dict[str, Any]]:
    return [r for r in rows if r["regime"] == regime and r["workload"] != "catch-100hz"]


def _measured(rows: list[dict[str, Any]], regime: str) -> str:
    lines = []
    before = None
    for row in _rows(rows, regime):
        group = [r for r in _rows(rows, regime) if r["workload"] == row["workload"]]
        if row["workload"] != before:
            lines.append(_bare_line(row["workload"], group))
        before = row["workload"]
        reference = next((r for r in group if r["peer"] == plan.REFERENCE), None)
        lines.append(_line(row, reference))
    return table(_HEADERS, lines)


def _bare_line(workload: str, group: list[dict[str, Any]]) -> list[str]:
    bare = next((r for r in group if r["peer"] == plan.REFERENCE), group[0])["baseline"]
    percentiles = [number(bare["added"]["percentiles"][p]) for p in ("50", "99", "99.9", "100")]
    line = [workload, "*no logger*", "", number(bare["added"]["mean"]), *percentiles]
    return line + ["-"] * (len(_HEADERS) - len(line))


def _line(row: dict[str, Any], reference: dict[str, Any] | None) -> list[str]:
    percentiles = row["added"]["percentiles"]
    return [
        row["workload"],
        plan.PEERS[row["peer"]][1],
        f"{row['steps']:,.0f}",
        number(row["mean_added_us"]),
        *(number(percentiles[p]) for p in ("50", "99", "99.9", "100")),
        number(row["cpu_per_step_us"]),
        number(row["steps_per_s"]),
        number(row["loop_steps_per_s"]),
        number(row["start_up_s"]),
        number(row["close_s"]),
        number(row["peak_memory_mb"]),
        number(row["peak_memory_all_mb"] or None),
        number(row["disk_bytes_per_step"]),
        *(number(targets.ratio(row, reference, n)) for n in ("mean", "p99.9", "cpu", "rate")),
    ]


def _sleeping(rows: list[dict[str, Any]]) -> list[str]:
    """Returns the table of the original README: Catch, sleeping for 10 ms in each step."""
    lines = []
    for row in (r for r in rows if r["workload"] == "catch-100hz"):
        label = plan.PEERS[row["peer"]][1]
        for name, times in ((f"without {label}", row["baseline"]["step"]), (label, row["step"])):
            values = (times["percentiles"][p] / 1e3 for p in ("50", "95", "99", "99.9"))
            mean = f"{times['mean'] / 1e3:.2f} (± {times['std'] / 1e3:.2f})"
            lines.append([name, "", *(f"{v:.2f}" for v in values), mean])
    if not lines:
        return []
    headers = ("Catch at 100 steps per second", "", "p50", "p95", "p99", "p99.9", "mean (± std)")
    return [f"### Time of a step of real Catch, ms\n\n{table(headers, lines)}"]


def _versions(rows: list[dict[str, Any]]) -> list[list[str]]:
    found = {plan.PEERS[row["peer"]][0]: row["versions"] for row in rows}
    return [[peer, ", ".join(f"{k} {v}" for k, v in vs.items())] for peer, vs in found.items()]


def _is_number(text: str) -> bool:
    return text in ("", "-") or text.replace(",", "").replace(".", "").lstrip("-").isdigit()


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _pad(text: str, width: int, right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space

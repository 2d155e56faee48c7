# SPDX-License-Identifier: Apache-2.0
"""The picture: percentiles of the time added per step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import pyplot as plt

from benchmarks import measure, plan

_STYLES = {
    "ours-raw": ("#0b6e4f", 2.6, "-"),
    "ours-png": ("#5fb592", 2.2, "-"),
    "envlogger-1.2": ("#c1292e", 2.2, "-"),
    "tfds": ("#e08e0b", 1.5, "-"),
    "rlds": ("#7b5ea7", 1.5, (0, (5, 2))),
    "minari": ("#3d7ab8", 1.5, "-"),
}
_BARE = ("#888888", 1.2, ":")
_TICKS = (50, 90, 99, 99.9, 99.99)
_TITLES = {
    "catch": "catch: (10, 5) float32",
    "control": "control: 57 float64, 21 actions",
    "atari": "atari: 84x84x4 uint8",
    "robot": "robot: 256²x3 and 128²x3 uint8",
    "humanoid": "dm_control humanoid-walk (real)",
}
_FLOOR_US = 0.1


def percentiles(rows: list[dict[str, Any]], path: Path, subtitle: str) -> bool:
    """Draws the paced workloads and humanoid into `path`; returns whether there was any."""
    matplotlib.use("Agg")
    shown = [name for name in _TITLES if any(_is_shown(row, name) for row in rows)]
    if not shown:
        return False
    columns = min(len(shown), 3)
    lines = -(-len(shown) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(5.2 * columns, 4.1 * lines), squeeze=False, layout="constrained"
    )
    handles: dict[str, Any] = {}
    for name, axis in zip(shown, axes.flat, strict=False):
        handles |= _panel(axis, name, [row for row in rows if _is_shown(row, name)])
    spare = axes.flat[len(shown) :]
    for axis in spare:
        axis.axis("off")
    order = ["no logger", *(label for _, label in plan.PEERS.values())]
    labels = [label for label in order if label in handles]
    if len(spare):
        spare[0].legend([handles[x] for x in labels], labels, loc="center", fontsize=12)
    else:
        figure.legend(
            [handles[x] for x in labels], labels, loc="outside lower center", ncols=4, fontsize=10
        )
    figure.suptitle(f"Time that recording adds to a step of the environment\n{subtitle}")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return True


def _is_shown(row: dict[str, Any], name: str) -> bool:
    return row["workload"] == name and row["regime"] in ("paced", "real")


def _panel(axis: Any, name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Draws one workload; returns the lines by label."""
    lines = {}
    bare = next((row for row in rows if row["peer"] == plan.REFERENCE), rows[0])
    curves = [("no logger", bare["baseline"]["added"], _BARE, bare["steps"] / 5)]
    curves += [
        (plan.PEERS[row["peer"]][1], row["added"], _STYLES[row["peer"]], row["steps"])
        for row in rows
    ]
    for label, summary, (color, width, dashes), steps in curves:
        # Beyond this there are too few samples, so that it is the maximum in other words.
        known = [p for p in measure.PERCENTILES if p < 100 and steps * (1 - p / 100) >= 1]
        values = [max(summary["percentiles"][f"{p:g}"], _FLOOR_US) for p in known]
        (lines[label],) = axis.plot(
            _place(known), values, color=color, linewidth=width, linestyle=dashes
        )
    axis.set_yscale("log")
    axis.set_title(_TITLES[name], fontsize=12)
    axis.set_xticks(_place(_TICKS), [f"p{tick:g}" for tick in _TICKS])
    axis.set_xlim(_place([10])[0], _place([99.99])[0])
    axis.yaxis.set_major_formatter(_time)
    axis.grid(which="major", color="#dddddd")
    axis.spines[["top", "right"]].set_visible(False)
    return lines


def _place(values: Any) -> list[float]:
    """Returns where percentiles are put, so that each further nine takes the same room."""
    return [float(-np.log10(1 - p / 100)) for p in values]


def _time(microseconds: float, _: Any) -> str:
    for unit, factor in (("s", 1e6), ("ms", 1e3), ("µs", 1.0)):
        if microseconds >= factor:
            return f"{microseconds / factor:g} {unit}"
    return f"{microseconds * 1e3:g} ns"

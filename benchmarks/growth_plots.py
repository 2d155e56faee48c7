# SPDX-License-Identifier: Apache-2.0
"""The picture of `benchmarks.growth`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot as plt

_COLORS = ("#0b6e4f", "#c1292e", "#3d7ab8")


def draw(document: dict[str, Any], path: Path) -> None:
    """Draws a row of panels for each curve, and the sessions at the end."""
    matplotlib.use("Agg")
    curves = document["curves"]
    figure, axes = plt.subplots(
        len(curves) + 1, 3, figsize=(15, 3.4 * (len(curves) + 1)), layout="constrained"
    )
    for line, (name, points) in zip(axes, curves.items(), strict=False):
        steps = [point["steps"] / 1e3 for point in points]
        line[0].set_yscale("log")
        for axis, title, series in (
            (line[0], "µs per step", {"mean": "mean_us", "p99.9": "p99_9_us"}),
            (
                line[1],
                "resident MB",
                {"environment's process": "memory_mb", "all processes": "memory_all_mb"},
            ),
            (line[2], "µs of CPU per step, other processes", {"": "helper_us_per_step"}),
        ):
            for color, (label, key) in zip(_COLORS, series.items(), strict=False):
                axis.plot(steps, [point[key] for point in points], color=color, label=label)
            _finish(axis, f"{name}: {title}", "thousand steps", has_legend=len(series) > 1)
    _publishing(axes[-1][0], curves)
    sessions = document["sessions"]
    episodes = [point["episodes"] / 1e3 for point in sessions]
    for axis, key, title in zip(
        axes[-1][1:], ("open_ms", "close_ms"), ("ms to open", "ms to close"), strict=True
    ):
        axis.plot(episodes, [p[key] for p in sessions], color=_COLORS[0], marker="o")
        _finish(axis, f"a session of one episode: {title}", "thousand episodes before")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _publishing(axis: Any, curves: dict[str, Any]) -> None:
    for color, (name, points) in zip(_COLORS, curves.items(), strict=False):
        behind = [p["episodes"] - p["published"] for p in points]
        axis.plot([p["steps"] / 1e3 for p in points], behind, color=color, label=name)
    _finish(axis, "episodes finished, but not yet published", "thousand steps")
    axis.legend(frameon=False, fontsize=9)


def _finish(axis: Any, title: str, label: str, *, has_legend: bool = False) -> None:
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(label)
    axis.set_ylim(bottom=None if axis.get_yscale() == "log" else 0)
    axis.grid(color="#dddddd")
    axis.spines[["top", "right"]].set_visible(False)
    if has_legend:
        axis.legend(frameon=False, fontsize=9)

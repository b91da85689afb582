"""Results as a picture: seconds of each tool, a small chart a job."""

from __future__ import annotations

from math import isnan
from pathlib import Path

import matplotlib as mpl

from benchmarks.table import Results, middle

COLUMNS = 3


def plot(results: Results, path: Path) -> None:
    """
    Draw horizontal bars of the medians, our own row in another colour; failed rows are left out.

    Parameters
    ----------
    results
        Job -> row -> runs; nothing is drawn where it is empty.
    path
        PNG to write.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    if not results:
        return
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    lines = -(-len(results) // COLUMNS)
    figure, axes = plt.subplots(lines, COLUMNS, figsize=(6 * COLUMNS, 2.6 * lines), squeeze=False)
    for axis in axes.flat[len(results) :]:
        axis.set_axis_off()
    for axis, (job, rows) in zip(axes.flat, results.items(), strict=False):
        seconds = {name: middle(runs, "seconds") for name, runs in rows.items()}
        seconds = {name: value for name, value in seconds.items() if not isnan(value)}
        colours = ["tab:green" if name.startswith("daskraster") else "tab:grey" for name in seconds]
        bars = axis.barh(list(seconds), list(seconds.values()), color=colours)
        axis.bar_label(bars, fmt="%.2f", padding=2)
        axis.margins(x=0.15)
        axis.invert_yaxis()
        axis.set_title(job, loc="left", fontsize=10)
        axis.set_xlabel("seconds", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)

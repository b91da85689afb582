"""Results as a Markdown table, and what they were to show."""

from __future__ import annotations

from collections.abc import Iterable
from math import isnan
from statistics import median

from benchmarks.jobs import Goal
from benchmarks.measure import Measurement

type Results = dict[str, dict[str, list[Measurement]]]
"""Name of the job -> name of the row -> its runs."""

HEAD = "tool", "seconds", "ratio", "run", "ratio", "CPU s", "peak MB", "output MB"


def table(results: Results) -> str:
    """
    Lay out results.

    Parameters
    ----------
    results
        Ratios are to the first row of each job.

    Returns
    -------
    str
        Lines; a row with a failed run shows its reason instead of numbers. Raises nothing.
    """
    lines: list[tuple[str, ...]] = [HEAD, ("---", *["---:"] * (len(HEAD) - 1))]
    notes = []
    for job, rows in results.items():
        lines.append((f"**{job}**", *[""] * (len(HEAD) - 1)))
        first = next(iter(rows.values()))
        for name, runs in rows.items():
            if failed := [run.failed for run in runs if run.failed]:
                lines.append((name, "failed", *[""] * (len(HEAD) - 2)))
                notes.append(f"{job}, {name} failed: {failed[0]}")
            elif runs:
                lines.append((name, *_numbers(runs, first)))
    widths = [max(len(line[n]) for line in lines) for n in range(len(HEAD))]
    laid = [
        f"| {' | '.join(c.ljust(w) if not n else c.rjust(w) for n, (c, w) in enumerate(zip(line, widths, strict=True)))} |"
        for line in lines
    ]
    return "\n".join(laid + (["", *notes] if notes else []))


def _numbers(runs: list[Measurement], first: list[Measurement]) -> tuple[str, ...]:
    """One row: medians, and the worst memory, that of its own processes added; ratios to the first row."""
    peak, children = worst_peak(runs), max(run.children_peak_mb for run in runs)
    return (
        f"{middle(runs, 'seconds'):.2f}", _ratio(middle(runs, "seconds"), middle(first, "seconds")),
        f"{middle(runs, 'run_seconds'):.2f}", _ratio(middle(runs, "run_seconds"), middle(first, "run_seconds")),
        f"{middle(runs, 'cpu_seconds'):.2f}", f"{peak:.0f}" + (f" + {children:.0f}" if children else ""),
        f"{middle(runs, 'output_mb'):.1f}",
    )  # fmt: skip


def middle(runs: list[Measurement], key: str) -> float:
    """
    Median of one number of the runs that did not fail.

    Parameters
    ----------
    runs
        Of one row.
    key
        A field of `Measurement`.

    Returns
    -------
    float
        NaN where there is none. Raises nothing.
    """
    values = [getattr(run, key) for run in runs if not run.failed]
    return float(median(values)) if values else float("nan")


def worst_peak(runs: list[Measurement]) -> float:
    """Largest peak memory of the runs that did not fail, 10**6 bytes; NaN where there is none."""
    return max((run.peak_mb for run in runs if not run.failed), default=float("nan"))


def _ratio(value: float, reference: float) -> str:
    return f"{value / reference:.2f}" if reference and not isnan(value / reference) else ""


def goals_told(results: Results, goals: Iterable[Goal]) -> str:
    """
    What was to be shown and what came out.

    Parameters
    ----------
    results
        As in `table`.
    goals
        Those whose job or rows are not among the results are left out.

    Returns
    -------
    str
        A line a goal. Raises nothing.
    """
    lines = []
    for goal in goals:
        rows = results.get(goal.job, {})
        value = _number(rows.get(goal.row, []), goal)
        if goal.reference:
            reference = _number(rows.get(goal.reference, []), goal)
            value = (value - reference if goal.minus else value / reference if reference else float("nan")) / goal.per
        if isnan(value):
            continue
        reached = value >= goal.limit if goal.at_least else value <= goal.limit
        sign = "-" if goal.minus else "/"
        against = f" {sign} {goal.reference}" if goal.reference else ""
        of = {"seconds": "seconds", "run_seconds": "run", "peak_mb": "peak"}[goal.key]
        unit = (" ms a block" if goal.per != 1 else " s") if goal.minus else " MB" if goal.key == "peak_mb" else ""
        lines.append(
            f"- [{'x' if reached else ' '}] {goal.job}, {of}: {goal.row}{against} = {value:.2f}{unit} "
            f"({'at least' if goal.at_least else 'at most'} {goal.limit:g})"
        )
    return "\n".join(lines)


def _number(runs: list[Measurement], goal: Goal) -> float:
    return worst_peak(runs) if goal.key == "peak_mb" else middle(runs, goal.key)

"""A run as a timeline: one line a worker thread, one colour a stage."""

from __future__ import annotations

from typing import Any

from daskraster.errors import OptionError
from daskraster.pictures.canvas import BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, one_axes, pyplot
from daskraster.spans import Timeline

COLORS = {"read": BLUE, "function": ORANGE, "statistics": PURPLE, "overviews": SKY, "encode": GREEN, "write": VERMILION}
NAMED_LINES = 40  # more labels would lie on one another


def timeline(spans: Timeline, title: str, axes: Any | None = None) -> Any:
    """Draw spans; the Axes.

    Raises
    ------
    OptionError
        matplotlib is missing, or there are no spans.
    """
    pyplot()
    noted = list(spans)
    if not noted:
        raise OptionError(f"no timeline of {title}: no block was computed in this run")
    names = sorted({worker for worker, *_ in noted})
    lines = {worker: number for number, worker in enumerate(names)}
    start = min(begin for _, _, begin, _ in noted)
    axes = one_axes(axes, (9.0, min(1.8 + 0.3 * len(lines), 20.0)))
    # Longer ones first: a stage inside another one, as reading inside a function, lies on top of it.
    for order, stage in enumerate(sorted(COLORS, key=lambda one: -_longest(noted, one))):
        for worker, line in lines.items():
            bars = [(begin - start, end - begin) for who, what, begin, end in noted if (who, what) == (worker, stage)]
            axes.broken_barh(
                bars, (line - 0.4, 0.8), facecolors=COLORS[stage], edgecolors="none", zorder=2 + order / 10
            )
    _label(axes, names)
    thinned = f"; one block of {spans.every} drawn" if spans.every > 1 else ""
    hosts = {worker.split(":")[0] for worker in names}
    axes.set_xlabel(f"Seconds{', by the clock of each machine' if len(hosts) > 1 else ''}{thinned}")
    axes.set_xlim(0, max(end for *_, end in noted) - start)
    axes.set_title(title)
    _legend(axes, noted)
    return axes


def _longest(noted: list[tuple[str, str, float, float]], stage: str) -> float:
    return max((end - begin for _, what, begin, end in noted if what == stage), default=0.0)


def _label(axes: Any, names: list[str]) -> None:
    """Threads numbered within their process, processes named by host and id where there are several."""
    processes = [name.rsplit(":", 1)[0] for name in names]
    numbers = [processes[:place].count(process) + 1 for place, process in enumerate(processes)]
    several = len(set(processes)) > 1
    texts = [
        f"{process} / {number}" if several else f"thread {number}"
        for process, number in zip(processes, numbers, strict=True)
    ]
    step = -(-len(texts) // NAMED_LINES)
    axes.set_yticks(range(0, len(texts), step), labels=texts[::step])
    axes.set_ylim(len(texts) - 0.5, -0.5)
    axes.set_facecolor("none")


def _legend(axes: Any, noted: list[tuple[str, str, float, float]]) -> None:
    patch = pyplot().matplotlib.patches.Patch
    present = [stage for stage in COLORS if any(what == stage for _, what, _, _ in noted)]
    handles = [patch(facecolor=COLORS[stage], label=stage) for stage in present]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False)

"""What a check of an overlap found: the pattern of the seams, and where it was looked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from daskraster.errors import OptionError
from daskraster.grid import Window
from daskraster.pictures.canvas import pyplot


class Sample(Protocol):
    """A block that was computed twice."""

    @property
    def window(self) -> Window:
        """In pixels of the raster."""

    @property
    def differing(self) -> NDArray[np.bool_]:
        """``(y, x)``: where both differ."""


class Check(Protocol):
    """What was found."""

    @property
    def shape_yx(self) -> tuple[int, int]:
        """Of the raster."""

    @property
    def samples(self) -> Sequence[Sample]:
        """Blocks of one size."""

    @property
    def ok(self) -> bool:
        """Whether nothing differs."""

    @property
    def suggested(self) -> int | None:
        """The overlap that would do."""


def pattern(check: Check) -> NDArray[np.float64]:
    """``(y, x)``: in which share of the blocks each of their pixels differs."""
    mean: NDArray[np.float64] = np.mean([sample.differing for sample in check.samples], axis=0, dtype=np.float64)
    return mean


def seams(check: Check, axes: Sequence[Any] | None = None) -> tuple[Any, Any]:
    """Draw a check on two Axes, those given or new ones; see `OverlapCheck.plot`.

    Raises
    ------
    OptionError
        matplotlib is missing, or ``axes`` are not two.
    """
    plt = pyplot()
    if axes is None:
        _, axes = plt.subplots(1, 2, figsize=(10, 5), layout="constrained")
    given = list(np.ravel(np.asarray(axes, dtype=object)))
    if len(given) != 2:
        raise OptionError(f"axes= has {len(given)} Axes; the picture has two, the pattern and the places")
    left, right = given
    share = pattern(check)
    top = float(share.max()) or 1.0
    image = left.imshow(100 * share, cmap="viridis", vmin=0, vmax=100 * top, interpolation="nearest")
    left.figure.colorbar(image, ax=left, label="% of the blocks differ here", shrink=0.8)
    left.set(xlabel="Column in the block (pixels)", ylabel="Row in the block (pixels)", title=_verdict(check))
    _places(right, check)
    return left, right


def _places(axes: Any, check: Check) -> None:
    """The raster's outline with its blocks, those with differences filled."""
    patches = pyplot().matplotlib.patches
    rows, cols = check.shape_yx
    for sample in check.samples:
        window, wrong = sample.window, bool(sample.differing.any())
        color, style = ("#D55E00", "-") if wrong else ("#0072B2", "--")
        box = ((window.col_off, window.row_off), window.width, window.height)
        axes.add_patch(patches.Rectangle(*box, facecolor=color, alpha=0.45, edgecolor="none"))
        axes.add_patch(patches.Rectangle(*box, fill=False, edgecolor=color, linestyle=style))
        if wrong:
            middle = (window.col_off + window.width / 2, window.row_off + window.height / 2)
            axes.annotate(f"{sample.differing.mean():.1%}", middle, ha="center", va="center", fontsize="small")
    axes.set(xlim=(0, cols), ylim=(rows, 0), aspect="equal", facecolor="none")
    axes.set(xlabel="Column (pixels)", ylabel="Row (pixels)", title="Blocks compared, and what differs in each")
    axes.locator_params(axis="x", nbins=5)


def _verdict(check: Check) -> str:
    if check.ok:
        return "All equal: the overlap is wide enough"
    if check.suggested is None:
        return "Seams with any overlap:\nthe function looks at its whole block"
    return f"Seams; use overlap={check.suggested}"

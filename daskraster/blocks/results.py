"""What is known of a band at the end: its statistics, its histogram, and the metadata items that say so."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from daskraster.metadata import Number

LINEAR_BINS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Bins as GDAL's and KEA's metadata describe them."""

    minimum: Number
    """HISTOMIN: value of the first bin (direct), lower edge of the first bin (linear)."""
    maximum: Number
    """HISTOMAX: value of the last bin (direct), upper edge of the last bin, which belongs to it (linear)."""
    function: str
    """``direct``: bin i holds the value ``minimum + i``; ``linear``: bins of equal width from minimum to maximum."""
    counts: tuple[int, ...] = field(repr=False)
    """Valid, finite pixels of each bin."""

    def lower_edge(self, index: int) -> Fraction:
        """Value or lower edge of a bin, exact."""
        if self.function == "direct":
            return Fraction(self.minimum) + index
        return Fraction(self.minimum) + (Fraction(self.maximum) - Fraction(self.minimum)) * index / len(self.counts)

    @property
    def edges(self) -> tuple[float, ...]:
        """Edges of the bins, one more than there are bins; around whole values with ``direct``."""
        shift = Fraction(1, 2) if self.function == "direct" else 0
        return tuple(float(self.lower_edge(index) - shift) for index in range(len(self.counts) + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class BandStatistics:
    """Statistics of one band; all but the counts None where no pixel is valid and finite."""

    pixels: int
    """All pixels."""
    count: int
    """Pixels in the statistics: valid and finite."""
    infinities: int
    """Valid pixels left out because they are infinite."""
    minimum: Number | None = None
    """Exact; int for integer pixels."""
    maximum: Number | None = None
    """Exact; int for integer pixels."""
    mean: float | None = None
    """Of integers: the float nearest to the exact mean."""
    stddev: float | None = None
    """Of the population (divided by the count)."""
    median: Number | None = None
    """Value or lower edge of the first bin at which the cumulated count reaches half; rounded for integers."""
    mode: Number | None = None
    """Value or lower edge of the fullest bin (of several, the first); rounded for integers."""
    histogram: Histogram | None = None
    """See `PartialStatistics.finish` for its bins."""

    @property
    def valid_percent(self) -> float:
        """Share of valid pixels, infinities among them, 0 to 100; 0 without any pixel."""
        return 100.0 * (self.count + self.infinities) / self.pixels if self.pixels else 0.0


def metadata_items(statistics: BandStatistics) -> dict[str, str]:
    """The items that GDAL and QGIS read, exact: integers as they are, floats with all their digits. Empty where nothing is valid."""
    if statistics.count == 0:
        return {}
    percent = statistics.valid_percent
    # GDAL writes four digits; a raster with one hole must not read as whole, nor one with one pixel as empty.
    digits = f"{percent:.4g}" if percent in (0, 100) else f"{min(percent, 99.99):.4g}"
    return {
        "STATISTICS_MINIMUM": str(statistics.minimum),
        "STATISTICS_MAXIMUM": str(statistics.maximum),
        "STATISTICS_MEAN": str(statistics.mean),
        "STATISTICS_STDDEV": str(statistics.stddev),
        "STATISTICS_VALID_PERCENT": digits,
    }


def histogram_items(statistics: BandStatistics, nodata: Number | None) -> dict[str, str]:
    """The further items of RSGISLib and RIOS; the counts themselves go into the attribute table. Empty where nothing is valid."""
    histogram = statistics.histogram
    if histogram is None:
        return {}
    items = {
        "STATISTICS_MEDIAN": str(statistics.median),
        "STATISTICS_MODE": str(statistics.mode),
        "STATISTICS_HISTOMIN": str(histogram.minimum),
        "STATISTICS_HISTOMAX": str(histogram.maximum),
        "STATISTICS_HISTONUMBINS": str(len(histogram.counts)),
        "STATISTICS_HISTOBINFUNCTION": histogram.function,
    }
    if nodata is not None:
        items["STATISTICS_EXCLUDEDVALUES"] = str(nodata)
    return items

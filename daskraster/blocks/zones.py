"""Statistics of the pixels of each zone, from blocks, merged.

Strategy. The pixels of a block are summed up run by run - pixels of one zone side by side in a row - by `ufunc.reduceat`, and only the runs are
sorted by zone: no sort of pixels, no loop over zones.

Integers are summed exactly, in limbs of 16 bits that cannot overflow, and become Python integers: nothing is ever rounded, whatever the
order. Of floats each zone keeps count, mean (as two doubles) and the sum of squared deviations from it, merged as Chan, Golub and LeVeque
(1983) do; the second double keeps the digits that the mean loses over hundreds of blocks. Merged in the order of the blocks they give the same
digits on every engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskraster.metadata import Number

type Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ZoneStatistics:
    """What is known of some pixels of one band, zone by zone. Arrays of one length, never changed; picklable.

    Zones without a valid pixel have count 0; their minimum and maximum mean nothing.
    """

    zones: NDArray[Any]
    """Numbers of the zones, rising."""
    count: NDArray[np.int64]
    """Valid pixels."""
    minimum: NDArray[Any]
    maximum: NDArray[Any]
    mean: Floats | None
    """Of floats; with ``rest`` the mean in two doubles."""
    rest: Floats | None
    moments: Floats | None
    """Of floats: sum of squared deviations from the mean."""
    total: NDArray[Any] | None
    """Of integers: sum, Python integers."""
    squares: NDArray[Any] | None
    """Of integers: sum of squares, Python integers."""

    def merge(self, other: ZoneStatistics) -> ZoneStatistics:
        """These pixels and those of the other, of the same dtype and kind of zones."""
        zones = np.union1d(self.zones, other.zones)
        one, two = self._spread(zones), other._spread(zones)
        count = one.count + two.count
        lacks_one, lacks_two = one.count == 0, two.count == 0
        minimum = np.where(
            lacks_one, two.minimum, np.where(lacks_two, one.minimum, np.minimum(one.minimum, two.minimum))
        )
        maximum = np.where(
            lacks_one, two.maximum, np.where(lacks_two, one.maximum, np.maximum(one.maximum, two.maximum))
        )
        moved = _merged_moments(one, two, count) if one.mean is not None else (None, None, None)
        return ZoneStatistics(
            zones=zones,
            count=count,
            minimum=minimum,
            maximum=maximum,
            mean=moved[0],
            rest=moved[1],
            moments=moved[2],
            total=None if one.total is None or two.total is None else one.total + two.total,
            squares=None if one.squares is None or two.squares is None else one.squares + two.squares,
        )

    def renamed(self, names: NDArray[np.int64], count: int) -> ZoneStatistics:
        """The same with zone i called ``names[i]``, one of 0 to ``count`` - 1; those of one name are merged, all names are there."""
        order = np.argsort(names, kind="stable")
        current, names = self._part(order, names), names[order]
        while names.size:
            # Neighbours of one name are merged two by two, until there is one of each.
            place = np.arange(names.size) - np.searchsorted(names, names)
            if not place.any():
                break
            even = place % 2 == 0
            pairs = np.cumsum(even) - 1
            current = current._part(np.flatnonzero(even), pairs).merge(current._part(np.flatnonzero(~even), pairs))
            names = names[even]
        return current._part(np.arange(names.size), names)._spread(np.arange(count))

    def _part(self, rows: NDArray[np.int64], names: NDArray[np.int64]) -> ZoneStatistics:
        """Some rows under other names, which rise."""

        def part(values: NDArray[Any] | None) -> Any:
            return None if values is None else values[rows]

        return ZoneStatistics(
            zones=names[rows],
            count=self.count[rows],
            minimum=self.minimum[rows],
            maximum=self.maximum[rows],
            mean=part(self.mean),
            rest=part(self.rest),
            moments=part(self.moments),
            total=part(self.total),
            squares=part(self.squares),
        )

    def _spread(self, zones: NDArray[Any]) -> ZoneStatistics:
        """The same, with rows of nothing for zones that are not here."""
        if zones.size == self.zones.size:
            return self
        places = np.searchsorted(zones, self.zones)

        def spread(values: NDArray[Any] | None) -> Any:
            if values is None:
                return None
            wide = np.zeros(zones.size, values.dtype)
            wide[places] = values
            return wide

        return ZoneStatistics(
            zones=zones,
            count=spread(self.count),
            minimum=spread(self.minimum),
            maximum=spread(self.maximum),
            mean=spread(self.mean),
            rest=spread(self.rest),
            moments=spread(self.moments),
            total=spread(self.total),
            squares=spread(self.squares),
        )

    def finish(self) -> dict[str, NDArray[Any]]:
        """Columns count, min, max, mean, stddev (of the population) and sum.

        Integer minimum, maximum and sum are exact: int64, uint64 or Python integers; floats with NaN where a zone has no valid pixel.
        """
        has = self.count > 0
        mean, stddev = np.full(has.size, np.nan), np.full(has.size, np.nan)
        if self.total is not None and self.squares is not None:
            for row in np.flatnonzero(has):
                mean[row], stddev[row] = _exact_moments(int(self.count[row]), self.total[row], self.squares[row])
            total = _integers(self.total)
        else:
            assert self.mean is not None
            assert self.rest is not None
            assert self.moments is not None
            mean[has] = (self.mean + self.rest)[has]
            stddev[has] = np.sqrt(np.maximum(self.moments[has], 0) / self.count[has])
            total = self.mean * self.count + self.rest * self.count
        return {
            "count": self.count,
            "min": self.minimum if has.all() else np.where(has, self.minimum, np.nan),
            "max": self.maximum if has.all() else np.where(has, self.maximum, np.nan),
            "mean": mean,
            "stddev": stddev,
            "sum": total,
        }


def _exact_moments(count: int, total: int, squares: int) -> tuple[float, float]:
    """Mean and population standard deviation; the variance is a quotient of exact integers, rounded once."""
    return total / count, float(((count * squares - total * total) / (count * count)) ** 0.5)


def _integers(values: NDArray[Any]) -> NDArray[Any]:
    """Python integers as int64 or uint64 where all fit."""
    for dtype in (np.int64, np.uint64):
        limits = np.iinfo(dtype)
        if all(limits.min <= value <= limits.max for value in values):
            return values.astype(dtype)
    return values


def _merged_moments(
    one: ZoneStatistics, two: ZoneStatistics, count: NDArray[np.int64]
) -> tuple[Floats, Floats, Floats]:
    assert one.mean is not None
    assert one.rest is not None
    assert one.moments is not None
    assert two.mean is not None
    assert two.rest is not None
    assert two.moments is not None
    some = np.maximum(count, 1)
    difference = (two.mean - one.mean) + (two.rest - one.rest)
    share = two.count / some
    # What has no pixels must leave the other's digits alone.
    difference = np.where(one.count == 0, 0.0, difference)
    base = np.where(one.count == 0, two.mean, one.mean)
    rest = np.where(one.count == 0, two.rest, one.rest)
    mean, lost = _two_sum(base, difference * share)
    mean, rest = _two_sum(mean, lost + rest)
    moments = one.moments + two.moments + difference * difference * (one.count * share)
    return mean, rest, moments


def _two_sum(one: Floats, two: Floats) -> tuple[Floats, Floats]:
    """Sum and what it lost by rounding (Knuth)."""
    total = one + two
    part = total - one
    return total, (one - (total - part)) + (two - part)


def zone_statistics(
    values: NDArray[Any], zones: NDArray[Any], nodata: Number | None, no_zone: Number | None
) -> ZoneStatistics:
    """Statistics of one block of one band.

    Parameters
    ----------
    values
        ``(y, x)``, integer, bool or float.
    zones
        ``(y, x)``, integer.
    nodata
        Pixels of this value, and NaN and infinities, are left out; their zone is counted as there.
    no_zone
        Pixels of this zone are left out; None: none.
    """
    flat, zone = values.reshape(-1), zones.reshape(-1)
    inside = None if no_zone is None else zone != no_zone
    valid = np.isfinite(flat) if flat.dtype.kind == "f" else None
    if nodata is not None and not np.isnan(nodata):
        valid = flat != nodata if valid is None else valid & (flat != nodata)
    if inside is not None and not inside.all():
        flat, zone = flat[inside], zone[inside]
        valid = None if valid is None else valid[inside]
    present = _runs(zone)
    everything = np.unique(zone[present]) if zone.size else zone
    if valid is not None and not valid.all():
        flat, zone = flat[valid], zone[valid]
    if flat.dtype.kind == "b":
        flat = flat.view(np.uint8)
    found = _of_runs(flat, zone)
    return found._spread(everything)


def _runs(zone: NDArray[Any]) -> NDArray[np.int64]:
    """Where each run of one zone begins."""
    if not zone.size:
        return np.empty(0, np.int64)
    return np.concatenate(([0], np.flatnonzero(zone[1:] != zone[:-1]) + 1))


@dataclass(frozen=True, slots=True)
class _Reducer:
    """Sums up pixels by run, then runs by zone."""

    starts: NDArray[np.int64]
    order: NDArray[np.int64]
    first: NDArray[np.int64]

    def __call__(self, ufunc: np.ufunc, values: NDArray[Any]) -> NDArray[Any]:
        reduced: NDArray[Any] = ufunc.reduceat(ufunc.reduceat(values, self.starts)[self.order], self.first)
        return reduced


def _of_runs(values: NDArray[Any], zone: NDArray[Any]) -> ZoneStatistics:
    starts = _runs(zone)
    if not starts.size:
        return _nothing(values.dtype, zone.dtype)
    of_run = zone[starts]
    order = np.argsort(of_run, kind="stable")
    ordered = of_run[order]
    first = _runs(ordered)
    reduce = _Reducer(starts, order, first)
    lengths = np.diff(starts, append=zone.size)
    count = np.add.reduceat(lengths[order], first)
    minimum, maximum = reduce(np.minimum, values), reduce(np.maximum, values)
    mean = rest = moments = total = squares = None
    if values.dtype.kind == "f":
        places = np.repeat(np.searchsorted(ordered[first], of_run), lengths)
        mean, rest, moments = _float_moments(values, count, reduce, places)
    else:
        total, squares = _exact_sums(values, count, reduce)
    wide = np.float64 if values.dtype.kind == "f" else np.uint64 if values.dtype == np.uint64 else np.int64
    return ZoneStatistics(
        zones=ordered[first],
        count=count,
        minimum=minimum.astype(wide),
        maximum=maximum.astype(wide),
        mean=mean,
        rest=rest,
        moments=moments,
        total=total,
        squares=squares,
    )


def _nothing(dtype: np.dtype[Any], zone_dtype: np.dtype[Any]) -> ZoneStatistics:
    floats = np.empty(0) if dtype.kind == "f" else None
    integers = None if dtype.kind == "f" else np.empty(0, object)
    wide = np.float64 if dtype.kind == "f" else np.uint64 if dtype == np.uint64 else np.int64
    return ZoneStatistics(
        zones=np.empty(0, zone_dtype),
        count=np.empty(0, np.int64),
        minimum=np.empty(0, wide),
        maximum=np.empty(0, wide),
        mean=floats,
        rest=floats,
        moments=floats,
        total=integers,
        squares=integers,
    )


def _float_moments(
    values: NDArray[Any], count: NDArray[np.int64], reduce: _Reducer, places: NDArray[np.int64]
) -> tuple[Floats, Floats, Floats]:
    """Mean in two doubles, and squared deviations: from a first mean, then corrected for what it missed.

    ``places`` has the row of each pixel's zone.
    """
    wide = values.astype(np.float64)
    low, high = reduce(np.minimum, wide), reduce(np.maximum, wide)
    # A mean outside of what it is the mean of, by rounding or overflow, would spoil the deviations.
    with np.errstate(over="ignore", invalid="ignore"):
        centre = reduce(np.add, wide) / count
    centre = np.clip(np.nan_to_num(centre, nan=0.0), low, high)
    wide -= centre[places]
    off = reduce(np.add, wide) / count
    wide *= wide
    moments = reduce(np.add, wide) - count * off * off
    mean, rest = _two_sum(centre, off)
    return mean, rest, np.maximum(moments, 0.0)


def _exact_sums(values: NDArray[Any], count: NDArray[np.int64], reduce: _Reducer) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sums and sums of squares as Python integers: of distances from the block's minimum, in limbs of 16 bits.

    Products of limbs have 32 bits, so 2**31 of them add up below 2**63.
    """
    low, high = int(values.min()), int(values.max())
    # Modulo 2**64, so that no difference overflows.
    distance = values.astype(np.int64 if values.dtype.kind == "i" else np.uint64).view(np.uint64) - np.uint64(
        low % (1 << 64)
    )
    bits = max((high - low).bit_length(), 1)
    limbs = [((distance >> np.uint64(at)) & np.uint64(0xFFFF)).view(np.int64) for at in range(0, bits, 16)]
    total = np.zeros(count.size, object)
    squares = np.zeros(count.size, object)
    for place, limb in enumerate(limbs):
        total = total + reduce(np.add, limb).astype(object) * (1 << 16 * place)
        for other in range(place, len(limbs)):
            product = reduce(np.add, limb * limbs[other]).astype(object)
            squares = squares + product * (1 << 16 * (place + other) + (place != other))
    counts = count.astype(object)
    return total + counts * low, squares + total * (2 * low) + counts * (low * low)

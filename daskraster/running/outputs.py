"""One file to be: what it will say, in which blocks it is made, and the step that writes them.

Strategy. Every output is cut into blocks that begin where the file's tiles begin. One more Blockwise step turns a block into its receipt:
convert, count, halve, encode, write. dask fuses it with the steps before it, so that for file -> apply -> file there is one task a block and no
pixel leaves the thread that read it.
"""

from __future__ import annotations

import dataclasses
import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
from dask.delayed import Delayed

from daskraster.blocks.validity import Validity, validity
from daskraster.errors import OptionError
from daskraster.formats import choosing
from daskraster.formats.protocols import Sink
from daskraster.grid import round_up, split_axis
from daskraster.lazy.arrays import Raster, encoded_nodata, metadata_of
from daskraster.lazy.chunking import ChunksYX, auto_chunks, starts
from daskraster.lazy.neighbourhood import exchange
from daskraster.lazy.sources import source_array, sources_in
from daskraster.metadata import BandMetadata, Number, RasterMetadata
from daskraster.options import Inherit, WriteOptions
from daskraster.pixeltypes import check_nodata, pixel_type
from daskraster.running.blockwriting import WriteBlock
from daskraster.running.facts import options_in_words
from daskraster.running.failures import Place
from daskraster.running.provenance import provenance_tags, without_date
from daskraster.running.pyramid import BandRule, Pyramid, shared_level


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One file to be written."""

    sink: Sink
    data: da.Array
    """``(band, y, x)``, in blocks that begin where the file's tiles begin; with a halo where overviews look further."""
    chunks: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    """Of ``data`` without halo."""
    metadata: RasterMetadata
    statistics: bool
    """Whether statistics are wanted."""
    markers: tuple[Number | None, ...]
    """What invalid pixels of each band are as long as blocks are under way: nodata, but for files whose masks alone tell them."""
    validity: Validity | None
    """Which pixels are valid, where masks are wanted."""
    pyramid: Pyramid | None
    """The overviews, where there are any."""
    fills: tuple[Number | None, ...]
    """For each band what NaN becomes: the nodata value, in a file of integers, for an array that was opened masked, and where the value was asked for."""
    undated: Sink
    """As ``sink``, but that its header does not say when: the same for the same run on another day."""
    options: Mapping[str, Any]
    """What was asked for, in words."""

    @property
    def numblocks(self) -> tuple[int, int, int]:
        """Blocks along bands, rows and columns."""
        bands, rows, cols = map(len, self.chunks)
        return bands, rows, cols

    @property
    def place(self) -> Place:
        """What messages need to know of its blocks."""
        return Place(target=self.sink.target, chunks=self.chunks)


def planned(raster: Raster, path: Path, options: WriteOptions) -> Output:
    """An output with every wish checked; nothing is computed.

    Raises
    ------
    OptionError
        A wish that the format or the raster cannot meet.
    RasterWriteError
        The folder is missing or cannot be written to.
    """
    metadata = output_metadata(raster, options)
    if options.provenance:
        metadata = dataclasses.replace(metadata, tags={**metadata.tags, **provenance_tags(raster.data, options)})
    rule = _validity(raster, metadata) if options.mask else None
    markers = tuple(band.nodata for band in metadata.bands) if rule is None else rule.markers
    sink = choosing.sink(options.driver_for(path), path, metadata, options, rule)
    undated = sink
    if options.provenance:
        timeless = dataclasses.replace(metadata, tags=without_date(metadata.tags))
        undated = choosing.sink(options.driver_for(path), path, timeless, options, rule)
    data = aligned(raster, sink.block_multiple)
    pyramid = _pyramid(sink, metadata, markers, data, options)
    haloed = data if pyramid is None or not pyramid.halo else exchange(data, (pyramid.halo, pyramid.halo))
    fills = tuple(band.nodata for band in metadata.bands)
    if metadata.dtype.kind == "f" and encoded_nodata(raster.array) is None and isinstance(options.nodata, Inherit):
        fills = (None,) * len(fills)  # what the file held beside its nodata value is copied: NaN stays NaN
    return Output(
        sink=sink,
        data=haloed,
        chunks=(data.chunks[0], data.chunks[1], data.chunks[2]),
        metadata=metadata,
        statistics=options.statistics,
        markers=markers,
        validity=rule,
        pyramid=pyramid,
        fills=fills,
        undated=undated,
        options=options_in_words(options),
    )


def _validity(raster: Raster, metadata: RasterMetadata) -> Validity:
    """Which pixels the masks of an output call valid.

    Raises
    ------
    OptionError
        The pixels come from a file whose own mask they do not show.
    """
    for source in sources_in(raster.data):
        if choosing.hides_mask(source):
            raise OptionError(
                f"mask=True: {source.name} has a mask (or alpha) of its own, which pixels opened with masked=False do not show; "
                f"open it with open_raster(..., masked=True), and give dtype= of the file to keep its type"
            )
    return validity(
        raster.data.dtype,
        raster.nodata,
        metadata.dtype,
        [band.nodata for band in metadata.bands],
        encoded_nodata(raster.array),
    )


def _pyramid(
    sink: Sink,
    metadata: RasterMetadata,
    markers: tuple[Number | None, ...],
    data: da.Array,
    options: WriteOptions,
) -> Pyramid | None:
    """The overviews of an output; None where there are none.

    Raises
    ------
    OptionError
        Classes or a palette were to be averaged.
    """
    classes = [band.thematic or band.colormap is not None for band in metadata.bands]
    asked = options.overview_resampling
    if any(classes) and asked in ("average", "bilinear"):
        raise OptionError(
            f"overview_resampling={asked!r} would mix the classes or palette colours into ones that do not exist, in band "
            f"{classes.index(True) + 1}; give 'nearest' or 'mode', or thematic=False"
        )
    levels = tuple(sink.levels)
    if len(levels) == 1:
        return None
    rules = [
        BandRule(nodata=marker, resampling=asked or ("nearest" if of_classes else "average"))
        for marker, of_classes in zip(markers, classes, strict=True)
    ]
    shared = shared_level(levels, (starts(data.chunks[1]), starts(data.chunks[2])))
    if asked == "bilinear":
        # Neighbours are exchanged between adjacent blocks only, so no block may be smaller than the halo of 2**levels - 1.
        sizes = [min(axis) for axis in data.chunks[1:] if len(axis) > 1]
        shared = min([shared, *[(size + 1).bit_length() - 1 for size in sizes]])
    return Pyramid(levels=levels, rules=tuple(rules), partial_cells=sink.partial_cells, shared=shared)


def output_metadata(raster: Raster, options: WriteOptions) -> RasterMetadata:
    """What the file is to say: the array's own words, changed where an option says so.

    Raises
    ------
    OptionError
        A nodata value, name list or colour table that does not fit.
    """
    metadata = metadata_of(raster)
    pixel_type(metadata.dtype)  # what no file can hold is not converted behind the user's back
    dtype = pixel_type(options.dtype if options.dtype is not None else metadata.dtype)
    count = len(metadata.bands)
    if options.band_names is not None and len(options.band_names) != count:
        raise OptionError(f"band_names= has {len(options.band_names)} names for {count} bands")
    if options.colormap and dtype == np.uint8 and max(options.colormap) > 255:
        raise OptionError(f"colormap= has the pixel value {max(options.colormap)}, which uint8 cannot hold")
    if options.colormap is not None and (count != 1 or dtype not in (np.dtype(np.uint8), np.dtype(np.uint16))):
        raise OptionError(f"colormap= goes with one band of uint8 or uint16, not with {count} of {dtype}")
    bands = [_output_band(band, number, dtype, options) for number, band in enumerate(metadata.bands)]
    tags = {**metadata.tags, **{str(key): str(value) for key, value in (options.tags or {}).items()}}
    return dataclasses.replace(metadata, dtype=dtype, bands=bands, tags=tags)


def _output_band(band: BandMetadata, number: int, dtype: np.dtype[Any], options: WriteOptions) -> BandMetadata:
    nodata = band.nodata if isinstance(options.nodata, Inherit) else options.nodata
    colormap = options.colormap if options.colormap is not None else band.colormap
    if dtype not in (np.dtype(np.uint8), np.dtype(np.uint16)):
        colormap = None
    color = "palette" if colormap else None if band.color == "palette" else band.color
    return dataclasses.replace(
        band,
        nodata=check_nodata(nodata, dtype),
        name=options.band_names[number] if options.band_names is not None else band.name,
        colormap=colormap,
        color=color,
        categories=_categories(band, dtype, options),
        thematic=band.thematic if options.thematic is None else options.thematic,
    )


def _categories(band: BandMetadata, dtype: np.dtype[Any], options: WriteOptions) -> Mapping[int, str] | None:
    """Names of classes: those asked for, else the array's, where pixels are whole numbers."""
    if options.categories is not None:
        if dtype.kind == "f":
            raise OptionError(f"categories= goes with whole numbers, not with {dtype}")
        if options.categories and max(options.categories) > np.iinfo(dtype).max:
            raise OptionError(f"categories= has the pixel value {max(options.categories)}, which {dtype} cannot hold")
        return options.categories or None
    return band.categories if dtype.kind != "f" else None


def aligned(raster: Raster, multiple: tuple[int, int, int]) -> da.Array:
    """The raster's pixels in blocks that begin at multiples of the file's tiles.

    Blocks that do already are kept. A plain piece of a source is simply read in other blocks; anything else is re-chunked by dask, to
    the next multiple above its largest block.
    """
    data = raster.data
    chunks_yx = tuple(
        sizes
        if all(start % step == 0 for start in starts(sizes))
        else split_axis(sum(sizes), round_up(max(sizes), step))
        for sizes, step in zip(data.chunks[1:], multiple[1:], strict=True)
    )
    bands = data.chunks[0]
    if any(start % multiple[0] for start in starts(bands)):
        bands = split_axis(sum(bands), round_up(max(bands), multiple[0]))
    chunks = (bands, *chunks_yx)
    if chunks == data.chunks:
        return data
    if raster.view is not None:
        return source_array(raster.view, _source_chunks(raster, multiple))
    return data.rechunk(chunks)


def _source_chunks(raster: Raster, multiple: tuple[int, int, int]) -> ChunksYX:
    """Blocks for a plain piece of a source: multiples of the output's tiles, of the input's too where that makes them no giants."""
    assert raster.view is not None
    bands, rows, cols = raster.data.shape
    source = raster.view.source
    steps = [
        both if (both := math.lcm(tile, step)) <= 2 * max(tile, step) else step
        for tile, step in zip(source.tile_yx, multiple[1:], strict=True)
    ]
    if source.tile_yx[1] >= source.shape[2]:
        steps[1] = cols  # strips: each is decoded over its full width, however little of it is wanted
    return auto_chunks((bands, rows, cols), raster.data.dtype, (steps[0], steps[1]))


def receipts(output: Output, sink: Sink | Delayed) -> da.Array:
    """An array with one receipt a block; ``sink`` is started, or will be when its Delayed has run."""
    later = isinstance(sink, Delayed)
    step = WriteBlock(
        sink=None if later else sink,
        dtype=output.metadata.dtype,
        fills=output.fills,
        source_dtype=output.data.dtype,
        chunks=output.chunks,
        statistics=tuple(
            (marker, band.thematic) for marker, band in zip(output.markers, output.metadata.bands, strict=True)
        )
        if output.statistics
        else (),
        validity=output.validity,
        pyramid=output.pyramid,
    )
    return da.map_blocks(
        step,
        output.data,
        *([sink] if later else []),
        chunks=tuple((1,) * count for count in output.data.numblocks),
        dtype=object,
        meta=np.empty((0, 0, 0), dtype=object),
        # Never the same twice: a cluster must not take the receipt of an earlier run for this one's.
        name=f"write-{output.sink.target.name}-{uuid.uuid4().hex}",
    )

"""A plan as a piece of HTML for notebooks: its blocks over a quick look, one block with its halo, the memory.

::

    +-------------+   +-----------+
    | blocks over |   | one block |    numbers beside,
    | the quick   |   | its halo, |    memory below:
    | look        |   | the tiles |    [base|blocks|shared|    ]limit
    +-------------+   +-----------+
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from daskraster.errors import DaskRasterError
from daskraster.formats import choosing
from daskraster.formats.gdal import GdalSource
from daskraster.formats.kea_source import KeaSource
from daskraster.grid import Grid, Window
from daskraster.lazy.arrays import Raster, as_raster, metadata_of, new_array
from daskraster.lazy.chunking import ChunksYX, auto_chunks
from daskraster.lazy.sources import SourceView, source_array
from daskraster.metadata import BandMetadata, RasterMetadata
from daskraster.pictures.canvas import BLUE, GREEN, ORANGE, VERMILION
from daskraster.pictures.colouring import classified, composed, default_bands, is_classes, valid_pixels
from daskraster.pictures.drawing import lines, rectangle, svg, text, thinned_cuts, webp_uri
from daskraster.pictures.quicklook import Quicklook, quicklook

LOOK = 360  # pixels of the quick look and of its drawing
# Rows x columns read for a page that nobody asked for by name: 0.1 to 0.5 s.
LARGEST_LOOK = 1 << 24
BLOCK = 200  # pixels of the drawing of one block
TILE_STYLE = 'fill="none" stroke="currentColor" stroke-opacity="0.55" stroke-dasharray="2 2"'


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFacts:
    """What is drawn of a plan."""

    heading: str
    """Its first line."""
    details: tuple[tuple[str, str], ...]
    """Name and words of each further line."""
    chunks_yx: ChunksYX
    """Blocks."""
    halo_yx: tuple[int, int]
    """What they are read beyond their edges."""
    view: SourceView | None
    """What is looked at: pixels of the same rows and columns."""
    memory: tuple[tuple[str, int], ...]
    """Name and bytes of each part."""
    limit_nbytes: int
    """What the parts together may be."""


def page(facts: PlanFacts) -> str:
    """HTML of some tens of KB; reads the quick look now, where that is little work, else draws the blocks alone."""
    look, note = _look(facts.view)
    details = "".join(
        f'<div style="display:flex"><span style="flex:0 0 5.5em;opacity:0.7">{html.escape(name)}</span>'
        f"<span>{html.escape(words)}</span></div>"
        for name, words in (*facts.details, *([("picture", note)] if note else []))
    )
    return (
        '<div style="font-size:13px;line-height:1.45">'
        f'<div style="font-weight:600;margin-bottom:6px">{html.escape(facts.heading)}</div>'
        f'<div style="display:flex;flex-wrap:wrap;gap:20px;align-items:flex-start">{_raster(facts, look)}{_block(facts)}'
        f'<div style="max-width:46em">{details}<div style="margin-top:10px">{_memory(facts)}</div></div></div></div>'
    )


def _look(view: SourceView | None) -> tuple[NDArray[np.uint8] | None, str]:
    """The quick look ``(y, x, 4)``, or why there is none."""
    if view is None:
        return None, "the blocks alone: no file has these rows and columns"
    try:
        raster, described = _raster_of(view)
        bands = default_bands(described)
        return _colored(quicklook(raster, bands, LOOK, largest=LARGEST_LOOK), raster, described, bands), ""
    except (DaskRasterError, OSError) as error:
        reason = "overviews are missing" if isinstance(error, ValueError) else "it cannot be read"
        return None, f"the blocks alone: {view.source.name}, {reason}"


def _raster_of(view: SourceView) -> tuple[Raster, tuple[BandMetadata, ...]]:
    """A view as a raster that counts pixels, with what its file says of its bands."""
    source = view.source
    shape = (len(view.bands), *view.window.shape_yx)
    bands: tuple[BandMetadata, ...] = (BandMetadata(),) * len(view.bands)
    masked = isinstance(source, GdalSource | KeaSource) and source.mask_nodata is not None
    if isinstance(source, GdalSource | KeaSource):
        _, metadata, _ = choosing.describe(
            source.path, bands=view.bands, masked=masked, overview_level=source.overview_level
        )
        bands = tuple(metadata.bands)
    plain = RasterMetadata(
        grid=Grid(None, Affine.identity(), shape[1:]), dtype=source.dtype, bands=bands, has_transform=False
    )
    data = source_array(view, auto_chunks(shape, source.dtype, source.tile_yx))
    raster = as_raster(new_array(data, plain, masked=masked, bands=range(1, shape[0] + 1)))
    return raster, tuple(metadata_of(raster).bands)


def _colored(
    look: Quicklook, raster: Raster, described: tuple[BandMetadata, ...], bands: tuple[int, ...]
) -> NDArray[np.uint8]:
    nodata = [raster.nodata[band] for band in bands]
    if len(bands) == 1 and is_classes(described[bands[0]]):
        return classified(look.pixels[0], valid_pixels(look.pixels[0], nodata[0]), described[bands[0]]).rgba
    return composed(look.pixels, nodata, (2, 98))


def _raster(facts: PlanFacts, look: NDArray[np.uint8] | None) -> str:
    """The block grid over the quick look, one block in colour."""
    rows, cols = map(sum, facts.chunks_yx)
    scale = LOOK / max(rows, cols)
    width, height = max(cols * scale, 4), max(rows * scale, 4)
    (ys, down), (xs, across) = map(thinned_cuts, facts.chunks_yx)
    path = lines([x * scale for x in xs], [y * scale for y in ys], width, height)
    parts: list[str] = []
    if look is None:
        parts.append(f'<path d="{path}" fill="none" stroke="currentColor" stroke-opacity="0.5" stroke-width="0.8"/>')
    else:
        box = f'width="{width:.2f}" height="{height:.2f}" preserveAspectRatio="none"'
        parts.append(f'<image x="0" y="0" {box} href="{webp_uri(look)}"/>')
        # White with a dark edge: seen on every picture.
        parts += [
            f'<path d="{path}" fill="none" stroke="{color}" stroke-opacity="{opacity}" stroke-width="{stroke}"/>'
            for color, opacity, stroke in (("#000", 0.45, 2), ("#fff", 0.9, 0.8))
        ]
    block = _chosen(facts.chunks_yx)
    marked = f'fill="none" stroke="{VERMILION}" stroke-width="2.5"'
    parts.append(
        rectangle(block.col_off * scale, block.row_off * scale, block.width * scale, block.height * scale, marked)
    )
    parts.append(rectangle(0, 0, width, height, 'fill="none" stroke="currentColor"'))
    counts = f"{len(facts.chunks_yx[1])} x {len(facts.chunks_yx[0])} blocks over {cols} x {rows} pixels"
    thin = f"; one line drawn of {across} across, of {down} down" if across > 1 or down > 1 else ""
    parts.append(text(0, height + 16, counts + thin))
    return svg(max(width, LOOK), height + 22, counts, parts)


def _chosen(chunks_yx: ChunksYX) -> Window:
    """A block in the middle, which has neighbours on all sides where any has."""
    rows, cols = chunks_yx
    row, col = (len(rows) - 1) // 2, (len(cols) - 1) // 2
    return Window(sum(rows[:row]), sum(cols[:col]), rows[row], cols[col])


def _block(facts: PlanFacts) -> str:
    """One block with its halo, as it is cut out of the file's tiles; a narrow halo is drawn wider, and the words say so."""
    block = _chosen(facts.chunks_yx)
    scale = BLOCK / max(block.shape_yx)
    halos = [min(max(halo * scale, 6.0), 60.0) if halo else 0.0 for halo in facts.halo_yx]
    width, height = max(block.width * scale, 4), max(block.height * scale, 4)
    left, top = halos[1], halos[0]
    parts: list[str] = []
    words = [f"one block: {block.width} x {block.height}"]
    if facts.view is not None:
        tile = facts.view.source.tile_yx
        ys = _tile_cuts(block.row_off + facts.view.window.row_off, block.height, tile[0], scale)
        xs = _tile_cuts(block.col_off + facts.view.window.col_off, block.width, tile[1], scale)
        path = lines(xs, ys, width, height)
        parts.append(f'<path transform="translate({left:.2f} {top:.2f})" d="{path}" {TILE_STYLE}/>')
        cut = "dotted: the file's" if xs or ys else "not drawn: the file's"
        words.append(f"{cut} tiles, {tile[1]} x {tile[0]}")
    parts.append(rectangle(left, top, width, height, f'fill="none" stroke="{VERMILION}" stroke-width="2.5"'))
    if any(halos):
        style = f'fill="{BLUE}" fill-opacity="0.25" fill-rule="evenodd" stroke="{BLUE}" stroke-dasharray="5 3" stroke-width="1.5"'
        outer = f"M0 0H{width + 2 * left:.2f}V{height + 2 * top:.2f}H0Z"
        inner = f"M{left:.2f} {top:.2f}h{width:.2f}v{height:.2f}h{-width:.2f}Z"
        parts.insert(0, f'<path d="{outer}{inner}" {style}/>')
        exact = all(abs(drawn - halo * scale) < 0.5 for drawn, halo in zip(halos, facts.halo_yx, strict=True))
        rows, cols = facts.halo_yx
        words.append(f"blue: halo of {rows if rows == cols else f'{cols} x {rows}'}{'' if exact else ', not to scale'}")
    bottom = height + 2 * top
    parts += [text(0, bottom + 16 + 15 * number, line) for number, line in enumerate(words)]
    return svg(max(width + 2 * left, BLOCK), bottom + 8 + 15 * len(words), words[0], parts)


def _tile_cuts(start: int, length: int, tile: int, scale: float) -> list[float]:
    """Where tiles end within a block, in pixels of the drawing; none where they would be grey."""
    if tile * scale < 3:
        return []
    return [(cut - start) * scale for cut in range((start // tile + 1) * tile, start + length, tile)]


def _memory(facts: PlanFacts) -> str:
    """A bar of the parts against the limit, with numbers below."""
    total = sum(nbytes for _, nbytes in facts.memory)
    # A limit far away would leave the parts too thin to be seen: the bar then ends at four times their sum.
    whole = max(total, min(facts.limit_nbytes, 4 * total)) or 1
    width, x = 420.0, 0.0
    parts: list[str] = []
    for color, (_, nbytes) in zip((BLUE, ORANGE, GREEN), facts.memory, strict=True):
        parts.append(rectangle(x, 0, nbytes / whole * width, 18, f'fill="{color}"'))
        x += nbytes / whole * width
    parts.append(rectangle(0, 0, width, 18, 'fill="none" stroke="currentColor" stroke-opacity="0.6"'))
    fits = total <= facts.limit_nbytes
    if facts.limit_nbytes <= whole:
        place = facts.limit_nbytes / whole * width
        color = "currentColor" if fits else VERMILION
        parts.append(f'<path d="M{place:.2f} -4V22" stroke="{color}" stroke-width="3"/>')
    for number, (color, (name, nbytes)) in enumerate(zip((BLUE, ORANGE, GREEN), facts.memory, strict=True)):
        parts.append(rectangle(0, 28 + 16 * number, 10, 10, f'fill="{color}"'))
        parts.append(text(16, 37 + 16 * number, f"{nbytes / 1e6:.0f} MB {name}"))
    beyond = ", further right" if facts.limit_nbytes > whole else ""
    verdict = f"{total / 1e6:.0f} MB of {facts.limit_nbytes / 1e6:.0f} MB (the limit{beyond}): {'it fits' if fits else 'it does not fit'}"
    parts.append(text(0, 90, verdict, 'font-weight="600"'))
    return svg(width + 4, 98, verdict, parts)


def same_rows(views: Any, shape_yx: tuple[int, int]) -> SourceView | None:
    """The first of several views that has so many rows and columns."""
    return next((view for view in views if view.window.shape_yx == shape_yx), None)

"""The options of `write_raster` as options of the command: one for each field of `WriteOptions`, so that none is missing.

Only what was given on the command line is passed on: defaults are Python's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import click

from daskraster.cli import values
from daskraster.cli.values import Text
from daskraster.options import COMPRESSIONS, RESAMPLINGS, WriteOptions

NUMBER_OR_NONE = Text("NUMBER|none", values.number_or_none)

# Name -> type (None: a switch), help. What is not here is made from the field's type.
WORDING: dict[str, tuple[Any, str]] = {
    "driver": (
        click.Choice(["GTiff", "COG", "KEA"], case_sensitive=False),
        "Format of the output; else its suffix says.",
    ),
    "compress": (click.Choice(COMPRESSIONS, case_sensitive=False), "Compression."),
    "level": (int, "Effort of the compression; else the fastest good one."),
    "quality": (int, "Of jpeg and webp, 1-100."),
    "max_error": (float, "lerc: the largest error a pixel may get."),
    "predictor": (int, "1 none, 2 horizontal differences, 3 floating point; else what suits the pixels."),
    "blocksize": (
        Text("PIXELS", values.pixels),
        "Size of the file's tiles, one number or ROWS,COLUMNS; else 512, less for small rasters.",
    ),
    "interleave": (
        click.Choice(["pixel", "band"], case_sensitive=False),
        "Whether a tile holds all bands of its pixels, or one band.",
    ),
    "bigtiff": (None, "BigTIFF or not; else from 2 GiB of pixels on."),
    "nodata": (NUMBER_OR_NONE, "Value that means 'no data', or none; else that of the input."),
    "dtype": (str, "Pixel type, as uint8, int32, float32; pixels are rounded and clamped."),
    "band_names": (Text("NAMES", values.names), "A name for each band, as red,nir."),
    "tags": (Text("NAME=VALUE", values.pair), "A metadata item to add; may be repeated."),
    "colormap": (Text("JSON|FILE", values.by_value), """Colours, as '{"1": [0, 90, 0, 255]}'."""),
    "thematic": (None, "Whether pixels are classes; else what the input says."),
    "attribute_table": (
        Text("FILE", values.table),
        "A raster whose attribute table is taken over, or a CSV file with a row for each value from 0.",
    ),
    "categories": (Text("JSON|FILE", values.by_value), """Names of classes, as '{"1": "water"}'."""),
    "sidecar": (None, "Write .aux.xml beside a GeoTIFF, for class names, tables and histograms."),
    "mask": (None, "Write masks of the pixels that are no data."),
    "statistics": (None, "Statistics and histogram of every band."),
    "overviews": (Text("FACTORS", values.whole_numbers), "Levels of overviews, as 2,4,8; else down to one tile."),
    "overview_resampling": (
        click.Choice(RESAMPLINGS, case_sensitive=False),
        "How overviews are made; else average, and nearest for classes.",
    ),
    "progress": (None, "A progress line on standard error, where that is a terminal."),
    "resume": (None, "Go on with what a killed run has left of this output."),
    "keep_partial": (
        None,
        "Keep finished blocks for --resume when the run fails; else with --resume, and on batch systems.",
    ),
    "retries": (int, "How often a failed block is tried again; else 2 on a cluster, 0 elsewhere."),
    "name": (str, "--resume compares this name instead of the function's code."),
    "provenance": (None, "Store in the output's metadata how it was made."),
}
DEFAULTS = {"compress", "interleave", "statistics"}  # whose help says the default


def write_options(*, without: tuple[str, ...] = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that adds one option for each field of `WriteOptions`, but those that the command has already."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for field in reversed(dataclasses.fields(WriteOptions)):
            if field.name not in without:
                for option in reversed(_options(field)):
                    command = option(command)
        return command

    return decorate


def given_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the parsed values that were given, as keywords of `write_raster`.

    Raises
    ------
    click.UsageError
        ``--overviews`` and ``--no-overviews``.
    """
    names = {field.name for field in dataclasses.fields(WriteOptions)}
    given = {name: value for name, value in values.items() if name in names and value not in (None, ())}
    if "tags" in given:
        given["tags"] = dict(given["tags"])
    if given.get("nodata") == "none":
        given["nodata"] = None
    if values.get("no_overviews"):
        if "overviews" in given:
            raise click.UsageError("--overviews does not go with --no-overviews")
        given["overviews"] = False
    if values.get("quiet"):
        given["progress"] = False
    return given


def _options(field: dataclasses.Field[Any]) -> list[Any]:
    """click's options of one field."""
    kind, text = WORDING.get(field.name, (_kind(str(field.type)), f"As {field.name} of write_raster."))
    flag = "--" + field.name.replace("_", "-")
    if field.name in DEFAULTS:
        shown = field.default if not isinstance(field.default, bool) else "yes" if field.default else "no"
        text = f"{text}  [default: {shown}]"
    if kind is None:
        return [click.option(f"{flag}/--no-{flag[2:]}", field.name, default=None, help=text)]
    options = [click.option(flag, field.name, type=kind, multiple=field.name == "tags", help=text)]
    if field.name == "overviews":
        options.append(click.option("--no-overviews", "no_overviews", is_flag=True, help="No overviews."))
    return options


def _kind(annotation: str) -> Any:
    """A type for a field that has no wording of its own."""
    first = annotation.partition("|")[0].strip()
    return {"bool": None, "int": int, "float": float}.get(first, str)

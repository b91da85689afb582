"""The commands. Each calls public functions of the same name; what they share stands in `daskraster.cli.running`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

import daskraster as dr
from daskraster.cli import values
from daskraster.cli.failing import Group, debug_option
from daskraster.cli.functions import ByName, check_names, load_function
from daskraster.cli.running import clobber_option, run_options, show, write
from daskraster.cli.values import Text, listed
from daskraster.cli.writeoptions import given_options, write_options

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
CHUNKS = Text("auto|PIXELS", values.chunks)
FILE = click.Path()  # for the Tab key; whether it is there is found out by those who open it
SHORT = {
    "apply": "Your own function on every block, with a halo.",
    "calc": "Band arithmetic, written as text.",
    "convert": "A raster into another format or pixel type.",
    "explain": "The plan of a command before it runs.",
    "info": "What a raster file says of itself.",
    "mosaic": "Many rasters as one.",
}
chunks_option = click.option(
    "--chunks", type=CHUNKS, help="Size of the blocks, one number or ROWS,COLUMNS; else whole tiles, 8 MiB."
)
masked_option = click.option("--masked", is_flag=True, help="Pixels as floats, NaN where they are no data.")


def input_option(text: str) -> Any:
    """``-i NAME=FILE``."""
    return click.option("-i", "--input", "named", type=Text("NAME=FILE", values.pair), multiple=True, help=text)


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version  # noqa: PLC0415 - 20 ms that the Tab key does not need

        click.echo(f"daskraster {version('daskraster')}")
        ctx.exit()


@click.group(cls=Group, context_settings=CONTEXT)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
def main() -> None:
    """Your own function over rasters larger than memory: block by block, without seams, into one file.

    Inputs are any rasters that GDAL reads, and KEA. Outputs are GeoTIFF (.tif), COG (--driver COG) and KEA (.kea). An output appears under
    its name when it is complete; what stood there before stays until then, and is replaced (not by mosaic, but with --clobber).

    \b
    Examples:
      daskraster info scene.tif
      daskraster calc "b1+1" in.kea out.kea --dtype int32
      daskraster apply filters.py:smooth in.tif smooth.tif --overlap 5
      daskraster mosaic tiles/*.tif whole.tif --method last
      daskraster convert in.tif out.kea
      daskraster explain apply filters.py:smooth in.tif smooth.tif --overlap 5

    \b
    Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    Completion with the Tab key, for bash (zsh_source and fish_source for those shells), in ~/.bashrc:
      eval "$(_DASKRASTER_COMPLETE=bash_source daskraster)"
    """


@main.command(short_help=SHORT["info"])
@click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="As JSON; of several files as a list.")
@debug_option
def info(files: tuple[str, ...], as_json: bool) -> None:
    """Size, pixel type, place, blocks, overviews, bands and tables of a raster.

    No pixel is read.

    \b
    Examples:
      daskraster info scene.kea
      daskraster info scene.tif --json | jq .crs
    """
    show([dr.info(path) for path in listed(files)], as_json=as_json)


def _calc(expression: str, files: tuple[str, ...], named: tuple[tuple[str, str], ...], **options: Any) -> None:
    """Band arithmetic, written as text.

    b1, b2, ... are the bands of the INPUTs, counted through: of one image its bands, of several one-band images the images. b1 is one band, so
    "b1+1" gives one band. -i NAME=FILE gives an image a name that stands for all its bands: -i image=in.tif "image+1" has all
    bands; image_b2 is its band 2. -i NAME=NUMBER is a constant. Pixels that are no data, or divided by zero, are no data in the output;
    whole numbers never wrap, they are rounded and clamped to --dtype.

    Operators: + - * / ^ < <= > >= == != && || ! & | ~ and c ? a : b. Functions: sqrt log log10 exp sin cos tan abs min max sum avg where and
    others. A text that begins with a minus comes after --.

    \b
    Examples:
      daskraster calc "b1+1" in.kea out.kea --dtype int32 --overlap 0
      daskraster calc "(nir-red)/(nir+red)" -i nir=b8.tif -i red=b4.tif ndvi.tif
      daskraster calc "b1 > 100 ? 1 : 0" dem.tif high.tif --dtype uint8
      daskraster calc "image*0.01" -i image=in.tif scaled.tif
    """
    inputs, output = _inputs_and_output(files, least=0 if named else 1)
    asked = given_options(options)
    nodata = {"nodata": asked["nodata"]} if "nodata" in asked else {}

    def build() -> list[Any]:
        opened = [_opened(path, options) for path in inputs]
        others = {name: _number_or_raster(value, options) for name, value in named}
        return [dr.calc(expression, *opened, dtype=asked.get("dtype"), **nodata, **others)]

    write([output], build, options)


def _apply(
    function: str, files: tuple[str, ...], outputs: tuple[str, ...], named: tuple[tuple[str, str], ...], **options: Any
) -> None:
    """Your own function on every block of one or several rasters, with a halo.

    FUNCTION is module:function (of the current folder, or installed) or path.py:function. It is called with a NumPy array (band, y, x) for each
    INPUT, --overlap pixels wider on every side, and returns one of the same height and width. The result is the same as that of the function on the whole
    raster, if it looks no further than --overlap. It runs in several threads at once.

    -i NAME=FILE gives the function that image by name, as process does with a dict: def ndvi(red, nir). A function that returns several arrays
    writes several files: name them with -o, in that order; then each FILE is an input.

    \b
    Examples:
      daskraster apply filters:smooth in.tif out.tif --overlap 5 --kwargs '{"size": 5}'
      daskraster apply index.py:ndvi -i red=b4.tif -i nir=b8.tif ndvi.tif --dtype float32 --bands 1
      daskraster apply index.py:both in.tif -o ndvi.tif -o mask.tif
      daskraster apply filters:smooth in.tif out.kea --overlap 5 --cluster slurm --workers 20

    \b
    filters.py:
      from scipy.ndimage import median_filter
      def smooth(block, size=3):
          return median_filter(block, size=(1, size, size))
    """
    inputs, targets = (listed(files), list(outputs)) if outputs else _split(files, least=0 if named else 1)
    if not inputs and not named:
        raise click.UsageError("an input is needed: INPUT, or -i NAME=FILE")
    names = [name for name, _ in named]
    check_names(names, {**(options["kwargs"] or {}), **({"block": None} if options["with_block"] else {})})
    kwargs: Any = {
        name: options[name] for name in ("overlap", "boundary", "dtype", "bands", "kwargs") if options[name] is not None
    }
    found, code = load_function(function)

    def build() -> list[Any]:
        opened = [_opened(path, options) for path in [*inputs, *(path for _, path in named)]]
        called = ByName(found, tuple(names), with_block=options["with_block"]) if named else found
        made = dr.apply(called, *opened, outputs=len(targets), with_block=options["with_block"], **kwargs)
        return list(made) if len(targets) > 1 else [made]

    # dtype is what the function returns, as in dr.apply and dr.process.
    write(targets, build, {**options, "dtype": None}, code)


def _mosaic(
    files: tuple[str, ...], method: str, skip_value: Any, skip_band: int, background: Any, **options: Any
) -> None:
    """Many rasters as one.

    They share CRS, pixel size, bands and pixel type, and may overlap and leave gaps. The order decides, with the methods last and first. A shell
    takes some 10,000 names; for more, put a pattern in quotes, or a list in a file: @list.txt has a path a line (@- is standard input).

    \b
    Examples:
      daskraster mosaic a.tif b.tif whole.tif
      daskraster mosaic "tiles/*.tif" whole.tif --method max --driver COG
      daskraster mosaic @list.txt whole.kea --skip-value 0
    """
    inputs, output = _inputs_and_output(files)
    arguments = {"skip_value": skip_value, "skip_band": skip_band, "background": background}
    write([output], lambda: [dr.mosaic(inputs, method=method, **arguments)], options)


def _convert(
    source: str, output: str, bands: tuple[int, ...] | None, overview_level: int | None, **options: Any
) -> None:
    """A raster into another format, compression, pixel type or tile size.

    \b
    Examples:
      daskraster convert in.tif out.kea
      daskraster convert in.kea cog.tif --driver COG --compress zstd
      daskraster convert in.tif rgb.tif --bands 4,3,2 --dtype uint8
      daskraster convert in.tif small.tif --overview-level 1
    """
    write([output], lambda: [_opened(source, options, bands=bands, overview_level=overview_level)], options)


PARAMETERS: dict[str, tuple[Callable[..., None], list[Any]]] = {
    "calc": (
        _calc,
        [
            click.argument("expression"),
            click.argument("files", nargs=-1, required=True, type=FILE, metavar="[INPUT]... OUTPUT"),
            input_option("A raster or number by name."),
            click.option(
                "--overlap",
                type=click.IntRange(0),
                help="Taken since tile recipes have it; pixels of an expression look at no neighbours, so it changes nothing.",
            ),
            chunks_option,
            masked_option,
            write_options(),
        ],
    ),
    "apply": (
        _apply,
        [
            click.argument("function", type=FILE, metavar="FUNCTION"),
            click.argument("files", nargs=-1, type=FILE, metavar="[INPUT]... [OUTPUT]"),
            input_option("A raster that the function takes by name."),
            click.option(
                "-o",
                "--output",
                "outputs",
                multiple=True,
                type=FILE,
                metavar="OUTPUT",
                help="For each array that it returns.",
            ),
            click.option(
                "--overlap", type=Text("PIXELS", values.pixels), help="How far it looks, one number or ROWS,COLUMNS."
            ),
            click.option(
                "--boundary",
                type=Text("NAME|NUMBER", values.number_or_text),
                help="Beyond the raster's edge: none (smaller blocks), nearest, reflect, nodata, source, or a number.",
            ),
            click.option("--dtype", help="Of what it returns; with --bands given too, it is not run once to find out."),
            click.option("--bands", type=click.IntRange(1), help="Of what it returns."),
            click.option("--with-block", is_flag=True, help="It also takes a Block: window, transform, CRS, nodata."),
            click.option(
                "--kwargs", type=Text("JSON", values.json_object), help="""Its keyword arguments, as '{"size": 5}'."""
            ),
            chunks_option,
            masked_option,
            write_options(without=("dtype",)),
        ],
    ),
    "mosaic": (
        _mosaic,
        [
            click.argument("files", nargs=-1, required=True, type=FILE, metavar="INPUT... OUTPUT"),
            click.option(
                "--method",
                type=click.Choice(["last", "first", "min", "max", "mean"]),
                default="last",
                show_default=True,
                help="What is taken where they overlap.",
            ),
            click.option(
                "--skip-value", type=Text("NUMBER", values.number), help="Pixels that are missing; else nodata."
            ),
            click.option(
                "--skip-band", type=click.IntRange(1), default=1, show_default=True, help="The band looked at."
            ),
            click.option(
                "--background", type=Text("NUMBER", values.number), help="Where there is nothing; else nodata, or 0."
            ),
            write_options(),
        ],
    ),
    "convert": (
        _convert,
        [
            click.argument("source", type=FILE, metavar="INPUT"),
            click.argument("output", type=FILE, metavar="OUTPUT"),
            click.option("--bands", type=Text("NUMBERS", values.whole_numbers), help="Bands taken, from 1, as 4,3,2."),
            click.option(
                "--overview-level", type=click.IntRange(0), help="0 for the first overview; else full resolution."
            ),
            chunks_option,
            masked_option,
            write_options(),
        ],
    ),
}


@main.group(short_help=SHORT["explain"])
def explain() -> None:
    """The plan of a command before it runs: blocks, halo, bytes, memory.

    What follows is the command as it would be; nothing is written. The same as --dry-run.

    \b
    Example:
      daskraster explain apply filters:smooth in.tif out.tif --overlap 5
    """


def _add_commands() -> None:
    """Each command twice: as it is, and under ``explain``."""
    for name, (callback, parameters) in PARAMETERS.items():
        decorated = clobber_option(default=name != "mosaic")(run_options(callback))
        for parameter in reversed(parameters):
            decorated = parameter(decorated)
        command = click.command(name, short_help=SHORT[name])(decorated)
        main.add_command(command)
        explain.add_command(_explaining(command))


def _explaining(command: click.Command) -> click.Command:
    run = command.callback

    def plan(**parsed: Any) -> None:
        if run is not None:
            run(dry_run=True, **parsed)

    params = [param for param in command.params if param.name != "dry_run"]
    return click.Command(command.name, params=params, callback=plan, help=command.help, short_help=command.short_help)


def _inputs_and_output(files: tuple[str, ...], least: int = 1) -> tuple[list[str], str]:
    """The last file is the output.

    Raises
    ------
    click.UsageError
        There are too few.
    """
    if not files:
        raise click.UsageError("an output is needed")
    inputs = listed(files[:-1])
    if len(inputs) < least:
        raise click.UsageError(f"an input and an output are needed; there is only {files[-1]!r}")
    return inputs, files[-1]


def _split(files: tuple[str, ...], least: int) -> tuple[list[str], list[str]]:
    inputs, output = _inputs_and_output(files, least)
    return inputs, [output]


def _opened(path: str, options: dict[str, Any], **more: Any) -> Any:
    chunks = {} if options["chunks"] is None else {"chunks": options["chunks"]}
    return dr.open_raster(path, masked=options["masked"], **chunks, **more)


def _number_or_raster(text: str, options: dict[str, Any]) -> Any:
    value = values.number_or_text(text)
    return _opened(value, options) if isinstance(value, str) else value


_add_commands()

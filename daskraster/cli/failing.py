"""What goes wrong, in a few lines on standard error and as an exit code.

::

    0    done
    1    the run failed
    2    wrong usage: an argument or option that is unknown, out of range, or clashes
    130  interrupted by Ctrl-C
"""

from __future__ import annotations

import linecache
import signal
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from daskraster.errors import DaskRasterError, ExpressionError, OptionError

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130
# Frames of these are not the user's.
PACKAGE = str(Path(__file__).parents[1])
DEBUG = "daskraster.debug"
STANDARD = str(Path(traceback.__file__).parent)


def _remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.meta[DEBUG] = value  # shared with the context of the group


debug_option = click.option(
    "--debug", is_flag=True, expose_value=False, callback=_remember, help="Python's traceback where something fails."
)


class Group(click.Group):
    """A group whose commands end with an exit code and a message, never with a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        with _telling(ctx), _interrupted_once():
            return super().invoke(ctx)


@contextmanager
def _telling(ctx: click.Context) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            yield
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            if ctx.meta.get(DEBUG):
                traceback.print_exc()
            click.echo("Interrupted: no output was touched.", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None
        except Exception as error:  # noqa: BLE001 - the user's function raises whatever it likes; all of it is told, and ends the command
            if ctx.meta.get(DEBUG):
                traceback.print_exc()
            else:
                click.echo(_told(error), err=True)
            wrong = isinstance(error, OptionError | ExpressionError)
            raise click.exceptions.Exit(WRONG_USAGE if wrong else FAILED) from None


@contextmanager
def _interrupted_once() -> Iterator[None]:
    """Let the first Ctrl-C stop the run and the second not stop its cleaning up, to the end of the process; impatient fingers, and
    ``timeout``, send two."""
    presses = 0

    def interrupt(*_: Any) -> None:
        nonlocal presses
        presses += 1
        if presses == 2:
            click.echo("Cleaning up; once more stops that too.", err=True)
            return
        raise KeyboardInterrupt

    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else someone wants it otherwise, as nohup
    if ours:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if ours and not presses:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _told(error: Exception) -> str:
    """Message, notes, and where the user's own code raised it."""
    ours = isinstance(error, DaskRasterError)
    lines = [f"Error: {error}" if ours else f"Error: {type(error).__name__}: {error}"]
    if not ours:
        lines += [f"  {place}" for place in _places(error)]
    lines += [f"  {note}" for note in getattr(error, "__notes__", ())]
    return "\n".join(lines)


def _places(error: Exception) -> list[str]:
    """The lines of the user's code that the exception came through, the last one last; on workers too, where the file may be missing."""
    if isinstance(error, SyntaxError):
        return [f"at {error.filename}:{error.lineno}: {(error.text or '').strip()}"]
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((PACKAGE, STANDARD, "<frozen"))
        and not any(f"/{name}/" in frame.filename.replace("\\", "/") for name in ("site-packages", "dist-packages"))
    ]
    # The script that started the command is no code of the user's.
    frames = [frame for frame in frames if Path(frame.filename).stem != "daskraster"]
    return [
        f"at {frame.filename}:{frame.lineno} in {frame.name}: {frame.line or linecache.getline(frame.filename, frame.lineno or 0).strip()}"
        for frame in frames[-2:]
    ]


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    click.echo(f"Warning: {message}", err=True)

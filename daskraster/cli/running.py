"""What commands share: options of the run, workers, and what is said at the end."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click

import daskraster as dr
from daskraster.cli.failing import debug_option
from daskraster.cli.values import plain
from daskraster.cli.writeoptions import given_options
from daskraster.errors import OptionError

BATCH = ("slurm", "pbs")
# Sections of a --cluster-config file that are dask's own configuration; all else are keywords of daskraster.cluster.
DASK_SECTIONS = ("dask", "distributed", "jobqueue")


def clobber_option(default: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--clobber / --no-clobber``: whether an output that exists is replaced."""
    shown = "yes" if default else "no, since a forgotten OUTPUT would replace the last input"
    return click.option(
        "--clobber/--no-clobber", default=default, help=f"Replace an output that exists.  [default: {shown}]"
    )


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that adds what every command that writes has, but ``--clobber``, whose default is the command's."""
    for option in reversed(
        [
            click.option(
                "--threads",
                type=click.IntRange(1),
                help="Threads, else one for each core; with --cluster, of each worker.",
            ),
            click.option(
                "--cluster",
                type=click.Choice(["local", *BATCH]),
                help="Worker processes here, or jobs of SLURM or PBS.",
            ),
            click.option("--workers", type=click.IntRange(1), help="Processes or jobs, with --cluster."),
            click.option(
                "--cluster-config",
                type=click.Path(exists=True, dir_okay=False),
                help="YAML with keywords of daskraster.cluster (kind: slurm, walltime: '02:00:00'), and dask's sections distributed, jobqueue.",
            ),
            click.option("--dry-run", is_flag=True, help="Print the plan; write nothing."),
            click.option("--json", "as_json", is_flag=True, help="Print the report, or the plan, as JSON."),
            click.option("-q", "--quiet", is_flag=True, help="No progress line and no report."),
            debug_option,
        ]
    ):
        command = option(command)
    return command


def write(
    outputs: Sequence[str], build: Callable[[], Sequence[Any]], options: Mapping[str, Any], code: str | None = None
) -> None:
    """Build lazy arrays, and write them, or print what would be done.

    Parameters
    ----------
    outputs
        Files to be.
    build
        Gives the array of each of them, once the workers are there.
    options
        The parsed options of the command.
    code
        A Python file that workers need.
    """
    asked = given_options(options)
    if not options["clobber"] and not options["dry_run"]:
        _check_free(outputs)
    with _workers(options, code):
        arrays: Any = dict(zip(outputs, build(), strict=True))
        if options["dry_run"]:
            plans = [dr.explain(array, path, **asked) for path, array in arrays.items()]
            show(plans, as_json=options["as_json"])
            return
        reports: Any = dr.write_rasters(arrays, **asked)
    if options["as_json"] or not options["quiet"]:
        show(reports, as_json=options["as_json"])


def show(values: list[Any], *, as_json: bool) -> None:
    """One value, or several, on standard output: as text, or as JSON, several then as a list."""
    if as_json:
        each = [plain(value) for value in values]
        click.echo(json.dumps(each[0] if len(each) == 1 else each, indent=2, allow_nan=False))
    else:
        click.echo("\n\n".join(map(str, values)))


def _check_free(outputs: Sequence[str]) -> None:
    there = [path for path in outputs if Path(path).exists()]
    if there:
        raise click.ClickException(f"{there[0]} exists; --clobber replaces it")


@contextmanager
def _workers(options: Mapping[str, Any], code: str | None) -> Iterator[None]:
    """Threads of this process, or a cluster, for as long as the command runs."""
    import dask  # noqa: PLC0415 - --help does not need it

    config = _config(options["cluster_config"])
    kind: Any = options["cluster"] or config.pop("kind", None) or ("local" if options["cluster_config"] else None)
    sections = {name: config.pop(name) for name in DASK_SECTIONS if isinstance(config.get(name), dict)}
    sections.update(sections.pop("dask", {}))
    with dask.config.set(sections):
        if kind is None:
            if options["workers"]:
                raise click.UsageError(
                    "--workers needs --cluster: without it there is one process; --threads sets its threads"
                )
            threads = options["threads"]
            with dask.config.set({"scheduler": "threads", "num_workers": threads} if threads else {}):
                yield
            return
        if options["dry_run"] and kind in BATCH:
            raise click.UsageError(
                f"--dry-run starts no jobs; leave --cluster {kind} out to see the plan for this machine"
            )
        for keyword, option in (("n_workers", "workers"), ("threads_per_worker", "threads")):
            if options[option]:
                config[keyword] = options[option]
        with _deaf() if kind == "local" else nullcontext():
            client = dr.cluster(kind, **config)
        with client:
            if code is not None:
                client.upload_file(code)  # to workers that join later too
            yield


@contextmanager
def _deaf() -> Iterator[None]:
    """Start processes that do not hear Ctrl-C, which a terminal sends to all: this one hears it and stops them, without their tracebacks."""
    present = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, present)


def _config(path: str | None) -> dict[str, Any]:
    """A YAML file with keywords of `daskraster.cluster` and sections of dask's configuration.

    Raises
    ------
    OptionError
        It is no YAML, or holds something else than names and values.
    """
    if path is None:
        return {}
    from dask.config import collect_yaml  # noqa: PLC0415 - --help does not need it

    try:
        found = list(collect_yaml([path]))
    except ValueError as error:
        raise OptionError(f"--cluster-config {path}: {error}") from error
    config = dict(found[0]) if found else {}
    if isinstance(config.get("adapt"), list):
        config["adapt"] = tuple(config["adapt"])
    return config

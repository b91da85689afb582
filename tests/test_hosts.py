"""Several machines with addresses, disks and clocks of their own, made of namespaces: what they share, and what happens when one is cut off.

Needs root and the program ``ip``; elsewhere these tests skip.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask
import distributed
import numpy as np
import pytest
from conftest import MakeRaster, pixels, read
from machines import Network, machine

import daskraster as dr
from daskraster.files import PartialFile
from daskraster.running.engines import is_this_machine
from daskraster.running.sharing import PostOffice

VALUES = pixels((1, 640, 640))
# How long nobody answers until a connection counts as broken, and a worker as gone: half a minute and five minutes otherwise.
SHORT = {
    "distributed.comm.timeouts.tcp": "11s",
    "distributed.comm.timeouts.connect": "2s",
    "distributed.scheduler.worker-ttl": "3s",
}


@pytest.fixture
def network() -> Iterator[Network]:
    with Network().up() as made:
        yield made


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A network with a scheduler that has no workers yet, and the folder of the output."""

    network: Network
    client: Any
    folder: Path
    offices: list[PostOffice] = field(default_factory=list)
    """Through which blocks would travel."""
    hosts: set[str] = field(default_factory=set)
    """Names of the machines that have claimed extents."""

    def machine(self, name: str, *, hidden: Sequence[Path] = (), seen: Sequence[Path] = ()) -> Any:
        """A worker with an address of its own."""
        return machine(self.client, self.folder.parent, name, hidden=hidden, seen=seen, network=self.network)


@pytest.fixture
def site(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """All of it, and notes of what a run leaves no trace of."""
    (tmp_path / "shared").mkdir()
    start, close_gaps = PostOffice.start, PartialFile.close_gaps
    with (
        dask.config.set(SHORT),
        distributed.LocalCluster(n_workers=0, host=network.address, dashboard_address=":0", silence_logs=50) as local,
        distributed.Client(local) as client,
    ):
        made = Site(network=network, client=client, folder=tmp_path / "shared")

        def starting(office: PostOffice) -> Any:
            made.offices.append(office)
            return start(office)

        def closing(partial: PartialFile, *arguments: Any, **keywords: Any) -> Any:
            made.hosts.update(process.split(" ")[0] for _, _, process in partial.claimed())
            return close_gaps(partial, *arguments, **keywords)

        monkeypatch.setattr(PostOffice, "start", starting)
        monkeypatch.setattr(PartialFile, "close_gaps", closing)
        yield made


def slow_add(block: Any, seconds: float = 0.02) -> Any:
    """Long enough for each machine to get some."""
    time.sleep(seconds)
    return block + 1


def result_of(path: Path, seconds: float = 0.02) -> Any:
    """100 blocks."""
    image = dr.open_raster(path, chunks=64)
    return dr.apply(slow_add, image, overlap=1, dtype="uint16", bands=1, kwargs={"seconds": seconds})


def check(target: Path, *others: str) -> None:
    np.testing.assert_array_equal(read(target), VALUES + 1)
    assert sorted(path.name for path in target.parent.iterdir()) == [*others, "out.tif"]


def test_machines_that_share_the_output_folder_only(
    site: Site, make_raster: MakeRaster, caplog: pytest.LogCaptureFixture
) -> None:
    result = result_of(make_raster(VALUES, "shared/in.tif", tiled=True, blockxsize=64, blockysize=64))
    own: Any = {"hidden": [site.folder.parent], "seen": [site.folder]}
    with site.machine("one", **own), site.machine("two", **own):
        hosts = {one["host"] for one in site.client.scheduler_info(n_workers=-1)["workers"].values()}
        assert hosts == {site.network.address_of(2), site.network.address_of(3)}
        with caplog.at_level(logging.WARNING, logger="daskraster"):
            report = dr.write_raster(result, site.folder / "out.tif", blocksize=64, progress=False)
    assert site.hosts >= {"one", "two"}  # and the leading process, which writes the overviews
    assert [office.nbytes for office in site.offices] == [0]
    assert not [one for one in caplog.records if one.name.startswith("daskraster")]
    assert isinstance(report, dr.WriteReport)
    assert {worker.split(":")[0] for worker, *_ in report.timeline} == {"one", "two"}
    check(site.folder / "out.tif", "in.tif")


def test_a_machine_that_does_not_share_it(
    site: Site, make_raster: MakeRaster, caplog: pytest.LogCaptureFixture
) -> None:
    result = result_of(make_raster(VALUES))
    with (
        site.machine("one"),
        site.machine("two", hidden=[site.folder]),
        caplog.at_level(logging.WARNING, logger="daskraster"),
    ):
        dr.write_raster(result, site.folder / "out.tif", blocksize=64, progress=False)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("daskraster")]
    assert len(said) == 1
    assert said[0].startswith(f"1 of 2 workers do not share the folder {site.folder} with this process")
    assert site.offices[0].nbytes > 0
    assert site.hosts == {"one", socket.gethostname()}
    check(site.folder / "out.tif")


def lose_what_was_written(site: Site, name: str) -> int:
    """Zeros for what a machine has written so far, as if it had gone before it reached the disk; how many extents that were."""
    (partial,) = site.offices[0]._partials.values()
    extents = [(begin, size) for begin, size, process in partial.claimed() if process.startswith(f"{name} ")]
    with open(partial.path, "r+b") as file:
        end = partial.path.stat().st_size
        for begin, size in extents:
            file.seek(begin)
            file.write(bytes(min(size, end - begin)))
    return len(extents)


def test_a_machine_that_is_cut_off_costs_its_running_blocks(
    site: Site, make_raster: MakeRaster, caplog: pytest.LogCaptureFixture
) -> None:
    result = result_of(make_raster(VALUES), seconds=0.1)
    reports: list[Any] = []

    def write() -> None:
        with site.client.as_current(), dask.config.set(scheduler=site.client.get):
            reports.append(dr.write_raster(result, site.folder / "out.tif", blocksize=64, progress=False))

    with site.machine("one"), site.machine("two"):
        thread = threading.Thread(target=write)
        thread.start()
        while not any(path.stat().st_size > 2000 for path in site.folder.glob(".*.part.journal")):
            time.sleep(0.02)
        time.sleep(1)
        site.network.cut("two")
        assert lose_what_was_written(site, "two")
        thread.join(90)
    assert reports
    assert reports[0].blocks == 100
    assert "did not reach the disk: they are computed again" in caplog.text
    check(site.folder / "out.tif")


def test_a_client_that_came_by_127_0_0_1(network: Network, make_raster: MakeRaster, tmp_path: Path) -> None:
    """Workers on other machines cannot get to it there."""
    folder = tmp_path / "shared"
    folder.mkdir()
    result = result_of(make_raster(VALUES), seconds=0)
    with distributed.LocalCluster(n_workers=0, host="0.0.0.0", dashboard_address=":0", silence_logs=50) as local:
        port = local.scheduler.port
        with (
            distributed.Client(f"tcp://127.0.0.1:{port}") as client,
            machine(
                client, tmp_path, "one", hidden=[folder], network=network, scheduler=f"tcp://{network.address}:{port}"
            ),
        ):
            report = dr.write_raster(result, folder / "out.tif", blocksize=64, progress=False)
    assert report.blocks == 100
    check(folder / "out.tif")


def test_addresses_of_this_machine_and_of_others(network: Network) -> None:
    ours = [network.address, "127.0.0.1", "127.0.0.9", "localhost", socket.gethostname()]
    assert [is_this_machine(host) for host in ours] == [True] * len(ours)
    with network.plugged("other") as (_, address):
        assert not is_this_machine(address)
    assert not is_this_machine("no.such.host.invalid")

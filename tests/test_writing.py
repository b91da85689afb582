"""Arrays into files: the same pixels on every engine, one file or none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

import daskraster as dr
from daskraster.errors import RasterWriteError
from daskraster.formats.tiles import TileSink
from daskraster.positioned import Buffer, write_all
from daskraster.running import journal
from daskraster.running.pyramid import LEADER
from tests.conftest import TRANSFORM, Counter, MakeRaster, pixels, read

QUIET: Any = {"progress": False}


def smooth(block: NDArray[Any]) -> NDArray[Any]:
    """A 5 x 5 median."""
    return ndimage.median_filter(block, size=(1, 5, 5))


def raster(values: Any, **coords: Any) -> xr.DataArray:
    array = xr.DataArray(values, dims=("band", "y", "x"), coords=coords)
    return array.rio.write_crs("EPSG:32755").rio.write_transform(TRANSFORM)


def leftovers(folder: Path, *known: str) -> list[str]:
    return sorted(set(os.listdir(folder)) - set(known))


def test_file_to_file_on_every_engine(engine: str, make_raster: MakeRaster, tmp_path: Path) -> None:
    values = pixels((2, 151, 203))
    path = make_raster(values, tiled=True, blockxsize=32, blockysize=32)
    result = dr.apply(smooth, dr.open_raster(path, chunks=64), overlap=5, dtype="uint16", bands=2)
    report = dr.write_raster(result, tmp_path / "out.tif", blocksize=32, **QUIET)
    assert isinstance(report, dr.WriteReport)
    assert (read(tmp_path / "out.tif") == smooth(values)).all(), engine
    assert leftovers(tmp_path, "in.tif", "out.tif") == []
    assert (report.blocks, report.tiles, report.nbytes) == (12, 35, values.nbytes)
    assert report.file_nbytes == (tmp_path / "out.tif").stat().st_size
    assert set(report.stage_seconds) == {"read", "function", "statistics", "overviews", "encode", "write"}


def test_real_scenes(landsat: Path, sentinel: Path, tmp_path: Path) -> None:
    for path in (landsat, sentinel):
        with rasterio.open(path) as dataset:
            whole, profile = smooth(dataset.read()), dataset.profile
        dr.write_raster(dr.apply(smooth, dr.open_raster(path, chunks=128), overlap=5), tmp_path / "out.tif", **QUIET)
        with rasterio.open(tmp_path / "out.tif") as dataset:
            assert (dataset.read() == whole).all()
            for key in ("crs", "transform", "nodata", "dtype", "count"):
                assert dataset.profile[key] == profile[key]


def test_many_threads_and_workers_give_the_same_file(make_raster: MakeRaster, tmp_path: Path) -> None:
    values = pixels((1, 300, 400))
    image = dr.open_raster(make_raster(values, tiled=True, blockxsize=16, blockysize=16), chunks=48)
    contents = set()
    for workers in (1, 2, 8):
        with dask.config.set(scheduler="threads", num_workers=workers):
            dr.write_raster(dr.apply(smooth, image, overlap=3), tmp_path / "out.tif", blocksize=16, **QUIET)
        contents.add(read(tmp_path / "out.tif").tobytes())
    assert contents == {smooth(values).tobytes()}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_chunks_any_tiles(tmp_path: Path, data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 100), st.integers(1, 100)))
    values = pixels(shape, data.draw(st.sampled_from(["uint8", "float32"])))
    chunks = []
    for length in shape:
        at = sorted(data.draw(st.sets(st.integers(1, length - 1), max_size=4))) if length > 1 else []
        chunks.append(tuple(np.diff([0, *at, length]).tolist()))
    block = data.draw(st.sampled_from([16, 32, (16, 48), None]))
    interleave = data.draw(st.sampled_from(["pixel", "band"]))
    dr.write_raster(
        raster(da.from_array(values, chunks=tuple(chunks))),
        tmp_path / "out.tif",
        blocksize=block,
        interleave=interleave,
        **QUIET,
    )
    assert (read(tmp_path / "out.tif") == values).all()


@pytest.mark.parametrize(
    "kind", ["numpy", "two dimensions", "rioxarray", "rioxarray by band", "computed", "cropped", "lat lon"]
)
def test_any_array_with_rio_metadata(kind: str, make_raster: MakeRaster, tmp_path: Path) -> None:
    values = pixels((3, 90, 110))
    path = make_raster(values, nodata=5)
    if kind == "numpy":
        array, expected = raster(values), values
    elif kind == "two dimensions":
        array, expected = raster(values).isel(band=1), values[1:2]
    elif kind.startswith("rioxarray"):
        opened = rioxarray.open_rasterio(path, chunks=True if kind == "rioxarray" else {"band": 1, "x": 37, "y": 41})
        assert isinstance(opened, xr.DataArray)
        array, expected = opened, values
    elif kind == "computed":
        opened = dr.open_raster(path, chunks=40)
        array, expected = opened.where(opened > 20_000, 0), np.where(values > 20_000, values, 0)
    elif kind == "cropped":
        array, expected = (
            dr.open_raster(path, chunks=40).isel(y=slice(7, 80), x=slice(13, 101)),
            values[:, 7:80, 13:101],
        )
    else:
        array = raster(values).rename(y="latitude", x="longitude")
        expected = values
    dr.write_raster(array, tmp_path / "out.tif", **QUIET)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert (dataset.read() == expected).all()
        offset = (13, 7) if kind == "cropped" else (0, 0)
        assert dataset.transform == TRANSFORM @ rasterio.Affine.translation(*offset)
        assert dataset.crs.to_epsg() == 32755
        if kind in ("rioxarray", "rioxarray by band", "computed", "cropped"):
            assert dataset.nodata == 5


def test_what_the_array_says_wins(make_raster: MakeRaster, tmp_path: Path) -> None:
    path = make_raster(pixels((2, 40, 40)), nodata=0)
    image = dr.open_raster(path)
    del image.attrs["_FillValue"]
    dr.write_raster(image, tmp_path / "out.tif", tags={"PROJECT": "north"}, band_names=["a", "b"], **QUIET)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.nodata is None
        assert dataset.descriptions == ("a", "b")
        assert dataset.tags()["PROJECT"] == "north"
    dr.write_raster(dr.open_raster(path), tmp_path / "out.tif", nodata=None, **QUIET)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.nodata is None
    dr.write_raster(dr.open_raster(path), tmp_path / "out.tif", nodata=77, **QUIET)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.nodata == 77
        assert (dataset.read() == read(path)).all()
    named = dr.open_raster(path).assign_coords(band=["red", "nir"])
    dr.write_raster(named, tmp_path / "out.tif", **QUIET)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.descriptions == ("red", "nir")


def test_masked_arrays_get_their_nodata_back(make_raster: MakeRaster, tmp_path: Path) -> None:
    values = pixels((1, 60, 60))
    values[0, 10:20, 5:9] = 0
    image = dr.open_raster(make_raster(values, nodata=0), masked=True)
    dr.write_raster(image, tmp_path / "out.tif", **QUIET)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert dataset.nodata == 0
        assert dataset.dtypes[0] == "float32"
        assert (dataset.read() == values).all()
    dr.write_raster(image, tmp_path / "out.tif", dtype="uint16", **QUIET)
    assert (read(tmp_path / "out.tif") == values).all()
    dr.write_raster(image, tmp_path / "out.tif", nodata=None, **QUIET)
    assert (np.isnan(read(tmp_path / "out.tif")) == (values == 0)).all()
    dr.write_raster(image, tmp_path / "out.tif", nodata=-1, **QUIET)
    assert ((read(tmp_path / "out.tif") == -1) == (values == 0)).all()


def test_other_dtypes_only_when_asked(tmp_path: Path) -> None:
    values = np.array([[[-1.5, 0.5, 254.5, 300.0, np.nan, 2.4]]])
    dr.write_raster(raster(values), tmp_path / "out.tif", dtype="uint8", nodata=255, **QUIET)
    assert read(tmp_path / "out.tif").ravel().tolist() == [0, 1, 255, 255, 255, 2]
    dr.write_raster(raster(values > 1), tmp_path / "out.tif", **QUIET)
    assert read(tmp_path / "out.tif").ravel().tolist() == [0, 0, 1, 1, 0, 1]
    dr.write_raster(raster(values), tmp_path / "out.tif", **QUIET)
    assert read(tmp_path / "out.tif").dtype == np.float64


def test_the_target_may_be_the_input(make_raster: MakeRaster) -> None:
    values = pixels((1, 100, 100))
    path = make_raster(values)
    sidecar = Path(f"{path}.aux.xml")
    sidecar.write_text("<PAMDataset/>")
    dr.write_raster(dr.apply(smooth, dr.open_raster(path, chunks=32), overlap=2), path, blocksize=32, **QUIET)
    assert (read(path) == smooth(values)).all()
    assert not sidecar.exists()
    assert leftovers(path.parent, "in.tif") == []


@pytest.mark.parametrize("compute", [True, False])
def test_a_failing_function_leaves_nothing_and_keeps_the_old(
    engine: str, compute: bool, make_raster: MakeRaster, tmp_path: Path
) -> None:
    path = make_raster(pixels((1, 100, 100)))
    (tmp_path / "out.tif").write_bytes(b"what stood there")

    def fails(block: NDArray[Any], where: dr.Block) -> NDArray[Any]:
        if where.index == (2, 1):
            raise ZeroDivisionError("of this block")
        return block

    result = dr.apply(fails, dr.open_raster(path, chunks=32), with_block=True, dtype="uint16", bands=1)
    with pytest.raises(ZeroDivisionError, match="of this block") as caught:
        written = dr.write_raster(result, tmp_path / "out.tif", blocksize=32, compute=compute, **QUIET)
        if not compute:
            written.compute()
    assert "Window(row_off=64, col_off=32, height=32, width=32)" in "".join(caught.value.__notes__)
    assert leftovers(tmp_path, "in.tif", "out.tif") == []
    assert (tmp_path / "out.tif").read_bytes() == b"what stood there"


def test_delayed_creates_nothing_until_it_runs(engine: str, make_raster: MakeRaster, tmp_path: Path) -> None:
    values = pixels((1, 100, 100))
    result = dr.apply(smooth, dr.open_raster(make_raster(values), chunks=32), overlap=2, dtype="uint16", bands=1)
    later = dr.write_raster(result, tmp_path / "out.tif", blocksize=32, compute=False)
    assert leftovers(tmp_path, "in.tif") == []
    for _ in range(2):
        report = later.compute()
        assert (read(tmp_path / "out.tif") == smooth(values)).all()
        assert report.blocks == 16
        assert leftovers(tmp_path, "in.tif", "out.tif") == []
        assert report.run.engine == ("cluster" if engine == "client" else engine)
        assert 1 <= report.run.processes <= 2
        assert 1 <= report.run.threads <= 2
        assert report.run.begun <= report.run.ended
        assert report.run.options["blocksize"] == 32
        assert report.run.versions["GDAL"]
        assert "write" in report.stage_seconds


def test_delayed_is_one_task_a_block(make_raster: MakeRaster, tmp_path: Path) -> None:
    image = dr.open_raster(make_raster(pixels((1, 128, 128))), chunks=32)
    later = dr.write_raster(
        dr.apply(smooth, image, overlap=2, dtype="uint16", bands=1),
        tmp_path / "out.tif",
        blocksize=32,
        overviews=False,  # with them, one task a row of blocks more
        compute=False,
    )
    (optimized,) = dask.optimize(later)
    work = [
        task for task in dict(optimized.__dask_graph__()).values() if type(task).__name__ not in ("Alias", "DataNode")
    ]
    assert len(work) <= 16 + 4  # start, gather, finish, and what blocks share


def test_several_outputs_read_their_input_once(
    make_raster: MakeRaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from daskraster.formats.gdal import GdalSource

    values = pixels((2, 128, 96))
    image = dr.open_raster(make_raster(values, tiled=True, blockxsize=32, blockysize=32), chunks=32)
    reads = Counter()
    original = GdalSource.read

    def counted(self: GdalSource, window: dr.Window, bands: tuple[int, ...]) -> NDArray[Any]:
        reads.add(window)
        return original(self, window, bands)

    monkeypatch.setattr(GdalSource, "read", counted)
    mean, high = dr.apply(
        lambda b: (b.mean(axis=0), b.max(axis=0)), image, overlap=3, outputs=2, dtype=("float64", "uint16"), bands=1
    )
    other = dr.apply(smooth, image, overlap=3, dtype="uint16", bands=2)
    reports = dr.write_rasters(
        {tmp_path / "mean.tif": mean, tmp_path / "high.tif": high, tmp_path / "other.tif": other}, blocksize=32, **QUIET
    )
    assert [report.path.name for report in reports] == ["mean.tif", "high.tif", "other.tif"]
    assert len(reads.calls) == 12
    assert len(set(reads.calls)) == 12
    assert (read(tmp_path / "mean.tif")[0] == values.mean(axis=0)).all()
    assert (read(tmp_path / "high.tif")[0] == values.max(axis=0)).all()
    assert (read(tmp_path / "other.tif") == smooth(values)).all()


def test_several_outputs_all_or_none(make_raster: MakeRaster, tmp_path: Path) -> None:
    image = dr.open_raster(make_raster(pixels((1, 64, 64))), chunks=32)

    def fails(block: NDArray[Any]) -> NDArray[Any]:
        raise ValueError("never good")

    bad = dr.apply(fails, image, dtype="uint16", bands=1)
    with pytest.raises(ValueError, match="never good"):
        dr.write_rasters({tmp_path / "good.tif": image, tmp_path / "bad.tif": bad}, **QUIET)
    assert leftovers(tmp_path, "in.tif") == []
    with pytest.raises(dr.OptionError, match="two outputs go to one file"):
        dr.write_rasters({tmp_path / "a.tif": image, f"{tmp_path}/./a.tif": image})
    with pytest.raises(dr.OptionError, match="at least one output"):
        dr.write_rasters({})


def test_a_lost_tile_is_not_published(make_raster: MakeRaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from daskraster.running import writing

    image = dr.open_raster(make_raster(pixels((1, 64, 64))), chunks=32)

    def loses_one(outputs: Any, on_receipt: Any, **how: Any) -> None:
        taken: list[Any] = []
        run(outputs, lambda number, receipt: taken.append((number, receipt)), **how)
        for number, receipt in taken[1:]:
            on_receipt(number, receipt)

    run = writing.run
    monkeypatch.setattr(writing, "run", loses_one)
    with pytest.raises(dr.RasterWriteError, match="1 of 4 tiles were never written"):
        dr.write_raster(image, tmp_path / "out.tif", blocksize=32, overviews=False, **QUIET)
    assert leftovers(tmp_path, "in.tif") == []


def test_a_repeated_block_counts_once_and_leaves_no_room(
    client: Any, make_raster: MakeRaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from daskraster.running import writing

    values = pixels((1, 128, 128))
    image = dr.open_raster(make_raster(values), chunks=32)
    plain = dr.write_raster(image, tmp_path / "out.tif", blocksize=16, **QUIET).file_nbytes
    run = writing.run

    def twice(outputs: Any, on_receipt: Any, **how: Any) -> None:
        run(outputs, on_receipt, **how)
        run(outputs, on_receipt, **how)

    monkeypatch.setattr(writing, "run", twice)
    report = dr.write_raster(image, tmp_path / "out.tif", blocksize=16, **QUIET)
    assert (read(tmp_path / "out.tif") == values).all()
    assert report.file_nbytes <= plain * 1.02
    assert report.blocks == 16


@pytest.mark.parametrize("suffix", [".tif", ".kea"])
@pytest.mark.parametrize("limit", [100, 10_000, 400_000])
def test_a_full_disk(limit: int, suffix: str, make_raster: MakeRaster, tmp_path: Path) -> None:
    """RLIMIT_FSIZE makes writes fail as a full disk does; the limit is that of the process, so in one of its own."""
    source = make_raster(np.random.default_rng(0).integers(0, 65535, (1, 512, 512), "uint16"), "noise.tif")
    target = tmp_path / f"out{suffix}"
    target.write_bytes(b"what stood there")
    script = textwrap.dedent(f"""
        import resource, signal
        import daskraster as dr
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        image = dr.open_raster({str(source)!r}, chunks=64)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        try:
            # Without statistics: a histogram of 16-bit pixels a block would make the journal the first file to be too large, if the run takes a second.
            dr.write_raster(image, {str(target)!r}, blocksize=64, progress=False, statistics=False)
        except dr.RasterWriteError as error:
            print(error, *getattr(error, "__notes__", []))
    """)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert "cannot write" in result.stdout
    assert f"out{suffix}: File too large" in result.stdout
    if limit == 400_000:  # enough for the header, not for all blocks
        assert "Window(" in result.stdout
    assert leftovers(tmp_path, "noise.tif", target.name) == []
    assert target.read_bytes() == b"what stood there"


def test_a_disk_that_is_full_for_the_journal(
    make_raster: MakeRaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_raster(np.zeros((1, 64, 64), "uint8"), "zeros.tif")

    def full(descriptor: int, parts: Sequence[Buffer], offset: int, *, target: Path) -> None:
        if offset:
            raise RasterWriteError(f"cannot write {target}: No space left on device")
        write_all(descriptor, parts, offset, target=target)

    monkeypatch.setattr(journal, "write_all", full)
    target = tmp_path / "out.tif"
    with pytest.raises(RasterWriteError, match=r"out\.tif: No space left on device") as caught:
        dr.write_raster(dr.open_raster(source, chunks=16), target, blocksize=16, progress=False)
    assert "in its journal" in caught.value.__notes__[0]
    assert leftovers(tmp_path, "zeros.tif") == []


def test_interrupted_by_the_keyboard(make_raster: MakeRaster, tmp_path: Path) -> None:
    source = make_raster(pixels((1, 256, 256)))
    script = textwrap.dedent(f"""
        import os, time
        import daskraster as dr
        def slow(block):
            os.write(1, b"working\\n")
            time.sleep(0.3)
            return block
        image = dr.open_raster({str(source)!r}, chunks=32)
        dr.write_raster(dr.apply(slow, image, dtype="uint16", bands=1), {str(tmp_path / "out.tif")!r}, blocksize=32, progress=False)
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(6):
        assert process.stdout.readline() == "working\n"
    assert len(leftovers(tmp_path, "in.tif")) == 2  # the partial file and its journal
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert leftovers(tmp_path, "in.tif") == []


def test_progress_is_one_line(
    make_raster: MakeRaster, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = dr.open_raster(make_raster(pixels((1, 128, 128))), chunks=32)
    dr.write_raster(image, tmp_path / "out.tif", blocksize=32)
    assert capsys.readouterr() == ("", "")  # no terminal, no line
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    dr.write_raster(image, tmp_path / "out.tif", blocksize=32)
    out, err = capsys.readouterr()
    assert out == ""
    last = err.rstrip().split("\r")[-1]
    assert "out.tif: 100%" in last
    assert "16/16 blocks" in last
    assert "MB/s" in last
    assert err.strip().count("\n") == 0
    dr.write_raster(image, tmp_path / "out.tif", blocksize=32, progress=False)
    assert capsys.readouterr() == ("", "")


def test_the_accessor_is_the_functions(make_raster: MakeRaster, tmp_path: Path) -> None:
    values = pixels((1, 60, 60))
    report = (
        dr.open_raster(make_raster(values), chunks=32)
        .dr.apply(smooth, overlap=2)
        .dr.write(tmp_path / "out.tif", **QUIET)
    )
    assert report.driver == "GTiff"
    assert "60 x 60 x 1 uint16" in str(report)
    assert (read(tmp_path / "out.tif") == smooth(values)).all()


def test_memory_does_not_grow_with_the_raster(tmp_path: Path) -> None:
    """Peak memory of a process that smooths a raster of 32 times the size of its blocks' budget."""
    script = textwrap.dedent(f"""
        import dask, dask.array as da, numpy as np, xarray as xr
        import daskraster as dr
        from pathlib import Path
        def source(size):
            data = da.random.default_rng(0).integers(0, 3000, (1, size, size), dtype="uint16", chunks=(1, 1024, 1024))
            return xr.DataArray(data, dims=("band", "y", "x"))
        peaks = []
        with dask.config.set(scheduler="threads", num_workers=2):
            for size in (2048, 8192):
                image_path = Path({str(tmp_path)!r}) / "image.tif"
                dr.write_raster(source(size), image_path, progress=False)
                image = dr.open_raster(image_path)
                report = dr.write_raster(dr.apply(np.positive, image, overlap=5, dtype="uint16", bands=1), image_path.with_name("out.tif"), progress=False)
                peaks.append(report.peak_nbytes)
        print(*peaks)
    """)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    small, large = map(int, result.stdout.split())
    assert large - small < 90e6  # the raster has grown by 126 MB; nothing that was read or written stays


@pytest.mark.parametrize(
    ("lie", "match"),
    [
        (lambda block: block[:, :20, :20], r"has shape \(2, 32, 32\) and dtype uint16, got \(2, 20, 20\)"),
        (lambda block: block[:1], r"got \(1, 32, 32\)"),
        (lambda block: np.pad(block, ((0, 0), (1, 1), (1, 1))), r"got \(2, 34, 34\)"),
        (lambda block: block * 300.7, "got .* and float64"),
    ],
)
def test_an_array_that_is_not_what_it_says(tmp_path: Path, lie: Any, match: str) -> None:
    data = da.from_array(pixels((2, 64, 64)), chunks=(2, 32, 32)).map_blocks(
        lie, dtype="uint16", meta=np.empty((0, 0, 0), "uint16")
    )
    with pytest.raises(dr.BlockResultError, match=match):
        dr.write_raster(raster(data), tmp_path / "out.tif", blocksize=32, **QUIET)
    assert leftovers(tmp_path) == []


def test_a_persisted_array_on_a_client(client: Any, make_raster: MakeRaster) -> None:
    values = pixels((1, 60, 70))
    image = dr.open_raster(make_raster(values), chunks=32).persist()
    assert (dr.apply(smooth, image, overlap=2).values == smooth(values)).all()


def test_boundary_nodata_of_each_band(tmp_path: Path) -> None:
    array = raster(pixels((2, 10, 10)))
    array.attrs["nodatavals"] = (3, 7)
    seen: list[Any] = []

    def look(block: NDArray[Any]) -> NDArray[Any]:
        seen.append(block[:, 0, 0].tolist())
        return block

    dr.apply(look, array, overlap=1, boundary="nodata", dtype="uint16", bands=2).compute()
    assert seen == [[3, 7]]


def test_unpacked_arrays_are_not_labelled_with_the_packed_nodata(make_raster: MakeRaster, tmp_path: Path) -> None:
    values = pixels((1, 20, 20))
    values[0, 3, 4] = 5
    path = make_raster(values, nodata=5)
    with rasterio.open(path, "r+") as dataset:
        dataset.scales = (0.5,)
    unpacked = rioxarray.open_rasterio(path, mask_and_scale=True)
    assert isinstance(unpacked, xr.DataArray)
    dr.write_raster(unpacked, tmp_path / "out.tif", **QUIET)
    with rasterio.open(tmp_path / "out.tif") as dataset:
        assert np.isnan(dataset.nodata)
        np.testing.assert_array_equal(dataset.read(), unpacked.values)


def test_nothing_stays_open_or_on_disk_after_many_runs(make_raster: MakeRaster, tmp_path: Path) -> None:
    path = make_raster(pixels((1, 64, 64)), tiled=True, blockxsize=16, blockysize=16)
    for _ in range(10):
        dr.write_raster(dr.apply(np.positive, dr.open_raster(path, chunks=32), overlap=1), path, blocksize=32, **QUIET)
    if Path("/proc/self/fd").exists():
        links = [
            os.readlink(f"/proc/self/fd/{number}")
            for number in os.listdir("/proc/self/fd")
            if os.path.lexists(f"/proc/self/fd/{number}")
        ]
        assert not [link for link in links if str(tmp_path) in link]
    assert leftovers(tmp_path, "in.tif") == []


def test_nan_becomes_each_bands_own_nodata(tmp_path: Path) -> None:
    values = pixels((3, 40, 50), "float32") * 100
    values[:, 3:6, 7] = np.nan
    array = raster(values)
    array.attrs["nodatavals"] = (1, 200, None)
    dr.write_raster(array, tmp_path / "out.kea", dtype="uint8", blocksize=20, **QUIET)
    found = dr.open_raster(tmp_path / "out.kea")
    assert found.attrs["nodatavals"] == (1, 200, None)
    assert found.values[:, 4, 7].tolist() == [1, 200, 0]


@pytest.mark.parametrize("tiles", [{"blockysize": 3}, {"tiled": True, "blockxsize": 48, "blockysize": 80}])
def test_a_plain_piece_is_read_in_the_outputs_blocks(
    make_raster: MakeRaster, tmp_path: Path, tiles: dict[str, Any]
) -> None:
    values = pixels((1, 700, 900))
    image = dr.open_raster(make_raster(values, **tiles), chunks=100).isel(y=slice(5, 690), x=slice(3, None))
    report = dr.write_raster(image, tmp_path / "out.tif", blocksize=64, **QUIET)
    assert (read(tmp_path / "out.tif") == values[:, 5:690, 3:]).all()
    assert report.blocks <= 2


@pytest.mark.parametrize("compute", [True, False])
def test_kea_to_kea_on_a_cluster(client: Any, compute: bool, make_raster: MakeRaster, tmp_path: Path) -> None:
    import h5py

    values = pixels((1, 300, 400))
    dr.write_raster(dr.open_raster(make_raster(values)), tmp_path / "in.kea", dtype="int32", blocksize=64, **QUIET)
    result = dr.apply(smooth, dr.open_raster(tmp_path / "in.kea", chunks=128), overlap=5)
    written = dr.write_raster(result, tmp_path / "out.kea", blocksize=64, compute=compute, **QUIET)
    if not compute:
        written.compute()
    with h5py.File(tmp_path / "out.kea", "r+") as file:
        data = file["BAND1/DATA"]
        assert (data[...] == smooth(values)[0]).all()
        assert data.dtype == "<i4"
        data[10, 10] = 7
        file.create_dataset("MORE", data=[1, 2, 3])
    assert dr.open_raster(tmp_path / "out.kea").values[0, 10, 10] == 7
    assert leftovers(tmp_path, "in.tif", "in.kea", "out.kea") == []


def test_later_with_a_single_block(tmp_path: Path) -> None:
    values = pixels((1, 20, 30))
    image = xr.DataArray(da.from_array(values, chunks=-1), dims=("band", "y", "x"))
    later = dr.write_raster(image, tmp_path / "out.tif", compute=False, progress=False)
    assert later.compute().blocks == 1  # type: ignore[union-attr]
    assert (read(tmp_path / "out.tif") == values).all()


@pytest.mark.parametrize("suffix", [".tif", ".kea"])
@pytest.mark.parametrize("mask", [False, True])
def test_nan_is_written_as_the_number_that_is_asked_for(
    make_raster: MakeRaster, tmp_path: Path, suffix: str, mask: bool
) -> None:
    values = pixels((1, 40, 40))
    values[0, :7, :9] = 0
    path = make_raster(values, nodata=0)
    masked = dr.open_raster(path, masked=True) * 2  # arithmetic forgets what stood for "no data" in the file
    out = tmp_path / f"asked{suffix}"
    report = dr.write_raster(masked, out, nodata=-1, mask=mask, progress=False)
    written = dr.open_raster(out)
    due = np.where(values == 0, -1, values.astype("float32") * 2)
    np.testing.assert_array_equal(written.values, due)
    assert written.rio.nodata == -1
    assert (report.statistics[0].minimum, report.statistics[0].count) == (
        values[values > 0].min() * 2,
        (values > 0).sum(),
    )
    np.testing.assert_array_equal(np.isnan(dr.open_raster(out, masked=True).values), values == 0)


def test_nan_beside_a_nodata_value_is_copied(tmp_path: Path) -> None:
    values = np.array([[[1.0, np.nan, -1.0]]], "float32")
    image = xr.DataArray(values, dims=("band", "y", "x"), attrs={"_FillValue": -1.0})
    dr.write_raster(image, tmp_path / "copy.tif", progress=False)
    np.testing.assert_array_equal(read(tmp_path / "copy.tif"), values)
    dr.write_raster(image, tmp_path / "nan.tif", nodata=float("nan"), progress=False)
    np.testing.assert_array_equal(read(tmp_path / "nan.tif"), values)
    dr.write_raster(image, tmp_path / "none.tif", nodata=None, progress=False)
    np.testing.assert_array_equal(read(tmp_path / "none.tif"), values)


@pytest.mark.parametrize("driver", ["GTiff", "COG"])
def test_ground_control_points_beside_a_transform_are_told_of(tmp_path: Path, driver: str) -> None:
    points = (("1", "", 0.0, 0.0, 5.0, 50.0, 0.0), ("2", "", 3.0, 3.0, 5.1, 49.9, 0.0))
    image = xr.DataArray(np.ones((1, 4, 4), "uint8"), dims=("band", "y", "x"), attrs={"gcps": points})
    placed = image.rio.write_crs(32630).rio.write_transform(rasterio.Affine(10, 0, 0, 0, -10, 0))
    with pytest.warns(dr.DaskRasterWarning, match="the 2 ground control points are left out of .*KEA holds both"):
        dr.write_raster(placed, tmp_path / "x.tif", driver=driver, progress=False)
    dr.write_raster(placed, tmp_path / "x.kea", progress=False)
    assert len(dr.open_raster(tmp_path / "x.kea").attrs["gcps"]) == 2


@pytest.mark.parametrize("suffix", [".tif", ".kea"])
@pytest.mark.parametrize(
    ("before", "after", "nodata"),
    [("uint8", "float32", -9999), ("float32", "float64", -9999.1), ("float64", "float32", 0.1)],
)
def test_a_nodata_value_that_the_blocks_own_type_does_not_have(
    tmp_path: Path, before: str, after: str, nodata: float, suffix: str
) -> None:
    values = pixels((1, 20, 30)).astype(before)
    if before != "uint8":
        values[0, 3:5] = np.nan
    out = tmp_path / f"out{suffix}"
    dr.write_raster(raster(values), out, dtype=after, nodata=nodata, progress=False)
    written = dr.open_raster(out)
    kind = np.dtype(after).type
    due = np.where(np.isnan(values), kind(nodata), values.astype(after))
    np.testing.assert_array_equal(written.values, due)
    assert written.rio.nodata == kind(nodata)
    np.testing.assert_array_equal(np.isnan(dr.open_raster(out, masked=True).values), np.isnan(values))


@pytest.mark.parametrize("suffix", [".tif", ".kea"])
def test_a_name_as_long_as_names_can_be(make_raster: MakeRaster, tmp_path: Path, suffix: str) -> None:
    image = dr.open_raster(make_raster(pixels((1, 20, 30))))
    for name in ("日" * 80, "n" * 251):
        target = tmp_path / f"{name}{suffix}"
        dr.write_raster(image, target, progress=False)
        assert (dr.open_raster(target).values == image.values).all()
        target.unlink()
    assert leftovers(tmp_path, "in.tif") == []


@pytest.mark.parametrize("suffix", [".tif", ".kea"])
def test_a_disk_that_is_full_for_an_overview(
    suffix: str, make_raster: MakeRaster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = dr.open_raster(make_raster(pixels((1, 128, 128))), chunks=64)
    put = TileSink.put

    def full(sink: Any, *arguments: Any) -> Any:
        if LEADER in arguments[2:]:  # what blocks make together, written by the leading process
            raise RasterWriteError(f"cannot write {sink.target}: No space left on device")
        return put(sink, *arguments)

    monkeypatch.setattr(TileSink, "put", full)
    with pytest.raises(RasterWriteError, match="No space left") as caught:
        dr.write_raster(image, tmp_path / f"out{suffix}", blocksize=64, progress=False)
    (note,) = caught.value.__notes__
    assert note.startswith("while writing Window(row_off=0, col_off=0, height=64, width=64) of the overview 2 of ")
    assert leftovers(tmp_path, "in.tif") == []


@pytest.mark.parametrize("nodata", [0, 255, -9999])
def test_truth_values_and_the_nodata_value_of_what_was_compared(tmp_path: Path, nodata: int) -> None:
    values = pixels((1, 40, 50), "int16") % 10
    image = xr.DataArray(values, dims=("band", "y", "x")).rio.write_nodata(nodata)
    with xr.set_options(keep_attrs=True):
        above = image > 5
    dr.write_raster(above, tmp_path / "above.tif", progress=False)
    dr.write_raster(above, tmp_path / "asked.tif", nodata=None, progress=False)
    with rasterio.open(tmp_path / "above.tif") as file, rasterio.open(tmp_path / "asked.tif") as asked:
        assert (file.nodata, asked.nodata) == (0 if nodata == 0 else None, None)
        assert (file.read() == (values > 5)).all()

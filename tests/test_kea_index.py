"""The chunk tree: node boundaries, read by HDF5 itself."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

import daskraster as dr
from daskraster.formats.kea_index import root_positions


# A node holds 64 chunks, so a root over two nodes begins at 65 and a third level at 4097.
@pytest.mark.parametrize("count", [1, 63, 64, 65, 128, 129, 4096, 4097])
def test_every_number_of_nodes(count: int, tmp_path: Path) -> None:
    values = np.arange(count * 2, dtype="uint16").reshape(1, 2, count)[:, :, ::-1]
    path = tmp_path / "a.kea"
    dr.write_raster(
        xr.DataArray(values[:, :, : 2 * (count // 2) or 1], dims=("band", "y", "x")), path, blocksize=1, progress=False
    )
    with h5py.File(path) as file:
        data = file["BAND1/DATA"]
        np.testing.assert_array_equal(data[...], values[0, :, : 2 * (count // 2) or 1])
        found: list[tuple[int, ...]] = []
        data.id.chunk_iter(lambda chunk: found.append(chunk.chunk_offset))
        assert len(found) == data.size == data.id.get_num_chunks()


def test_foreign_headers_are_refused(tmp_path: Path) -> None:
    for name, version in (("new.h5", ("latest", "latest")), ("written.h5", ("earliest", "v110"))):
        with h5py.File(tmp_path / name, "w", libver=version) as file:
            file.create_dataset("x", data=np.zeros((4, 4)), chunks=(2, 2))
    with pytest.raises(ValueError, match="superblock"):
        root_positions((tmp_path / "new.h5").read_bytes(), ["x"])
    with pytest.raises(ValueError, match="has chunks already"):
        root_positions((tmp_path / "written.h5").read_bytes(), ["x"])

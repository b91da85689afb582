"""h5py through HDF5's own filters (shuffle, gzip 1), which is what the real library does: one thread, since HDF5 has one lock."""

from pathlib import Path

import h5py

ROWS = 512  # read and written at once: a row of chunks or two, its best case


def read(source: Path, target: Path, *, threads: int = 1) -> None:
    """
    All pixels of band 1 of a KEA file, a row of chunks at a time; the number of pixels goes into ``target``.

    Parameters
    ----------
    source
        A KEA file.
    target
        A text file.
    threads
        Of no use here.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    with h5py.File(source) as file:
        data = file["BAND1/DATA"]
        target.write_text(str(sum(data[row : row + ROWS].size for row in range(0, data.shape[0], ROWS))))


def run(source: Path, target: Path, *, threads: int = 1) -> None:
    """``b1+1``, KEA to the bare pixels of a KEA; parameters and errors as of `read`."""
    with h5py.File(source) as file, h5py.File(target, "w", libver=("earliest", "v110")) as out:
        data = file["BAND1/DATA"]
        made = out.create_dataset(
            "BAND1/DATA", data.shape, data.dtype, chunks=data.chunks, shuffle=True, compression="gzip", compression_opts=1
        )  # fmt: skip
        for row in range(0, data.shape[0], ROWS):
            made[row : row + ROWS] = data[row : row + ROWS] + 1

"""Damaged KEA files: an error of ours, or the pixels that HDF5 reads from the same bytes; never a crash, never anything else."""

from __future__ import annotations

import random
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from daskraster.errors import DaskRasterError
from daskraster.formats.kea_source import describe
from daskraster.formats.kea_tables import read_attribute_table
from daskraster.grid import Window
from tests.kea_files import REFERENCES, reference

SECONDS = 3.0  # a library; some hundred files
METADATA_NBYTES = 24_000  # where the headers of these files are: a flip among the pixels only ever breaks a checksum
NAMES = ("uint8", "int32", "float32", "gcps", "rotated_mask", "unwritten", "thematic_table")


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A file cut off, or with some bits flipped, most of them in its headers."""
    if rng.random() < 0.2:
        return content[: rng.randrange(len(content))]
    result = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 30))):
        end = METADATA_NBYTES if rng.random() < 0.7 else len(content)
        result[rng.randrange(min(end, len(content)))] ^= 1 << rng.randrange(8)
    return bytes(result)


@pytest.mark.parametrize("library", sorted({name.split("/")[0] for name in REFERENCES}))
def test_damaged_files(library: str, tmp_path: Path) -> None:
    rng = random.Random(library)
    contents = [reference(f"{library}/{name}.kea")[0].read_bytes() for name in NAMES]
    path = tmp_path / "damaged.kea"
    refused = read = 0
    messages: set[bool] = set()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        path.unlink(missing_ok=True)
        path.write_bytes(damaged(rng.choice(contents), rng))
        try:
            source, _, bands = describe(str(path), bands=None, masked=False, overview_level=None)
            values = source.read(Window(0, 0, *source.shape[1:]), bands)
            read_attribute_table(path)
        except DaskRasterError as error:
            refused += 1
            messages.add("damaged.kea" in str(error))
            continue
        read += 1
        with h5py.File(path) as file:
            np.testing.assert_array_equal(values, np.stack([file[f"BAND{band}/DATA"][...] for band in bands]))
    assert refused > 20
    assert read > 20
    assert messages == {True}

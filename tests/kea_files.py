"""What the tests of KEA share: the reference files of the real library, and a walk through a file's structure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.conftest import DATA

KEA = DATA / "kea"
LIBRARIES = ("libkea-1.6.2", "libkea-2.0.0")
NAMES = (
    "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64",
    "bands_overviews", "thematic_table", "gcps", "rotated_mask", "unwritten",
)  # fmt: skip
REFERENCES = [f"{library}/{name}.kea" for library in LIBRARIES for name in NAMES]


def reference(name: str) -> tuple[Path, dict[str, Any]]:
    """A reference file and what GDAL's driver reads from it."""
    path = KEA / name
    if not path.exists():
        pytest.skip(f"the reference file is not here: {path}")
    return path, json.loads((path.parent / "expected.json").read_text())["files"][path.name]


def structure(path: Path) -> dict[str, Any]:
    """Every group and dataset with its type, shape, filters, fill value and attributes; no content."""
    found: dict[str, Any] = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Group):
            found[name] = "group"
            return
        kind = item.id.get_type()
        plist = item.id.get_create_plist()
        found[name] = {
            "shape": item.shape,
            "maxshape": item.maxshape,
            "type": _type(kind),
            "chunks": item.chunks,
            "filters": [plist.get_filter(number)[:3:2] for number in range(plist.get_nfilters())],
            "fill": item.fillvalue if item.dtype.kind in "iuf" else None,
            "attributes": {
                key: (_type(item.attrs.get_id(key).get_type()), item.attrs.get_id(key).shape) for key in item.attrs
            },
        }

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return found


def _type(kind: Any) -> Any:
    if isinstance(kind, h5py.h5t.TypeStringID):
        return ("text", kind.is_variable_str() or kind.get_size(), kind.get_cset(), kind.get_strpad())
    if isinstance(kind, h5py.h5t.TypeCompoundID):
        members = range(kind.get_nmembers())
        return [(kind.get_member_name(n), kind.get_member_offset(n), _type(kind.get_member_type(n))) for n in members]
    return str(np.dtype(kind.dtype).newbyteorder("<"))

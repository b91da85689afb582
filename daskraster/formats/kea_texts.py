"""Texts in KEA: one dataset of one text an item."""

from __future__ import annotations

from collections.abc import Mapping

from daskraster.formats.hdf5 import VLEN_TEXT, h5py
from daskraster.formats.kea_layout import VIRTUAL_ITEMS


def write_text(group: h5py.Group, name: str, text: str) -> None:
    """Store a text under a new name."""
    # kealib's type says ASCII, for which h5py refuses other letters as str; as bytes they pass, and all readers take UTF-8.
    group.create_dataset(name, shape=(1,), dtype=VLEN_TEXT)[0] = text.split("\0", maxsplit=1)[0].encode()


def write_texts(group: h5py.Group, texts: Mapping[str, str]) -> None:
    """Store metadata items; names that are there already, and those that GDAL invents itself, are left alone."""
    for key, text in texts.items():
        # A slash would make groups, where kealib looks for texts only.
        name = key.replace("/", "_").split("\0")[0]
        if name not in VIRTUAL_ITEMS and name.strip(".") and name not in group:
            write_text(group, name, text)

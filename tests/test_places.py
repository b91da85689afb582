"""Receipts folded into two numbers a tile: last one counts, however they come; small when pickled."""

from __future__ import annotations

import pickle

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from daskraster.formats.places import TilePlaces

RECEIPTS = st.lists(
    st.dictionaries(st.integers(0, 40), st.tuples(st.integers(1, 2**40), st.integers(1, 2**31)), max_size=6),
    max_size=20,
)


@settings(max_examples=30, deadline=None)
@given(receipts=RECEIPTS, cut=st.integers(0, 20))
def test_as_a_dictionary_of_tiles_with_a_pickling_in_between(
    receipts: list[dict[int, tuple[int, int]]], cut: int
) -> None:
    places, expected = TilePlaces(41), dict[int, tuple[int, int]]()
    for number, receipt in enumerate(receipts):
        if number == cut:
            places = pickle.loads(pickle.dumps(places))
        expected |= receipt
        offsets, sizes = (np.array([where[one] for where in receipt.values()], np.int64) for one in (0, 1))
        places.add(np.array(list(receipt), np.int64), offsets, sizes, {})
    for tile in range(41):
        assert (places.offsets[tile], places.sizes[tile]) == expected.get(tile, (0, 0))


def test_held_tiles_are_kept_and_the_last_one_counts() -> None:
    places, none = TilePlaces(3), np.zeros(0, np.int64)
    places.add(none, none, none, {2: b"old"})
    places = pickle.loads(pickle.dumps(places))
    places.add(none, none, none, {2: b"new", 0: b"first"})
    assert places.held == {2: b"new", 0: b"first"}
    assert not places.sizes.any()


def test_pickled_it_is_as_large_as_what_is_there() -> None:
    places, one = TilePlaces(1_000_000), np.array([999_999])
    places.add(one, one, one, {})
    assert len(pickle.dumps(places)) < 1000

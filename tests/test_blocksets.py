"""Blocks as a byte each, as a set of tuples is."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskraster.running.blocksets import BlockSet

BLOCKS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 4)), max_size=40)


@settings(max_examples=30, deadline=None)
@given(blocks=BLOCKS)
def test_as_a_set_of_tuples(blocks: list[tuple[int, int, int]]) -> None:
    there = BlockSet((2, 3, 5))
    for block in blocks:
        there.add(block)
    expected = set(blocks)
    for one in (there, there.copy(), pickle.loads(pickle.dumps(there))):
        assert list(one) == sorted(expected)
        assert len(one) == len(expected)
        assert all(((0, row, col) in one) == ((0, row, col) in expected) for row in range(3) for col in range(5))


def test_a_copy_stands_alone() -> None:
    there = BlockSet((1, 1, 2))
    before = there.copy()
    there.add((0, 0, 1))
    assert (len(before), len(there)) == (0, 1)


def test_a_block_that_is_none() -> None:
    with pytest.raises(IndexError, match="out of bounds"):
        BlockSet((1, 1, 2)).add((0, 0, 2))

"""Connected components of one block, and of the whole raster from the borders of all blocks.

Strategy. A block's pixels become runs of one class along its rows; runs that touch are linked; linked runs are components. All in
NumPy, whatever the number of classes: SciPy's `label` knows one class a call (5-20 ns a pixel for each) where this takes 15 for a mask
and 50-120 for noise of five classes, all at once; and the linking is needed across blocks in any case.

What blocks must tell one another is small: the components on their borders, and how many components begin in each of their rows. ::

    +---------+---------+       a component that touches no border is the block's own affair;
    |  1 1    |    2    |       those on a border are linked with their neighbours across it;
    |     1 1 | 1 1   3 |       all are numbered from 1 by their first pixel, row by row over the whole raster:
    +---------+---------+       the numbers do not depend on the blocks
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daskraster.metadata import Number

type Labels = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is connected."""

    connectivity: int
    """4: pixels touch by an edge; 8: by a corner too."""
    excluded: tuple[Number, ...]
    """Values that belong to no component; NaN never does."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Borders:
    """What a block tells the others: 50-85 KB pickled for 2048 x 2048 of uint8."""

    begun: NDArray[np.int32]
    """For each row the components that begin there and touch no border."""
    first: NDArray[np.int64]
    """Row and column, in the block, of the first pixel of each component on the border: ``(2, n)``, row-major."""
    before: NDArray[np.int32]
    """For each of these the components counted in ``begun`` that begin in the same row, left of it."""
    labels: tuple[Labels, ...]
    """Along the top, bottom, left and right border: number of the component in ``first``, from 1; 0 where there is none."""
    values: tuple[NDArray[Any], ...]
    """The pixels along these borders."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Numbers:
    """What a block must know to number its components."""

    before: NDArray[np.int64]
    """For each row the components of the whole raster that begin before its first pixel in this block."""
    border: NDArray[np.uint64]
    """Number of each component on the border."""
    here: NDArray[np.bool_]
    """Whether it begins in this block."""


def label_block(values: NDArray[Any], rule: Rule) -> tuple[Labels, NDArray[np.int64]]:
    """Components of one block by itself.

    Parameters
    ----------
    values
        ``(y, x)``, below 2**31 pixels.
    rule
        What is connected.

    Returns
    -------
    Labels ``(y, x)``, 0 where there is none, else from 1 in the order of first pixels, and the flat index of each first pixel.
    """
    valid = _valid(values, rule.excluded)
    begins = valid.copy()
    begins[:, 1:] &= ~_same(values, valid, np.s_[:, 1:], np.s_[:, :-1])
    # The run of each pixel, from 1; of no meaning where there is none.
    runs = np.cumsum(begins, dtype=np.int32).reshape(values.shape)
    firsts = np.flatnonzero(begins)
    roots = components(firsts.size, *_links(values, valid, begins, runs, rule.connectivity))
    is_root = roots == np.arange(firsts.size)
    numbers = np.concatenate(([0], np.cumsum(is_root, dtype=np.int32)[roots])).astype(np.int32)
    labels = numbers[runs]
    labels[~valid] = 0
    return labels, firsts[is_root]


def _valid(values: NDArray[Any], excluded: Sequence[Number]) -> NDArray[np.bool_]:
    valid = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(values.shape, np.bool_)
    for value in excluded:
        valid &= values != value
    return valid


def _same(values: NDArray[Any], valid: NDArray[np.bool_], one: Any, other: Any) -> NDArray[np.bool_]:
    """Whether pixels of two slices are of one class."""
    same: NDArray[np.bool_] = values[one] == values[other]
    same &= valid[one]
    return same


def _links(
    values: NDArray[Any], valid: NDArray[np.bool_], begins: NDArray[np.bool_], runs: Labels, connectivity: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Pairs of runs, from 0, that touch from row to row; few of them more than once."""
    up = _same(values, valid, np.s_[1:], np.s_[:-1])
    # Two runs side by side are linked where they meet first.
    needed = up.copy()
    needed[:, 1:] &= ~up[:, :-1] | begins[1:, 1:] | begins[:-1, 1:]
    pairs = [(runs[1:][needed], runs[:-1][needed])]
    if connectivity == 8:
        for one, other in ((np.s_[1:, 1:], np.s_[:-1, :-1]), (np.s_[1:, :-1], np.s_[:-1, 1:])):
            diagonal = _same(values, valid, one, other)
            # Where the pixel above is of the class too, it links them already.
            diagonal &= ~up[one[0].start - 1 :, one[1]]
            pairs.append((runs[one][diagonal], runs[other][diagonal]))
    first, second = (np.concatenate(part) - np.int32(1) for part in zip(*pairs, strict=True))
    return first, second


def components(count: int, one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """The smallest node that each of ``count`` nodes is linked with, directly or by others.

    Each round hooks every root to the smallest root it is linked with, then shortens all paths by doubling: few rounds, however long a
    snake winds (a spiral through 4 million pixels: 2 rounds, 22 doublings; noise at the edge of percolation: 6 and 30).
    """
    roots = np.arange(count, dtype=one.dtype)
    while True:
        first, second = roots[one], roots[other]
        differ = first != second
        if not differ.any():
            return roots
        one, other, first, second = one[differ], other[differ], first[differ], second[differ]
        np.minimum.at(roots, np.maximum(first, second), np.minimum(first, second))
        while True:
            shorter = roots[roots]
            if np.array_equal(shorter, roots):
                break
            roots = shorter


def borders_of(values: NDArray[Any], rule: Rule) -> Borders:
    """What a block ``(y, x)`` tells the others."""
    labels, firsts = label_block(values, rule)
    on_border = _on_border(labels, firsts.size)
    rows, cols = np.divmod(firsts, values.shape[1])
    inner = ~on_border
    # Local numbers go by first pixels, so the components of a row stand together, from left to right.
    inner_before = np.concatenate(([0], np.cumsum(inner)))
    begun = np.bincount(rows[inner], minlength=values.shape[0])
    before_row = np.concatenate(([0], np.cumsum(begun)))
    index = np.flatnonzero(on_border)
    renumbered = np.zeros(firsts.size + 1, np.int32)
    renumbered[index + 1] = np.arange(1, index.size + 1)
    return Borders(
        begun=begun.astype(np.int32),
        first=np.stack((rows[index], cols[index])),
        before=(inner_before[index] - before_row[rows[index]]).astype(np.int32),
        labels=tuple(renumbered[edge] for edge in _edges(labels)),
        values=tuple(edge.copy() for edge in _edges(values)),
    )


def _edges(array: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    return array[0], array[-1], array[:, 0], array[:, -1]


def _on_border(labels: Labels, count: int) -> NDArray[np.bool_]:
    on_border = np.zeros(count + 1, np.bool_)
    for edge in _edges(labels):
        on_border[edge] = True
    return on_border[1:]


def number_block(values: NDArray[Any], rule: Rule, numbers: Numbers, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Labels ``(y, x)`` of one block in the numbers of the whole raster."""
    labels, firsts = label_block(values, rule)
    on_border = _on_border(labels, firsts.size)
    begins_here = ~on_border
    begins_here[on_border] = numbers.here
    rows = firsts[begins_here] // values.shape[1]
    place_in_row = np.arange(rows.size) - np.searchsorted(rows, rows)
    final = np.zeros(firsts.size + 1, dtype)
    final[1:][begins_here] = (numbers.before[rows] + place_in_row + 1).astype(dtype)
    final[1:][on_border] = numbers.border.astype(dtype)
    return final[labels]


def join(blocks: Sequence[Sequence[Borders]], connectivity: int) -> tuple[list[list[Numbers]], int]:
    """Numbers for every block from the borders of all, and how many components there are.

    Parameters
    ----------
    blocks
        Row by row; the blocks of a row are of one height, those of a column of one width.
    connectivity
        4 or 8.
    """
    heights = [row[0].begun.size for row in blocks]
    tops = np.concatenate(([0], np.cumsum(heights)))
    lefts = np.concatenate(([0], np.cumsum([block.labels[0].size for block in blocks[0]])))
    flat = [block for row in blocks for block in row]
    # Nodes: components on borders, block by block; then in the order of their first pixels.
    sizes = [block.first.shape[1] for block in flat]
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    columns = len(lefts) - 1
    rows = np.concatenate([block.first[0] + tops[number // columns] for number, block in enumerate(flat)])
    cols = np.concatenate([block.first[1] + lefts[number % columns] for number, block in enumerate(flat)])
    block_cols = np.repeat(np.arange(len(flat)) % columns, sizes)
    before = np.concatenate([block.before for block in flat])
    order = np.lexsort((cols, rows))
    rank = np.empty(order.size, np.int64)
    rank[order] = np.arange(order.size)
    one, other = _links_across(blocks, offsets, connectivity)
    roots = order[components(order.size, rank[one], rank[other])[rank]]
    # How many components begin in each row of each block, and how many before that.
    begun = np.concatenate([np.stack([block.begun for block in row], axis=1) for row in blocks]).astype(np.int64)
    is_root = roots == np.arange(order.size)
    ordered = order[is_root[order]]  # roots by first pixel
    cells = rows[ordered] * columns + block_cols[ordered]
    begun.reshape(-1)[:] += np.bincount(cells, minlength=begun.size)
    total = int(begun.sum())
    starts = (np.cumsum(begun.reshape(-1)) - begun.reshape(-1)).reshape(begun.shape)
    numbers = np.zeros(order.size, np.uint64)
    among_roots = np.arange(cells.size) - np.searchsorted(cells, cells)
    numbers[ordered] = (starts.reshape(-1)[cells] + before[ordered] + among_roots + 1).astype(np.uint64)
    numbers = numbers[roots]
    result = [
        [
            Numbers(
                before=starts[tops[row] : tops[row + 1], col].copy(),
                border=numbers[offsets[at] : offsets[at + 1]],
                here=is_root[offsets[at] : offsets[at + 1]],
            )
            for col in range(columns)
            for at in [row * columns + col]
        ]
        for row in range(len(blocks))
    ]
    return result, total


def _links_across(
    blocks: Sequence[Sequence[Borders]], offsets: NDArray[np.int64], connectivity: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of nodes that touch across the borders between blocks.

    Each border is taken over the whole raster, so that corners where four blocks meet are seen like any other place.
    """
    columns = len(blocks[0])

    def line(members: Sequence[tuple[int, int]], side: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Nodes (-1: none) and pixels along one side of a row or column of blocks."""
        nodes = []
        for row, col in members:
            labels = blocks[row][col].labels[side]
            nodes.append(np.where(labels > 0, labels + offsets[row * columns + col] - 1, -1))
        return np.concatenate(nodes), np.concatenate([blocks[row][col].values[side] for row, col in members])

    facing = [
        (line([(row, col) for col in range(columns)], 1), line([(row + 1, col) for col in range(columns)], 0))
        for row in range(len(blocks) - 1)
    ] + [
        (line([(row, col) for row in range(len(blocks))], 3), line([(row, col + 1) for row in range(len(blocks))], 2))
        for col in range(columns - 1)
    ]
    shifts: list[tuple[slice, slice]] = [(np.s_[:], np.s_[:])]
    if connectivity == 8:
        shifts += [(np.s_[1:], np.s_[:-1]), (np.s_[:-1], np.s_[1:])]
    one, other = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for (nodes, values), (across, values_across) in facing:
        for here, there in shifts:
            linked = (nodes[here] >= 0) & (across[there] >= 0) & (values[here] == values_across[there])
            one.append(nodes[here][linked])
            other.append(across[there][linked])
    return np.concatenate(one), np.concatenate(other)

"""What is done to the pixels."""

from typing import Any

from numpy.typing import NDArray


def add_one(block: NDArray[Any]) -> NDArray[Any]:
    """
    Add one to a block of any shape.

    Parameters
    ----------
    block
        Pixels of any dtype and shape; not changed.

    Returns
    -------
    numpy.ndarray
        Same shape and dtype; integers wrap at the end of their range, as NumPy's do. Raises nothing.
    """
    return block + 1

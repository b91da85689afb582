"""What a user may have meant who typed a name that is not there.

Ground floor.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

LOOKED_AT = 10_000  # names of a folder: 2 ms to list and 40 ms to compare


def near(word: str, known: Iterable[str]) -> str:
    """``"; did you mean zstd?"``, or nothing where no name is like the word.

    >>> near("ztsd", ["none", "zstd"]), near("x", ["none", "zstd"])
    ('; did you mean zstd?', '')
    """
    names = list(known)
    lowered = [name for name in names if name.lower() == word.lower()]
    close = lowered or get_close_matches(word, names, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def missing_file(path: str) -> str:
    """The message for a file that is not there: where was looked, and what is like it in that folder."""
    whole = Path(path).absolute()
    if whole.parent == Path(path).parent or not whole.parent.is_dir():
        head = f"there is no file {path}"
    else:
        head = f"there is no file {path} in {Path.cwd()}"
    if not whole.parent.is_dir():
        folder = next(one for one in whole.parents if one.is_dir())
        return f"{head}: the folder {whole.parent} does not exist; {folder} does"
    try:
        names = [one.name for one in islice(whole.parent.iterdir(), LOOKED_AT)]
    except OSError:  # a folder that may be entered but not listed
        names = []
    return head + near(whole.name, names)

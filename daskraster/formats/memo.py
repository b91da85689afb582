"""What was made a moment ago from the same description: headers, which one run asks for three times."""

from __future__ import annotations

import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable, Sized
from typing import Any


class Memo[T: Sized]:
    """The last few values that were made, each of at most so many bytes. Safe in threads; two that come at once may both make one.

    Values are shared: nobody may change them.
    """

    def __init__(self, *, most: int, most_nbytes: int, nbytes: Callable[[T], int] = len) -> None:
        self._most, self._most_nbytes, self._nbytes = most, most_nbytes, nbytes
        self._lock = threading.Lock()
        self._made: OrderedDict[bytes, T] = OrderedDict()

    def of(self, description: Any, make: Callable[[], T]) -> T:
        """The value that ``make`` gives, or gave for a description of the same content.

        Parameters
        ----------
        description
            Everything that the value depends on. Compared as pickled bytes: equal ones are of equal content; where equal content
            is pickled otherwise, or cannot be pickled (a colour table of a type of the user's), the value is made again.
        make
            Whatever it raises is raised here, and nothing is kept.
        """
        try:
            key = pickle.dumps(description)
        except (pickle.PicklingError, TypeError, AttributeError):
            return make()
        with self._lock:
            if key in self._made:
                self._made.move_to_end(key)
                return self._made[key]
        value = make()
        if self._nbytes(value) <= self._most_nbytes:
            with self._lock:
                self._made[key] = value
                while len(self._made) > self._most:
                    self._made.popitem(last=False)
        return value

    def __len__(self) -> int:
        return len(self._made)

"""The process in which a function works on files: takes requests from its standard input, one after the other.

Run as a script by `daskraster.running.isolation`, and imports nothing of daskraster: that would cost each process a second and 150 MB.
What the function prints, and what the programs print that it starts, goes to the file that is this process's standard error.
Ends, and removes its folder, when the process that started it closes the connection or dies, however it dies.
"""

from __future__ import annotations

import os
import pickle
import shutil
import sys
import tempfile
import traceback
from typing import Any, BinaryIO


def main() -> None:
    """Serve requests until there are no more."""
    # The connection moves away from the standard streams, which belong to the function. Duplicates are not inherited by programs it starts.
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    sys.path[:], scratch, called = pickle.load(requests)
    folder = tempfile.mkdtemp(prefix="daskraster-", dir=scratch)  # mode 0700, a name that nobody can guess
    try:
        _serve(requests, replies, folder, called)
    except (EOFError, BrokenPipeError):
        pass  # the other side is gone, or done
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _serve(requests: BinaryIO, replies: BinaryIO, folder: str, called: bytes) -> None:
    func: Any = None
    keywords: dict[str, Any] = {}
    home = os.getcwd()  # noqa: PTH109 - pathlib would be one more import
    _reply(replies, ("folder", folder))
    while True:
        path = pickle.load(requests)
        try:
            if func is None:
                func, keywords = pickle.loads(called)
            returned = func(path, **keywords)
            if isinstance(returned, str | os.PathLike):
                # A relative path is meant from where the function stands now.
                answer: tuple[Any, ...] = ("returned", os.path.abspath(os.fspath(returned)), None)  # noqa: PTH100
            else:
                answer = ("returned", None, repr(returned)[:200])
        except BaseException as error:  # noqa: BLE001 - raised again on the other side
            answer = ("raised", _pickled(error), "".join(traceback.format_exception(error)))
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.chdir(home)
        _reply(replies, answer)


def _pickled(error: BaseException) -> bytes | None:
    """The error, where the other side will be able to load it; SystemExit and the like would end more than the block there."""
    if not isinstance(error, Exception):
        return None
    try:
        # By value where the class is the user's own; loading finds that class again on the other side.
        import cloudpickle  # noqa: PLC0415 - 20 ms that only failures need

        content: bytes = cloudpickle.dumps(error)
        pickle.loads(content)
    except Exception:  # noqa: BLE001 - errors of any kind come from classes that do not pickle; the text goes instead
        return None
    return content


def _reply(replies: BinaryIO, answer: tuple[Any, ...]) -> None:
    pickle.dump(answer, replies)
    replies.flush()


if __name__ == "__main__":
    main()

"""Everything daskraster raises and warns of, grouped by what the caller would do about it.

::

    DaskRasterError
    |-- the call is wrong: change an argument
    |   |-- OptionError           (ValueError)    an option that is unknown, out of range, or clashes with another
    |   |-- ExpressionError       (ValueError)    the text of a calc expression; the message points at the place
    |   |-- RasterArrayError      (ValueError)    an array that is no raster: dims, dtype, irregular coordinates
    |   |-- GridMismatchError     (ValueError)    rasters that do not share one grid
    |   `-- RasterMemoryError     (ValueError)    blocks that cannot fit into a worker's memory
    |-- the file is wrong: look at the file
    |   |-- RasterFormatError     (ValueError)    not a raster, damaged, or holds what cannot be read
    |   `-- RasterReadError       (OSError)       a window that could not be read, or a file that changed meanwhile
    |       `-- RasterNotFoundError (FileNotFoundError)  no such file
    |-- the function is wrong: look at the function
    |   |-- BlockResultError      (ValueError)    a block came back with another shape or dtype than was due, or not at all
    |   `-- FunctionPicklingError (TypeError)     it cannot be sent to worker processes
    |-- the output is in trouble: look at the disk, then run again
    |   `-- RasterWriteError      (OSError)       a block or header that could not be written, tiles that are missing
    `-- the cluster is in trouble: ask the batch system
        |-- ClusterError          (RuntimeError)  a job that was refused, workers that did not come
        `-- WorkerError           (RuntimeError)  workers that died with a block, or lack a package: look at their memory and logs

    DaskRasterWarning             (UserWarning)   said once: a default had to give way, something was left out, or was left by an earlier run

Each class is also the builtin it resembles, so that ``except ValueError`` goes on working. Each takes one string, and further
facts come with ``add_note``: exceptions of that shape survive pickling, which a process pool and a cluster need
(an exception that cannot be unpickled breaks the pool instead of reaching the user).
"""


class DaskRasterError(Exception):
    """Base of everything daskraster raises on its own account."""


class OptionError(DaskRasterError, ValueError):
    """An option is unknown, out of range, or clashes with another one."""


class ExpressionError(DaskRasterError, ValueError):
    """The text of an expression cannot be understood or computed; the message points at the place."""


class RasterArrayError(DaskRasterError, ValueError):
    """An array cannot stand for a raster: its dims, dtype or coordinates do not fit."""


class GridMismatchError(DaskRasterError, ValueError):
    """Rasters that were to be used together do not share one grid (CRS, transform, shape)."""


class RasterMemoryError(DaskRasterError, ValueError):
    """A run needs more memory than a worker may have; smaller blocks need less.

    No MemoryError: those have a ``__new__`` of their own, which keeps them from coming back whole from a worker.
    """


class RasterFormatError(DaskRasterError, ValueError):
    """A file is not a raster, is damaged, or holds something that cannot be read."""


class RasterReadError(DaskRasterError, OSError):
    """A window of a file could not be read, or the file is not the one that was opened."""


class RasterNotFoundError(RasterReadError, FileNotFoundError):
    """There is no such file."""


class BlockResultError(DaskRasterError, ValueError):
    """The function returned a block of another shape or dtype than was due, no file where one was due, or its process died."""


class FunctionPicklingError(DaskRasterError, TypeError):
    """The function, or what it holds, cannot be sent to worker processes."""


class RasterWriteError(DaskRasterError, OSError):
    """A block or a header could not be written, or tiles are missing at the end."""


class ClusterError(DaskRasterError, RuntimeError):
    """A batch system refused a job, or workers did not come; the batch system's own words are in the message."""


class WorkerError(DaskRasterError, RuntimeError):
    """Workers died with a block again and again, cannot run it for want of a package, or are out of reach."""


class DaskRasterWarning(UserWarning):
    """A default had to give way, something was left out, or an earlier run has left something; said once for each run."""

"""Who works on a journal: the process that holds its lock."""

from __future__ import annotations

import errno
import sys

# What a file system answers that knows no locks (some network disks, some FUSE).
UNKNOWN = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)

if sys.platform == "win32":  # pragma: no cover - no flock there

    def lock(descriptor: int) -> bool | None:
        """See below; it cannot be told."""
        return None

else:
    import fcntl

    def lock(descriptor: int) -> bool | None:
        """Lock an open file until it is closed or this process ends, however it ends.

        Returns
        -------
        True: locked. False: another open file, here or in another process, has the lock. None: the file system knows no locks.

        Raises
        ------
        OSError
            Something else is wrong with the file.
        """
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in UNKNOWN:
                return None
            raise
        return True

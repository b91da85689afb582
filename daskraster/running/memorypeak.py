"""How much memory this process has had."""

from __future__ import annotations

import sys
from pathlib import Path


def peak_nbytes() -> int | None:
    """Largest resident memory of this process so far.

    From VmHWM where there is /proc: ``ru_maxrss`` of a child begins at its parent's peak.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource  # noqa: PLC0415 - not on every platform
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024

"""Worker processes that live on machines of their own, as far as one machine can show it: namespaces of Linux."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def unshare(*namespaces: str) -> list[str]:
    """The command that makes namespaces; skips the test where this machine or user may not."""
    program = shutil.which("unshare")
    if program is None:
        pytest.skip("there is no unshare to make namespaces with")
    command = [program, *([] if os.getuid() == 0 else ["--user", "--map-root-user"]), *namespaces]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"namespaces may not be made here: {tried.stderr.strip()}")
    return command


@contextmanager
def machine(client: Any, folder: Path, name: str, *, hidden: Sequence[Path] = ()) -> Iterator[None]:
    """A worker with a host name, process numbers and a work folder of its own; ``hidden`` folders are empty disks of its own there."""
    command = unshare("--mount", "--uts", "--pid", "--fork", "--kill-child")
    home = folder / name
    home.mkdir()
    mounts = " && ".join(
        [f"hostname {name}", "mount -t proc none /proc", *(f"mount -t tmpfs none '{path}'" for path in hidden)]
    )
    worker = f"{mounts} && cd '{home}' && exec '{sys.executable}' -m distributed.cli.dask_worker '{client.scheduler.address}'"
    options = "--no-nanny --no-dashboard --nthreads 1 --host 127.0.0.1 --local-directory ."
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    before = len(client.scheduler_info(n_workers=-1)["workers"])
    with open(folder / f"{name}.log", "w") as log:
        process = subprocess.Popen(
            [*command, "sh", "-c", f"{worker} {options} --name {name}"], env=environment, stdout=log, stderr=log
        )
        try:
            client.wait_for_workers(before + 1, timeout=30)
            yield
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()

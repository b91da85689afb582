"""Commands of PBS that start jobs as processes, let them wait, or refuse them: enough of a batch system for most of what is to be tested."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

QSUB = """
if [ -e {folder}/refused ]; then cat {folder}/refused >&2; exit 170; fi
number=17; while ! mkdir {folder}/$number 2>/dev/null; do number=$((number + 1)); done
cp "$1" {folder}/script; cp "$1" {folder}/$number/script
[ ! -e {folder}/waiting ] || cat {folder}/waiting > {folder}/$number/waits
setsid sh -c 'while [ -e {folder}/'$number'/waits ]; do sleep 0.1; done; exec sh {folder}/'$number'/script' >{folder}/$number/log 2>&1 &
echo $! >{folder}/$number/pid
echo $number.server
"""
QSTAT = """
echo "Job id  Name"
for job in {folder}/[0-9]*; do
  kill -0 $(cat $job/pid) 2>/dev/null && echo "$(basename $job).server me work dask 1 1 2 4gb 01:00 $(cat $job/waits 2>/dev/null || echo R) 00:01"
done
true
"""
QDEL = """kill -TERM -- -$(cat {folder}/${{1%%.*}}/pid)"""


class FakePbs:
    """The commands qsub, qstat and qdel in a folder. Jobs are numbered from 17."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, body in (("qsub", QSUB), ("qstat", QSTAT), ("qdel", QDEL)):
            self.program(name, body.format(folder=folder))

    def program(self, name: str, body: str) -> None:
        """A command that does this."""
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def refuse(self, words: str) -> None:
        """From now on every job is refused."""
        (self.folder / "refused").write_text(f"{words}\n")

    def hold(self, state: str) -> None:
        """From now on every job waits, in this state."""
        (self.folder / "waiting").write_text(f"{state}\n")

    def start_waiting(self) -> None:
        """Let those that wait begin."""
        (self.folder / "waiting").unlink()
        for path in self.folder.glob("*/waits"):
            path.unlink()

    def kill(self, number: int) -> None:
        """End a job as a batch system would."""
        os.killpg(int((self.folder / str(number) / "pid").read_text()), signal.SIGKILL)
